//! The envelope and every type that travels in it.

use ostler_schemas::codec::{Wire, decode, decode_kept, encode, inspect};
use ostler_schemas::manifest::decode_tree;
use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::v1::api;
use ostler_schemas::v1::beat::{Beat, BeatReply};
use ostler_schemas::v1::document::{FileSpec, FilesDocument, RunDocument};
use ostler_schemas::v1::epoch::{Beacon, Fence, Incarnation, Lease, Term};
use ostler_schemas::v1::event::{AuditRecord, Event};
use ostler_schemas::v1::object::{Object, SpecRevision};
use ostler_schemas::v1::process::{BindRecord, GoalRecord, ProcessSpecRecord, ProcessTemplateRecord};
use ostler_schemas::v1::report::Report;
use ostler_schemas::v1::state::{NodeState, PendingState, RolloutState};
use ostler_schemas::v1::status::{ConfigFileStatus, DeploymentStatus, View};

/// Decodes `data` as every type. What can be read, is written, and then read and written again to the same bytes;
/// what this version does not know of it is kept on the way.
pub fn codec(data: &[u8]) {
    if let Ok((_, _, body)) = inspect(data) {
        assert!(!body.to_string().is_empty(), "every body can be shown");
    }
    if let Ok(document) = decode_tree(data) {
        let bytes = ostler_schemas::manifest::encode_tree(&document);
        assert!(decode_tree(&bytes).is_ok_and(|again| again == document), "a tree reads back");
    }
    records(data);
    requests(data);
}

fn records(data: &[u8]) {
    one::<Beat>(data);
    one::<BeatReply>(data);
    one::<RunDocument>(data);
    one::<FilesDocument>(data);
    one::<FileSpec>(data);
    one::<ProcessTemplate>(data);
    one::<Lease>(data);
    one::<Term>(data);
    one::<Fence>(data);
    one::<Incarnation>(data);
    one::<Beacon>(data);
    one::<Event>(data);
    one::<AuditRecord>(data);
    one::<Object>(data);
    one::<SpecRevision>(data);
    one::<ProcessSpecRecord>(data);
    one::<ProcessTemplateRecord>(data);
    one::<BindRecord>(data);
    one::<GoalRecord>(data);
    one::<Report>(data);
    one::<NodeState>(data);
    one::<RolloutState>(data);
    one::<PendingState>(data);
    one::<View>(data);
    one::<DeploymentStatus>(data);
    one::<ConfigFileStatus>(data);
}

fn requests(data: &[u8]) {
    one::<api::ApplyRequest>(data);
    one::<api::ApplyReply>(data);
    one::<api::GetRequest>(data);
    one::<api::ListRequest>(data);
    one::<api::ListPage>(data);
    one::<api::WatchRequest>(data);
    one::<api::WatchMessage>(data);
    one::<api::DeleteRequest>(data);
    one::<api::DeleteReply>(data);
    one::<api::ScaleRequest>(data);
    one::<api::ConfigRequest>(data);
    one::<api::ConfigReply>(data);
    one::<api::RolloutRequest>(data);
    one::<api::RolloutReply>(data);
    one::<api::EventsRequest>(data);
    one::<api::EventRecord>(data);
    one::<api::NodeRequest>(data);
    one::<api::PutRequest>(data);
    one::<api::ChangeReply>(data);
    one::<api::LogsRequest>(data);
    one::<api::BlobRequest>(data);
    one::<api::BlobReply>(data);
    one::<api::RegisterRequest>(data);
    one::<api::RegisterReply>(data);
    one::<api::AsksRequest>(data);
    one::<api::AsksReply>(data);
    one::<api::ApiError>(data);
    one::<api::VersionReply>(data);
}

fn one<T: Wire>(data: &[u8]) {
    let Ok((value, unknown)) = decode_kept::<T>(data) else {
        assert!(decode::<T>(data).is_err(), "{}: keeping what is unknown refuses nothing more", T::KIND);
        return;
    };
    // A value at the limit of its size may not be written again; that is an answer too.
    let Ok(bytes) = encode(&value) else {
        return;
    };
    let again = decode::<T>(&bytes).ok().and_then(|again| encode(&again).ok());
    assert!(again.as_deref() == Some(&bytes), "{}: what was written reads back", T::KIND);
    if let Ok(kept) = unknown.encode(&value) {
        assert!(
            decode::<T>(&kept).is_ok(),
            "{}: with what is unknown put back it is still readable",
            T::KIND
        );
    }
}
