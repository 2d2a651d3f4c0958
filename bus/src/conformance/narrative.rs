//! Events and audit records.

use bytes::Bytes;
use futures::stream::StreamExt;
use ostler_schemas::headers as names;
use ostler_schemas::key::ObjectRef;
use ostler_schemas::subject::{
    ALL_EVENTS, AUDIT_STREAM, EVENTS_STREAM, EventSource, EventSubject, LOGS_STREAM, LogSubject,
};
use ostler_schemas::{Kind, Namespace};

use super::context::{Context, node};
use super::{Verdict, ensure, ensure_eq, list_cases, must};
use crate::store::{CommitError, Headers};

list_cases![
    records_are_appended_in_order,
    records_are_filtered,
    records_are_followed,
    nodes_events_are_stored,
    nodes_output_is_stored,
    records_without_a_stream_are_refused,
];

/// An event's subject that no other case uses.
fn event(c: &Context, source: EventSource, reason: &str) -> Result<EventSubject, String> {
    let name = must("a name", format!("c-{}", c.uid()).parse())?;
    let object = ObjectRef { kind: Kind::Process, namespace: Some(Namespace::default_namespace()), name };
    Ok(EventSubject { source, object, reason: reason.to_owned() })
}

async fn append(c: &Context, subject: &str, body: &'static str) -> Result<u64, String> {
    let headers = Headers::new().with(names::MESSAGE, "it happened");
    must("append", c.store.append(subject, headers, Bytes::from_static(body.as_bytes())).await)
}

async fn records_are_appended_in_order(c: &Context) -> Verdict {
    let subject = event(c, EventSource::Api, "Created")?.to_string();
    let first = append(c, &subject, "1").await?;
    let second = append(c, &subject, "2").await?;
    ensure!(second > first, "sequences do not rise");
    let found: Vec<_> = c.store.records(EVENTS_STREAM, &subject, first, false).collect().await;
    let mut bodies = Vec::new();
    for record in found {
        let record = must("records", record)?;
        ensure_eq!(record.subject, subject, "subject");
        ensure_eq!(record.headers.get(names::MESSAGE), Some("it happened"), "header");
        bodies.push((record.sequence, record.body));
    }
    ensure_eq!(bodies, [(first, Bytes::from_static(b"1")), (second, Bytes::from_static(b"2"))], "records");
    let later: Vec<_> = c.store.records(EVENTS_STREAM, &subject, second, false).collect().await;
    ensure_eq!(later.len(), 1, "records from the second on");
    Ok(())
}

async fn records_are_filtered(c: &Context) -> Verdict {
    let wanted = event(c, EventSource::Api, "Created")?;
    let first = append(c, &wanted.to_string(), "1").await?;
    append(c, &event(c, EventSource::Api, "Created")?.to_string(), "2").await?;
    let filter = format!("ostler.v1.event.*.*.*.*.{}.*", wanted.object.name);
    let found: Vec<_> = c.store.records(EVENTS_STREAM, &filter, first, false).collect().await;
    ensure_eq!(found.len(), 1, "records");
    let none: Vec<_> =
        c.store.records(AUDIT_STREAM, "ostler.v1.audit.nobody.get.intent", 1, false).collect().await;
    ensure_eq!(none.len(), 0, "records of nobody");
    Ok(())
}

async fn records_are_followed(c: &Context) -> Verdict {
    let subject = event(c, EventSource::Api, "Created")?.to_string();
    let first = append(c, &subject, "1").await?;
    let mut records = c.store.records(EVENTS_STREAM, ALL_EVENTS, first, true);
    for body in ["1", "2"] {
        if body == "2" {
            append(c, &subject, "2").await?;
        }
        let record = must("records", records.next().await.ok_or("they ended")?)?;
        ensure_eq!(record.body, Bytes::from_static(body.as_bytes()), "body");
    }
    Ok(())
}

async fn nodes_events_are_stored(c: &Context) -> Verdict {
    // The source that the node claims does not matter: the bus says which node it was.
    let claimed = event(c, EventSource::Node(node(1)?), "Started")?;
    let mut records = c.store.records(EVENTS_STREAM, ALL_EVENTS, 1, true);
    must("publish", c.link.publish_event(&claimed, Headers::new(), Bytes::from_static(b"e")).await)?;
    let expected = EventSubject { source: EventSource::Node(node(0)?), ..claimed }.to_string();
    loop {
        let record = must("records", records.next().await.ok_or("they ended")?)?;
        if record.subject == expected {
            ensure_eq!(record.body, Bytes::from_static(b"e"), "body");
            return Ok(());
        }
    }
}

async fn nodes_output_is_stored(c: &Context) -> Verdict {
    let process = must("a name", format!("c-{}", c.uid()).parse())?;
    let namespace = Namespace::default_namespace();
    let subject = LogSubject { node: node(0)?, namespace: namespace.clone(), process };
    for body in ["1", "2"] {
        let headers = Headers::new().with(names::STRETCH, body);
        must("ship", c.link.ship_log(&subject, headers, Bytes::from_static(body.as_bytes())).await)?;
    }
    let filter = LogSubject::of_any_node(&namespace, &subject.process);
    let records: Vec<_> = c.store.records(LOGS_STREAM, &filter, 1, false).collect().await;
    let mut bodies = Vec::new();
    for record in records {
        let record = must("records", record)?;
        ensure_eq!(LogSubject::parse(&record.subject), Some(subject.clone()), "whose it is");
        let stretch = record.headers.get(names::STRETCH).map(str::to_owned);
        ensure_eq!(stretch.as_deref().map(str::as_bytes), Some(&record.body[..]), "header");
        bodies.push(record.body);
    }
    ensure_eq!(bodies, vec![Bytes::from_static(b"1"), Bytes::from_static(b"2")], "bodies");
    let other = LogSubject { node: node(1)?, ..subject };
    let before = c.agent.link().borrow().errors;
    let found = c.link.ship_log(&other, Headers::new(), Bytes::new());
    let found = tokio::time::timeout(super::context::QUIET, found).await;
    ensure!(!matches!(found, Ok(Ok(_))), "output of another node was stored");
    while c.agent.link().borrow().errors <= before {
        c.clock.sleep_ms(10).await;
    }
    Ok(())
}

async fn records_without_a_stream_are_refused(c: &Context) -> Verdict {
    match c.store.append("ostler.v1.nothing.here", Headers::new(), Bytes::new()).await {
        Err(CommitError::Refused { .. }) => Ok(()),
        other => Err(format!("found {other:?}, expected a refusal")),
    }
}
