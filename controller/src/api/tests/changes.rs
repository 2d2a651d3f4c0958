//! Changes: all or nothing, definite, audited, told.

use futures::StreamExt;
use ostler_schemas::codec;
use ostler_schemas::spec::{ContentRef, Spec};
use ostler_schemas::subject::{ALL_AUDIT, AUDIT_STREAM, Verb};
use ostler_schemas::v1::api::{
    ApiErrorCode, ApplyOutcome, BlobReply, BlobRequest, CHUNK, ChangeReply, ConfigOp, ConfigPush,
    ConfigReply, ConfigRequest, DeleteReply, DeleteRequest, GetRequest, RegisterReply, RegisterRequest,
    ScaleRequest, content_ref,
};
use ostler_schemas::v1::event::AuditRecord;
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::report::Facts;
use ostler_schemas::v1::status::View;
use ostler_schemas::{Key, Kind, Namespace, Version};
use serde_bytes::ByteBuf;

use ostler_bus::fault::{Act, Call};

use super::rig::{Caller, Rig, apply_of, name, object};
use ostler_bus::store::{Expect, Guard, Headers, Op, Read, Txn, Write};

fn web(word: &str) -> String {
    format!(
        "apiVersion: ostler/v1\nkind: Deployment\nmetadata: {{name: web}}\n\
         spec: {{template: {{spec: {{command: [/usr/bin/app, {word}]}}}}}}\n"
    )
}

/// Two objects that must always say the same word.
fn pair(word: &str) -> String {
    format!("{}---\n{}", web(word), web(word).replace("name: web", "name: web2"))
}

async fn command(caller: &Caller, text: &str) -> String {
    let request = GetRequest {
        kind: Kind::Deployment,
        namespace: Namespace::default_namespace(),
        name: text.to_owned(),
    };
    let view: View = caller.call(Verb::Get, &request).await.expect("is there");
    let Spec::Deployment(spec) = view.spec else { panic!("another kind") };
    spec.template.spec.command[1].clone()
}

#[tokio::test(start_paused = true)]
async fn an_apply_is_stored_audited_and_told() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    let reply = anna.apply(&web("a")).await;
    assert_eq!(reply.results[0].outcome, ApplyOutcome::Created);
    assert_eq!(command(&anna, "web").await, "a");
    let again = anna.apply(&web("a")).await;
    assert_eq!(again.results[0].outcome, ApplyOutcome::Unchanged);

    let mut audit = rig.store().records(AUDIT_STREAM, ALL_AUDIT, 0, false);
    let mut phases = Vec::new();
    while let Some(record) = audit.next().await {
        let record: AuditRecord = codec::decode(&record.expect("reads").body).expect("a record");
        if record.txn == reply.txn {
            phases.push((record.phase, record.actor.to_string(), record.objects.len()));
        }
    }
    let expected = |phase: &str| (phase.to_owned(), "user/anna".to_owned(), 1);
    assert_eq!(phases, [expected("intent"), expected("done")]);

    let mut events = rig.store().records(
        "OSTLER_EVENTS",
        "ostler.v1.event.cp.api.deployment.default.web.Created",
        0,
        true,
    );
    let event = events.next().await.expect("an event").expect("reads");
    assert_eq!(event.headers.get("Ostler-Actor"), Some("user/anna"));
}

#[tokio::test(start_paused = true)]
async fn two_writers_never_leave_a_mixture() {
    let rig = Rig::new(2).await;
    let (anna, ben) = (rig.operator("anna"), rig.operator("ben"));
    for round in 0..12 {
        let (a, b) = (pair(&format!("a{round}")), pair(&format!("b{round}")));
        let (first, second) = futures::join!(anna.try_apply(&a), ben.try_apply(&b));
        let revision = first.expect("admitted").revision.max(second.expect("admitted").revision);
        for replica in &rig.replicas {
            replica.deps.snapshot.at_least(revision, 5_000).await.expect("catches up");
        }
        assert_eq!(command(&anna, "web").await, command(&ben, "web2").await);
    }
}

#[tokio::test(start_paused = true)]
async fn lost_answers_of_the_store_end_in_a_definite_outcome() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    for round in 0..6 {
        rig.bus.faults().lose_replies("c0", 1 + round % 3);
        match anna.try_apply(&web(&format!("w{round}"))).await {
            Ok(reply) => {
                assert_eq!(command(&anna, "web").await, format!("w{round}"));
                let object =
                    rig.store().get(&Key::Object(object(Kind::Deployment, "web")), Read::Leader).await;
                let stored: Object =
                    codec::decode(object.expect("reads").expect("there").value().expect("a value"))
                        .expect("decodes");
                assert_eq!(stored.metadata.applied.txn, reply.txn, "done once, by this transaction");
            }
            Err(error) => assert_eq!(error.code, ApiErrorCode::Unavailable, "nothing was done: {error:?}"),
        }
        rig.bus.faults().calm();
    }
}

/// A store that takes writes and cannot be asked for what is newest, as while its stream changes its leader.
#[tokio::test(start_paused = true)]
async fn who_is_overtaken_while_the_store_cannot_be_asked_is_not_told_that_others_are_faster() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    anna.apply(&web("a")).await;
    let key = |text: &str| Key::Object(object(Kind::Deployment, text));
    let web = rig.store().get(&key("web"), Read::Leader).await.expect("reads").expect("there");
    let mut theirs: Object = codec::decode(web.value().expect("a value")).expect("decodes");
    theirs.metadata.name = name("web2");
    // Another has made the second one, and the snapshot has not heard of it.
    rig.bus.faults().hang_watches("c0");
    let write = Write {
        key: key("web2"),
        op: Op::Put(codec::encode(&theirs).expect("encodes").into()),
        guard: Guard::Own(Expect::Absent),
        headers: Headers::new(),
    };
    let id = rig.replicas[0].deps.entropy.txn();
    let stored = rig.store().commit(&Txn { id, writes: vec![write] }).await.expect("stores");
    rig.plan.script(Call::Read, [Act::Fail; 10]);
    let error = anna.try_apply(&pair("b").replace("web}", "web3}")).await.expect_err("nothing newer is seen");
    assert_eq!(error.code, ApiErrorCode::Unavailable, "{error:?}");
    rig.replicas[0].deps.snapshot.at_least(stored.last, 60_000).await.expect("catches up");
    rig.plan.script(Call::Read, [Act::Fail; 2]);
    anna.apply(&pair("c")).await;
    assert_eq!(command(&anna, "web2").await, "c");
}

#[tokio::test(start_paused = true)]
async fn fields_of_a_newer_version_survive_a_change() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    anna.apply(&web("a")).await;
    let key = Key::Object(object(Kind::Deployment, "web"));
    let entry = rig.store().get(&key, Read::Leader).await.expect("reads").expect("there");
    let (schema, kind, mut body) = codec::inspect(entry.value().expect("a value")).expect("an envelope");
    assert_eq!((schema, kind.as_str()), (1, "Object"));
    // The object as a newer server would have stored it.
    let marker = ("fromTheFuture".into(), 42.into());
    body.as_map().expect("a map");
    if let Some(fields) = entries(&mut body) {
        fields.push(marker);
    }
    let bytes = envelope(&body);
    let write = Write {
        key: key.clone(),
        op: Op::Put(bytes.into()),
        guard: Guard::Own(Expect::Revision(entry.revision)),
        headers: Headers::new(),
    };
    let id = rig.replicas[0].deps.entropy.txn();
    rig.store().commit(&Txn { id, writes: vec![write] }).await.expect("stores");
    anna.apply(&web("b")).await;
    let entry = rig.store().get(&key, Read::Leader).await.expect("reads").expect("there");
    let (_, _, body) = codec::inspect(entry.value().expect("a value")).expect("an envelope");
    let fields = body.as_map().expect("a map");
    assert!(fields.iter().any(|(k, v)| k.as_str() == Some("fromTheFuture") && v.as_u64() == Some(42)));
    assert_eq!(command(&anna, "web").await, "b");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_every_finding_and_changes_nothing() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    let bad = format!("{}---\n{}", web("a"), web("b").replace("name: web", "name: web2, namespace: nowhere"));
    let error = anna.try_apply(&bad).await.expect_err("refused");
    assert_eq!(error.code, ApiErrorCode::Refused);
    assert_eq!(error.message, "refused: 1 finding in 1 of 2 documents; nothing was changed");
    assert_eq!(error.findings[0].file.as_deref(), Some("m.yaml"));
    assert!(error.findings[0].line > 0);
    let request = GetRequest {
        kind: Kind::Deployment,
        namespace: Namespace::default_namespace(),
        name: "web".to_owned(),
    };
    let missing = anna.call::<_, View>(Verb::Get, &request).await.expect_err("nothing was stored");
    assert_eq!(missing.code, ApiErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_shows_before_and_after() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    anna.apply(&web("a")).await;
    let mut request = apply_of(&web("b"));
    request.dry_run = true;
    let reply: ostler_schemas::v1::api::ApplyReply =
        anna.call(Verb::Apply, &request).await.expect("admitted");
    assert!(reply.results[0].before.is_some() && reply.results[0].after.is_some());
    assert_eq!(reply.results[0].outcome, ApplyOutcome::Configured);
    assert_eq!(command(&anna, "web").await, "a");
}

#[tokio::test(start_paused = true)]
async fn scale_and_delete_are_seen_by_whoever_asks_next() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    anna.apply(&web("a")).await;
    let what = object(Kind::Deployment, "web");
    let scale = ScaleRequest { object: what.clone(), replicas: 3, if_replicas: None, reason: None };
    let reply: ChangeReply = anna.call(Verb::Scale, &scale).await.expect("scales");
    assert!(reply.changed && reply.revision.0 > 0);
    let error =
        anna.try_apply(&web("a").replace("{template", "{replicas: 2, template")).await.expect_err("refused");
    assert!(error.findings[0].message.starts_with("would undo scale by user/anna"), "{:?}", error.findings);
    let delete = DeleteRequest { object: what.clone(), force: false, reason: None };
    let reply: DeleteReply = anna.call(Verb::Delete, &delete).await.expect("deletes");
    assert!(!reply.gone);
    rig.chores().await;
    let request = GetRequest {
        kind: Kind::Deployment,
        namespace: Namespace::default_namespace(),
        name: "web".to_owned(),
    };
    let gone = anna.call::<_, View>(Verb::Get, &request).await.expect_err("gone");
    assert_eq!(gone.code, ApiErrorCode::NotFound);
}

fn config(op: ConfigOp) -> ConfigRequest {
    ConfigRequest { name: name("app"), namespace: Namespace::default_namespace(), op }
}

fn push(content: ContentRef, inline: Option<&[u8]>) -> ConfigOp {
    ConfigOp::Push(Box::new(ConfigPush {
        inline: inline.map(ByteBuf::from),
        content,
        is_template: false,
        path: Some("/etc/app.conf".to_owned()),
        node_selector: Some(std::collections::BTreeMap::new()),
        bake: None,
        waves: None,
        if_version: None,
        retry: false,
        reason: None,
    }))
}

async fn content(caller: &Caller, version: Option<u64>) -> Vec<u8> {
    let op = ConfigOp::Content { version: version.map(Version), part: None };
    let mut answer = caller.ask(Verb::Config, &config(op)).await;
    let mut whole = Vec::new();
    while let Some(body) = answer.next().await.expect("no error") {
        match codec::decode(&body).expect("decodes") {
            ConfigReply::Content(part) => whole.extend_from_slice(&part),
            other => panic!("{other:?}"),
        }
    }
    whole
}

#[tokio::test(start_paused = true)]
async fn a_config_is_pushed_rolled_back_and_read_again() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    let small = b"a\nb\n";
    let reply: ConfigReply =
        anna.call(Verb::Config, &config(push(content_ref(small), Some(small)))).await.expect("pushes");
    assert!(matches!(reply, ConfigReply::Changed { version: Version(1), created: true, .. }), "{reply:?}");

    let large: Vec<u8> = (0..CHUNK + 1000).map(|i| b"0123456789\n"[i % 11]).collect();
    let at = content_ref(&large);
    let early =
        anna.call::<_, ConfigReply>(Verb::Config, &config(push(at, None))).await.expect_err("not sent ahead");
    assert!(early.message.contains("was not sent ahead"), "{}", early.message);
    for (chunk, part) in (0u32..).zip(large.chunks(CHUNK)) {
        let request = BlobRequest { content: at, chunk, bytes: ByteBuf::from(part) };
        let _: BlobReply = anna.call(Verb::Blob, &request).await.expect("stores");
    }
    let reply: ConfigReply = anna.call(Verb::Config, &config(push(at, None))).await.expect("pushes");
    assert!(matches!(reply, ConfigReply::Changed { version: Version(2), lines: None, .. }), "{reply:?}");
    assert_eq!(content(&anna, None).await, large);

    let back = ConfigOp::Rollback { to_version: None, reason: None };
    let reply: ConfigReply = anna.call(Verb::Config, &config(back)).await.expect("goes back");
    assert!(
        matches!(reply, ConfigReply::Changed { version: Version(3), before: Version(2), .. }),
        "{reply:?}"
    );
    assert_eq!(content(&anna, None).await, small);
    assert_eq!(content(&anna, Some(2)).await, large);
    let other = b"a\nc\nd\n";
    let reply: ConfigReply =
        anna.call(Verb::Config, &config(push(content_ref(other), Some(other)))).await.expect("pushes");
    assert!(matches!(reply, ConfigReply::Changed { lines: Some((2, 1)), .. }), "{reply:?}");
    let history: ConfigReply = anna.call(Verb::Config, &config(ConfigOp::History)).await.expect("tells");
    let ConfigReply::History(versions) = history else { panic!("{history:?}") };
    assert_eq!(versions.iter().map(|v| v.version.0).collect::<Vec<_>>(), [4, 3, 2, 1]);
    let status: ConfigReply = anna
        .call(Verb::Config, &config(ConfigOp::Status { version: None, labels: Vec::new() }))
        .await
        .expect("tells");
    assert_eq!(status, ConfigReply::Status(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_content_that_verifies_cannot_be_spoiled() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    let good = vec![7u8; 1000];
    let at = content_ref(&good);
    let send = |bytes: Vec<u8>| {
        let request = BlobRequest { content: at, chunk: 0, bytes: ByteBuf::from(bytes) };
        let anna = &anna;
        async move { anna.call::<_, BlobReply>(Verb::Blob, &request).await }
    };
    assert_eq!(send(vec![8u8; 1000]).await.expect_err("not the content").code, ApiErrorCode::Invalid);
    send(good.clone()).await.expect("mends what was wrong");
    assert_eq!(send(vec![8u8; 1000]).await.expect_err("spoils").code, ApiErrorCode::Invalid);
    assert_eq!(send(vec![7u8; 999]).await.expect_err("too short").code, ApiErrorCode::Invalid);
    let beyond = BlobRequest { content: at, chunk: 1, bytes: ByteBuf::new() };
    assert_eq!(
        anna.call::<_, BlobReply>(Verb::Blob, &beyond).await.expect_err("no chunk").code,
        ApiErrorCode::Invalid
    );
    send(good).await.expect("as before");
}

#[tokio::test(start_paused = true)]
async fn a_node_registers_under_its_own_name() {
    let rig = Rig::new(1).await;
    let request = RegisterRequest {
        machine: "m1".to_owned(),
        boot: "b1".to_owned(),
        incarnation: 1,
        facts: Facts { hostname: "n1.example.net".to_owned(), ..Facts::default() },
        labels: std::collections::BTreeMap::new(),
    };
    let agent = rig.agent("n1");
    let reply: RegisterReply = agent.call(Verb::Register, &request).await.expect("registers");
    assert!(reply.created);
    let again: RegisterReply = agent.call(Verb::Register, &request).await.expect("registers");
    assert_eq!((again.uid, again.created), (reply.uid, false));
    let get =
        GetRequest { kind: Kind::Node, namespace: Namespace::default_namespace(), name: "n1".to_owned() };
    let view: View = rig.operator("anna").call(Verb::Get, &get).await.expect("is there");
    assert_eq!(view.metadata.applied.actor.to_string(), "node/n1");
}

/// The fields of a generic map.
fn entries(body: &mut rmpv::Value) -> Option<&mut Vec<(rmpv::Value, rmpv::Value)>> {
    match body {
        rmpv::Value::Map(fields) => Some(fields),
        _ => None,
    }
}

fn envelope(body: &rmpv::Value) -> Vec<u8> {
    let whole = rmpv::Value::Map(vec![
        ("v".into(), 1.into()),
        ("kind".into(), "Object".into()),
        ("body".into(), body.clone()),
    ]);
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &whole).expect("encodes");
    bytes
}
