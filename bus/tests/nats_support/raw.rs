//! A client without manners: any subject, any reply, any header, under a party's real key.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, Event, HeaderMap, Message, ServerError};
use bytes::Bytes;
use futures::StreamExt as _;
use ostler_bus::layout::Identity;

use super::{PATIENCE, Rig};

pub(crate) struct Raw {
    pub(crate) client: Client,
    inbox: String,
    errors: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    /// Through any server.
    pub(crate) async fn new(rig: &Rig, identity: Identity) -> Raw {
        Raw::through(rig, identity, rig.local.config(Identity::View).servers).await
    }

    /// Through one of these servers.
    pub(crate) async fn through(rig: &Rig, identity: Identity, servers: Vec<String>) -> Raw {
        let config = rig.local.config(identity);
        let seed = std::fs::read_to_string(&config.credentials).expect("a key").trim().to_owned();
        let errors: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = errors.clone();
        let inbox = config.identity.inbox_prefix();
        let client = async_nats::ConnectOptions::with_nkey(seed)
            .add_root_certificates(config.ca)
            .custom_inbox_prefix(&inbox)
            .event_callback(move |event| {
                if let Event::ServerError(ServerError::Other(text)) = event {
                    heard.lock().expect("no panic").push(text);
                }
                async {}
            })
            .connect(servers)
            .await
            .expect("a connection");
        Raw { client, inbox, errors }
    }

    /// Sends, as it is.
    pub(crate) async fn send(&self, subject: &str, reply: &str, headers: HeaderMap, body: &str) {
        let body = Bytes::from(body.to_owned());
        self.client
            .publish_with_reply_and_headers(subject.to_owned(), reply.to_owned(), headers, body)
            .await
            .expect("sent");
    }

    /// A request that must be answered. Between servers of a cluster interest travels on its own, so a service that has
    /// just begun may not be known everywhere: such a request is sent again.
    pub(crate) async fn ask(&self, subject: &str, headers: HeaderMap, body: &str) -> Message {
        let answered = async {
            loop {
                let request = async_nats::Request::new()
                    .headers(headers.clone())
                    .payload(body.to_owned().into())
                    .timeout(Some(PATIENCE));
                match self.client.send_request(subject.to_owned(), request).await {
                    Ok(message) => return message,
                    Err(e) if e.kind() == async_nats::RequestErrorKind::NoResponders => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    Err(e) => panic!("{subject}: {e}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("{subject}: nobody answers"))
    }

    /// Whether the server has refused, in these words, something that this client did.
    async fn was_told(&self, what: &str) -> bool {
        // The server answers in order: after this round trip it has said what it had to say.
        let echo = format!("{}.echo", self.inbox);
        let mut heard = self.client.subscribe(echo.clone()).await.expect("own inbox");
        self.client.publish(echo, Bytes::new()).await.expect("own inbox");
        tokio::time::timeout(PATIENCE, heard.next()).await.expect("an echo");
        // The client hands errors over in a task of its own.
        let told = async {
            while !self.errors.lock().expect("no panic").iter().any(|e| e.contains(what)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), told).await.is_ok()
    }

    /// Publishing there is refused.
    pub(crate) async fn cannot_publish(&self, subject: &str) {
        self.send(subject, &format!("{}.x", self.inbox), HeaderMap::new(), "{}").await;
        let what = format!("Publish to \"{subject}\"");
        // The client library turns the text to lower case in some versions; both spellings count.
        assert!(self.was_told(&what).await, "{} could publish to {subject}: {:?}", self.inbox, self.errors);
    }

    /// Subscribing there is refused.
    pub(crate) async fn cannot_subscribe(&self, subject: &str) {
        let subscriber = self.client.subscribe(subject.to_owned()).await.expect("sent");
        let what = format!("Subscription to \"{subject}\"");
        assert!(self.was_told(&what).await, "{} could subscribe to {subject}: {:?}", self.inbox, self.errors);
        drop(subscriber);
    }
}

pub(crate) fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.insert(*name, *value);
    }
    map
}
