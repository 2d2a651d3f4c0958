//! Garbage on every subject that a node, an operator or a controller may publish to, by the permission lists.

use std::time::Duration;

use harness::fleet::{Fleet, PATIENCE, Size};
use ostler_bus::layout::{Identity, permissions};
use ostler_bus::nats::Bus;
use ostler_bus::store::Headers;
use ostler_bus::topic::Outgoing;
use ostler_schemas::headers as names;
use ostler_schemas::subject::Verb;

use super::{Before, bodies};
use crate::work::settle;

/// Some requests are never answered, by design; how long this test waits for one that may be.
const ANSWER_MS: u64 = 300;
/// What a wildcard of a permission list may stand for: nonsense, and names that exist.
const TOKENS: [&str; 3] = ["x", "node-1", "controller-1"];

/// Subjects under a pattern of a permission list. The API's own are made of its verbs.
fn under(pattern: &str, party: &str) -> Vec<String> {
    if pattern.starts_with("api.") {
        let verbs = Verb::ALL.into_iter().map(|verb| format!("api.{party}.{}", verb.as_str()));
        let odd = ["relay.x", "relay.00112233445566778899aabbccddeeff", "nonsense", "apply.x.y"];
        return verbs.chain(odd.map(|rest| format!("api.{party}.{rest}"))).collect();
    }
    let rests: &[&str] = match pattern {
        // What is stored has a test of its own, and nobody tests by deleting streams.
        "$JS.API.>" | "$KV.>" | "$SRV.>" => &[],
        "ostler.v1.>" => &[
            "event.cp.api.deployment.default.web.Started",
            "event.cp.nonsense.x.y.z.Q",
            "event.node.node-1.process.default.web-1.Started",
            "audit.dev.apply.intent",
            "nonsense",
        ],
        _ => &["x", "process.default.web.Started", "deployment.default.web.lowercase", "a.b.c.d.e.f.g.h"],
    };
    match pattern.strip_suffix('>') {
        Some(start) => rests.iter().map(|rest| format!("{start}{rest}")).collect(),
        None => TOKENS.iter().map(|token| pattern.replace('*', token)).collect(),
    }
}

/// Every subject that the party may publish to, as far as it takes part in the protocol.
fn subjects(identity: &Identity) -> Vec<String> {
    let party = identity.caller();
    let allowed = permissions(identity).publish_allow;
    let mut all: Vec<String> = allowed.iter().flat_map(|pattern| under(pattern, &party)).collect();
    all.sort();
    all.dedup();
    all
}

/// Headers that ours read, with values that ours never write.
fn odd_headers() -> Headers {
    Headers::new()
        .with(names::SCHEMA, "-1")
        .with(names::KIND, "x".repeat(300))
        .with(names::TXN, "not/a/txn")
        .with(names::SEQ, "18446744073709551616")
        .with(names::END, "lost=nonsense")
        .with(names::MIN_REVISION, "nonsense")
        .with(names::COUNT, "-5")
}

async fn pelt(bus: &Bus, subject: &str) {
    for (number, body) in bodies::small().into_iter().chain(bodies::large()).enumerate() {
        let headers = if number % 3 == 0 { odd_headers() } else { Headers::new() };
        let message = Outgoing::new(subject, body).with_headers(headers);
        bus.topic.publish(message.clone()).await.expect("sent");
        let answered = subject.starts_with("api.") && !subject.contains(".relay") && number % 8 == 0;
        if answered {
            // Whether it is answered is the API's tests' business; here the request must only do no harm.
            bus.topic.request(message, ANSWER_MS).await.ok();
        }
    }
    // What is pelted faster than it is taken would be dropped by the bus before anybody had to read it.
    let echo = Outgoing::new(format!("{subject}.nobody"), Vec::new());
    bus.topic.request(echo, 1).await.ok();
}

async fn pelt_as(fleet: &Fleet, identity: Identity) {
    let bus = fleet.connect(identity.clone()).await;
    for subject in subjects(&identity) {
        tokio::time::timeout(PATIENCE, pelt(&bus, &subject)).await.expect("the bus takes it");
    }
    // So that nothing is cut off with the connection.
    tokio::time::timeout(Duration::from_secs(5), async {
        bus.topic.request(Outgoing::new("api.nobody.get", Vec::new()), 100).await.ok();
    })
    .await
    .ok();
}

#[test]
fn on_every_subject_of_every_party_it_does_no_harm() {
    let fleet = Fleet::start(Size { controllers: 2, ..Size::default() });
    let before = Before::now(&fleet, settle(&fleet));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let node = Identity::Node("node-1".parse().expect("a name"));
    let operator = Identity::Operator("dev".parse().expect("a name"));
    for (number, identity) in [node, operator, Identity::Controller].into_iter().enumerate() {
        runtime.block_on(pelt_as(&fleet, identity));
        before.holds(&fleet, &format!("after-{number}"));
    }
}
