//! `decode`: a message body from standard input as JSON, for the stock NATS tools.
//!
//! Kinds that this version knows are decoded by their types, so that times and hashes are readable; others by their
//! names alone. A body that is no envelope is shown as the text or bytes that it is. Nothing makes it fail but its own
//! reading and writing: it runs once for every message of somebody's stream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ostler_schemas::codec::{self, Wire};
use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::subject::EventSubject;
use ostler_schemas::v1::{api, beat, document, epoch, event, object, process, report, state, status};
use serde_json::{Map, Value, json};

use crate::args::local::Decode;
use crate::failure::Failure;
use crate::manifests::standard_input;
use crate::out::Out;
use crate::render::form::pretty;

/// Runs it.
///
/// # Errors
/// When standard input cannot be read.
pub fn run(args: &Decode, out: &mut Out) -> Result<(), Failure> {
    let bytes = standard_input()?;
    let mut value = body(&bytes);
    if let Some(subject) = &args.subject {
        let mut whole = Map::new();
        whole.insert("subject".to_owned(), json!(subject));
        if let Some(told) = EventSubject::parse(subject) {
            whole.insert("object".to_owned(), json!(told.object.to_string()));
            whole.insert("reason".to_owned(), json!(told.reason));
        }
        match value {
            Value::Object(fields) => whole.extend(fields),
            other => {
                whole.insert("body".to_owned(), other);
            }
        }
        value = Value::Object(whole);
    }
    if args.compact { out.line(&value.to_string()) } else { out.data(&pretty(&value)) }
}

/// A body as JSON.
#[must_use]
pub fn body(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    match codec::inspect(bytes) {
        Ok((schema, kind, raw)) => {
            let body = typed(&kind, bytes).unwrap_or_else(|| plain(&raw));
            json!({"v": schema, "kind": kind, "body": body})
        }
        Err(_) => match std::str::from_utf8(bytes) {
            Ok(text) => serde_json::from_str(text).unwrap_or_else(|_| json!({ "text": text })),
            Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
        },
    }
}

macro_rules! kinds {
    ($kind:expr, $bytes:expr; $($type:ty),+ $(,)?) => {
        match $kind {
            $(kind if kind == <$type as Wire>::KIND => decode::<$type>($bytes),)+
            _ => None,
        }
    };
}

fn typed(kind: &str, bytes: &[u8]) -> Option<Value> {
    kinds!(kind, bytes;
        object::Object, object::SpecRevision, status::View, status::DeploymentStatus, status::ConfigFileStatus,
        process::ProcessSpecRecord, process::ProcessTemplateRecord, process::BindRecord, process::GoalRecord,
        ProcessTemplate, document::RunDocument, document::FilesDocument, document::FileSpec, report::Report,
        beat::Beat, beat::BeatReply, epoch::Lease, epoch::Term, epoch::Fence, epoch::Incarnation, epoch::Beacon,
        event::Event, event::AuditRecord, state::NodeState, state::RolloutState, state::PendingState,
        api::ApplyReply, api::GetRequest, api::ListRequest, api::ListPage, api::WatchRequest, api::WatchMessage,
        api::DeleteRequest, api::DeleteReply, api::ScaleRequest, api::ConfigRequest, api::RolloutRequest,
        api::RolloutReply, api::EventsRequest, api::EventRecord, api::NodeRequest, api::PutRequest,
        api::ChangeReply, api::LogsRequest, api::BlobReply, api::RegisterRequest, api::RegisterReply,
        api::AsksRequest, api::AsksReply, api::ApiError, api::VersionReply,
    )
}

fn decode<T: Wire>(bytes: &[u8]) -> Option<Value> {
    codec::decode::<T>(bytes).ok().and_then(|value| serde_json::to_value(value).ok())
}

/// MessagePack as JSON: bytes as hexadecimal if they are short (ids and hashes), else as base64.
fn plain(value: &rmpv::Value) -> Value {
    match value {
        rmpv::Value::Nil => Value::Null,
        rmpv::Value::Boolean(flag) => json!(flag),
        rmpv::Value::Integer(number) => {
            number.as_u64().map_or_else(|| json!(number.as_i64()), |unsigned| json!(unsigned))
        }
        rmpv::Value::F32(number) => json!(number),
        rmpv::Value::F64(number) => json!(number),
        rmpv::Value::String(text) => text.as_str().map_or(Value::Null, |t| json!(t)),
        rmpv::Value::Binary(bytes) | rmpv::Value::Ext(_, bytes) => {
            if bytes.len() <= 32 {
                json!(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
            } else {
                json!({ "base64": STANDARD.encode(bytes) })
            }
        }
        rmpv::Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        rmpv::Value::Map(pairs) => {
            let entry = |(key, value): &(rmpv::Value, rmpv::Value)| {
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                (key, plain(value))
            };
            Value::Object(pairs.iter().map(entry).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_null_and_anything_else_is_shown() {
        assert_eq!(body(b""), Value::Null);
        assert_eq!(body(b"hello"), json!({"text": "hello"}));
        assert_eq!(body(br#"{"a":1}"#), json!({"a": 1}));
        assert_eq!(body(&[0xff, 0xfe]), json!({"base64": "//4="}));
    }

    #[test]
    fn known_kinds_have_readable_times_and_unknown_ones_their_fields() {
        let lease = epoch::Incarnation { n: 3 };
        let bytes = codec::encode(&lease).expect("encodes");
        assert_eq!(body(&bytes)["kind"], json!("Incarnation"));
        let raw = rmpv::Value::Map(vec![
            (rmpv::Value::from("v"), rmpv::Value::from(2)),
            (rmpv::Value::from("kind"), rmpv::Value::from("Later")),
            (
                rmpv::Value::from("body"),
                rmpv::Value::Map(vec![(rmpv::Value::from("id"), rmpv::Value::Binary(vec![1, 255]))]),
            ),
        ]);
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &raw).expect("encodes");
        assert_eq!(body(&bytes), json!({"v": 2, "kind": "Later", "body": {"id": "01ff"}}));
    }
}
