//! Streams: created where they are missing, verified where they exist, repaired where the server allows it.
//!
//! Guarantees: idempotent, and safe while other replicas do the same; a byte limit or a number of copies is never
//! lowered; a flag that is wrong and cannot be repaired is an error, because on the flags rests that agents cannot
//! wipe each other's reports.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::connect::{Bus, Link};
use super::wire::{self, CODE_NO_STREAM, CallError};
use crate::layout::{Scale, StreamSpec, streams};

/// The oldest server whose batches, guards and replicated syncs are as this program needs them.
const OLDEST: (u64, u64) = (2, 15);
/// Pause between attempts while a cluster is still finding itself.
const RETRY: Duration = Duration::from_millis(100);
/// The stream exists with another configuration: somebody else has just created it.
const CODE_NAME_IN_USE: u64 = 10058;
/// Too few servers for the copies: the others may still be joining.
const CODE_NO_PEERS: u64 = 10005;
/// What a stream must not have unless it is wanted.
const UNWANTED: [&str; 6] =
    ["republish", "mirror", "sources", "subject_transform", "subject_delete_marker_ttl", "persist_mode"];
/// What only grows.
const GROWING: [&str; 2] = ["num_replicas", "max_bytes"];

/// Why the streams are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The server is too old.
    #[error(
        "nats-server {found} is too old: 2.15 or newer is needed, for guarded batches and grouped syncs of \
         replicated streams; upgrade the servers"
    )]
    TooOld {
        /// Its version.
        found: String,
    },
    /// No answer within the caller's patience.
    #[error("stream {stream} could not be created or verified in time: {reason}")]
    NotReady {
        /// The stream.
        stream: &'static str,
        /// The last failure.
        reason: String,
    },
    /// The server refused.
    #[error("the server refused stream {stream}: {reason}")]
    Refused {
        /// The stream.
        stream: &'static str,
        /// What it said.
        reason: String,
    },
    /// A field is wrong, and stayed wrong.
    #[error(
        "stream {stream} has {field} = {found} instead of {wanted}, and the server does not change it; {advice}"
    )]
    Drift {
        /// The stream.
        stream: &'static str,
        /// The field of its configuration.
        field: String,
        /// What it has.
        found: String,
        /// What it must have.
        wanted: String,
        /// What to do.
        advice: &'static str,
    },
}

/// What is not wrong, but should be known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Everything is on one server.
    #[error(
        "one NATS server: if its disk is lost, so is everything that was decided; three tolerate the loss of one"
    )]
    OneServer,
    /// Something that only grows is larger than asked for.
    #[error("stream {stream} has {field} = {found}, more than {wanted}: left as it is")]
    Larger {
        /// The stream.
        stream: &'static str,
        /// The field.
        field: String,
        /// What it has.
        found: u64,
        /// What was asked for.
        wanted: u64,
    },
}

/// What provisioning did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provisioned {
    /// Streams that were missing.
    pub created: Vec<&'static str>,
    /// Streams whose configuration had drifted.
    pub repaired: Vec<&'static str>,
    /// What should be known.
    pub warnings: Vec<Warning>,
}

/// Makes the streams of CP, over the controller's connection `bus`, what the layout says. Waits up to `patience` for a cluster that is still finding itself.
///
/// # Errors
/// [`ProvisionError`]; whoever gets one must not act on the store.
pub async fn provision(bus: &Bus, scale: Scale, patience: Duration) -> Result<Provisioned, ProvisionError> {
    let deadline = Instant::now() + patience;
    if !bus.connected(patience).await {
        let stream = ostler_schemas::Bucket::Objects.stream();
        return Err(ProvisionError::NotReady { stream, reason: "no connection".to_owned() });
    }
    check_version(&bus.link.server_version().unwrap_or_default())?;
    let mut done = Provisioned::default();
    if scale.replicas == 1 {
        done.warnings.push(Warning::OneServer);
    }
    for spec in streams(scale) {
        ensure(&bus.link, &spec, deadline, &mut done).await?;
    }
    Ok(done)
}

/// Whether a server of this version (see [`Link::server_version`]) is new enough. Every daemon asks this at start.
///
/// # Errors
/// [`ProvisionError::TooOld`], with the reason.
pub fn check_version(found: &str) -> Result<(), ProvisionError> {
    let mut numbers = found.split(['.', '-']).map(|n| n.parse::<u64>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST { Err(ProvisionError::TooOld { found: found.to_owned() }) } else { Ok(()) }
}

/// One attempt's end.
enum Attempt {
    Created,
    Repaired,
    Right,
    Again(String),
}

async fn ensure(
    link: &Link,
    spec: &StreamSpec,
    deadline: Instant,
    done: &mut Provisioned,
) -> Result<(), ProvisionError> {
    loop {
        match attempt(link, spec, &mut done.warnings).await? {
            Attempt::Created => done.created.push(spec.name),
            Attempt::Repaired => done.repaired.push(spec.name),
            Attempt::Right => {}
            Attempt::Again(reason) => {
                if Instant::now() >= deadline {
                    return Err(ProvisionError::NotReady { stream: spec.name, reason });
                }
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        return Ok(());
    }
}

async fn attempt(
    link: &Link,
    spec: &StreamSpec,
    warnings: &mut Vec<Warning>,
) -> Result<Attempt, ProvisionError> {
    let wanted = spec.to_json();
    let info = match wire::stream_info(link, spec.name).await {
        Ok(info) => info,
        Err(CallError::Api(api)) if api.err_code == CODE_NO_STREAM => {
            return create(link, spec, &wanted).await;
        }
        Err(error) => return retry_or_refuse(spec, error),
    };
    let wrong = differences(&wanted, &info.config);
    for (field, found, wanted) in larger(&wanted, &info.config) {
        let warning = Warning::Larger { stream: spec.name, field: field.to_owned(), found, wanted };
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    if wrong.is_empty() {
        return Ok(Attempt::Right);
    }
    repair(link, spec, &info.config, &wrong).await
}

fn retry_or_refuse(spec: &StreamSpec, error: CallError) -> Result<Attempt, ProvisionError> {
    match error {
        CallError::NotConnected | CallError::NoResponders { .. } | CallError::Silence { .. } => {
            Ok(Attempt::Again(error.to_string()))
        }
        CallError::Api(api) if api.code == 503 || api.err_code == CODE_NO_PEERS => {
            Ok(Attempt::Again(api.to_string()))
        }
        CallError::Api(api) if api.err_code == CODE_NAME_IN_USE => Ok(Attempt::Again(api.to_string())),
        CallError::Api(_) | CallError::TooLarge { .. } | CallError::Unreadable { .. } => {
            Err(ProvisionError::Refused { stream: spec.name, reason: error.to_string() })
        }
    }
}

async fn create(link: &Link, spec: &StreamSpec, wanted: &Value) -> Result<Attempt, ProvisionError> {
    match wire::api::<Value>(link, &format!("STREAM.CREATE.{}", spec.name), wanted).await {
        Ok(_) => Ok(Attempt::Created),
        Err(error) => retry_or_refuse(spec, error),
    }
}

/// Updates what differs. Then the server's own account of the result is compared.
async fn repair(
    link: &Link,
    spec: &StreamSpec,
    found: &Value,
    wrong: &[Difference],
) -> Result<Attempt, ProvisionError> {
    let mut config = found.clone();
    for difference in wrong {
        config[&difference.field] = difference.wanted.clone();
    }
    match wire::api::<wire::StreamInfo>(link, &format!("STREAM.UPDATE.{}", spec.name), &config).await {
        Ok(after) => match differences(&spec.to_json(), &after.config).first() {
            None => Ok(Attempt::Repaired),
            Some(still) => Err(drift(spec, still)),
        },
        Err(CallError::Api(api)) if api.code != 503 => {
            tracing::error!(stream = spec.name, reason = %api, "the server refuses to repair a stream");
            Err(drift(spec, &wrong[0]))
        }
        Err(error) => retry_or_refuse(spec, error),
    }
}

fn drift(spec: &StreamSpec, difference: &Difference) -> ProvisionError {
    ProvisionError::Drift {
        stream: spec.name,
        field: difference.field.clone(),
        found: difference.found.to_string(),
        wanted: difference.wanted.to_string(),
        advice: "back it up, delete the stream and restore into a new one, or give Ostler an account of its own",
    }
}

#[derive(Debug)]
struct Difference {
    field: String,
    found: Value,
    wanted: Value,
}

/// The server leaves out what is false, zero or empty.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty() || s == "default",
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.values().all(is_nothing),
    }
}

/// Whether `found` says at least what `wanted` says.
fn covers(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(w), Value::Object(f)) => {
            w.iter().all(|(k, v)| f.get(k).map_or(is_nothing(v), |g| covers(v, g)))
        }
        (w, f) => w == f || (is_nothing(w) && is_nothing(f)),
    }
}

fn differences(wanted: &Value, found: &Value) -> Vec<Difference> {
    let mut out = Vec::new();
    let wanted_fields = wanted.as_object().into_iter().flatten();
    for (field, value) in wanted_fields {
        let has = found.get(field).unwrap_or(&Value::Null);
        let grown = GROWING.contains(&field.as_str()) && has.as_u64() >= value.as_u64();
        // Words for people may be anybody's.
        if grown || field == "description" || covers(value, has) {
            continue;
        }
        out.push(Difference { field: field.clone(), found: has.clone(), wanted: value.clone() });
    }
    for field in UNWANTED {
        let has = found.get(field).unwrap_or(&Value::Null);
        if wanted.get(field).is_none() && !is_nothing(has) {
            out.push(Difference { field: field.to_owned(), found: has.clone(), wanted: json!(null) });
        }
    }
    out
}

fn larger<'a>(wanted: &'a Value, found: &'a Value) -> impl Iterator<Item = (&'static str, u64, u64)> + 'a {
    GROWING.into_iter().filter_map(move |field| {
        let (wanted, found) = (wanted[field].as_u64()?, found[field].as_u64()?);
        (found > wanted).then_some((field, found, wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Sizes;

    #[test]
    fn old_servers_are_refused() {
        for new in ["2.15.0", "2.15.1", "2.16.0-RC.1", "3.0.0"] {
            assert!(check_version(new).is_ok(), "{new}");
        }
        for old in ["2.14.9", "2.9.0", "1.99.0", ""] {
            assert!(matches!(check_version(old), Err(ProvisionError::TooOld { .. })), "{old}");
        }
    }

    #[test]
    fn drift_is_seen_and_growth_is_not_drift() {
        let spec = &streams(Scale { replicas: 1, sizes: Sizes::default() })[1];
        let wanted = spec.to_json();
        let mut found = wanted.clone();
        found.as_object_mut().expect("an object").remove("allow_atomic");
        found["num_replicas"] = json!(3);
        assert!(differences(&wanted, &found).is_empty());
        found["allow_rollup_hdrs"] = json!(true);
        found["subject_delete_marker_ttl"] = json!(1_000_000_000);
        let fields: Vec<String> = differences(&wanted, &found).into_iter().map(|d| d.field).collect();
        assert_eq!(fields, ["allow_rollup_hdrs", "subject_delete_marker_ttl"]);
    }
}
