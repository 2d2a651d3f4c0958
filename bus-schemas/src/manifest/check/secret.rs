//! Rules of Secrets. No message says anything of a value but its size.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::file::decode_base64;
use super::process::unique;
use super::report::Report;
use super::scalars::{Bad, Read};
use super::walk::Walk;
use crate::manifest::finding::FindingCode;
use crate::manifest::tree::{Node, ScalarType, Value, join};
use crate::manifest::typed::{GivenValue, SecretBody, SecretWish};
use crate::sealing::Hidden;
use crate::spec::{MAX_SECRET, MAX_SECRET_VALUE, is_secret_key};

/// The name of a value.
pub(super) fn read_key(text: &str) -> Read {
    if is_secret_key(text) {
        return Ok(Json::from(text));
    }
    Err(Bad::value(format!(
        "{text:?} is not the name of a value: use up to 253 of A-Z, a-z, 0-9, \"-\", \"_\" and \".\""
    )))
}

impl Walk<'_> {
    /// A map of texts that are not repeated in any message.
    pub(super) fn secret_values(&mut self, node: &Node, path: &str) -> Option<Json> {
        let Value::Map(entries) = &node.value else {
            self.report.at(node.place, path, FindingCode::BadType, "is a map of texts");
            return None;
        };
        let mut out = Map::new();
        for entry in entries {
            let at = join(path, &entry.key);
            if let Err(bad) = read_key(&entry.key) {
                self.bad(entry.value.place, &at, bad);
                continue;
            }
            match &entry.value.value {
                Value::Scalar(_) if entry.value.is_null() => {
                    let message = "has no value: write \"\" for an empty one";
                    self.report.at(entry.value.place, &at, FindingCode::MissingField, message);
                }
                Value::Scalar(scalar) if scalar.kind() == ScalarType::Text => {
                    out.insert(entry.key.clone(), Json::from(scalar.text.as_str()));
                }
                Value::Scalar(_) => {
                    let message = "is text: put it in quotes";
                    self.report.at(entry.value.place, &at, FindingCode::BadType, message);
                }
                Value::List(_) | Value::Map(_) => {
                    self.report.at(entry.value.place, &at, FindingCode::BadType, "is text");
                }
            }
        }
        Some(Json::Object(out))
    }
}

fn values<'a>(spec: &'a Map<String, Json>, field: &str) -> impl Iterator<Item = (&'a String, &'a str)> {
    let map = spec.get(field).and_then(Json::as_object);
    map.into_iter().flatten().filter_map(|(key, value)| Some((key, value.as_str()?)))
}

/// Sizes, encodings, and names that are given twice.
pub(super) fn check(spec: &Map<String, Json>, report: &mut Report) {
    unique(spec, "spec", "keep", report);
    let keep: BTreeSet<&str> = super::process::list(spec, "keep").iter().filter_map(Json::as_str).collect();
    let texts: BTreeMap<&String, &str> = values(spec, "stringData").collect();
    let mut whole = 0;
    for (field, is_text) in [("stringData", true), ("data", false)] {
        for (key, value) in values(spec, field) {
            let at = join(&format!("spec.{field}"), key);
            if !is_text && texts.contains_key(key) {
                report.add(
                    &at,
                    FindingCode::Conflicting,
                    "cannot be given together with stringData of that name",
                );
            }
            if keep.contains(key.as_str()) {
                report.add(&at, FindingCode::Conflicting, "cannot be given and kept: take it out of keep");
            }
            let size = match (is_text, decode_base64(value)) {
                (true, _) => value.len(),
                (false, Some(bytes)) => Hidden::new(bytes).size() as usize,
                (false, None) => {
                    report.add(&at, FindingCode::BadValue, "is not base64 (RFC 4648, with padding)");
                    continue;
                }
            };
            if size > MAX_SECRET_VALUE {
                report.too_large(&at, size, MAX_SECRET_VALUE);
            }
            whole += key.len() + size;
        }
    }
    if whole > MAX_SECRET {
        report.too_large("spec", whole, MAX_SECRET);
    }
}

/// What a checked Secret asks for.
pub(in crate::manifest) fn body(spec: &Map<String, Json>) -> Result<SecretBody, String> {
    let immutable = spec.get("immutable").and_then(Json::as_bool).unwrap_or_default();
    if !["stringData", "data", "keep"].into_iter().any(|field| spec.contains_key(field)) {
        return Ok(SecretBody { immutable, values: None });
    }
    let keep =
        super::process::list(spec, "keep").iter().filter_map(Json::as_str).map(str::to_owned).collect();
    let mut given = BTreeMap::new();
    for (key, text) in values(spec, "stringData") {
        given.insert(key.clone(), GivenValue::Plain(Hidden::new(text.as_bytes().to_vec())));
    }
    for (key, text) in values(spec, "data") {
        let bytes = decode_base64(text).ok_or_else(|| format!("data.{key} is not base64"))?;
        given.insert(key.clone(), GivenValue::Plain(Hidden::new(bytes)));
    }
    Ok(SecretBody { immutable, values: Some(SecretWish { keep, given }) })
}

#[cfg(test)]
mod tests {
    use crate::manifest::{Manifest, Options, read_manifests};
    use crate::sealing::{PublicKey, Sealed};
    use crate::spec::{SecretSpec, SecretValue, Spec};

    fn read(spec: &str) -> Manifest {
        let text = format!("{{apiVersion: ostler/v1, kind: Secret, metadata: {{name: db}}, spec: {spec}}}");
        let mut read = read_manifests(None, text.as_bytes(), &Options::default()).expect("is good");
        read.remove(0)
    }

    fn stored(keys: &[&str]) -> Spec {
        let value = |key: &&str| {
            let sealed = Sealed { to: PublicKey::from_bytes([1; 32]), bytes: key.as_bytes().to_vec() };
            ((*key).to_owned(), SecretValue { size: 3, since: crate::Version(1), sealed: Some(sealed) })
        };
        Spec::Secret(Box::new(SecretSpec { immutable: false, values: keys.iter().map(value).collect() }))
    }

    fn names(spec: &Spec) -> Vec<(String, bool)> {
        let Spec::Secret(spec) = spec else { panic!("a Secret") };
        spec.values.iter().map(|(key, value)| (key.clone(), value.sealed.is_some())).collect()
    }

    #[test]
    fn what_is_said_is_all_and_what_is_kept_stays() {
        let before = stored(&["a", "b"]);
        let after = |spec: &str| names(&read(spec).complete(Some(&before)));
        let kept = |key: &str| (key.to_owned(), true);
        let new = |key: &str| (key.to_owned(), false);
        assert_eq!(after("{}"), [kept("a"), kept("b")], "nothing is said: nothing changes");
        assert_eq!(after("{immutable: true}"), [kept("a"), kept("b")]);
        assert_eq!(after("{stringData: {c: x}}"), [new("c")]);
        assert_eq!(after("{keep: [a], data: {c: eA==}}"), [kept("a"), new("c")]);
        assert_eq!(after("{keep: []}"), []);
        assert_eq!(after("{stringData: {}}"), []);
    }

    #[test]
    fn what_is_exported_can_be_applied_again_and_wipes_nothing() {
        let before = stored(&["a", "b"]);
        let written = before.to_json().expect("has a JSON form").to_string();
        assert_eq!(written, r#"{"immutable":false,"keep":["a","b"]}"#);
        assert_eq!(read(&written).complete(Some(&before)), before);
    }

    #[test]
    fn nothing_that_was_read_prints_a_value() {
        let manifest = read("{stringData: {password: hunter2}}");
        let printed = format!("{manifest:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
        let refused = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/manifests/bad/secret.txt"
        ));
        let refused = refused.expect("is there");
        assert!(!refused.contains("hunter2") && !refused.contains("2022"), "{refused}");
    }
}
