//! The same tables as a JSON Schema (2020-12), for editors. It is committed under `docs/schema/` and a test keeps it
//! current. It says less than the checker: rules about several fields are not in it.

use serde_json::{Map, Value as Json, json};

use super::{DOCUMENT, Field, Object, Presence, Type, spec_of};
use crate::ids::Kind;
use crate::manifest::tree::read_documents;
use crate::spec::Capability;

/// The schema of every kind that is served.
#[must_use]
pub fn json_schema() -> Json {
    let served = || Kind::ALL.into_iter().filter(|kind| kind.is_served());
    let by_kind: Vec<Json> = served()
        .map(|kind| {
            json!({
                "if": { "properties": { "kind": { "const": kind.as_str() } } },
                "then": { "properties": { "spec": { "$ref": format!("#/$defs/{kind}") } } },
            })
        })
        .collect();
    let defs: Map<String, Json> =
        served().map(|kind| (kind.as_str().to_owned(), object(spec_of(kind)))).collect();
    let mut root = object(&DOCUMENT);
    if let Json::Object(map) = &mut root {
        map.insert("allOf".to_owned(), Json::Array(by_kind));
        map.insert("$defs".to_owned(), Json::Object(defs));
    }
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ostler manifest, ostler/v1",
    });
    if let (Json::Object(schema), Json::Object(root)) = (&mut schema, root) {
        schema.extend(root);
    }
    schema
}

fn object(object: &Object) -> Json {
    let fields: Map<String, Json> =
        object.fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    let required: Vec<&str> = object
        .fields
        .iter()
        .filter(|field| matches!(field.presence, Presence::Required(_)))
        .map(|field| field.name)
        .collect();
    let mut out = json!({ "type": "object", "additionalProperties": false, "properties": fields });
    if let (Json::Object(map), false) = (&mut out, required.is_empty()) {
        map.insert("required".to_owned(), json!(required));
    }
    out
}

fn property(field: &Field) -> Json {
    let note = match field.presence {
        Presence::Reserved => " Reserved: this version does not serve it.",
        Presence::Kept => " Kept when left out.",
        Presence::Ignored => " Set by Ostler, ignored in input.",
        Presence::Optional | Presence::Required(_) => "",
    };
    let fixed = if field.is_immutable { " Cannot change after creation." } else { "" };
    let mut out = Map::new();
    out.insert("description".to_owned(), json!(format!("{}{note}{fixed}", field.doc)));
    if matches!(field.presence, Presence::Reserved) {
        out.insert("not".to_owned(), json!({}));
        return Json::Object(out);
    }
    if let Json::Object(ty) = ty(&field.ty) {
        out.extend(ty);
    }
    if let Some(default) = field.default {
        let documents = read_documents(None, default.as_bytes());
        let value = documents.first().map_or(Json::Null, |document| document.root.to_json());
        out.insert("default".to_owned(), value);
    }
    Json::Object(out)
}

const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

fn ty(ty: &Type) -> Json {
    match ty {
        Type::Text | Type::EnvName | Type::FieldPath | Type::Need | Type::Content => {
            json!({ "type": "string" })
        }
        Type::SecretKey => json!({ "type": "string", "pattern": "^[-._a-zA-Z0-9]+$", "maxLength": 253 }),
        Type::LabelKey | Type::LabelValue => json!({ "type": "string" }),
        Type::Bool => json!({ "type": "boolean" }),
        Type::Int { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Type::Duration { .. } => {
            json!({ "type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$", "minLength": 2 })
        }
        Type::Size => {
            json!({ "type": ["string", "integer"], "pattern": "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$", "minimum": 0 })
        }
        Type::Rate => {
            json!({ "type": ["string", "integer"], "pattern": "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$", "minimum": 1 })
        }
        Type::ExitStatus => {
            json!({ "type": ["string", "integer"], "pattern": "^([0-9]+|SIG[A-Z0-9+]+)$", "minimum": 0, "maximum": 255 })
        }
        Type::Capability => json!({ "enum": Capability::names() }),
        Type::CpuList => {
            json!({ "type": ["string", "integer"], "pattern": "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$", "minimum": 0 })
        }
        Type::Sha256 => json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
        Type::Source => json!({ "type": "string", "pattern": "^(https?://|file:/)" }),
        Type::Relative | Type::Directory => json!({ "type": "string", "pattern": "^[^/]" }),
        Type::Cpu => json!({ "type": ["string", "number"], "pattern": "^[0-9]+(\\.[0-9]+)?m?$" }),
        Type::Share => json!({ "type": ["string", "integer"], "pattern": "^[0-9]+%?$", "minimum": 0 }),
        Type::Increase => json!({ "type": "string", "pattern": "^[0-9]+%$" }),
        Type::Window => json!({ "type": "string", "pattern": "^\\S+( \\S+){0,2}$" }),
        Type::Mode => json!({ "type": "string", "pattern": "^[0-7]{3,4}$" }),
        Type::Signal => json!({ "type": "string", "pattern": "^SIG[A-Z0-9+]+$" }),
        Type::Rlimit => {
            json!({ "type": ["string", "integer"], "pattern": "^([0-9]+|infinity)(:([0-9]+|infinity))?$", "minimum": 0 })
        }
        Type::Choice { words, .. } => json!({ "enum": words }),
        Type::Name => json!({ "type": "string", "pattern": LABEL, "maxLength": 63 }),
        Type::Labels { .. } | Type::Annotations | Type::SecretValues => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
        Type::Command => json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
        Type::Path | Type::FilePath => json!({ "type": "string", "pattern": "^/" }),
        Type::Account => json!({ "type": ["string", "integer"] }),
        Type::PortRef => json!({ "type": ["string", "integer"], "minimum": 1, "maximum": 65_535 }),
        Type::Base64 => json!({ "type": "string", "contentEncoding": "base64" }),
        Type::Vars => json!({ "type": "object" }),
        Type::Exactly(word) => json!({ "const": word }),
        Type::Kind => {
            let kinds: Vec<&str> =
                Kind::ALL.into_iter().filter(|k| k.is_served()).map(Kind::as_str).collect();
            json!({ "enum": kinds })
        }
        Type::Object(fields) => object(fields),
        Type::List { of, max } => {
            let items = self::ty(of);
            if *max == usize::MAX {
                json!({ "type": "array", "items": items })
            } else {
                json!({ "type": "array", "items": items, "maxItems": max })
            }
        }
        Type::Anything => json!({}),
    }
}
