//! Verbs that change objects: `apply`, `delete`, `scale`, `put`, `node`, and `blob`.

use ostler_controller_core::admission::{self, ApplyOptions, By, Verdict, World, invalid, refused};
use ostler_schemas::manifest::{self, Document, Manifest, Options};
use ostler_schemas::spec::Source;
use ostler_schemas::v1::api::{
    ApiError, ApiErrorCode, ApplyReply, ApplyRequest, ApplyResult, BlobReply, BlobRequest, ChangeReply,
    DeleteReply, DeleteRequest, ManifestDocument, ManifestDocuments, NodeRequest, PutRequest, ScaleRequest,
};
use ostler_schemas::v1::object::Object;
use ostler_schemas::{Kind, ObjectRef, Revision, codec};

use crate::actors::FreshIds;
use crate::api::commit::{Asking, Changed, change, marked};
use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};
use crate::api::{blobs, renders};

/// Bytes of results in one part of an answer, well below what a message holds.
const PART: usize = 512 << 10;

fn options(shared: &Shared) -> Options {
    Options { max_replicas: shared.deps.limits.max_replicas, ..Options::default() }
}

/// The documents of an apply, wherever they are.
async fn documents(shared: &Shared, request: ApplyRequest) -> Result<Vec<ManifestDocument>, ApiError> {
    let Some(content) = request.content else { return Ok(request.documents) };
    let bytes = blobs::read_request(shared, content).await?;
    let sent: ManifestDocuments = codec::decode(&bytes).map_err(|error| {
        shared.deps.metrics.garbage.inc();
        invalid(format!("the documents that were sent ahead cannot be read: {error}"))
    })?;
    // Those that come with the request are the Secrets: what is sent ahead is stored for a while as it is.
    Ok(sent.documents.into_iter().chain(request.documents).collect())
}

/// The documents, read and checked; nothing is trusted that the client has checked already.
pub(super) fn manifests(shared: &Shared, sent: Vec<ManifestDocument>) -> Result<Vec<Manifest>, ApiError> {
    let mut documents = Vec::with_capacity(sent.len());
    for (i, sent) in sent.into_iter().enumerate() {
        let mut document: Document = manifest::decode_tree(&sent.tree).map_err(|error| {
            shared.deps.metrics.garbage.inc();
            invalid(format!("document {} cannot be read: {error}", i + 1))
        })?;
        if sent.file.is_some() {
            document.file = sent.file;
        }
        document.content = sent.content.map(Source::Content);
        documents.push(document);
    }
    manifest::check(documents, &options(shared)).map_err(|refusal| refused(&refusal))
}

/// Refuses Secrets that were sent ahead of their request.
fn not_ahead(manifests: &[Manifest], with_it: usize) -> Result<(), ApiError> {
    let ahead = &manifests[..manifests.len().saturating_sub(with_it)];
    match ahead.iter().find(|manifest| manifest.kind == Kind::Secret) {
        None => Ok(()),
        Some(secret) => Err(invalid(format!(
            "{} was sent through the store, where its values stay readable for a while: replace them, and apply with \
             the client of this version",
            secret.label()
        ))),
    }
}

pub(super) async fn apply(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: ApplyRequest = call.decode(shared)?;
    let how = ApplyOptions { force: request.force, retry: request.retry, reason: request.reason.clone() };
    // Held until the answer: what was sent ahead is many times what a message holds, and its trees are more.
    let _place = match request.content {
        Some(_) => shared.large.acquire().await.ok(),
        None => None,
    };
    let dry_run = request.dry_run;
    let ahead = request.content.is_some();
    let with_it = request.documents.len();
    let manifests = manifests(shared, documents(shared, request).await?)?;
    if ahead {
        not_ahead(&manifests, with_it)?;
    }
    if dry_run {
        let reply = self::dry_run(shared, call, manifests, &how).await?;
        answer(&reply, to).await?;
        return Ok(0);
    }
    let asking = Asking::of(call, how.reason.clone(), admission::named(&manifests))?;
    let changed = change(
        shared,
        asking,
        |world| admission::applied_already(world, &manifests),
        |world, ids| {
            let sealed = shared.deps.vault.seal_manifests(world.fleet, &manifests);
            let applied = admission::apply(world, sealed, &how, ids).map_err(|r| refused(&r))?;
            Ok(Verdict { decision: applied.decision, reply: applied.results })
        },
    );
    let Changed { reply, revision, txn } = changed.await?;
    let results = reply.into_iter().map(|r| ApplyResult { before: None, after: None, ..r }).collect();
    answer(&ApplyReply { results, revision, txn }, to).await?;
    Ok(0)
}

/// The results of an apply in as many parts as it takes: those of a dry run bear the objects, before and after.
async fn answer(reply: &ApplyReply, to: &mut Responder) -> Result<(), ApiError> {
    let (revision, txn) = (reply.revision, reply.txn);
    let whole = |results: Vec<ApplyResult>| ApplyReply { results, revision, txn };
    let mut part = Vec::new();
    let mut size = 0;
    for result in &reply.results {
        let own = codec::encode(&whole(vec![result.clone()])).map_or(usize::MAX, |bytes| bytes.len());
        if !part.is_empty() && size + own > PART {
            to.part(&whole(std::mem::take(&mut part))).await?;
            size = 0;
        }
        size = size.saturating_add(own);
        part.push(result.clone());
    }
    to.last(&whole(part)).await
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
    let sealed = deps.vault.seal_manifests(&fleet, &manifests);
    drop(manifests);
    let applied =
        admission::apply(&world, sealed, how, &mut FreshIds(&deps.entropy)).map_err(|r| refused(&r))?;
    renders::ensure(shared, &fleet, &applied.decision).await?;
    let shown = |object: Object| Object { spec: object.spec.without_values(), ..object };
    let results = applied.results.into_iter();
    let results =
        results.map(|r| ApplyResult { before: r.before.map(shown), after: r.after.map(shown), ..r });
    Ok(ApplyReply { results: results.collect(), revision: fleet.revision, txn: by.txn })
}

pub(super) async fn delete(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: DeleteRequest = call.decode(shared)?;
    let asking = Asking::of(call, request.reason.clone(), vec![request.object.clone()])?;
    let resent = asking.txn.filter(|_| asking.resent);
    let before = |world: &World<'_>| Ok(with_revision(admission::deleted_already(world, &request)?));
    let changed = change(shared, asking, before, |world, _| admission::delete(world, &request)).await;
    let reply = match (changed, resent) {
        (Ok(Changed { reply, revision, .. }), _) => DeleteReply { revision, ..reply },
        (Err(error), Some(txn)) if error.code == ApiErrorCode::NotFound => {
            match marked(shared, &request.object, txn).await? {
                Some((uid, revision)) => DeleteReply { uid, gone: true, revision },
                None => return Err(error),
            }
        }
        (Err(error), _) => return Err(error),
    };
    to.last(&reply).await?;
    Ok(0)
}

/// What bears its own revision, with it.
trait Revised {
    fn revision(&self) -> Revision;
}

impl Revised for ChangeReply {
    fn revision(&self) -> Revision {
        self.revision
    }
}

impl Revised for DeleteReply {
    fn revision(&self) -> Revision {
        self.revision
    }
}

fn with_revision<R: Revised>(reply: Option<R>) -> Option<(R, Revision)> {
    reply.map(|reply| {
        let revision = reply.revision();
        (reply, revision)
    })
}

async fn told(to: &mut Responder, changed: Changed<ChangeReply>) -> Result<u64, ApiError> {
    to.last(&ChangeReply { revision: changed.revision, ..changed.reply }).await?;
    Ok(0)
}

pub(super) async fn scale(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: ScaleRequest = call.decode(shared)?;
    let options = options(shared);
    let asking = Asking::of(call, request.reason.clone(), vec![request.object.clone()])?;
    let before = |world: &World<'_>| Ok(with_revision(admission::scaled_already(world, &request)?));
    let changed = change(shared, asking, before, |world, _| admission::scale(world, &request, &options));
    told(to, changed.await?).await
}

pub(super) async fn put(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: PutRequest = call.decode(shared)?;
    let asking = Asking::of(call, None, vec![request.object.clone()])?;
    let before = |world: &World<'_>| Ok(with_revision(admission::put_already(world, &request)?));
    told(to, change(shared, asking, before, |world, _| admission::put(world, &request)).await?).await
}

pub(super) async fn node(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: NodeRequest = call.decode(shared)?;
    // A host's full name is no object's: whoever asks by it may be told of an older state.
    let named = request.node.parse().ok().and_then(|node| ObjectRef::node(&node)).into_iter().collect();
    let asking = Asking::of(call, request.reason.clone(), named)?;
    let before = |world: &World<'_>| Ok(with_revision(admission::node_already(world, &request)?));
    told(to, change(shared, asking, before, |world, _| admission::node(world, &request)).await?).await
}

pub(super) async fn blob(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: BlobRequest = call.decode(shared)?;
    blobs::put(shared, request.content, request.chunk, &request.bytes).await?;
    to.last(&BlobReply { chunk: request.chunk }).await?;
    Ok(0)
}
