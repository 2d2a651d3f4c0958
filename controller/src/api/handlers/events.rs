//! `events`: stored ones, oldest first, then new ones if followed.

use futures::StreamExt;
use ostler_bus::store::{ReadError, Record};
use ostler_controller_core::admission::unavailable;
use ostler_schemas::codec;
use ostler_schemas::subject::{ALL_EVENTS, EVENTS_STREAM};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::api::{ApiError, EventRecord, EventsRequest};
use ostler_schemas::v1::event::Event;
use ostler_schemas::{Kind, ObjectRef};

use crate::api::reply::Responder;
use crate::api::server::{Call, Shared};

/// `-hash-suffix` after the owner's name.
const NAME_TAIL: usize = 12;

pub(super) async fn handle(shared: &Shared, call: &Call, to: &mut Responder) -> Result<u64, ApiError> {
    let request: EventsRequest = call.decode(shared)?;
    let store = &shared.deps.store;
    let filter = filter(&request);
    let oldest = match store.records(EVENTS_STREAM, ALL_EVENTS, 0, false).next().await {
        Some(first) => Some(first.map_err(|e| failed(&e))?.at),
        None => None,
    };
    let mut last = 0;
    let mut stored = store.records(EVENTS_STREAM, &filter, 0, false);
    while let Some(record) = stored.next().await {
        let record = record.map_err(|e| failed(&e))?;
        last = record.sequence;
        tell(shared, &request, &record, to).await?;
    }
    let done = EventRecord { event: None, sequence: last, reaches_back_to: oldest };
    if !request.follow {
        to.last(&done).await?;
        return Ok(0);
    }
    to.part(&done).await?;
    follow(shared, &request, (&filter, last + 1), to).await
}

async fn follow(
    shared: &Shared,
    request: &EventsRequest,
    (filter, from): (&str, u64),
    to: &mut Responder,
) -> Result<u64, ApiError> {
    let deps = &shared.deps;
    let mut records = deps.store.records(EVENTS_STREAM, filter, from, true);
    loop {
        tokio::select! {
            biased;
            record = records.next() => match record {
                Some(record) => tell(shared, request, &record.map_err(|e| failed(&e))?, to).await?,
                None => return Err(unavailable("the stream of events ended; try again")),
            },
            () = deps.clock.sleep_ms(deps.limits.keep_alive_ms) => to.keep_alive().await?,
        }
    }
}

async fn tell(
    shared: &Shared,
    request: &EventsRequest,
    record: &Record,
    to: &mut Responder,
) -> Result<(), ApiError> {
    let Ok(event) = codec::decode::<Event>(&record.body) else {
        // Agents write events; what one writes wrongly is not shown, and is counted.
        shared.deps.metrics.garbage.inc();
        return Ok(());
    };
    if !matches(request, &event, record.at) {
        return Ok(());
    }
    to.part(&EventRecord { event: Some(event), sequence: record.sequence, reaches_back_to: None }).await
}

fn failed(error: &ReadError) -> ApiError {
    unavailable(format!("{error}; try again"))
}

/// The subjects that may match; the rest is told apart by body.
fn filter(request: &EventsRequest) -> String {
    let namespace = request.namespace.as_ref().map_or("*", |n| n.as_str());
    match &request.object {
        None => format!("ostler.v1.event.*.*.*.{namespace}.*.*"),
        Some(object) => match object.kind {
            // Those of its processes too.
            Kind::Deployment => format!("ostler.v1.event.*.*.*.{}.*.*", object.namespace_token()),
            // What happens on a node is told of processes and files.
            Kind::Node => ALL_EVENTS.to_owned(),
            kind => {
                format!("ostler.v1.event.*.*.{}.{}.{}.*", kind.lower(), object.namespace_token(), object.name)
            }
        },
    }
}

fn matches(request: &EventsRequest, event: &Event, at: Timestamp) -> bool {
    let object = request.object.as_ref().is_none_or(|o| is_about(o, event));
    let namespace = request.namespace.as_ref().is_none_or(|n| event.object.namespace.as_ref() == Some(n));
    // An object that was asked for by name is meant wherever it is.
    let namespace = namespace || request.object.is_some();
    let on_node = request.node.as_ref().is_none_or(|n| {
        event.node.as_ref() == Some(n)
            || (event.object.kind == Kind::Node && event.object.name.as_str() == n.as_str())
    });
    object && namespace && on_node && request.since.is_none_or(|since| at >= since)
}

fn is_about(object: &ObjectRef, event: &Event) -> bool {
    if event.object == *object {
        return true;
    }
    match object.kind {
        Kind::Deployment => event.object.kind == Kind::Process && is_process_of(object, &event.object),
        Kind::Node => event.node.as_ref().is_some_and(|n| n.as_str() == object.name.as_str()),
        _ => false,
    }
}

fn is_process_of(owner: &ObjectRef, process: &ObjectRef) -> bool {
    let tail = process.name.as_str().strip_prefix(owner.name.as_str());
    process.namespace == owner.namespace && tail.is_some_and(|t| t.len() == NAME_TAIL && t.starts_with('-'))
}
