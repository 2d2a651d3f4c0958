//! Verbs that read: `get`, `list`.

use ostler_controller_core::admission::{conflict, not_found};
use ostler_controller_core::fleet::Fleet;
use ostler_controller_core::status::{Found, Lens, resolve, warnings};
use ostler_schemas::codec;
use ostler_schemas::v1::api::{ApiError, GetRequest, ListPage, ListRequest, PAGE, VersionReply};
use ostler_schemas::v1::status::View;
use ostler_schemas::{Kind, Namespace, ObjectRef};

use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};

/// Views of one page, encoded: half a message of the bus, so that a page with its headers always passes.
const PAGE_BYTES: usize = 512 << 10;

/// The object that a text stands for.
pub(super) fn find(
    fleet: &Fleet,
    kind: Kind,
    namespace: &Namespace,
    text: &str,
) -> Result<ObjectRef, ApiError> {
    match resolve(fleet, kind, namespace, text) {
        Found::One(object) => Ok(object),
        Found::Several(names) => {
            let names: Vec<String> = names.iter().take(5).map(ToString::to_string).collect();
            Err(conflict(format!("{text} stands for several: {}", names.join(", "))))
        }
        Found::None => Err(not_found(fleet, kind, namespace, text)),
    }
}

/// Nothing asked for is the question for the server's version.
pub(super) async fn get(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    if call.message.body.is_empty() {
        to.last(&VersionReply { version: env!("CARGO_PKG_VERSION").to_owned() }).await?;
        return Ok(0);
    }
    let request: GetRequest = call.decode(shared)?;
    let fleet = shared.fleet(call).await?;
    let object = find(&fleet, request.kind, &request.namespace, &request.name)?;
    let view = view(shared, &fleet, &object)?;
    to.revision = Some(fleet.revision);
    to.last(&view).await?;
    Ok(0)
}

pub(super) fn view(shared: &Shared, fleet: &Fleet, object: &ObjectRef) -> Result<View, ApiError> {
    let signals = shared.signals();
    let namespace = object.namespace.clone().unwrap_or_else(Namespace::default_namespace);
    let view = Lens::new(fleet, &signals, shared.deps.clock.wall()).view(object);
    let mut view = view.ok_or_else(|| not_found(fleet, object.kind, &namespace, object.name.as_str()))?;
    shared.usage.show(shared.deps.clock.mono(), &mut view);
    Ok(view)
}

/// All pages are of one snapshot, so of one revision.
pub(super) async fn list(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: ListRequest = call.decode(shared)?;
    let fleet = shared.fleet(call).await?;
    let (signals, now) = (shared.signals(), shared.deps.clock.wall());
    let mut views = Lens::for_many(&fleet, &signals, now).list(&request);
    let mono = shared.deps.clock.mono();
    views.iter_mut().for_each(|view| shared.usage.show(mono, view));
    let stale = shared.deps.snapshot.view().stale;
    let mut warnings = warnings(&fleet, &signals, stale.as_deref(), now);
    to.revision = Some(fleet.revision);
    let mut page: Vec<View> = Vec::new();
    let mut bytes = 0;
    for view in views {
        let size = codec::encode(&view).map_or(0, |b| b.len());
        if page.len() >= PAGE || (bytes + size > PAGE_BYTES && !page.is_empty()) {
            let items = std::mem::take(&mut page);
            to.part(&ListPage { items, revision: fleet.revision, warnings: std::mem::take(&mut warnings) })
                .await?;
            bytes = 0;
        }
        bytes += size;
        page.push(view);
    }
    to.last(&ListPage { items: page, revision: fleet.revision, warnings }).await?;
    Ok(0)
}
