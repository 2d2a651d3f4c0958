//! Requests that are sent again: whatever became of the first copy, they take effect once.

use std::collections::BTreeMap;

use ostler_bus::memory::Noise;
use ostler_schemas::subject::Verb;
use ostler_schemas::v1::api::{
    ApiErrorCode, ApplyOutcome, ApplyReply, ChangeReply, ConfigOp, ConfigPush, ConfigReply, ConfigRequest,
    DeleteReply, DeleteRequest, GetRequest, PutRequest, ScaleRequest, content_ref,
};
use ostler_schemas::v1::status::View;
use ostler_schemas::{Generation, Kind, Namespace, TxnId, Version};
use serde_bytes::ByteBuf;

use super::rig::{Caller, Rig, apply_of, name, object};

fn web(word: &str) -> String {
    format!(
        "apiVersion: ostler/v1\nkind: Deployment\nmetadata: {{name: web}}\n\
         spec: {{template: {{spec: {{command: [/usr/bin/app, {word}]}}}}}}\n"
    )
}

fn id(number: u8) -> TxnId {
    TxnId::from_bytes([number; 16])
}

async fn generation(caller: &Caller) -> u64 {
    let namespace = Namespace::default_namespace();
    let request = GetRequest { kind: Kind::Deployment, namespace, name: "web".to_owned() };
    let view: View = caller.call(Verb::Get, &request).await.expect("is there");
    view.metadata.generation.0
}

fn config(op: ConfigOp) -> ConfigRequest {
    ConfigRequest { name: name("app"), namespace: Namespace::default_namespace(), op }
}

fn push(text: &str) -> ConfigRequest {
    config(ConfigOp::Push(Box::new(ConfigPush {
        inline: Some(ByteBuf::from(text.as_bytes())),
        content: content_ref(text.as_bytes()),
        is_template: false,
        path: Some("/etc/app.conf".to_owned()),
        node_selector: Some(BTreeMap::new()),
        bake: None,
        waves: None,
        if_version: None,
        retry: false,
        reason: None,
    })))
}

/// Version now and before, and whether the object was made.
fn versions(reply: &ConfigReply) -> (u64, u64, bool) {
    match reply {
        ConfigReply::Changed { version, before, changed: true, created, .. } => {
            (version.0, before.0, *created)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_apply_that_is_sent_again_is_answered_as_the_first_time() {
    let rig = Rig::new(2).await;
    let anna = rig.operator("anna");
    for (number, word, outcome) in [
        (1, "a", ApplyOutcome::Created),
        (2, "b", ApplyOutcome::Configured),
        (3, "b", ApplyOutcome::Unchanged),
    ] {
        let request = apply_of(&web(word));
        let first: ApplyReply =
            anna.copy(Verb::Apply, &request, (id(number), false)).await.expect("admitted");
        assert_eq!((first.results[0].outcome, first.txn), (outcome, id(number)));
        // Whoever takes these: every replica tells the same.
        for _ in 0..4 {
            let again: ApplyReply =
                anna.copy(Verb::Apply, &request, (id(number), true)).await.expect("answered");
            assert_eq!((&again.results, again.txn), (&first.results, first.txn));
            assert!(outcome == ApplyOutcome::Unchanged || again.revision == first.revision);
        }
    }
    assert_eq!(generation(&anna).await, 2);
    let again = rig.replicas.iter().map(|r| r.deps.metrics.answered_again.get()).sum::<u64>();
    assert_eq!(again, 8);
    // Others may have gone on since: the answer is still the first one's.
    let late: ApplyReply =
        anna.copy(Verb::Apply, &apply_of(&web("a")), (id(1), true)).await.expect("answered");
    assert_eq!((late.results[0].outcome, late.results[0].generation), (ApplyOutcome::Created, Generation(1)));
    assert_eq!(generation(&anna).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_is_sent_again_goes_back_once() {
    let rig = Rig::new(2).await;
    let anna = rig.operator("anna");
    for (number, text) in [(1, "a"), (2, "b"), (3, "c")] {
        let first: ConfigReply =
            anna.copy(Verb::Config, &push(text), (id(number), false)).await.expect("pushes");
        let again: ConfigReply =
            anna.copy(Verb::Config, &push(text), (id(number), true)).await.expect("answers");
        assert_eq!(versions(&first), versions(&again));
    }
    let back = config(ConfigOp::Rollback { to_version: None, reason: None });
    let first: ConfigReply = anna.copy(Verb::Config, &back, (id(9), false)).await.expect("goes back");
    assert_eq!(versions(&first), (4, 3, false));
    // The late first copy of a replica that slept, and those that were sent because it did.
    for again in [false, true, true, false] {
        let reply: ConfigReply = anna.copy(Verb::Config, &back, (id(9), again)).await.expect("answers");
        assert_eq!(reply, first);
    }
    let other: ConfigReply = anna.copy(Verb::Config, &back, (id(10), false)).await.expect("goes back");
    assert_eq!(versions(&other), (5, 4, false), "another request is another change");
}

#[tokio::test(start_paused = true)]
async fn copies_at_work_at_the_same_time_take_effect_once() {
    let rig = Rig::new(3).await;
    let anna = rig.operator("anna");
    anna.apply(&web("first")).await;
    for round in 0..30u8 {
        let faulty = Noise { lose_reply_ppm: 100_000, delay_ms: (0, 30), ..Noise::drawn(u64::from(round)) };
        for party in ["c0", "c1", "c2"] {
            rig.bus.faults().noise_of(party, faulty.clone());
        }
        let (before, request) = (generation(&anna).await, apply_of(&web(&format!("w{round}"))));
        let txn = id(100 + round);
        let copies = [false, true, true, true, false].map(|again| {
            let (anna, request) = (&anna, &request);
            async move { anna.copy::<_, ApplyReply>(Verb::Apply, request, (txn, again)).await }
        });
        let patience = std::time::Duration::from_secs(60);
        let copies = copies.map(|copy| tokio::time::timeout(patience, copy));
        let answers = futures::future::join_all(copies).await;
        rig.bus.faults().calm();
        let answers: Vec<ApplyReply> = answers.into_iter().flatten().flatten().collect();
        let last: ApplyReply = anna.copy(Verb::Apply, &request, (txn, true)).await.expect("answered");
        for reply in answers.iter().chain([&last]) {
            assert_eq!(reply.results[0].outcome, ApplyOutcome::Configured);
            assert_eq!(reply.results[0].generation, Generation(before + 1));
            assert_eq!(reply.results[0].version, Version(before + 1));
        }
        assert_eq!(generation(&anna).await, before + 1, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn small_changes_are_told_again() {
    let rig = Rig::new(2).await;
    let anna = rig.operator("anna");
    anna.apply(&web("a")).await;
    let what = object(Kind::Deployment, "web");
    let scale = ScaleRequest { object: what.clone(), replicas: 3, if_replicas: Some(1), reason: None };
    let first: ChangeReply = anna.copy(Verb::Scale, &scale, (id(1), false)).await.expect("scales");
    let again: ChangeReply = anna.copy(Verb::Scale, &scale, (id(1), true)).await.expect("had been done");
    assert_eq!(again, first, "its own condition does not hold any more, and that is no refusal");
    let stranger =
        anna.copy::<_, ChangeReply>(Verb::Scale, &scale, (id(2), true)).await.expect_err("3 already");
    assert_eq!(stranger.code, ApiErrorCode::Conflict);
    let labels = BTreeMap::from([("tier".to_owned(), Some("front".to_owned()))]);
    let label = PutRequest { object: what.clone(), labels, overwrite: false };
    let first: ChangeReply = anna.copy(Verb::Put, &label, (id(3), false)).await.expect("labels");
    let again: ChangeReply = anna.copy(Verb::Put, &label, (id(3), true)).await.expect("had been done");
    assert_eq!((again.changed, again.revision), (true, first.revision));
    assert_eq!(generation(&anna).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_delete_is_told_again_when_nothing_is_left() {
    let rig = Rig::new(2).await;
    let anna = rig.operator("anna");
    anna.apply(&web("a")).await;
    let delete = DeleteRequest { object: object(Kind::Deployment, "web"), force: false, reason: None };
    let first: DeleteReply = anna.copy(Verb::Delete, &delete, (id(1), false)).await.expect("deletes");
    assert!(!first.gone);
    let again: DeleteReply = anna.copy(Verb::Delete, &delete, (id(1), true)).await.expect("had been done");
    assert_eq!(again, first);
    rig.chores().await;
    let gone: DeleteReply = anna.copy(Verb::Delete, &delete, (id(1), true)).await.expect("had been done");
    assert_eq!((gone.uid, gone.gone), (first.uid, true));
    let other =
        anna.copy::<_, DeleteReply>(Verb::Delete, &delete, (id(2), true)).await.expect_err("not there");
    assert_eq!(other.code, ApiErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn ids_of_others_are_refused() {
    let rig = Rig::new(1).await;
    let (anna, ben) = (rig.operator("anna"), rig.operator("ben"));
    let request = apply_of(&web("a"));
    let _: ApplyReply = anna.copy(Verb::Apply, &request, (id(1), false)).await.expect("admitted");
    let theirs = ben.copy::<_, ApplyReply>(Verb::Apply, &apply_of(&web("b")), (id(1), true)).await;
    assert_eq!(theirs.expect_err("anna's").code, ApiErrorCode::Invalid);
    let scale = ScaleRequest {
        object: object(Kind::Deployment, "web"),
        replicas: 3,
        if_replicas: None,
        reason: None,
    };
    let another = anna.copy::<_, ChangeReply>(Verb::Scale, &scale, (id(1), true)).await;
    assert_eq!(another.expect_err("an apply's").code, ApiErrorCode::Invalid);
    assert_eq!(generation(&anna).await, 1);
}
