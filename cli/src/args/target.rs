//! Words that name objects and selections: `deployment/web`, `deploy web`, `app=web,tier in (a,b)`.

use ostler_schemas::quantity::Dur;
use ostler_schemas::v1::api::{LabelOperator, LabelRequirement};
use ostler_schemas::{Kind, Name, Namespace, ObjectRef};

use crate::failure::Failure;
use crate::near::nearest;

/// A kind, and perhaps one object of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The kind.
    pub kind: Kind,
    /// The object's name, or its short uid.
    pub name: Option<String>,
}

/// What `get` can list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Objects of a kind.
    Kind(Kind),
    /// Events.
    Events,
}

/// A duration as in manifests, for clap.
///
/// # Errors
/// The message says how durations are written.
pub fn duration(text: &str) -> Result<Dur, String> {
    text.parse().map_err(|error: ostler_schemas::quantity::InvalidQuantity| error.to_string())
}

/// The kind that a word means.
///
/// # Errors
/// Names the nearest kind, or says that this version does not serve it.
pub fn kind(word: &str) -> Result<Kind, Failure> {
    if matches!(word, "events" | "event" | "ev") {
        return Err(Failure::message("events are no objects: use \"ostler events [KIND/NAME]\""));
    }
    let Some(kind) = Kind::by_any_name(word) else {
        let words = Kind::ALL.into_iter().flat_map(|k| [k.lower(), k.plural()]);
        let words = words.chain(Kind::ALL.into_iter().flat_map(|k| k.short_forms().iter().copied()));
        let hint = nearest(word, words).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        let served: Vec<&str> = Kind::ALL.into_iter().filter(|k| k.is_served()).map(Kind::plural).collect();
        return Err(Failure::message(format!(
            "{word:?} is not a kind{hint} (there are: {}, events; an object is written KIND/NAME)",
            served.join(", ")
        )));
    };
    if kind.is_served() {
        Ok(kind)
    } else {
        Err(Failure::message(format!(
            "{} are not supported by this version ({})",
            kind.plural(),
            crate::VERSION
        )))
    }
}

/// A kind, or events.
///
/// # Errors
/// As [`kind`].
pub fn resource(word: &str) -> Result<Resource, Failure> {
    if matches!(word, "events" | "event" | "ev") {
        return Ok(Resource::Events);
    }
    kind(word).map(Resource::Kind)
}

/// `KIND/NAME…`, `KIND NAME…` or, where `bare` is given, `NAME…` alone.
///
/// # Errors
/// When a word is no kind, or the two forms are mixed.
pub fn targets(words: &[String], bare: Option<Kind>) -> Result<Vec<Target>, Failure> {
    let mut out = Vec::new();
    if words.iter().any(|word| word.contains('/')) {
        for word in words {
            let Some((left, name)) = word.split_once('/') else {
                return Err(Failure::message(format!(
                    "{word:?} has no kind while others have: write KIND/NAME for each"
                )));
            };
            out.push(Target { kind: kind(left)?, name: Some(name.to_owned()) });
        }
        return Ok(out);
    }
    if let Some(kind) = bare {
        return Ok(words.iter().map(|w| Target { kind, name: Some(w.clone()) }).collect());
    }
    let Some((first, names)) = words.split_first() else { return Ok(out) };
    for word in first.split(',') {
        let kind = kind(word)?;
        if names.is_empty() {
            out.push(Target { kind, name: None });
        }
        out.extend(names.iter().map(|name| Target { kind, name: Some(name.clone()) }));
    }
    Ok(out)
}

/// What `all` stands for: the kinds that lie in a namespace, owners first.
#[must_use]
pub fn everything() -> Vec<Target> {
    [Kind::Deployment, Kind::Process, Kind::ConfigFile].map(|kind| Target { kind, name: None }).into()
}

/// Exactly one object, by its name.
///
/// # Errors
/// When there is none, more than one, or the name is none.
pub fn one(words: &[String], bare: Option<Kind>) -> Result<(Kind, String), Failure> {
    let found = targets(words, bare)?;
    match found.as_slice() {
        [Target { kind, name: Some(name) }] => Ok((*kind, name.clone())),
        _ => Err(Failure::message("name one object: KIND/NAME, for example deployment/web")),
    }
}

/// The reference of an object.
///
/// # Errors
/// When the name is none.
pub fn object_ref(kind: Kind, name: &str, namespace: &Namespace) -> Result<ObjectRef, Failure> {
    let name: Name = name.parse().map_err(|error| Failure::message(format!("{}: {error}", kind.lower())))?;
    let namespace = (!kind.is_cluster_wide()).then(|| namespace.clone());
    Ok(ObjectRef { kind, namespace, name })
}

/// The requirements of `-l`.
///
/// # Errors
/// Names the part that is none, with an example.
pub fn selector(text: &str) -> Result<Vec<LabelRequirement>, Failure> {
    split_outside_parentheses(text).into_iter().filter(|part| !part.is_empty()).map(requirement).collect()
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

fn requirement(part: &str) -> Result<LabelRequirement, Failure> {
    let make = |key: &str, operator, values: Vec<String>| {
        let key = key.trim();
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "()=!<>".contains(c)) {
            return Err(Failure::message(format!(
                "{part:?} is not a label requirement: write key=value, key!=value, key, !key, \"key in (a,b)\", \
                 \"key notin (a,b)\", key>1 or key<1"
            )));
        }
        Ok(LabelRequirement { key: key.to_owned(), operator, values })
    };
    for (word, operator) in [(" notin ", LabelOperator::NotIn), (" in ", LabelOperator::In)] {
        if let Some((key, set)) = part.split_once(word) {
            let inner = set.trim().strip_prefix('(').and_then(|s| s.strip_suffix(')'));
            let values = inner.map(|s| s.split(',').map(|v| v.trim().to_owned()).collect());
            return make(if values.is_some() { key } else { "" }, operator, values.unwrap_or_default());
        }
    }
    for (sign, operator) in [
        ("!=", LabelOperator::NotIn),
        ("==", LabelOperator::In),
        ("=", LabelOperator::In),
        (">", LabelOperator::Gt),
        ("<", LabelOperator::Lt),
    ] {
        if let Some((key, value)) = part.split_once(sign) {
            return make(key, operator, vec![value.trim().to_owned()]);
        }
    }
    match part.strip_prefix('!') {
        Some(key) => make(key, LabelOperator::DoesNotExist, Vec::new()),
        None => make(part, LabelOperator::Exists, Vec::new()),
    }
}
