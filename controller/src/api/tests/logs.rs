//! Logs: hint, asks, relay, and every way in which a node can fail to deliver.

mod stored;

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use ostler_bus::store::Headers;
use ostler_bus::topic::Outgoing;
use ostler_schemas::codec;
use ostler_schemas::key::StateSubject;
use ostler_schemas::subject::Verb;
use ostler_schemas::v1::api::{
    ApiErrorCode, Ask, AskOp, AsksReply, AsksRequest, LabelOperator, LabelRequirement, LogFilter, LogsOf,
    LogsRequest, RegisterReply, RegisterRequest,
};
use ostler_schemas::v1::epoch::Token;
use ostler_schemas::v1::object::OwnerReference;
use ostler_schemas::v1::process::{BindRecord, ProcessSpecRecord};
use ostler_schemas::v1::report::Facts;
use ostler_schemas::v1::state::{LostVerdict, NodeState};
use ostler_schemas::{ControllerName, Key, Kind, Namespace, Uid, headers};

use super::rig::{Caller, Rig, name, node_name, object};

/// A bare process `p` on `n1`.
async fn placed(replicas: usize) -> Rig {
    let rig = Rig::new(replicas).await;
    let request = RegisterRequest {
        machine: "m1".to_owned(),
        boot: "b1".to_owned(),
        incarnation: 1,
        facts: Facts::default(),
        labels: BTreeMap::new(),
    };
    let _: RegisterReply = rig.agent("n1").call(Verb::Register, &request).await.expect("registers");
    rig.operator("anna")
        .apply("apiVersion: ostler/v1\nkind: Process\nmetadata: {name: p}\nspec: {command: [/bin/true]}\n")
        .await;
    rig
}

async fn bind(rig: &Rig) -> Uid {
    let fleet = rig.replicas[0].deps.snapshot.fleet();
    let uid = fleet.objects[&object(Kind::Process, "p")].value.metadata.uid;
    let at = rig.replicas[0].deps.clock.wall();
    let owner = OwnerReference { kind: Kind::Process, name: name("p"), uid };
    let namespace = Namespace::default_namespace();
    rig.put(
        Key::ProcessSpec(uid),
        &ProcessSpecRecord { owner, namespace, name: name("p"), ordinal: None, at },
    )
    .await;
    let bound = BindRecord { node: node_name("n1"), token: Token::default(), ports: BTreeMap::new(), at };
    rig.put(Key::ProcessBind(uid), &bound).await;
    uid
}

/// The node's loss is established.
async fn lose(rig: &Rig) {
    let verdict = LostVerdict {
        at: rig.replicas[0].deps.clock.wall(),
        last_beat: rig.replicas[0].deps.clock.wall(),
        boot: "b".to_owned(),
        incarnation: 1,
        held: false,
        why: None,
    };
    let state = NodeState { lost: Some(verdict), ..NodeState::default() };
    rig.put(Key::State(ControllerName::Node, StateSubject::Node(node_name("n1"))), &state).await;
}

fn logs(follow: bool) -> LogsRequest {
    LogsRequest {
        namespace: Namespace::default_namespace(),
        process: "p".to_owned(),
        follow,
        tail: Some(10),
        of: LogsOf::Process,
        filter: LogFilter::default(),
        max_processes: None,
        paced: false,
    }
}

/// Waits for a hint and fetches the order, as an agent does.
async fn fetch(agent: &Caller) -> Ask {
    let mut hints = agent.topic.subscribe("push.n1.>", None).await.expect("subscribes");
    loop {
        hints.next().await.expect("a hint");
        let body = codec::encode(&AsksRequest::default()).expect("encodes");
        let mut answers = agent.topic.request_many(Outgoing::new("api.n1.asks", body)).await.expect("sends");
        let answer = tokio::time::timeout(std::time::Duration::from_secs(1), answers.next()).await;
        let Ok(Some(message)) = answer else { continue };
        let reply: AsksReply = codec::decode(&message.body).expect("an answer");
        if let Some(ask) = reply.asks.into_iter().next() {
            return ask;
        }
    }
}

async fn relay(agent: &Caller, ask: &Ask, seq: u64, body: &'static str, end: Option<&str>) -> Option<String> {
    let mut head = Headers::new().with(headers::SEQ, seq.to_string());
    if let Some(end) = end {
        head.set(headers::END, end);
    }
    let message = Outgoing::new(format!("api.n1.relay.{}", ask.id), Bytes::from_static(body.as_bytes()));
    let answer = agent.topic.request(message.with_headers(head), 5_000).await.ok()?;
    answer.headers.get(headers::END).map(str::to_owned)
}

async fn read_all(answer: &mut super::rig::Answer) -> String {
    let mut text = String::new();
    while let Some(body) = answer.next().await.expect("no error") {
        text.push_str(std::str::from_utf8(&body).expect("text"));
    }
    text
}

#[tokio::test(start_paused = true)]
async fn lines_are_relayed_in_order() {
    let rig = placed(1).await;
    let uid = bind(&rig).await;
    let (anna, agent) = (rig.operator("anna"), rig.agent("n1"));
    let node = async {
        let ask = fetch(&agent).await;
        assert_eq!(ask.op, AskOp::Logs { uid, follow: false, tail: Some(10), filter: LogFilter::default() });
        assert_eq!(ask.caller, name("anna"));
        let sent =
            futures::join!(relay(&agent, &ask, 2, "two\n", None), relay(&agent, &ask, 1, "one\n", None));
        assert_eq!(sent, (Some("ok".to_owned()), Some("ok".to_owned())), "both have their credit");
        relay(&agent, &ask, 3, "", Some("ok")).await;
    };
    let caller = async {
        let mut answer = anna.ask(Verb::Logs, &logs(false)).await;
        read_all(&mut answer).await
    };
    let (text, ()) = futures::join!(caller, node);
    assert_eq!(text, "one\ntwo\n");
}

#[tokio::test(start_paused = true)]
async fn the_replica_that_holds_the_order_takes_its_relay() {
    let rig = placed(3).await;
    bind(&rig).await;
    let (anna, agent) = (rig.operator("anna"), rig.agent("n1"));
    let node = async {
        let body = codec::encode(&AsksRequest::default()).expect("encodes");
        let ask = loop {
            let mut answers =
                agent.topic.request_many(Outgoing::new("api.n1.asks", body.clone())).await.expect("sends");
            let mut found = None;
            for _ in 0..3 {
                let message = answers.next().await.expect("every replica answers");
                let reply: AsksReply = codec::decode(&message.body).expect("an answer");
                found = found.or(reply.asks.into_iter().next());
            }
            if let Some(ask) = found {
                break ask;
            }
            rig.replicas[0].deps.clock.sleep_ms(10).await;
        };
        relay(&agent, &ask, 1, "here\n", Some("ok")).await
    };
    let caller = async {
        let mut answer = anna.ask(Verb::Logs, &logs(false)).await;
        read_all(&mut answer).await
    };
    let (text, credit) = futures::join!(caller, node);
    assert_eq!((text.as_str(), credit.as_deref()), ("here\n", Some("ok")));
}

#[tokio::test(start_paused = true)]
async fn every_silence_is_told_as_what_it_is() {
    let rig = placed(1).await;
    let anna = rig.operator("anna");
    let failure = async |rig: &Rig| {
        let _ = rig;
        anna.ask(Verb::Logs, &logs(true)).await.next().await.expect_err("fails").message
    };
    assert!(failure(&rig).await.starts_with("process/p has no logs: it has no node yet"));
    bind(&rig).await;
    assert_eq!(failure(&rig).await, "node n1 (Unknown) did not answer within 10s");
    lose(&rig).await;
    assert!(failure(&rig).await.starts_with("node n1 is lost"));
    let missing = LogsRequest { process: "q".to_owned(), ..logs(false) };
    let error = anna.ask(Verb::Logs, &missing).await.next().await.expect_err("missing");
    assert_eq!(error.code, ApiErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_node_says_why_it_cannot_and_what_is_lost_is_counted() {
    let rig = placed(1).await;
    bind(&rig).await;
    let (anna, agent) = (rig.operator("anna"), rig.agent("n1"));
    let node = async {
        let ask = fetch(&agent).await;
        relay(&agent, &ask, 1, "no such log", Some("error")).await;
    };
    let caller = async { anna.ask(Verb::Logs, &logs(false)).await.next().await.expect_err("fails").message };
    let (message, ()) = futures::join!(caller, node);
    assert_eq!(message, "node n1: no such log");

    let node = async {
        let ask = fetch(&agent).await;
        let sent =
            futures::join!(relay(&agent, &ask, 1, "a\n", None), relay(&agent, &ask, 3, "c\n", Some("ok")));
        assert!(sent.1.is_some());
        ask
    };
    let caller = async {
        let mut answer = anna.ask(Verb::Logs, &logs(false)).await;
        read_all(&mut answer).await
    };
    let (text, ask) = futures::join!(caller, node);
    assert_eq!(text, "a\nc\n");
    assert_eq!(
        relay(&agent, &ask, 4, "late", None).await.as_deref(),
        Some("error"),
        "nobody wants it any more"
    );
}

#[tokio::test(start_paused = true)]
async fn another_node_cannot_answer() {
    let rig = placed(1).await;
    bind(&rig).await;
    let (anna, agent, other) = (rig.operator("anna"), rig.agent("n1"), rig.agent("n2"));
    let node = async {
        let ask = fetch(&agent).await;
        let forged = Outgoing::new(format!("api.n2.relay.{}", ask.id), Bytes::from_static(b"forged"));
        let head = Headers::new().with(headers::SEQ, "1").with(headers::END, "ok");
        assert!(other.topic.request(forged.with_headers(head), 500).await.is_err());
        relay(&agent, &ask, 1, "true\n", Some("ok")).await;
    };
    let caller = async {
        let mut answer = anna.ask(Verb::Logs, &logs(false)).await;
        read_all(&mut answer).await
    };
    let (text, ()) = futures::join!(caller, node);
    assert_eq!(text, "true\n");
}

/// Another bare process on a node, with labels.
async fn another(rig: &Rig, process: &str, node: &str) -> Uid {
    rig.operator("anna")
        .apply(&format!(
            "apiVersion: ostler/v1\nkind: Process\nmetadata: {{name: {process}, labels: {{app: web}}}}\n\
             spec: {{command: [/bin/true]}}\n"
        ))
        .await;
    let fleet = rig.replicas[0].deps.snapshot.fleet();
    let uid = fleet.objects[&object(Kind::Process, process)].value.metadata.uid;
    let at = rig.replicas[0].deps.clock.wall();
    let owner = OwnerReference { kind: Kind::Process, name: name(process), uid };
    let namespace = Namespace::default_namespace();
    let spec = ProcessSpecRecord { owner, namespace, name: name(process), ordinal: None, at };
    rig.put(Key::ProcessSpec(uid), &spec).await;
    let bound = BindRecord { node: node_name(node), token: Token::default(), ports: BTreeMap::new(), at };
    rig.put(Key::ProcessBind(uid), &bound).await;
    uid
}

fn selected(follow: bool) -> LogsRequest {
    let app = LabelRequirement {
        key: "app".to_owned(),
        operator: LabelOperator::In,
        values: vec!["web".to_owned()],
    };
    LogsRequest { of: LogsOf::Selected(vec![app]), process: String::new(), ..logs(follow) }
}

/// All orders of a node, waited for until there are so many.
async fn fetch_all(agent: &Caller, count: usize) -> BTreeMap<Uid, Ask> {
    let mut found = BTreeMap::new();
    while found.len() < count {
        let body = codec::encode(&AsksRequest::default()).expect("encodes");
        let subject = "api.n1.asks";
        let mut answers = agent.topic.request_many(Outgoing::new(subject, body)).await.expect("sends");
        let answer = tokio::time::timeout(std::time::Duration::from_millis(100), answers.next()).await;
        let Ok(Some(message)) = answer else { continue };
        let reply: AsksReply = codec::decode(&message.body).expect("an answer");
        for ask in reply.asks {
            let AskOp::Logs { uid, .. } = ask.op else { continue };
            found.insert(uid, ask);
        }
        // Time only passes while nothing is to be done.
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    found
}

fn at(second: u64, text: &str) -> &'static str {
    let line = format!("2026-11-20T10:15:{second:02}.000000Z stdout F {text}\n");
    Box::leak(line.into_boxed_str())
}

#[tokio::test(start_paused = true)]
async fn logs_of_many_are_merged_by_their_times_and_who_does_not_answer_is_named() {
    let rig = placed(1).await;
    let (a, b) = (another(&rig, "a", "n1").await, another(&rig, "b", "n1").await);
    another(&rig, "c", "n3").await;
    let (anna, agent) = (rig.operator("anna"), rig.agent("n1"));
    let node = async {
        let asks = fetch_all(&agent, 2).await;
        let one = at(1, "a1").to_owned() + at(3, "a3");
        let two = at(2, "b2").to_owned() + at(4, "b4");
        futures::join!(
            relay(&agent, &asks[&a], 1, Box::leak(one.into_boxed_str()), Some("ok")),
            relay(&agent, &asks[&b], 1, Box::leak(two.into_boxed_str()), Some("ok")),
        );
    };
    let caller = async {
        let mut answer = anna.ask(Verb::Logs, &selected(false)).await;
        read_all(&mut answer).await
    };
    let (text, ()) = futures::join!(caller, node);
    let order: Vec<&str> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(order, ["a1", "b2", "a3", "b4"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_at_all_is_a_failure_and_too_many_are_refused() {
    let rig = placed(1).await;
    let anna = rig.operator("anna");
    let failure = async |request: &LogsRequest| {
        anna.ask(Verb::Logs, request).await.next().await.expect_err("fails").message
    };
    assert!(failure(&selected(false)).await.starts_with("no process matches"));
    another(&rig, "a", "n1").await;
    another(&rig, "b", "n2").await;
    assert!(failure(&selected(false)).await.contains("did not answer within 10s"));
    let few = LogsRequest { max_processes: Some(1), ..selected(true) };
    assert!(failure(&few).await.starts_with("2 processes match, and logs of at most 1"));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_begins_to_match_joins() {
    let rig = placed(1).await;
    let (anna, agent) = (rig.operator("anna"), rig.agent("n1"));
    let mut answer = anna.ask(Verb::Logs, &selected(true)).await;
    let uid = another(&rig, "late", "n1").await;
    let asks = fetch_all(&agent, 1).await;
    let ask = &asks[&uid];
    let AskOp::Logs { tail, .. } = ask.op else { panic!("{ask:?}") };
    assert_eq!(tail, None, "all of what is new");
    assert!(relay(&agent, ask, 1, at(1, "hello"), None).await.is_some());
    let body = loop {
        let body = answer.next().await.expect("goes on").expect("goes on");
        if !body.is_empty() {
            break body;
        }
    };
    assert_eq!(body, at(1, "hello").as_bytes());
}
