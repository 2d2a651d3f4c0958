//! The protocol of answers, against a scripted bus.

use std::sync::atomic::AtomicUsize;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use ostler_bus::Topic;
use ostler_bus::store::Headers;
use ostler_bus::topic::{LinkState, Message, Outgoing, RequestError, ServiceSpec, TopicError};
use ostler_schemas::v1::api::{ApiError, ApiErrorCode};
use ostler_schemas::{Namespace, headers};
use tokio::sync::watch;

use super::*;

/// Answers each request with the next script; the last one again and again.
pub(crate) struct Scripted {
    scripts: Vec<Vec<Message>>,
    next: AtomicUsize,
    heard: Mutex<Vec<Outgoing>>,
    link: watch::Sender<LinkState>,
}

pub(crate) fn part(seq: u64, end: Option<&str>, body: Vec<u8>) -> Message {
    let mut headers = Headers::new().with(headers::SEQ, seq.to_string());
    if let Some(end) = end {
        headers.set(headers::END, end);
    }
    Message { subject: "_INBOX.1".to_owned(), reply: None, headers, body: body.into(), status: None }
}

pub(crate) fn nobody() -> Message {
    Message { status: Some(503), ..part(1, None, Vec::new()) }
}

impl Topic for Scripted {
    fn publish(&self, _: Outgoing) -> BoxFuture<'_, Result<(), TopicError>> {
        Box::pin(async { Ok(()) })
    }

    fn subscribe<'a>(
        &'a self,
        _: &'a str,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Message>, TopicError>> {
        Box::pin(async { Ok(stream::empty().boxed()) })
    }

    fn request(&self, message: Outgoing, _: u64) -> BoxFuture<'_, Result<Message, RequestError>> {
        Box::pin(async move { Err(RequestError::Timeout { subject: message.subject }) })
    }

    fn request_many(
        &self,
        message: Outgoing,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        self.heard.lock().expect("not poisoned").push(message);
        let index = self.next.fetch_add(1, Ordering::Relaxed).min(self.scripts.len() - 1);
        // The stream of a real bus never ends by itself.
        let stream = stream::iter(self.scripts[index].clone()).chain(stream::pending()).boxed();
        Box::pin(async { Ok(stream) })
    }

    fn serve(&self, _: ServiceSpec) -> BoxFuture<'_, Result<BoxStream<'static, Message>, TopicError>> {
        Box::pin(async { Ok(stream::empty().boxed()) })
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.link.subscribe()
    }

    fn reconnect(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

pub(crate) fn client(scripts: Vec<Vec<Message>>) -> (Arc<Scripted>, Client) {
    let (link, _) = watch::channel(LinkState { connected: true, ..LinkState::default() });
    let topic =
        Arc::new(Scripted { scripts, next: AtomicUsize::new(0), heard: Mutex::new(Vec::new()), link });
    let entropy = Arc::new(ostler_bus::entropy::SeededEntropy::from_number(1));
    let caller = "anna".parse().expect("a name");
    let client = Client::new(topic.clone(), caller, "tls://x:4222".to_owned(), entropy);
    (topic, client)
}

pub(crate) fn bytes<T: Wire>(value: &T) -> Vec<u8> {
    codec::encode(value).expect("encodes")
}

fn error(code: ApiErrorCode) -> Vec<u8> {
    let (message, hint) = ("no such thing".to_owned(), Some("look again".to_owned()));
    bytes(&ApiError { code, message, hint, findings: Vec::new(), txn: None })
}

fn page(revision: u64, warning: Option<&str>) -> Vec<u8> {
    let warnings = warning.map(str::to_owned).into_iter().collect();
    bytes(&ListPage { items: Vec::new(), revision: Revision(revision), warnings })
}

fn all_nodes() -> ListRequest {
    ListRequest { kind: ostler_schemas::Kind::Node, namespace: None, labels: Vec::new(), names: Vec::new() }
}

fn delete_web() -> DeleteRequest {
    let object = ObjectRef {
        kind: ostler_schemas::Kind::Deployment,
        namespace: Some(Namespace::default_namespace()),
        name: "web".parse().expect("a name"),
    };
    DeleteRequest { object, force: false, reason: None }
}

#[tokio::test(start_paused = true)]
async fn pages_are_put_together() {
    let script = vec![
        part(1, None, page(7, Some("old"))),
        part(2, None, page(7, Some("old"))),
        part(3, Some("ok"), Vec::new()),
    ];
    let (topic, client) = client(vec![script]);
    let whole = client.list(&all_nodes()).await.expect("a list");
    assert_eq!((whole.revision, whole.warnings), (Revision(7), vec!["old".to_owned()]));
    assert_eq!(topic.heard.lock().expect("not poisoned")[0].subject, "api.anna.list");
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_an_error_and_never_a_shorter_answer() {
    let script = vec![part(1, None, page(7, None)), part(3, Some("ok"), Vec::new())];
    let failure = client(vec![script]).1.list(&all_nodes()).await.expect_err("refused");
    assert!(failure.to_string().contains("part 3 came after part 1"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_api_have_their_exit_codes_and_hints() {
    for (code, exit) in
        [(ApiErrorCode::NotFound, 1), (ApiErrorCode::Forbidden, 3), (ApiErrorCode::Unavailable, 4)]
    {
        let script = vec![part(1, Some("error"), error(code))];
        let failure = client(vec![script]).1.list(&all_nodes()).await.expect_err("refused");
        assert_eq!(failure.exit_code(), exit);
        assert_eq!(failure.text().expect("a text"), "error: no such thing\nnext:  look again");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_took_is_sent_again_until_somebody_does() {
    let answer = vec![part(1, Some("ok"), page(9, None))];
    let (topic, client) = client(vec![vec![nobody()], vec![nobody()], answer]);
    assert_eq!(client.list(&all_nodes()).await.expect("a list").revision, Revision(9));
    assert_eq!(topic.heard.lock().expect("not poisoned").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn no_controller_and_no_answer_are_told_apart() {
    let failure = client(vec![vec![nobody()]]).1.list(&all_nodes()).await.expect_err("silence");
    assert_eq!(failure.exit_code(), 4);
    assert!(failure.to_string().contains("the bus answers, but no controller does"), "{failure}");
    let (topic, client) = client(vec![Vec::new()]);
    let failure = client.delete(&delete_web()).await.expect_err("silence");
    assert_eq!(failure.exit_code(), 4);
    assert!(failure.to_string().contains("no answer within"), "{failure}");
    assert!(failure.text().is_some_and(|text| text.contains("(transaction ")), "{failure:?}");
    // Somebody may have taken it: every copy bears the same id, and all but the first say that they are copies.
    let heard = topic.heard.lock().expect("not poisoned").clone();
    assert!(heard.len() >= 3, "{}", heard.len());
    let ids: std::collections::BTreeSet<_> = heard.iter().map(|m| m.headers.get(headers::TXN)).collect();
    assert!(ids.len() == 1 && !ids.contains(&None), "{ids:?}");
    let again: Vec<bool> = heard.iter().map(|m| m.headers.get(headers::RESEND).is_some()).collect();
    assert!(!again[0] && again[1..].iter().all(|is| *is), "{again:?}");
    // A question may be asked again: another replica answers it.
    let answer = vec![part(1, Some("ok"), page(9, None))];
    let (_, client) = self::client(vec![Vec::new(), answer]);
    assert_eq!(client.list(&all_nodes()).await.expect("a list").revision, Revision(9));
}

#[tokio::test(start_paused = true)]
async fn reads_after_a_write_ask_for_its_revision() {
    let deleted = bytes(&DeleteReply {
        uid: ostler_schemas::Uid::from_bytes([1; 16]),
        gone: true,
        revision: Revision(42),
    });
    let scripts = vec![vec![part(1, Some("ok"), deleted)], vec![part(1, Some("ok"), page(42, None))]];
    let (topic, client) = client(scripts);
    client.delete(&delete_web()).await.expect("deleted");
    client.list(&all_nodes()).await.expect("a list");
    let heard = topic.heard.lock().expect("not poisoned");
    assert_eq!(heard[0].headers.get(headers::MIN_REVISION), None);
    assert_eq!(heard[1].headers.get(headers::MIN_REVISION), Some("42"));
}

#[tokio::test(start_paused = true)]
async fn losses_that_are_owned_up_to_are_counted() {
    let script = vec![part(1, None, b"line\n".to_vec()), part(2, Some("lost=3"), Vec::new())];
    let (_, client) = client(vec![script]);
    let request = LogsRequest {
        namespace: Namespace::default_namespace(),
        process: "web".to_owned(),
        follow: false,
        tail: None,
        of: ostler_schemas::v1::api::LogsOf::Process,
        filter: ostler_schemas::v1::api::LogFilter::default(),
        max_processes: None,
        paced: false,
    };
    let mut replies = client.logs(&request).await.expect("an answer");
    assert_eq!(replies.next().await.expect("a part").as_deref(), Some(&b"line\n"[..]));
    assert_eq!(replies.next().await.expect("the end"), None);
    assert_eq!(replies.lost, 3);
}
