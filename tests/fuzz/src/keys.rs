//! Keys, subjects, ids and the small languages of fields.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use ostler_schemas::ids::{
    Actor, ControllerName, Kind, Name, Namespace, NodeName, ReplicaId, Revision, Sha256, TxnId, Uid, Version,
};
use ostler_schemas::key::{Bucket, Key};
use ostler_schemas::quantity::{CountOrPercent, Cpu, Dur, Mode, Rlimit, Signal, Size};
use ostler_schemas::spec::{FieldPath, Need, expand};
use ostler_schemas::subject::{ApiSubject, BeatSource, EventSubject};

/// Reads `data` as everything that is read from a key, a subject or one field. What can be read is written and read
/// again to the same value; keys and subjects are written to the very same text, so that no two texts are one key.
pub fn keys(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for bucket in Bucket::ALL {
        if let Ok(key) = Key::parse(bucket, text) {
            assert_eq!(key.to_string(), text);
            assert_eq!(key.bucket(), bucket);
            assert_eq!(Key::from_subject(&key.subject()).ok(), Some(key));
        }
    }
    if let Ok(key) = Key::from_subject(text) {
        assert_eq!(key.subject(), text);
    }
    if let Some(subject) = BeatSource::parse(text) {
        assert_eq!(subject.subject(), text);
    }
    if let Some(subject) = ApiSubject::parse(text) {
        assert_eq!(subject.subject(), text);
    }
    if let Some(subject) = EventSubject::parse(text) {
        assert_eq!(subject.to_string(), text);
    }
    ids(text);
    values(text);
}

fn ids(text: &str) {
    reads_back::<Name>(text);
    reads_back::<Namespace>(text);
    reads_back::<NodeName>(text);
    reads_back::<ReplicaId>(text);
    reads_back::<Uid>(text);
    reads_back::<TxnId>(text);
    reads_back::<Sha256>(text);
    reads_back::<Revision>(text);
    reads_back::<Version>(text);
    reads_back::<Kind>(text);
    reads_back::<ControllerName>(text);
    reads_back::<Actor>(text);
}

fn values(text: &str) {
    reads_back::<Dur>(text);
    reads_back::<Size>(text);
    reads_back::<Cpu>(text);
    reads_back::<CountOrPercent>(text);
    reads_back::<Mode>(text);
    reads_back::<Signal>(text);
    reads_back::<Rlimit>(text);
    reads_back::<Need>(text);
    reads_back::<FieldPath>(text);
    if let Ok(expanded) = expand(text, |name| Some(name.to_owned())) {
        assert!(expanded.len() <= text.len(), "a name is shorter than its reference");
    }
}

fn reads_back<T: FromStr + Display + Debug + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        assert!(written.parse::<T>().is_ok_and(|again| again == value), "{written:?} from {text:?}");
    }
}
