//! Documents on their way to the server, and specs on their way back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::check::decode_base64;
use super::schema::{Object, Type, spec_of};
use super::tree::{Document, InvalidWire, Value, WireDocument};
use crate::spec::{ContentRef, Spec};

/// Why bytes are no document.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTree {
    /// The bytes are not MessagePack of the wire form.
    #[error("decoding a document")]
    Decode(#[source] rmp_serde::decode::Error),
    /// The wire form makes no tree.
    #[error("building a document")]
    Build(#[source] InvalidWire),
}

/// A document as bytes for a request. What was wrong with its text, and content sent ahead, do not go with it.
#[must_use]
pub fn encode_tree(document: &Document) -> Vec<u8> {
    // Texts and numbers in structs always have a MessagePack form; empty bytes would be refused by the reader.
    rmp_serde::to_vec_named(&document.to_wire()).unwrap_or_default()
}

/// A document from bytes of a request. Nothing is trusted but that the bytes are not too many.
///
/// # Errors
/// When the bytes are not what [`encode_tree`] makes.
pub fn decode_tree(bytes: &[u8]) -> Result<Document, InvalidTree> {
    /// The wire form is flat; what a newer client adds to it may nest a little, and a hostile one only so far.
    const WIRE_DEPTH: usize = 32;
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(WIRE_DEPTH);
    let wire = WireDocument::deserialize(&mut reader).map_err(InvalidTree::Decode)?;
    Document::from_wire(wire).map_err(InvalidTree::Build)
}

/// Takes the content out of a ConfigFile's document if it is larger than `inline_max`, to be sent ahead. Whoever
/// does so sets [`Document::content`] on the server's side. A document with any mistake in its content is left whole.
#[must_use]
pub fn detach_content(document: &mut Document, inline_max: usize) -> Option<Vec<u8>> {
    let Value::Map(top) = &mut document.root.value else {
        return None;
    };
    let is_file = top.iter().any(|e| e.key == "kind" && e.value.text() == Some("ConfigFile"));
    let spec = top.iter_mut().find(|entry| entry.key == "spec").filter(|_| is_file)?;
    let Value::Map(fields) = &mut spec.value.value else {
        return None;
    };
    let is_content = |key: &str| matches!(key, "content" | "contentBase64");
    let mut given = fields.iter().enumerate().filter(|(_, e)| is_content(&e.key) && !e.value.is_null());
    let (index, entry) = given.next()?;
    if given.next().is_some() {
        return None;
    }
    let Value::Scalar(scalar) = &entry.value.value else {
        return None;
    };
    if scalar.kind() != super::tree::ScalarType::Text {
        return None;
    }
    let bytes = match entry.key.as_str() {
        "contentBase64" => decode_base64(&scalar.text)?,
        _ => scalar.text.clone().into_bytes(),
    };
    if bytes.len() <= inline_max || bytes.len() > super::check::MAX_CONTENT {
        return None;
    }
    fields.remove(index);
    Some(bytes)
}

/// A spec as a user would write it: what is in a ConfigFile's files stands where its name stood, as text if it is text
/// that manifests can hold, else as base64. What `content_of` does not know is left out, which means kept.
///
/// # Errors
/// Never for specs made by this crate: they have text keys only.
pub fn written_spec(
    spec: &Spec,
    content_of: &dyn Fn(&ContentRef) -> Option<Vec<u8>>,
) -> Result<Json, serde_json::Error> {
    let mut json = spec.to_json()?;
    if let (Spec::ConfigFile(spec), Json::Object(fields)) = (spec, &mut json) {
        written_source(fields, (spec.content, spec.template), content_of);
        let items = fields.get_mut("files").and_then(Json::as_array_mut).into_iter().flatten();
        for (fields, item) in items.filter_map(Json::as_object_mut).zip(&spec.files) {
            written_source(fields, (item.content, item.template), content_of);
        }
    }
    Ok(in_order(json, spec_of(spec.kind())))
}

fn written_source(
    fields: &mut Map<String, Json>,
    (content, template): (Option<ContentRef>, Option<ContentRef>),
    content_of: &dyn Fn(&ContentRef) -> Option<Vec<u8>>,
) {
    fields.shift_remove("content");
    fields.shift_remove("template");
    let Some(bytes) = content.or(template).and_then(|reference| content_of(&reference)) else { return };
    let text = std::str::from_utf8(&bytes).ok().filter(|text| !text.contains('\0'));
    match (text, template.is_some()) {
        (Some(text), true) => fields.insert("template".to_owned(), Json::from(text)),
        (Some(text), false) => fields.insert("content".to_owned(), Json::from(text)),
        (None, _) => fields.insert("contentBase64".to_owned(), Json::from(STANDARD.encode(bytes))),
    };
}

/// The fields in the order of the contract, in which people look for them; what is stored has the order in which its
/// fields came to be.
fn in_order(json: Json, object: &Object) -> Json {
    let Json::Object(mut fields) = json else { return json };
    let mut out = Map::new();
    for field in object.fields {
        if let Some(value) = fields.shift_remove(field.name) {
            out.insert(field.name.to_owned(), in_order_of(value, &field.ty));
        }
    }
    out.extend(fields);
    Json::Object(out)
}

fn in_order_of(value: Json, ty: &Type) -> Json {
    match (value, ty) {
        (Json::Array(items), Type::List { of, .. }) => {
            Json::Array(items.into_iter().map(|item| in_order_of(item, of)).collect())
        }
        (value, Type::Object(object)) => in_order(value, object),
        (value, _) => value,
    }
}
