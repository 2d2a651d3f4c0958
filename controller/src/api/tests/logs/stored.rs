//! Output that nodes have stored on the bus.

use ostler_schemas::v1::log_line::{LogStream, Note, Source, push, stamp};
use ostler_schemas::v1::stretch::Stretch;

use super::*;

fn line(at_ms: u64, stream: LogStream, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push(&mut out, &stamp(at_ms * 1_000), (Source::Process(stream), false), &[text.as_bytes()]);
    out
}

fn begins(at_ms: u64, uid: Uid, incarnation: u64) -> Vec<u8> {
    Note::Begins { uid, incarnation }.line(at_ms * 1_000)
}

/// Stores a part of the output of `process`, as the agent of n1 does.
async fn store(agent: &Caller, process: &str, (uid, from, to): (Uid, u64, u64), lines: &[Vec<u8>]) {
    let stretch = Stretch { uid, era: 1, from, to };
    let head = Headers::new().with(headers::STRETCH, stretch.to_string());
    let message = Outgoing::new(format!("put.node.log.n1.default.{process}"), Bytes::from(lines.concat()));
    agent.topic.request(message.with_headers(head), 5_000).await.expect("is stored");
}

/// Two incarnations, of which the second part came twice, and another process of the same name before it.
async fn told(agent: &Caller, process: &str, uid: Uid) {
    use LogStream::{Stderr, Stdout};
    let other = Uid::from_bytes([9; 16]);
    store(agent, process, (other, 0, 50), &[line(500, Stdout, "another's")]).await;
    store(agent, process, (uid, 50, 100), &[begins(1_000, uid, 1), line(1_001, Stdout, "one")]).await;
    let second = [line(1_002, Stderr, "two"), begins(2_000, uid, 2), line(2_001, Stdout, "three")];
    for _ in 0..2 {
        store(agent, process, (uid, 100, 200), &second).await;
    }
    store(agent, process, (uid, 250, 300), &[line(2_002, Stderr, "four")]).await;
}

/// What was said, by word, and what was noted.
async fn said(rig: &Rig, request: &LogsRequest) -> (Vec<String>, Vec<String>) {
    let text = read_all(&mut rig.operator("anna").ask(Verb::Logs, request).await).await;
    let (mut words, mut notes) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let line = ostler_schemas::v1::log_line::parse(line.as_bytes()).expect("a line");
        let text = String::from_utf8_lossy(line.text).into_owned();
        match line.source {
            Source::Process(_) => words.push(text),
            Source::Host => notes.push(text),
        }
    }
    (words, notes)
}

fn everything() -> LogsRequest {
    LogsRequest { tail: None, ..logs(false) }
}

#[tokio::test(start_paused = true)]
async fn the_output_of_a_lost_node_comes_from_the_stream() {
    let rig = placed(1).await;
    let uid = bind(&rig).await;
    told(&rig.agent("n1"), "p", uid).await;
    lose(&rig).await;
    let (words, notes) = said(&rig, &everything()).await;
    assert_eq!(words, ["one", "two", "three", "four"]);
    assert!(notes.iter().any(|note| note == "50 bytes are missing in the stream"), "{notes:?}");
    for (tail, expected) in
        [(1, &["four"][..]), (2, &["three", "four"]), (9, &["one", "two", "three", "four"])]
    {
        assert_eq!(said(&rig, &LogsRequest { tail: Some(tail), ..logs(false) }).await.0, expected);
    }
    assert_eq!(said(&rig, &LogsRequest { tail: Some(0), ..logs(false) }).await.0, [""; 0]);
    let filtered = |filter| LogsRequest { filter, ..everything() };
    let stderr = LogFilter { stream: Some(LogStream::Stderr), ..LogFilter::default() };
    assert_eq!(said(&rig, &filtered(stderr)).await.0, ["two", "four"]);
    let time = |ms| Some(ostler_schemas::time::Timestamp(ms));
    let middle = LogFilter { since: time(1_002), until: time(2_002), ..LogFilter::default() };
    assert_eq!(said(&rig, &filtered(middle)).await.0, ["two", "three"]);
    let previous = LogFilter { previous: true, ..LogFilter::default() };
    assert_eq!(said(&rig, &filtered(previous)).await.0, ["one", "two"]);
    // A selection gets it too.
    let all = LogsRequest { of: LogsOf::Selected(Vec::new()), ..everything() };
    assert_eq!(said(&rig, &all).await.0, ["one", "two", "three", "four"]);
}

#[tokio::test(start_paused = true)]
async fn the_output_of_a_process_that_is_gone_comes_from_the_stream() {
    let rig = placed(1).await;
    let gone = Uid::from_bytes([3; 16]);
    told(&rig.agent("n1"), "gone", gone).await;
    let request = LogsRequest { process: "gone".to_owned(), ..everything() };
    assert_eq!(said(&rig, &request).await.0, ["one", "two", "three", "four"]);
    // Said before anything else.
    let mut answer = rig.operator("anna").ask(Verb::Logs, &request).await;
    let first = answer.0.next().await.expect("an answer");
    let message = first.headers.get(headers::MESSAGE).expect("a note");
    assert!(message.starts_with("gone is gone: this is what node n1 has stored of it"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_node_may_only_store_under_its_own_name() {
    let rig = placed(1).await;
    let agent = rig.agent("n1");
    let message = Outgoing::new("put.node.log.n2.default.p", Bytes::from_static(b"x"));
    assert!(agent.topic.request(message, 1_000).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_says_how_far_it_has_read_is_not_sent_more_than_a_window() {
    let rig = placed(1).await;
    let (agent, anna) = (rig.agent("n1"), rig.operator("anna"));
    let gone = Uid::from_bytes([3; 16]);
    for n in 0..200 {
        let lines = [line(1_000 + n, LogStream::Stdout, &n.to_string())];
        store(&agent, "gone", (gone, n * 10, n * 10 + 10), &lines).await;
    }
    let request = LogsRequest { process: "gone".to_owned(), paced: true, ..everything() };
    let id = "0123456789abcdef0123456789abcdef";
    let head = Headers::new().with(headers::TXN, id);
    let body = codec::encode(&request).expect("encodes");
    let message = Outgoing::new("api.anna.logs", body).with_headers(head);
    let mut answer = anna.topic.request_many(message).await.expect("sends");
    let (mut read, mut bodies) = (0u64, 0);
    loop {
        // All that comes by itself; keep-alives come every five seconds.
        while let Ok(message) = tokio::time::timeout(std::time::Duration::from_secs(2), answer.next()).await {
            let message = message.expect("the stream never ends by itself");
            read += 1;
            bodies += u64::from(!message.body.is_empty());
            if message.headers.get(headers::END).is_some() {
                assert_eq!(bodies, 200);
                return;
            }
        }
        assert!(read > 0 && read.is_multiple_of(ostler_schemas::v1::api::LOGS_WINDOW), "{read}");
        let head = Headers::new().with(headers::SEQ, read.to_string());
        let told = Outgoing::new(format!("api.anna.relay.{id}"), Bytes::new()).with_headers(head);
        anna.topic.publish(told).await.expect("sends");
    }
}
