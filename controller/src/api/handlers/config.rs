//! `config`: versions of a file's content.

use ostler_controller_core::admission::{self, Verdict, World, invalid, unavailable};
use ostler_controller_core::status::{Lens, holds};
use ostler_schemas::manifest::{Content, Manifest, ManifestBody};
use ostler_schemas::spec::ContentRef;
use ostler_schemas::v1::api::{
    ApiError, ConfigOp, ConfigPush, ConfigRender, ConfigReply, ConfigRequest, LabelRequirement, content_ref,
};
use ostler_schemas::{Kind, Namespace, ObjectRef, Revision, Version};
use serde_bytes::ByteBuf;

use crate::api::commit::{Asking, Changed, change};
use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};
use crate::api::{blobs, lines, renders};

/// Bytes of content in one part of an answer.
const PART: usize = 256 << 10;
/// Rows of `config status` in one part: diffs in them may be long.
const ROWS: usize = 100;

pub(super) async fn handle(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let ConfigRequest { name, namespace, op } = call.decode(shared)?;
    let object = ObjectRef { kind: Kind::ConfigFile, namespace: Some(namespace), name };
    match op {
        ConfigOp::Push(push) => changed(shared, call, &object, Wish::Push(push), to).await,
        ConfigOp::Rollback { to_version, reason } => {
            changed(shared, call, &object, Wish::Rollback(to_version, reason), to).await
        }
        ConfigOp::Release { force, reason } => {
            changed(shared, call, &object, Wish::Release(force, reason), to).await
        }
        ConfigOp::Status { version, labels } => status(shared, call, (&object, version, &labels), to).await,
        ConfigOp::History => history(shared, call, &object, to).await,
        ConfigOp::Content { version, part } => {
            content(shared, call, (&object, version, part.as_deref()), to).await
        }
        ConfigOp::Hosts(wish) => super::host_files::handle(shared, call, (&object, *wish), to).await,
        ConfigOp::Try(what) => super::trial::handle(shared, call, (&object, what), to).await,
        ConfigOp::Render(wish) => render(shared, call, (&object, *wish), to).await,
    }
}

enum Wish {
    Push(Box<ConfigPush>),
    Rollback(Option<Version>, Option<String>),
    Release(bool, Option<String>),
}

async fn changed(
    shared: &Shared,
    call: &Call,
    object: &ObjectRef,
    wish: Wish,
    to: &mut Responder,
) -> Result<u64, ApiError> {
    let reason = match &wish {
        Wish::Push(push) => push.reason.clone(),
        Wish::Rollback(_, reason) | Wish::Release(_, reason) => reason.clone(),
    };
    let asking = Asking::of(call, reason, vec![object.clone()])?;
    let before = |world: &World<'_>| {
        let reply = admission::config_already(world, object)?;
        Ok(reply.map(|reply| {
            let revision = revision_of(&reply);
            (reply, revision)
        }))
    };
    let changed = change(shared, asking, before, |world, ids| -> Result<Verdict<ConfigReply>, ApiError> {
        match &wish {
            Wish::Push(push) => admission::push(world, object, push, ids),
            Wish::Rollback(version, reason) => admission::rollback(world, object, *version, reason.clone()),
            Wish::Release(force, reason) => admission::release(world, object, (*force, reason.clone())),
        }
    });
    let Changed { reply, revision, .. } = changed.await?;
    let reply = match reply {
        ConfigReply::Changed { version, before, changed, created, nodes, waves, .. } => {
            let is_release = matches!(wish, Wish::Release(..));
            let lines = if changed && !is_release {
                lines_between(shared, object, before, version).await
            } else {
                None
            };
            ConfigReply::Changed { version, before, changed, created, nodes, waves, lines, revision }
        }
        other @ (ConfigReply::Status(_)
        | ConfigReply::History(_)
        | ConfigReply::Content(_)
        | ConfigReply::Rendered { .. }) => other,
    };
    to.last(&reply).await?;
    Ok(0)
}

fn revision_of(reply: &ConfigReply) -> Revision {
    match reply {
        ConfigReply::Changed { revision, .. } => *revision,
        ConfigReply::Status(_)
        | ConfigReply::History(_)
        | ConfigReply::Content(_)
        | ConfigReply::Rendered { .. } => Revision(0),
    }
}

/// For people only: where it cannot be told, nothing is.
async fn lines_between(
    shared: &Shared,
    object: &ObjectRef,
    before: Version,
    after: Version,
) -> Option<(u32, u32)> {
    let fleet = shared.deps.snapshot.fleet();
    let content =
        |version| admission::content(&fleet, object, (Some(version), None)).ok().map(|at| at.content);
    let (old, new) = (content(before)?, content(after)?);
    let old = blobs::read(shared, old).await.ok()??;
    let new = blobs::read(shared, new).await.ok()??;
    lines::changed(&old, &new)
}

async fn status(
    shared: &Shared,
    call: &Call,
    (object, version, labels): (&ObjectRef, Option<Version>, &[LabelRequirement]),
    to: &mut Responder,
) -> Result<u64, ApiError> {
    let fleet = shared.fleet(call).await?;
    exists(&fleet, object)?;
    let signals = shared.signals();
    let rows = Lens::new(&fleet, &signals, shared.deps.clock.wall()).config_rows(object);
    let wanted = rows.into_iter().filter(|row| {
        version.is_none_or(|v| row.version == v)
            && (labels.is_empty() || holds(labels, &fleet.node_labels(&row.node)))
    });
    let rows: Vec<_> = wanted.collect();
    to.revision = Some(fleet.revision);
    for part in rows.chunks(ROWS) {
        to.part(&ConfigReply::Status(part.to_vec())).await?;
    }
    if rows.is_empty() {
        to.part(&ConfigReply::Status(Vec::new())).await?;
    }
    Ok(0)
}

fn exists(fleet: &ostler_controller_core::fleet::Fleet, object: &ObjectRef) -> Result<(), ApiError> {
    if fleet.objects.contains_key(object) {
        return Ok(());
    }
    let namespace = object.namespace.clone().unwrap_or_else(Namespace::default_namespace);
    Err(admission::not_found(fleet, object.kind, &namespace, object.name.as_str()))
}

async fn history(
    shared: &Shared,
    call: &Call,
    object: &ObjectRef,
    to: &mut Responder,
) -> Result<u64, ApiError> {
    let fleet = shared.fleet(call).await?;
    let signals = shared.signals();
    let lens = Lens::new(&fleet, &signals, shared.deps.clock.wall());
    let versions = admission::history(&lens, &fleet, object)?;
    to.revision = Some(fleet.revision);
    to.last(&ConfigReply::History(versions)).await?;
    Ok(0)
}

async fn content(
    shared: &Shared,
    call: &Call,
    (object, version, part): (&ObjectRef, Option<Version>, Option<&str>),
    to: &mut Responder,
) -> Result<u64, ApiError> {
    let fleet = shared.fleet(call).await?;
    let at = admission::content(&fleet, object, (version, part))?;
    let Some(bytes) = blobs::read(shared, at.content).await? else {
        return Err(unavailable(format!(
            "the content of version {} is not in the store any more",
            at.version
        )));
    };
    to.revision = Some(fleet.revision);
    for part in bytes.chunks(PART) {
        to.part(&ConfigReply::Content(ByteBuf::from(part))).await?;
    }
    if bytes.is_empty() {
        to.part(&ConfigReply::Content(ByteBuf::new())).await?;
    }
    Ok(0)
}

/// What becomes of a file on a node: of a version that is kept, or of a manifest that is not applied yet.
async fn render(
    shared: &Shared,
    call: &Call,
    (object, wish): (&ObjectRef, ConfigRender),
    to: &mut Responder,
) -> Result<u64, ApiError> {
    let ConfigRender { node, version, manifest } = wish;
    let fleet = shared.fleet(call).await?;
    let (mut manifest, mut given) = (manifest, Vec::new());
    let manifest = match manifest.take() {
        None => None,
        Some(document) => {
            let read = super::changes::manifests(shared, vec![document])?;
            let Some(manifest) = read.into_iter().find(|manifest| names(manifest, object)) else {
                return Err(invalid(format!("the manifest is not of {}", object.short())));
            };
            given = contents_of(&manifest);
            Some(manifest)
        }
    };
    let rendering = admission::rendering(&fleet, object, &node, (version, manifest))?;
    to.revision = Some(fleet.revision);
    for (name, bytes) in renders::files(shared, &rendering, &given).await? {
        for part in bytes.chunks(PART) {
            to.part(&ConfigReply::Rendered { name: name.clone(), bytes: ByteBuf::from(part) }).await?;
        }
        if bytes.is_empty() {
            to.part(&ConfigReply::Rendered { name, bytes: ByteBuf::new() }).await?;
        }
    }
    Ok(0)
}

pub(super) fn names(manifest: &Manifest, object: &ObjectRef) -> bool {
    manifest.kind == object.kind && manifest.name == object.name && manifest.namespace == object.namespace
}

/// Contents that came with a manifest.
pub(super) fn contents_of(manifest: &Manifest) -> Vec<(ContentRef, Vec<u8>)> {
    let ManifestBody::ConfigFile(body) = &manifest.body else { return Vec::new() };
    let alone = match &body.content {
        Some(Content::Inline(bytes)) => Some(bytes),
        Some(Content::Stored(_)) | None => None,
    };
    let all = alone.into_iter().chain(&body.files);
    all.map(|bytes| (content_ref(bytes), bytes.clone())).collect()
}
