//! What agents do through imports.

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use ostler_schemas::hash::sha256;
use ostler_schemas::headers as names;
use ostler_schemas::spec::ContentRef;
use ostler_schemas::subject::Hint;
use ostler_schemas::{DocumentKind, Key};

use super::context::{Context, create, delete, node, put, stays_quiet};
use super::{Verdict, ensure, ensure_eq, list_cases, must};
use crate::node_link::Hinted;
use crate::store::{CommitError, Expect, Guard, Headers};
use crate::topic::{Outgoing, RequestError, TopicRef};

list_cases![
    documents_by_direct_get,
    deleted_documents_are_markers,
    templates_by_hash,
    blobs_by_hash,
    reports_are_guarded,
    hints_reach_their_node,
    other_nodes_documents_are_denied,
    other_nodes_subjects_are_denied,
    other_nodes_hints_are_denied,
    report_headers_are_harmless,
];

async fn documents_by_direct_get(c: &Context) -> Verdict {
    let revision = c.document((0, DocumentKind::Run), "first").await?;
    loop {
        // A replica may lag; it must catch up.
        let stored = must("get", c.link.get_document(DocumentKind::Run).await)?;
        match stored {
            Some(stored) if stored.revision == revision => {
                ensure_eq!(stored.value, Some(Bytes::from_static(b"first")), "value");
                ensure!(stored.headers.get(names::TXN).is_some(), "its headers are lost");
                return Ok(());
            }
            Some(_) | None => c.clock.sleep_ms(10).await,
        }
    }
}

async fn deleted_documents_are_markers(c: &Context) -> Verdict {
    let revision = c.document((0, DocumentKind::Files), "gone soon").await?;
    let key = Key::NodeDocument(node(0)?, DocumentKind::Files);
    let gone = c.done(vec![delete(&key, revision)]).await?.last;
    loop {
        let stored = must("get", c.link.get_document(DocumentKind::Files).await)?;
        match stored {
            Some(stored) if stored.revision == gone => {
                ensure_eq!(stored.value, None, "value");
                return Ok(());
            }
            Some(_) | None => c.clock.sleep_ms(10).await,
        }
    }
}

async fn templates_by_hash(c: &Context) -> Verdict {
    let body = format!("template {}", c.uid());
    let hash = sha256(body.as_bytes());
    c.done(vec![create(&Key::Template(hash), &body)]).await?;
    loop {
        match c.link.get_template(hash).await {
            Ok(bytes) => {
                ensure_eq!(bytes, Bytes::from(body), "bytes");
                return Ok(());
            }
            Err(error) if error.retryable() => c.clock.sleep_ms(10).await,
            Err(error) => return Err(error.to_string()),
        }
    }
}

async fn blobs_by_hash(c: &Context) -> Verdict {
    let whole = format!("first half, second half {}", c.uid());
    let hash = sha256(whole.as_bytes());
    let (head, tail) = whole.split_at(12);
    c.done(vec![create(&Key::BlobChunk(hash, 0), head)]).await?;
    c.done(vec![create(&Key::BlobChunk(hash, 1), tail)]).await?;
    let content = ContentRef { sha256: hash, size: whole.len() as u64 };
    loop {
        match c.link.get_blob(&content).await {
            Ok(bytes) => {
                ensure_eq!(bytes, Bytes::from(whole), "bytes");
                return Ok(());
            }
            Err(error) if error.retryable() => c.clock.sleep_ms(10).await,
            Err(error) => return Err(error.to_string()),
        }
    }
}

async fn reports_are_guarded(c: &Context) -> Verdict {
    let key = Key::Report(node(0)?);
    let expect = c.last_of(&key).await?;
    let report = |body: &'static str, expect| {
        let headers = Headers::new().with(names::MESSAGE, "a report");
        c.link.put_report(Bytes::from_static(body.as_bytes()), headers, expect)
    };
    let first = must("report", report("1", expect).await)?;
    ensure_eq!(report("2", expect).await, Err(CommitError::Conflict), "over an old revision");
    let second = must("report", report("2", Expect::Revision(first)).await)?;
    let entry = c.get(&key).await?.ok_or("no report")?;
    ensure_eq!((entry.revision, entry.value().cloned()), (second, Some(Bytes::from_static(b"2"))), "stored");
    ensure_eq!(entry.headers.get(names::MESSAGE), Some("a report"), "header");
    Ok(())
}

/// Writes until the node is told: between servers of a cluster its interest travels on its own.
async fn hinted_at_all(c: &Context, hints: &mut BoxStream<'static, Hinted>) -> Verdict {
    loop {
        c.document((0, DocumentKind::Files), "early").await?;
        tokio::select! {
            biased;
            hinted = hints.next() => return hinted.map(drop).ok_or_else(|| "no more hints".to_owned()),
            () = c.clock.sleep_ms(100) => {}
        }
    }
}

async fn hints_reach_their_node(c: &Context) -> Verdict {
    let mut hints = must("hints", c.link.hints().await)?;
    let mut others = must("hints", c.other_link.hints().await)?;
    hinted_at_all(c, &mut hints).await?;
    let first = c.document((0, DocumentKind::Run), "1").await?;
    let second = c.document((0, DocumentKind::Run), "2").await?;
    for revision in [first, second] {
        let hinted = loop {
            let hinted = hints.next().await.ok_or("no more hints")?;
            if hinted.hint != Hint::Document(DocumentKind::Files) {
                break hinted;
            }
        };
        ensure_eq!(hinted.hint, Hint::Document(DocumentKind::Run), "what it is about");
        ensure_eq!(hinted.revision, Some(revision), "revision");
        ensure!(revision == first || hinted.previous == Some(first), "previous: {:?}", hinted.previous);
    }
    let ask = Outgoing::new(Hint::Ask.subject(&node(0)?), Bytes::new());
    let hinted = loop {
        must("ask", c.topic.publish(ask.clone()).await)?;
        tokio::select! {
            biased;
            hinted = hints.next() => break hinted.ok_or("no more hints")?,
            () = c.clock.sleep_ms(100) => {}
        }
    };
    ensure_eq!(hinted.hint, Hint::Ask, "what it is about");
    ensure!(stays_quiet(&mut others).await, "another node got the hints");
    Ok(())
}

/// Waits until the party has been told of an error.
async fn protested(c: &Context, topic: &TopicRef, before: u64) {
    while topic.link().borrow().errors <= before {
        c.clock.sleep_ms(10).await;
    }
}

/// A request that may not be made: silence for the requester, an error on its connection.
async fn denied(c: &Context, subject: &str) -> Verdict {
    let before = c.agent.link().borrow().errors;
    match c.agent.request(Outgoing::new(subject, Bytes::new()), 500).await {
        Err(RequestError::Timeout { .. }) => {}
        other => return Err(format!("{subject}: found {other:?}, expected silence")),
    }
    protested(c, &c.agent, before).await;
    Ok(())
}

async fn other_nodes_documents_are_denied(c: &Context) -> Verdict {
    c.document((1, DocumentKind::Run), "secret").await?;
    denied(c, &format!("get.doc.{}.run", node(1)?)).await
}

async fn other_nodes_subjects_are_denied(c: &Context) -> Verdict {
    let other = node(1)?;
    for subject in [
        format!("put.report.{other}"),
        format!("beat.{other}"),
        format!("api.{other}.get"),
        format!("put.event.{other}.node._.x.Ready"),
        "$JS.API.INFO".to_owned(),
        format!("$KV.ostler.n.{other}.run"),
    ] {
        denied(c, &subject).await?;
    }
    Ok(())
}

async fn other_nodes_hints_are_denied(c: &Context) -> Verdict {
    let before = c.agent.link().borrow().errors;
    let subject = format!("push.{}.>", node(1)?);
    // Refusing at once would be right too.
    let Ok(mut spied) = c.agent.subscribe(&subject, None).await else { return Ok(()) };
    protested(c, &c.agent, before).await;
    c.document((1, DocumentKind::Run), "x").await?;
    ensure!(
        tokio::time::timeout(super::context::QUIET, futures::StreamExt::next(&mut spied))
            .await
            .ok()
            .flatten()
            .is_none(),
        "another node's hint arrived"
    );
    Ok(())
}

async fn report_headers_are_harmless(c: &Context) -> Verdict {
    let (mine, other) = (Key::Report(node(0)?), Key::Report(node(1)?));
    c.done(vec![put(&other, Guard::Own(c.last_of(&other).await?), "kept")]).await?;
    for (name, value) in [("Nats-Rollup", "all"), ("Nats-TTL", "1s"), ("Nats-Batch-Id", "squat")] {
        let expect = c.last_of(&mine).await?;
        let mut headers = Headers::new().with(name, value);
        if name == "Nats-Batch-Id" {
            headers = headers.with("Nats-Batch-Sequence", "1").with("Nats-Batch-Commit", "1");
        }
        match c.link.put_report(Bytes::from_static(b"x"), headers, expect).await {
            Err(CommitError::Refused { retryable: false, .. }) => {}
            found => return Err(format!("{name}: found {found:?}, expected a refusal for good")),
        }
    }
    let entry = c.get(&other).await?.ok_or("another node's report is gone")?;
    ensure_eq!(entry.value().cloned(), Some(Bytes::from_static(b"kept")), "another node's report");
    Ok(())
}
