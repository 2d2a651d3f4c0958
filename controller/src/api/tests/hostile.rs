//! Input that no client of ours sends.

use bytes::Bytes;
use futures::StreamExt;
use ostler_bus::memory::Party;
use ostler_bus::store::Headers;
use ostler_bus::topic::Outgoing;
use ostler_schemas::codec;
use ostler_schemas::headers;
use ostler_schemas::subject::Verb;
use ostler_schemas::v1::api::{
    ApiError, ApiErrorCode, ApplyRequest, AsksRequest, GetRequest, ListRequest, ManifestDocument,
    WatchRequest,
};
use ostler_schemas::{Kind, Namespace};
use serde_bytes::ByteBuf;

use super::rig::{Rig, apply_of, name};
use crate::api::ApiLimits;

async fn alive(rig: &Rig) {
    let request = GetRequest {
        kind: Kind::Namespace,
        namespace: Namespace::default_namespace(),
        name: "default".to_owned(),
    };
    let answer: Result<ostler_schemas::v1::status::View, ApiError> =
        rig.operator("anna").call(Verb::Get, &request).await;
    assert!(answer.is_ok(), "the API serves on: {answer:?}");
    assert_eq!(rig.replicas[0].deps.metrics.panics.get(), 0);
    assert_eq!(rig.replicas[0].actor.get_status(), ractor::ActorStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn garbage_on_every_verb_is_refused() {
    let rig = Rig::new(1).await;
    let valid = codec::encode(&apply_of("apiVersion: ostler/v1\nkind: Namespace\nmetadata: {name: x}\n"))
        .expect("encodes");
    let bodies: Vec<Bytes> = vec![
        Bytes::from_static(b"garbage"),
        Bytes::from_static(&[0xc1; 64]),
        Bytes::from(vec![0x91; 100_000]),
        Bytes::from(valid[..valid.len() / 2].to_vec()),
        Bytes::from(codec::encode(&AsksRequest::default()).expect("encodes")),
    ];
    for verb in Verb::ALL {
        let caller =
            if matches!(verb, Verb::Asks | Verb::Register) { rig.agent("n1") } else { rig.operator("anna") };
        for (i, body) in bodies.iter().enumerate() {
            if verb == Verb::Relay || (verb == Verb::Asks && i == 4) {
                continue;
            }
            let error = caller.open(verb, body.clone()).await.next().await.expect_err("refused");
            assert!(matches!(error.code, ApiErrorCode::Invalid), "{verb:?} {i}: {error:?}");
        }
    }
    alive(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_is_none_is_refused_and_nothing_stored() {
    let rig = Rig::new(1).await;
    let document = |tree: Vec<u8>| ManifestDocument { file: None, tree: ByteBuf::from(tree), content: None };
    for tree in [Vec::new(), vec![0xc1; 10], vec![0x93; 5_000]] {
        let request = ApplyRequest {
            documents: vec![document(tree)],
            content: None,
            force: true,
            retry: false,
            dry_run: false,
            reason: None,
        };
        let error =
            rig.operator("anna").call::<_, ostler_schemas::v1::api::ApplyReply>(Verb::Apply, &request).await;
        assert_eq!(error.expect_err("refused").code, ApiErrorCode::Invalid);
    }
    alive(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_refused_by_its_size() {
    let limits = ApiLimits { request_bytes: 1_000, ..ApiLimits::default() };
    let rig = Rig::with_limits(1, limits).await;
    let error = rig
        .operator("anna")
        .open(Verb::Apply, Bytes::from(vec![0; 1_001]))
        .await
        .next()
        .await
        .expect_err("refused");
    assert_eq!(error.message, "the request has 1001 bytes, the limit is 1000");
    alive(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_calls_as_another() {
    let rig = Rig::new(1).await;
    let body = Bytes::from(codec::encode(&AsksRequest::default()).expect("encodes"));
    // The bus itself lets nobody publish under another's token: from outside such a request is silence.
    let anna = rig.operator("anna");
    let silent = anna.topic.request(Outgoing::new("api.ben.asks", body.clone()), 500).await;
    assert!(silent.is_err());
    // From inside the account the header can be forged, or be missing; neither passes.
    let inside = rig.bus.cp(&Party::new("evil")).1;
    let forged = Headers::new().with(headers::NATS_REQUEST_INFO, r#"{"acc":"OP","user":"nobody"}"#);
    for head in [Headers::new(), forged] {
        let request = Outgoing::new("api.anna.get", Bytes::new()).with_headers(head);
        if let Ok(answer) = inside.request(request, 500).await {
            let error: ApiError = codec::decode(&answer.body).expect("an error");
            assert_eq!(error.code, ApiErrorCode::Forbidden);
        }
    }
    // A stranger whom the bus knows but the list does not.
    let eve = rig.bus.operator(&Party::new("eve"), &name("eve"));
    let answer = eve.request(Outgoing::new("api.eve.get", Bytes::new()), 500).await.expect("an answer");
    let error: ApiError = codec::decode(&answer.body).expect("an error");
    assert_eq!(error.code, ApiErrorCode::Forbidden);
    assert!(rig.replicas[0].deps.metrics.refused_identity.get() >= 1);

    let mut audit = rig.store().records("OSTLER_AUDIT", "ostler.v1.audit.eve.>", 0, true);
    let record = audit.next().await.expect("told together, later").expect("reads");
    assert_eq!(record.headers.get(headers::REASON), Some("refused"));
    alive(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_and_operators_keep_to_their_verbs() {
    let rig = Rig::new(1).await;
    for verb in [Verb::Apply, Verb::Get, Verb::List, Verb::Delete, Verb::Config, Verb::Blob, Verb::Logs] {
        let error = rig.agent("n1").open(verb, Bytes::new()).await.next().await.expect_err("refused");
        assert_eq!(error.code, ApiErrorCode::Forbidden, "{verb:?}");
    }
    for verb in [Verb::Asks, Verb::Register] {
        let error = rig.operator("anna").open(verb, Bytes::new()).await.next().await.expect_err("refused");
        assert_eq!(error.code, ApiErrorCode::Forbidden, "{verb:?}");
    }
    alive(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn one_caller_cannot_take_what_is_anothers() {
    let limits = ApiLimits { streams_per_caller: 3, ..ApiLimits::default() };
    let rig = Rig::with_limits(1, limits).await;
    let (anna, ben) = (rig.operator("anna"), rig.operator("ben"));
    let list = ListRequest { kind: Kind::Node, namespace: None, labels: Vec::new(), names: Vec::new() };
    let request = WatchRequest { list };
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut watch = anna.ask(Verb::Watch, &request).await;
        assert!(watch.next().await.expect("served").is_some());
        held.push(watch);
    }
    let mut newest = anna.ask(Verb::Watch, &request).await;
    assert!(newest.next().await.expect("served").is_some());
    let error = held[0].next().await.expect_err("the oldest gives way");
    assert_eq!(error.code, ApiErrorCode::Unavailable);
    assert!(ben.ask(Verb::Watch, &request).await.next().await.expect("served").is_some());
    alive(&rig).await;
}
