//! Refusals in the words of CONTRACT.md.

use ostler_schemas::manifest::{Finding, FindingCode, Refusal};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::api::{ApiError, ApiErrorCode};
use ostler_schemas::v1::object::Applied;
use ostler_schemas::{Kind, Namespace, ObjectRef, Revision};

use crate::fleet::Fleet;
use crate::status;

fn error(code: ApiErrorCode, message: impl Into<String>) -> ApiError {
    ApiError { code, message: message.into(), hint: None, findings: Vec::new(), txn: None }
}

/// Somebody else changed it, or it is not as the caller believes.
#[must_use]
pub fn conflict(message: impl Into<String>) -> ApiError {
    error(ApiErrorCode::Conflict, message)
}

/// The caller may not.
#[must_use]
pub fn forbidden(message: impl Into<String>) -> ApiError {
    error(ApiErrorCode::Forbidden, message)
}

/// The request makes no sense here.
#[must_use]
pub fn invalid(message: impl Into<String>) -> ApiError {
    error(ApiErrorCode::Invalid, message)
}

/// Not now.
#[must_use]
pub fn unavailable(message: impl Into<String>) -> ApiError {
    error(ApiErrorCode::Unavailable, message)
}

/// The input was refused, finding by finding.
#[must_use]
pub fn refused(refusal: &Refusal) -> ApiError {
    ApiError { findings: refusal.findings.clone(), ..error(ApiErrorCode::Refused, refusal.summary()) }
}

/// One finding about one object.
pub(super) fn refused_for(
    object: &ObjectRef,
    field: &str,
    code: FindingCode,
    message: impl Into<String>,
) -> ApiError {
    let finding = Finding {
        file: None,
        line: 0,
        column: 0,
        object: object.short(),
        field: field.to_owned(),
        code,
        message: message.into(),
        hint: None,
    };
    refused(&Refusal { findings: vec![finding], refused: 1, documents: 1 })
}

/// There is no such object; names the nearest.
#[must_use]
pub fn not_found(fleet: &Fleet, kind: Kind, namespace: &Namespace, text: &str) -> ApiError {
    // A hostile name may be long; a message shows the beginning.
    let shown: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
    let place = if kind.is_cluster_wide() { String::new() } else { format!(" in namespace {namespace}") };
    let near = status::nearest(fleet, kind, namespace, text);
    let hint = near.map(|name| format!("did you mean {}/{name}?", kind.lower()));
    ApiError {
        hint,
        ..error(ApiErrorCode::NotFound, format!("{}/{shown} does not exist{place}", kind.lower()))
    }
}

/// `14:03:05`; with the date when it was not in the last day.
pub(super) fn clock(at: Timestamp, now: Timestamp) -> String {
    const DAY_MS: u64 = 24 * 3_600_000;
    let text = at.to_string();
    let (date, time) = (text.get(..10).unwrap_or_default(), text.get(11..19).unwrap_or_default());
    if now.since_ms(at) < DAY_MS { time.to_owned() } else { format!("{date} {time}") }
}

/// `changed since: revision 88123 by user/anna (config push) at 14:03:05, you have 88120; …`
pub(super) fn changed_since(is: Revision, by: &Applied, had: Revision, now: Timestamp) -> String {
    format!(
        "changed since: revision {is} by {} ({}) at {}, you have {had}; run \"ostler diff\", or --force",
        by.actor,
        by.verb,
        clock(by.at, now)
    )
}

/// Refuses to change an object that is on its way out.
pub(super) fn deleting(object: &ObjectRef, since: Timestamp, now: Timestamp) -> ApiError {
    conflict(format!("{} {}", object.short(), deleting_text(since, now)))
}

pub(super) fn deleting_text(since: Timestamp, now: Timestamp) -> String {
    format!(
        "is being deleted since {}: what belongs to it is ended first; try again when it is gone",
        clock(since, now)
    )
}

/// Up to five names, and how many more there are.
pub(super) fn up_to_five(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        Some(_) | None => shown,
    }
}
