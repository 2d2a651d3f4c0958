//! The same tables as a page for people. It is committed as `docs/schema/fields.md` and a test keeps it current.

use std::fmt::Write as _;

use super::{DOCUMENT, Field, Object, Presence, Type, spec_of};
use crate::ids::Kind;

const HEAD: &str = "# Fields of manifests

Made from the tables that check manifests. **R** required · **K** kept when left out · **I** cannot change after
creation · **◊** reserved: a known name that this version refuses. A default is what is taken when a field is left out;
`-` means none, or as the last column says.
";

/// A page with every field of every kind that is served.
#[must_use]
pub fn field_reference() -> String {
    let mut page = HEAD.to_owned();
    section(&mut page, "Every document", &DOCUMENT);
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_served()) {
        let fields = spec_of(kind);
        if !fields.fields.is_empty() {
            let place = if kind == Kind::Process { ", and template.spec of workloads" } else { "" };
            section(&mut page, &format!("{kind}: spec{place}"), fields);
        }
    }
    page
}

/// A table of an object's fields, with those below them by their paths.
fn section(page: &mut String, title: &str, object: &Object) {
    let head = format!("\n## {title}\n\n| field | type | default | meaning |\n|---|---|---|---|\n");
    page.push_str(&head);
    rows(page, "", object);
}

fn rows(page: &mut String, path: &str, object: &Object) {
    for field in object.fields.iter().filter(|field| !matches!(field.presence, Presence::Ignored)) {
        let name = format!("{path}{}", field.name);
        let default = match field.default {
            Some(text) => format!("`{text}`"),
            None => "-".to_owned(),
        };
        let ty = if matches!(field.presence, Presence::Reserved) { "-".to_owned() } else { ty(&field.ty) };
        // Writing to a text cannot fail.
        let doc = field.doc.replace('<', "&lt;");
        let _ignored = writeln!(page, "| `{name}`{} | {ty} | {default} | {doc} |", marks(field));
        if name == "template" || matches!(field.presence, Presence::Reserved) {
            continue;
        }
        below(page, &name, &field.ty);
    }
}

fn below(page: &mut String, name: &str, ty: &Type) {
    if let Type::Object(object) = ty {
        rows(page, &format!("{name}."), object);
    } else if let Type::List { of: Type::Object(object), .. } = ty {
        rows(page, &format!("{name}[]."), object);
    }
}

fn marks(field: &Field) -> String {
    let presence = match field.presence {
        Presence::Required(_) => " **R**",
        Presence::Kept => " **K**",
        Presence::Reserved => " **◊**",
        Presence::Optional | Presence::Ignored => "",
    };
    format!("{presence}{}", if field.is_immutable { " **I**" } else { "" })
}

fn ty(ty: &Type) -> String {
    let word = match ty {
        Type::Int { min, max } if *max >= i64::from(u32::MAX) => return format!("number from {min}"),
        Type::Int { min, max } => return format!("number, {min} to {max}"),
        Type::Choice { words, reserved } => {
            let words = words.iter().map(|word| format!("`{word}`"));
            let later = reserved.iter().map(|word| format!("`{word}` ◊"));
            return words.chain(later).collect::<Vec<_>>().join(", ");
        }
        Type::Exactly(word) => return format!("`{word}`"),
        Type::List { of: Type::Object(_), .. } => "list of maps",
        Type::List { of, .. } => return format!("list of {}", self::ty(of)),
        Type::Duration { .. } => "duration",
        Type::Size => "size",
        Type::Rate => "size per second",
        Type::Cpu => "cpu",
        Type::Share => "count or %",
        Type::Increase => "%",
        Type::Window => "window, as `Mon..Fri 09:00-16:00 Europe/Amsterdam`",
        Type::Mode => "mode",
        Type::Signal => "signal",
        Type::Rlimit => "number, soft:hard, or `infinity`",
        Type::ExitStatus => "code or signal",
        Type::Capability => "capability, as `CAP_KILL`",
        Type::CpuList => "cores, as `0-3,8`",
        Type::Sha256 => "64 hex digits",
        Type::Source => "`https:`, `http:` or `file:` address",
        Type::Text | Type::Content => "text",
        Type::Bool => "`true` or `false`",
        Type::Name => "name",
        Type::Labels { .. } => "labels",
        Type::LabelKey => "label key",
        Type::LabelValue => "label value",
        Type::Annotations | Type::SecretValues => "map of texts",
        Type::SecretKey => "name of a value",
        Type::Command => "command: a list of words",
        Type::EnvName => "name of a variable",
        Type::Path | Type::FilePath => "absolute path",
        Type::Relative | Type::Directory => "relative path",
        Type::Account => "name or number",
        Type::FieldPath => "field path",
        Type::Need => "need, as `configfile/app@>=7`",
        Type::PortRef => "port number or name",
        Type::Base64 => "base64",
        Type::Vars => "map of anything",
        Type::Kind => "kind",
        Type::Object(_) => "map",
        Type::Anything => "map",
    };
    word.to_owned()
}
