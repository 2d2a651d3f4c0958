//! Verbs that change objects: `apply`, `delete`, `scale`, `put`, `node`, and `blob`.

use ostler_controller_core::admission::{self, ApplyOptions, By, Verdict, World, invalid, refused};
use ostler_schemas::manifest::{self, Document, Manifest, Options};
use ostler_schemas::v1::api::{
    ApiError, ApplyReply, ApplyRequest, ApplyResult, BlobReply, BlobRequest, ChangeReply, DeleteReply,
    DeleteRequest, NodeRequest, PutRequest, ScaleRequest,
};

use crate::actors::FreshIds;
use crate::api::blobs;
use crate::api::commit::{Asking, Changed, change};
use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};

fn options(shared: &Shared) -> Options {
    Options { max_replicas: shared.deps.limits.max_replicas, ..Options::default() }
}

/// The documents of an apply, read and checked; nothing is trusted that the client has checked already.
fn manifests(shared: &Shared, request: &ApplyRequest) -> Result<Vec<Manifest>, ApiError> {
    let mut documents = Vec::with_capacity(request.documents.len());
    for (i, sent) in request.documents.iter().enumerate() {
        let mut document: Document = manifest::decode_tree(&sent.tree).map_err(|error| {
            shared.deps.metrics.garbage.inc();
            invalid(format!("document {} cannot be read: {error}", i + 1))
        })?;
        if let Some(file) = &sent.file {
            document.file = Some(file.clone());
        }
        document.content = sent.content;
        documents.push(document);
    }
    manifest::check(documents, &options(shared)).map_err(|refusal| refused(&refusal))
}

pub(super) async fn apply(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: ApplyRequest = call.decode(shared)?;
    let manifests = manifests(shared, &request)?;
    let how = ApplyOptions { force: request.force, retry: request.retry, reason: request.reason.clone() };
    if request.dry_run {
        let reply = dry_run(shared, call, manifests, &how).await?;
        to.last(&reply).await?;
        return Ok(0);
    }
    let asking = Asking::of(call, request.reason.clone());
    let changed = change(shared, asking, |world, ids| {
        let applied = admission::apply(world, manifests.clone(), &how, ids).map_err(|r| refused(&r))?;
        Ok(Verdict { decision: applied.decision, reply: applied.results })
    });
    let Changed { reply, revision, txn } = changed.await?;
    let results = reply.into_iter().map(|r| ApplyResult { before: None, after: None, ..r }).collect();
    to.last(&ApplyReply { results, revision, txn }).await?;
    Ok(0)
}

/// Says what would be done: decided like an apply, and forgotten.
async fn dry_run(
    shared: &Shared,
    call: &Call,
    manifests: Vec<Manifest>,
    how: &ApplyOptions,
) -> Result<ApplyReply, ApiError> {
    let fleet = shared.fleet(call).await?;
    let (deps, signals) = (&shared.deps, shared.signals());
    let by = By { actor: call.caller.actor(), at: deps.clock.wall(), txn: deps.entropy.txn() };
    let world = World { fleet: &fleet, signals: &signals, by: &by };
    let applied =
        admission::apply(&world, manifests, how, &mut FreshIds(&deps.entropy)).map_err(|r| refused(&r))?;
    Ok(ApplyReply { results: applied.results, revision: fleet.revision, txn: by.txn })
}

pub(super) async fn delete(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: DeleteRequest = call.decode(shared)?;
    let asking = Asking::of(call, request.reason.clone());
    let Changed { reply, revision, .. } =
        change(shared, asking, |world, _| admission::delete(world, &request)).await?;
    to.last(&DeleteReply { revision, ..reply }).await?;
    Ok(0)
}

async fn told(to: &mut Responder, changed: Changed<ChangeReply>) -> Result<u64, ApiError> {
    to.last(&ChangeReply { revision: changed.revision, ..changed.reply }).await?;
    Ok(0)
}

pub(super) async fn scale(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: ScaleRequest = call.decode(shared)?;
    let options = options(shared);
    let asking = Asking::of(call, request.reason.clone());
    told(to, change(shared, asking, |world, _| admission::scale(world, &request, &options)).await?).await
}

pub(super) async fn put(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: PutRequest = call.decode(shared)?;
    told(to, change(shared, Asking::of(call, None), |world, _| admission::put(world, &request)).await?).await
}

pub(super) async fn node(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: NodeRequest = call.decode(shared)?;
    let asking = Asking::of(call, request.reason.clone());
    told(to, change(shared, asking, |world, _| admission::node(world, &request)).await?).await
}

pub(super) async fn blob(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: BlobRequest = call.decode(shared)?;
    blobs::put(shared, request.content, request.chunk, &request.bytes).await?;
    to.last(&BlobReply { chunk: request.chunk }).await?;
    Ok(0)
}
