//! Reads: lists, watches, events, read-your-writes.

use bytes::Bytes;
use ostler_bus::store::Headers;
use ostler_bus::topic::Outgoing;
use ostler_schemas::codec;
use ostler_schemas::subject::Verb;
use ostler_schemas::v1::api::{
    ApiError, ApiErrorCode, EventRecord, EventsRequest, GetRequest, ListPage, ListRequest, RolloutOp,
    RolloutReply, RolloutRequest, VersionReply, WatchChange, WatchMessage, WatchRequest,
};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Kind, Namespace, TxnId, headers};

use super::rig::{Answer, Caller, Rig, object};
use crate::api::ApiLimits;

fn file(n: usize) -> String {
    format!(
        "apiVersion: ostler/v1\nkind: ConfigFile\nmetadata: {{name: app{n}, labels: {{n: \"{n}\"}}}}\n\
         spec: {{path: /etc/app{n}.conf, nodeSelector: {{}}}}\n"
    )
}

fn list_of(kind: Kind) -> ListRequest {
    ListRequest { kind, namespace: None, labels: Vec::new(), names: Vec::new() }
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_of_one_revision() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    for part in [0..300, 300..600] {
        let yaml: Vec<String> = part.map(file).collect();
        anna.apply(&yaml.join("---\n")).await;
    }
    let mut answer = anna.ask(Verb::List, &list_of(Kind::ConfigFile)).await;
    let (mut pages, mut names) = (Vec::new(), Vec::new());
    while let Some(body) = answer.next().await.expect("no error") {
        let page: ListPage = codec::decode(&body).expect("a page");
        names.extend(page.items.iter().map(|v| v.metadata.name.clone()));
        pages.push((page.revision, page.warnings.len()));
    }
    assert!(pages.len() >= 2 && pages.iter().all(|p| p.0 == pages[0].0), "{pages:?}");
    assert_eq!((pages[0].1, pages[1].1), (1, 0), "warnings are said once, first");
    assert_eq!(names.len(), 600);
    assert!(names.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn an_empty_get_tells_the_version() {
    let rig = Rig::new(1).await;
    let mut answer = rig.operator("anna").open(Verb::Get, Bytes::new()).await;
    let reply: VersionReply = answer.read().await;
    assert_eq!(reply.version, env!("CARGO_PKG_VERSION"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_older_than_what_the_caller_has_seen() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    let request = GetRequest {
        kind: Kind::Namespace,
        namespace: Namespace::default_namespace(),
        name: "default".to_owned(),
    };
    let body = Bytes::from(codec::encode(&request).expect("encodes"));
    let head = Headers::new().with(headers::MIN_REVISION, "999999");
    let message = Outgoing::new("api.anna.get", body).with_headers(head);
    let answer = anna.topic.request(message, 20_000).await.expect("an answer");
    let error: ApiError = codec::decode(&answer.body).expect("an error");
    assert_eq!(error.code, ApiErrorCode::Unavailable);
    assert!(error.message.contains("has not caught up to revision 999999"), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_is_and_then_what_changes() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    anna.apply(&file(1)).await;
    let mut watch = anna.ask(Verb::Watch, &WatchRequest { list: list_of(Kind::ConfigFile) }).await;
    let told = |message: WatchMessage| (message.change, message.view.map(|v| v.metadata.name.to_string()));
    assert_eq!(told(watch.read().await), (Some(WatchChange::Added), Some("app1".to_owned())));
    assert_eq!(told(watch.read().await), (None, None));
    anna.apply(&file(2)).await;
    assert_eq!(told(watch.read().await), (Some(WatchChange::Added), Some("app2".to_owned())));
    anna.apply(&file(2).replace("n: \"2\"", "n: \"3\"")).await;
    assert_eq!(told(watch.read().await), (Some(WatchChange::Modified), Some("app2".to_owned())));
    let delete = ostler_schemas::v1::api::DeleteRequest {
        object: object(Kind::ConfigFile, "app1"),
        force: false,
        reason: None,
    };
    let _: ostler_schemas::v1::api::DeleteReply = anna.call(Verb::Delete, &delete).await.expect("deletes");
    assert_eq!(told(watch.read().await), (Some(WatchChange::Modified), Some("app1".to_owned())));
    rig.chores().await;
    assert_eq!(told(watch.read().await), (Some(WatchChange::Deleted), Some("app1".to_owned())));
}

/// Opens a watch that its caller attends under `id`.
async fn attended(anna: &Caller, id: TxnId) -> Answer {
    let body = codec::encode(&WatchRequest { list: list_of(Kind::Node) }).expect("encodes");
    let head = Headers::new().with(headers::TXN, id.to_string());
    let message = Outgoing::new("api.anna.watch", body).with_headers(head);
    Answer(anna.topic.request_many(message).await.expect("sends"), 0)
}

#[tokio::test(start_paused = true)]
async fn an_attended_watch_ends_with_its_caller() {
    let rig = Rig::new(2).await;
    let anna = rig.operator("anna");
    let id = TxnId::from_bytes([5; 16]);
    let attend = |head: Headers| {
        let message = Outgoing::new(format!("api.anna.relay.{id}"), Bytes::new()).with_headers(head);
        anna.topic.publish(message)
    };
    let mut watch = attended(&anna, id).await;
    let _: WatchMessage = watch.read().await;
    let clock = rig.replicas[0].deps.clock.clone();
    for _ in 0..10 {
        clock.sleep_ms(5_000).await;
        attend(Headers::new()).await.expect("sends");
    }
    let open = || rig.replicas.iter().map(|r| r.deps.metrics.streams.get()).sum::<i64>();
    assert_eq!(open(), 1, "attended for 50 s");
    attend(Headers::new().with(headers::END, "ok")).await.expect("sends");
    let end = watch.next().await.expect_err("ended");
    assert!(end.message.contains("its caller ended it"), "{}", end.message);

    let mut watch = attended(&anna, id).await;
    let _: WatchMessage = watch.read().await;
    let end = watch.next().await.expect_err("nobody attends it");
    assert!(end.message.contains("was not heard of any more"), "{}", end.message);
    assert_eq!(open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_nobody_attends_does_not_last_for_ever() {
    let limits = ApiLimits { unattended_ms: 60_000, ..ApiLimits::default() };
    let rig = Rig::with_limits(1, limits).await;
    let mut watch = rig.operator("anna").ask(Verb::Watch, &WatchRequest { list: list_of(Kind::Node) }).await;
    let _: WatchMessage = watch.read().await;
    assert_eq!(watch.next().await.expect_err("ended").message, "ended: it has lasted 60s; begin another");
}

#[tokio::test(start_paused = true)]
async fn events_are_told_and_followed() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    anna.apply(&file(1)).await;
    anna.apply(&file(2)).await;
    let request = EventsRequest {
        object: Some(object(Kind::ConfigFile, "app1")),
        namespace: Some(Namespace::default_namespace()),
        node: None,
        follow: true,
        since: None,
    };
    let mut events = anna.ask(Verb::Events, &request).await;
    let first: EventRecord = events.read().await;
    let event = first.event.expect("an event");
    assert_eq!((event.reason, event.object), (Reason::Created, object(Kind::ConfigFile, "app1")));
    assert_eq!(event.actor.expect("an actor").to_string(), "user/anna");
    let done: EventRecord = events.read().await;
    assert!(done.event.is_none() && done.reaches_back_to.is_some());
    anna.apply(&file(1).replace("n: \"1\"", "n: \"x\"")).await;
    let next: EventRecord = events.read().await;
    assert_eq!(next.event.expect("an event").reason, Reason::Configured);

    let all = EventsRequest { object: None, namespace: None, follow: false, ..request };
    let mut events = anna.ask(Verb::Events, &all).await;
    let mut reasons = Vec::new();
    while let Some(body) = events.next().await.expect("no error") {
        let record: EventRecord = codec::decode(&body).expect("a record");
        reasons.extend(record.event.map(|e| e.reason));
    }
    assert_eq!(reasons, [Reason::Created, Reason::Created, Reason::Configured]);
}

#[tokio::test(start_paused = true)]
async fn a_rollout_is_asked_for_by_object() {
    let rig = Rig::new(1).await;
    let anna: Caller = rig.operator("anna");
    anna.apply(&file(1)).await;
    let request =
        RolloutRequest { object: object(Kind::ConfigFile, "app1"), op: RolloutOp::Status, reason: None };
    let reply: RolloutReply = anna.call(Verb::Rollout, &request).await.expect("tells");
    assert_eq!(reply.view.metadata.name.as_str(), "app1");
    let request =
        RolloutRequest { object: object(Kind::ConfigFile, "app2"), op: RolloutOp::Status, reason: None };
    let error = anna.call::<_, RolloutReply>(Verb::Rollout, &request).await.expect_err("missing");
    assert_eq!(error.hint.as_deref(), Some("did you mean configfile/app1?"));
}
