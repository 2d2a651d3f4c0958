//! An operator: requests to the API as a person's tool sends them, with what was answered.
//!
//! An answer is one of done, refused, **unknown**: silence after somebody may have taken the request. Requests that
//! nobody took, and those refused because something is not ready, are repeated for a while.

use futures::StreamExt;
use ostler_bus::TopicRef;
use ostler_bus::memory::{MemoryBus, Party};
use ostler_bus::store::Headers;
use ostler_bus::topic::Outgoing;
use ostler_schemas::codec::{self, Wire};
use ostler_schemas::manifest::{encode_tree, read_documents};
use ostler_schemas::subject::{ApiSubject, Verb};
use ostler_schemas::v1::api::{
    ApiError, ApiErrorCode, ApplyReply, ApplyRequest, ChangeReply, ConfigOp, ConfigPush, ConfigReply,
    ConfigRequest, DeleteReply, DeleteRequest, GetRequest, ManifestDocument, NodeChange, NodeRequest,
    ScaleRequest, content_ref,
};
use ostler_schemas::v1::status::View;
use ostler_schemas::{Kind, Name, Namespace, ObjectRef, headers};
use serde_bytes::ByteBuf;
use tokio::time::{Duration, Instant};

/// How long one answer may take: longer than a controller needs to settle an unknown outcome.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long requests that nobody took are repeated.
const PERSISTENCE: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer<T> {
    /// It was carried out.
    Done(T),
    /// It was not, and will not be.
    Refused(ApiError),
    /// It may have been, or may yet be.
    Unknown(String),
}

impl<T> Answer<T> {
    /// The answer of a request that must succeed.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn done(self) -> T {
        match self {
            Answer::Done(answer) => answer,
            Answer::Refused(error) => panic!("refused: {error:?}"),
            Answer::Unknown(why) => panic!("unknown: {why}"),
        }
    }
}

/// A caller of the API.
#[derive(Clone)]
pub struct Operator {
    topic: TopicRef,
    name: Name,
}

/// The object with this kind and name in namespace `default`.
///
/// # Panics
/// If it is no name.
#[must_use]
pub fn object(kind: Kind, name: &str) -> ObjectRef {
    let namespace = (!kind.is_cluster_wide()).then(Namespace::default_namespace);
    ObjectRef { kind, namespace, name: name.parse().expect("a name") }
}

/// A Deployment whose processes serve, carry `rev` in their words and have a probed port.
#[must_use]
pub fn deployment(name: &str, replicas: u32, rev: u64) -> String {
    format!(
        "apiVersion: ostler/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  \
         template:\n    spec:\n      command: [/bin/serve]\n      args: [--rev, \"{rev}\"]\n      \
         ports: [{{name: http}}]\n      readinessProbe: {{tcpSocket: {{port: http}}, period: 1s}}\n"
    )
}

/// A ConfigFile at `/etc/<name>.conf` on every node.
#[must_use]
pub fn configfile(name: &str, content: &str) -> String {
    format!(
        "apiVersion: ostler/v1\nkind: ConfigFile\nmetadata: {{name: {name}}}\nspec:\n  path: /etc/{name}.conf\n  \
         nodeSelector: {{}}\n  content: \"{content}\"\n  onRemove: delete\n  rollout: {{waves: [100%]}}\n"
    )
}

enum Attempt {
    Bodies(Vec<bytes::Bytes>),
    Refused(ApiError),
    NotTaken(String),
    Silence(String),
}

impl Operator {
    /// Over a connection of its own. The party's name on the bus is `operator`.
    #[must_use]
    pub fn new(bus: &MemoryBus, name: Name) -> Self {
        Self { topic: bus.operator(&Party::new("operator"), &name), name }
    }

    async fn call<Q: Wire, R: Wire>(&self, verb: Verb, request: &Q) -> Answer<R> {
        let body = bytes::Bytes::from(codec::encode(request).expect("a request is encodable"));
        let deadline = Instant::now() + PERSISTENCE;
        loop {
            let why = match self.attempt(verb, body.clone()).await {
                Attempt::Bodies(bodies) => {
                    let last = bodies.last().map(|b| codec::decode(b));
                    return match last {
                        Some(Ok(answer)) => Answer::Done(answer),
                        Some(Err(error)) => Answer::Unknown(error.to_string()),
                        None => Answer::Unknown("an answer without a body".to_owned()),
                    };
                }
                Attempt::Refused(error) => match error.code {
                    ApiErrorCode::Unknown => return Answer::Unknown(error.message),
                    ApiErrorCode::Unavailable if Instant::now() < deadline => error.message,
                    ApiErrorCode::Unavailable
                    | ApiErrorCode::Refused
                    | ApiErrorCode::NotFound
                    | ApiErrorCode::Conflict
                    | ApiErrorCode::Forbidden
                    | ApiErrorCode::Invalid
                    | ApiErrorCode::Other => return Answer::Refused(error),
                },
                Attempt::NotTaken(why) => why,
                Attempt::Silence(why) => return Answer::Unknown(why),
            };
            if Instant::now() >= deadline {
                return Answer::Unknown(why);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt(&self, verb: Verb, body: bytes::Bytes) -> Attempt {
        let subject = ApiSubject { caller: self.name.clone(), verb, rest: None }.subject();
        let head = Headers::new().with(headers::CONTENT_TYPE, headers::MSGPACK);
        let message = Outgoing::new(subject, body).with_headers(head);
        let mut answers = match self.topic.request_many(message).await {
            Ok(answers) => answers,
            Err(error) => return Attempt::NotTaken(error.to_string()),
        };
        let mut bodies = Vec::new();
        loop {
            let Ok(Some(message)) = tokio::time::timeout(PATIENCE, answers.next()).await else {
                return Attempt::Silence("no answer in time".to_owned());
            };
            if message.status == Some(503) {
                return Attempt::NotTaken("nobody listens".to_owned());
            }
            let end = message.headers.get(headers::END).map(str::to_owned);
            match end.as_deref() {
                None => bodies.push(message.body),
                Some("error") => {
                    return codec::decode(&message.body)
                        .map_or_else(|error| Attempt::Silence(error.to_string()), Attempt::Refused);
                }
                Some(_) => {
                    if !message.body.is_empty() {
                        bodies.push(message.body);
                    }
                    return Attempt::Bodies(bodies);
                }
            }
        }
    }

    /// Applies a manifest, overriding what other verbs changed.
    pub async fn apply(&self, manifest: &str) -> Answer<ApplyReply> {
        let documents = read_documents(None, manifest.as_bytes());
        let documents = documents.iter().map(|document| ManifestDocument {
            file: None,
            tree: ByteBuf::from(encode_tree(document)),
            content: None,
        });
        let request = ApplyRequest {
            documents: documents.collect(),
            content: None,
            force: true,
            retry: false,
            dry_run: false,
            reason: None,
        };
        self.call(Verb::Apply, &request).await
    }

    /// Deletes an object.
    pub async fn delete(&self, object: ObjectRef) -> Answer<DeleteReply> {
        self.call(Verb::Delete, &DeleteRequest { object, force: false, reason: None }).await
    }

    /// Scales a Deployment.
    pub async fn scale(&self, object: ObjectRef, replicas: u32) -> Answer<ChangeReply> {
        self.call(Verb::Scale, &ScaleRequest { object, replicas, if_replicas: None, reason: None }).await
    }

    /// Pushes a content.
    pub async fn push(&self, name: &str, content: &[u8]) -> Answer<ConfigReply> {
        let push = ConfigPush {
            inline: Some(ByteBuf::from(content)),
            content: content_ref(content),
            is_template: false,
            path: None,
            node_selector: None,
            bake: None,
            waves: None,
            if_version: None,
            retry: false,
            reason: None,
        };
        let op = ConfigOp::Push(Box::new(push));
        let name = name.parse().expect("a name");
        self.call(Verb::Config, &ConfigRequest { name, namespace: Namespace::default_namespace(), op }).await
    }

    /// Cordons a node, or takes that back.
    pub async fn cordon(&self, node: &str, cordon: bool) -> Answer<ChangeReply> {
        let change = if cordon { NodeChange::Cordon } else { NodeChange::Uncordon };
        self.call(Verb::Node, &NodeRequest { node: node.to_owned(), change, reason: None }).await
    }

    /// An object with its status.
    pub async fn get(&self, kind: Kind, name: &str) -> Answer<View> {
        let request = GetRequest { kind, namespace: Namespace::default_namespace(), name: name.to_owned() };
        self.call(Verb::Get, &request).await
    }
}
