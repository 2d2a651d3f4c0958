//! JetStream's API as JSON, and the two shapes of header lists.

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ostler_schemas::time::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::connect::{Link, REQUEST_TIMEOUT};
use crate::store::Headers;

/// No message is stored under the subject.
pub(super) const CODE_NO_MESSAGE: u64 = 10037;
/// The stream does not exist.
pub(super) const CODE_NO_STREAM: u64 = 10059;

/// The `error` of an answer.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ApiError {
    pub(super) code: u64,
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    pub(super) description: String,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.description, self.err_code)
    }
}

/// Why an API call has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    /// Not sent: there is no connection.
    #[error("not connected")]
    NotConnected,
    /// Nothing listens: no stream of that subject, or it has no leader.
    #[error("nothing answers {subject}")]
    NoResponders { subject: String },
    /// Sent, and no answer came.
    #[error("no answer to {subject}: {reason}")]
    Silence { subject: String, reason: String },
    /// Larger than the server takes; not sent.
    #[error("too large for the server: {reason}")]
    TooLarge { reason: String },
    /// The server said no.
    #[error("{0}")]
    Api(ApiError),
    /// The answer makes no sense.
    #[error("unreadable answer: {reason}")]
    Unreadable { reason: String },
}

/// Sends a request and waits for its one answer.
pub(super) async fn ask(
    link: &Link,
    subject: &str,
    headers: Option<HeaderMap>,
    body: Bytes,
) -> Result<async_nats::Message, CallError> {
    if !link.is_connected() {
        return Err(CallError::NotConnected);
    }
    let mut request = async_nats::Request::new().payload(body).timeout(Some(REQUEST_TIMEOUT));
    if let Some(headers) = headers {
        request = request.headers(headers);
    }
    let subject = subject.to_owned();
    link.client().send_request(subject.clone(), request).await.map_err(|error| {
        use async_nats::RequestErrorKind as Kind;
        match error.kind() {
            Kind::NoResponders => CallError::NoResponders { subject },
            Kind::MaxPayloadExceeded => CallError::TooLarge { reason: error.to_string() },
            Kind::InvalidSubject => CallError::Unreadable { reason: format!("{subject:?} is no subject") },
            Kind::TimedOut | Kind::Other => CallError::Silence { subject, reason: error.to_string() },
        }
    })
}

/// Calls `$JS.API.<method>`.
pub(super) async fn api<T: DeserializeOwned>(
    link: &Link,
    method: &str,
    body: &Value,
) -> Result<T, CallError> {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let answer = ask(link, &format!("$JS.API.{method}"), None, body).await?;
    parse(&answer.payload)
}

#[derive(Deserialize)]
struct MaybeError {
    error: Option<ApiError>,
}

/// An answer that is either an error or a `T`.
pub(super) fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CallError> {
    let unreadable = |e: serde_json::Error| CallError::Unreadable { reason: e.to_string() };
    let MaybeError { error } = serde_json::from_slice(payload).map_err(unreadable)?;
    match error {
        Some(error) => Err(CallError::Api(error)),
        None => serde_json::from_slice(payload).map_err(unreadable),
    }
}

/// Headers as the client sends them.
pub(super) fn header_map(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter() {
        map.insert(name, value);
    }
    map
}

/// Headers as a client received them, in the order of their names: the client's map has none. Only the first value of
/// a repeated header counts; nobody of ours repeats one.
pub(super) fn from_header_map(map: Option<&HeaderMap>) -> Headers {
    let mut pairs: Vec<(String, String)> = map
        .into_iter()
        .flat_map(HeaderMap::iter)
        .filter_map(|(name, values)| values.first().map(|v| (name.to_string(), v.to_string())))
        .collect();
    pairs.sort();
    let mut headers = Headers::new();
    for (name, value) in pairs {
        headers.set(&name, value);
    }
    headers
}

/// A header block as `STREAM.MSG.GET` returns it: base64 of the wire form.
fn from_wire(block: &str) -> Option<Headers> {
    let bytes = STANDARD.decode(block).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut headers = Headers::new();
    for line in text.lines().skip(1) {
        if let Some((name, value)) = line.split_once(':')
            && headers.get(name.trim()).is_none()
        {
            headers.set(name.trim(), value.trim());
        }
    }
    Some(headers)
}

/// A stored message.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) sequence: u64,
    pub(super) at: Timestamp,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
}

/// The answer of `STREAM.MSG.GET`.
#[derive(Deserialize)]
pub(super) struct MsgGet {
    message: RawStored,
}

#[derive(Deserialize)]
struct RawStored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: Option<String>,
    #[serde(default)]
    data: Option<String>,
    time: String,
}

impl MsgGet {
    pub(super) fn into_stored(self) -> Option<Stored> {
        let raw = self.message;
        Some(Stored {
            at: raw.time.parse().ok()?,
            headers: raw.hdrs.map_or(Some(Headers::new()), |h| from_wire(&h))?,
            body: raw.data.map_or(Some(Vec::new()), |d| STANDARD.decode(d).ok())?.into(),
            subject: raw.subject,
            sequence: raw.seq,
        })
    }
}

/// The answer of `STREAM.INFO`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: Value,
    pub(super) created: String,
    pub(super) state: StreamState,
}

/// Of [`StreamInfo`].
#[derive(Debug, Clone, Deserialize)]
pub(super) struct StreamState {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) last_seq: u64,
}

/// Asks for the state of a stream.
pub(super) async fn stream_info(link: &Link, stream: &str) -> Result<StreamInfo, CallError> {
    api(link, &format!("STREAM.INFO.{stream}"), &Value::Null).await
}
