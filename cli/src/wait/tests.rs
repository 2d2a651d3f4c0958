//! A wait goes by how things stand, through the loss of whoever tells.

use ostler_schemas::Kind;
use ostler_schemas::v1::api::{ApiError, ApiErrorCode};

use super::*;
use crate::client::tests::{bytes, client, nobody, part};

fn nodes() -> ListRequest {
    ListRequest { kind: Kind::Node, namespace: None, labels: Vec::new(), names: Vec::new() }
}

fn synced() -> Vec<u8> {
    bytes(&WatchMessage { change: None, view: None })
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_is_opened_again() {
    let error = ApiError {
        code: ApiErrorCode::Unavailable,
        message: "another leads".to_owned(),
        hint: None,
        findings: Vec::new(),
        txn: None,
    };
    let scripts = vec![
        vec![part(1, None, synced()), part(2, Some("error"), bytes(&error))],
        vec![nobody()],
        vec![part(1, None, synced())],
    ];
    let (_, client) = client(scripts);
    let (mut out, _, talk) = Out::captured();
    let mut looks = 0;
    let result = until(&client, nodes(), Duration::from_secs(60), &mut out, |_, _| {
        looks += 1;
        Ok(if looks == 2 { Verdict::Reached } else { Verdict::NotYet("1 of 2".to_owned()) })
    })
    .await;
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(talk.text(), "warning: another leads; still waiting\n");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_patience_says_what_is_missing() {
    let (_, client) = client(vec![vec![part(1, None, synced())]]);
    let (mut out, _, _) = Out::captured();
    let result = until(&client, nodes(), Duration::from_secs(5), &mut out, |_, _| {
        Ok(Verdict::NotYet("1 of 2 ready".to_owned()))
    })
    .await;
    let failure = result.expect_err("not reached");
    assert_eq!(failure.exit_code(), 2);
    assert_eq!(failure.to_string(), "timed out after 5s: 1 of 2 ready");
}

#[tokio::test(start_paused = true)]
async fn failure_ends_the_wait_at_once() {
    let (_, client) = client(vec![vec![part(1, None, synced())]]);
    let (mut out, _, _) = Out::captured();
    let result = until(&client, nodes(), Duration::from_secs(3600), &mut out, |_, _| {
        Ok(Verdict::Failed("rolled back".to_owned()))
    })
    .await;
    assert_eq!(result.expect_err("failed").to_string(), "rolled back");
}
