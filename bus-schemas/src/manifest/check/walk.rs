//! Field by field against the tables: unknown, missing and reserved fields, types, defaults.
//!
//! What comes out is JSON with every good field in canonical form and every default filled in. Fields with findings
//! are not in it, so that rules about several fields look only at what is sound.

use serde_json::{Map, Value as Json};

use super::report::Report;
use crate::manifest::finding::FindingCode;
use crate::manifest::schema::{Field, Object, Presence, Type, suggest, translate};
use crate::manifest::tree::{Entry, Node, Value, join, read_documents};
use crate::spec::{MAX_VARS, Var, Vars, vars_size};

/// The version that is named where something is not supported yet.
const SERVER: &str = env!("CARGO_PKG_VERSION");

/// How a command begins whose program is an artifact.
pub(super) const IN_ARTIFACTS: &str = "$(OSTLER_ARTIFACTS)/";

pub(super) struct Walk<'r> {
    pub(super) report: &'r mut Report,
}

impl<'r> Walk<'r> {
    pub(super) fn new(report: &'r mut Report) -> Walk<'r> {
        Walk { report }
    }

    /// The fields of a map.
    pub(super) fn object(&mut self, node: &Node, object: &'static Object, path: &str) -> Map<String, Json> {
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            Value::Scalar(_) | Value::List(_) => &[],
        };
        for entry in entries {
            if object.field(&entry.key).is_none() {
                self.unknown(&entry.key, object, path);
            }
        }
        let mut out = Map::new();
        for field in object.fields {
            let at = join(path, field.name);
            if let Some(value) = self.field(node, field, &at) {
                out.insert(field.name.to_owned(), value);
            }
        }
        out
    }

    fn field(&mut self, parent: &Node, field: &Field, path: &str) -> Option<Json> {
        if let Some(node) = parent.get(field.name) {
            return match field.presence {
                Presence::Reserved => {
                    self.report.key(path, FindingCode::NotSupported, not_supported("field"), None);
                    None
                }
                Presence::Ignored => None,
                Presence::Optional | Presence::Required(_) | Presence::Kept => {
                    self.value(node, &field.ty, path)
                }
            };
        }
        match field.presence {
            Presence::Required(example) => {
                self.report.hint(path, FindingCode::MissingField, "is required", example);
                None
            }
            Presence::Optional => self.default(parent, field, path),
            Presence::Kept | Presence::Ignored | Presence::Reserved => None,
        }
    }

    /// A default is read as if the user had written it, so nested defaults come with it.
    fn default(&mut self, parent: &Node, field: &Field, path: &str) -> Option<Json> {
        let text = field.default?;
        let mut root = read_documents(None, text.as_bytes()).pop()?.root;
        root.place = parent.place;
        self.value(&root, &field.ty, path)
    }

    fn unknown(&mut self, key: &str, object: &Object, path: &str) {
        if self.report.is_full() {
            return;
        }
        let hint = match translate(key) {
            Some(advice) => Some(advice.to_owned()),
            None => suggest(key, object.fields.iter().map(|field| field.name))
                .map(|meant| format!("did you mean {meant}?")),
        };
        self.report.key(&join(path, key), FindingCode::UnknownField, "unknown field", hint);
    }

    /// A value of any type; `None` when it is not one.
    pub(super) fn value(&mut self, node: &Node, ty: &Type, path: &str) -> Option<Json> {
        match ty {
            Type::Object(object) => match &node.value {
                Value::Map(_) => Some(Json::Object(self.object(node, object, path))),
                Value::Scalar(_) | Value::List(_) => {
                    let message = format!("is a map of fields, found {}", found(node));
                    self.report.at(node.place, path, FindingCode::BadType, message);
                    None
                }
            },
            Type::List { of, max } => self.list(node, of, *max, path),
            Type::Command => self.command(node, path),
            Type::Labels { own } => self.labels(node, *own, path),
            Type::Annotations => self.annotations(node, path),
            Type::Vars => self.vars(node, path),
            Type::SecretValues => self.secret_values(node, path),
            Type::Anything => None,
            Type::Text
            | Type::Bool
            | Type::Int { .. }
            | Type::Duration { .. }
            | Type::Size
            | Type::Rate
            | Type::Cpu
            | Type::Share
            | Type::Increase
            | Type::Window
            | Type::Mode
            | Type::Signal
            | Type::Rlimit
            | Type::ExitStatus
            | Type::Capability
            | Type::CpuList
            | Type::Sha256
            | Type::Source
            | Type::Choice { .. }
            | Type::Name
            | Type::LabelKey
            | Type::LabelValue
            | Type::EnvName
            | Type::Path
            | Type::FilePath
            | Type::Relative
            | Type::Directory
            | Type::Account
            | Type::FieldPath
            | Type::Need
            | Type::SecretKey
            | Type::PortRef
            | Type::Content
            | Type::Base64
            | Type::Exactly(_)
            | Type::Kind => self.scalar(node, ty, path),
        }
    }

    /// Values for templates, each as YAML reads it.
    fn vars(&mut self, node: &Node, path: &str) -> Option<Json> {
        let Value::Map(entries) = &node.value else {
            let message = format!("is a map of values, found {}", found(node));
            self.report.at(node.place, path, FindingCode::BadType, message);
            return None;
        };
        let mut vars = Vars::new();
        for entry in entries {
            match Var::from_json(&entry.value.to_json()) {
                Ok(None) => {}
                Ok(Some(var)) => {
                    vars.insert(entry.key.clone(), var);
                }
                Err(why) => {
                    let at = join(path, &entry.key);
                    self.report.at(entry.value.place, &at, FindingCode::BadValue, why.to_string());
                }
            }
        }
        let size = vars_size(&vars);
        if size > MAX_VARS {
            self.report.too_large(path, size, MAX_VARS);
            return None;
        }
        serde_json::to_value(vars).ok()
    }

    fn list(&mut self, node: &Node, of: &Type, max: usize, path: &str) -> Option<Json> {
        let Value::List(items) = &node.value else {
            let message = match node.text() {
                Some(text) => format!("is a list, found {}; write [{text}]", found(node)),
                None => format!("is a list, found {}", found(node)),
            };
            self.report.at(node.place, path, FindingCode::BadType, message);
            return None;
        };
        if items.len() > max {
            let message = format!("has {} entries, the limit is {max}", items.len());
            self.report.at(node.place, path, FindingCode::TooLarge, message);
            return None;
        }
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let at = format!("{path}[{index}]");
            // A place is kept for a bad item, so that rules still name the others by their index.
            out.push(self.item(item, of, &at).unwrap_or(Json::Null));
        }
        Some(Json::Array(out))
    }

    fn item(&mut self, item: &Node, of: &Type, path: &str) -> Option<Json> {
        if item.is_null() {
            self.report.at(item.place, path, FindingCode::MissingField, "an entry cannot be left empty");
            return None;
        }
        self.value(item, of, path)
    }

    fn command(&mut self, node: &Node, path: &str) -> Option<Json> {
        let Value::List(items) = &node.value else {
            let message = "a command is a list: [\"/usr/bin/app\", \"--x\"]; for a shell line write [\"/bin/sh\", \"-c\", \"…\"]";
            self.report.at(node.place, path, FindingCode::BadType, message);
            return None;
        };
        if items.is_empty() {
            let message = "needs at least one word, the program";
            self.report.at(node.place, path, FindingCode::BadValue, message);
            return None;
        }
        let words = self.list(node, &Type::Text, usize::MAX, path)?;
        let first = words.get(0).and_then(Json::as_str).unwrap_or("/");
        // That there are artifacts, and this one among them, is a rule of several fields.
        if !first.starts_with('/') && !first.starts_with(IN_ARTIFACTS) {
            let guess = match first.strip_prefix('.') {
                Some(_) => "/opt/app/bin/app".to_owned(),
                None if first.contains('/') => format!("/{first}"),
                None => format!("/usr/bin/{first}"),
            };
            let message = format!("{first:?} is not an absolute path: write for example {guess}");
            self.report.at(items[0].place, &format!("{path}[0]"), FindingCode::BadValue, message);
        }
        Some(words)
    }
}

/// `is a known field that this server (1.0.0) does not support yet`.
pub(super) fn not_supported(what: &str) -> String {
    format!("is a known {what} that this server ({SERVER}) does not support yet")
}

/// What a value is, for messages.
pub(super) fn found(node: &Node) -> String {
    /// Longer texts would hide what the message says.
    const SHOWN: usize = 60;
    match &node.value {
        Value::Scalar(scalar) if node.is_null() => format!("nothing ({:?})", scalar.text),
        Value::Scalar(scalar) if scalar.text.chars().count() > SHOWN => {
            format!("{:?}…", scalar.text.chars().take(SHOWN).collect::<String>())
        }
        Value::Scalar(scalar) => format!("{:?}", scalar.text),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}
