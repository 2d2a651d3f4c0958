//! An apply that is larger than one message.

use ostler_schemas::codec;
use ostler_schemas::manifest::FindingCode;
use ostler_schemas::spec::ContentRef;
use ostler_schemas::subject::Verb;
use ostler_schemas::v1::api::{
    ApiError, ApiErrorCode, ApplyOutcome, ApplyReply, ApplyRequest, BlobReply, BlobRequest, CHUNK,
    DOCUMENTS_MAX, ManifestDocuments, content_ref,
};
use serde_bytes::ByteBuf;

use super::rig::{Answer, Caller, Rig, apply_of};

/// Deployments with so much to say that all of them are more than a message holds.
fn many(count: usize) -> String {
    let padding = "x".repeat(20_000);
    let one = |i: usize| {
        format!(
            "apiVersion: ostler/v1\nkind: Deployment\nmetadata: {{name: web{i}, annotations: {{note: {padding}}}}}\n\
             spec: {{template: {{spec: {{command: [/usr/bin/app]}}}}}}\n"
        )
    };
    (0..count).map(one).collect::<Vec<_>>().join("---\n")
}

async fn send(caller: &Caller, at: ContentRef, bytes: &[u8]) -> Result<(), ApiError> {
    for (chunk, part) in (0u32..).zip(bytes.chunks(CHUNK)) {
        let request = BlobRequest { content: at, chunk, bytes: ByteBuf::from(part) };
        let _: BlobReply = caller.call(Verb::Blob, &request).await?;
    }
    Ok(())
}

async fn ahead(caller: &Caller, yaml: &str) -> ApplyRequest {
    let request = apply_of(yaml);
    let whole = ManifestDocuments { documents: request.documents.clone() };
    let bytes = codec::encode(&whole).expect("encodes");
    assert!(bytes.len() > 1 << 20, "{} bytes fit into a message", bytes.len());
    let at = content_ref(&bytes);
    send(caller, at, &bytes).await.expect("stored");
    ApplyRequest { documents: Vec::new(), content: Some(at), ..request }
}

async fn whole(mut answer: Answer) -> Result<ApplyReply, ApiError> {
    let mut whole: Option<ApplyReply> = None;
    while let Some(body) = answer.next().await? {
        let part: ApplyReply = codec::decode(&body).expect("decodes");
        match &mut whole {
            Some(whole) => whole.results.extend(part.results),
            None => whole = Some(part),
        }
    }
    Ok(whole.expect("an answer"))
}

#[tokio::test(start_paused = true)]
async fn documents_that_were_sent_ahead_are_applied() {
    let rig = Rig::new(2).await;
    let anna = rig.operator("anna");
    let request = ahead(&anna, &many(80)).await;
    let dry = ApplyRequest { dry_run: true, ..request.clone() };
    let told = whole(anna.ask(Verb::Apply, &dry).await).await.expect("told");
    assert_eq!(told.results.len(), 80, "the objects of a dry run are more than a message holds, too");
    assert!(told.results.iter().all(|r| r.after.is_some() && r.outcome == ApplyOutcome::Created));
    let done = whole(anna.ask(Verb::Apply, &request).await).await.expect("applied");
    assert_eq!(done.results.len(), 80);
    assert!(done.results.iter().all(|r| r.outcome == ApplyOutcome::Created));
    let again = whole(anna.ask(Verb::Apply, &request).await).await.expect("applied");
    assert!(again.results.iter().all(|r| r.outcome == ApplyOutcome::Unchanged));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_or_not_there_is_refused() {
    let rig = Rig::new(1).await;
    let anna = rig.operator("anna");
    let plain = apply_of("apiVersion: ostler/v1\nkind: Namespace\nmetadata: {name: prod}\n");
    let at = |size: u64| ContentRef { size, ..content_ref(b"x") };
    let naming = |at| ApplyRequest { documents: Vec::new(), content: Some(at), ..plain.clone() };
    let over = naming(at(DOCUMENTS_MAX as u64 + 1));
    let error = anna.call::<_, ApplyReply>(Verb::Apply, &over).await.expect_err("too large");
    assert_eq!((error.code, error.findings[0].code), (ApiErrorCode::Refused, FindingCode::TooLarge));
    assert_eq!(error.findings[0].message, "the documents are 16.1Mi together, the limit is 16Mi");
    let error = anna.call::<_, ApplyReply>(Verb::Apply, &naming(at(1000))).await.expect_err("not sent");
    assert!(error.message.contains("was not sent ahead"), "{}", error.message);
    // Bytes that are no documents.
    let bytes = vec![0xc1; 1000];
    send(&anna, content_ref(&bytes), &bytes).await.expect("stored");
    let error =
        anna.call::<_, ApplyReply>(Verb::Apply, &naming(content_ref(&bytes))).await.expect_err("garbage");
    assert_eq!(error.code, ApiErrorCode::Invalid);
    let both = ApplyRequest { content: Some(content_ref(&bytes)), ..plain.clone() };
    let error = anna.call::<_, ApplyReply>(Verb::Apply, &both).await.expect_err("two sets of documents");
    assert_eq!(error.code, ApiErrorCode::Invalid);
}
