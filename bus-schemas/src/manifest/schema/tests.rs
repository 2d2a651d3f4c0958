//! The tables are sound, and the committed JSON Schema is theirs.

use std::collections::BTreeSet;

use super::*;
use crate::ids::Kind;

fn every_object(object: &'static Object, visit: &mut impl FnMut(&'static Object)) {
    visit(object);
    for field in object.fields {
        let mut ty = &field.ty;
        while let Type::List { of, .. } = ty {
            ty = of;
        }
        if let Type::Object(inner) = ty {
            every_object(inner, visit);
        }
    }
}

#[test]
fn names_are_unique_and_described() {
    let mut check = |object: &'static Object| {
        let mut seen = BTreeSet::new();
        for field in object.fields {
            assert!(seen.insert(field.name), "{} twice", field.name);
            assert!(field.doc.ends_with('.'), "{}: {}", field.name, field.doc);
        }
    };
    every_object(&DOCUMENT, &mut check);
    for kind in Kind::ALL {
        every_object(spec_of(kind), &mut check);
    }
}

#[test]
fn kinds_that_are_not_served_have_only_reserved_fields() {
    for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_served()) {
        let reserved = |field: &Field| matches!(field.presence, Presence::Reserved);
        assert!(spec_of(kind).fields.iter().all(reserved), "{kind}");
    }
}

#[test]
fn suggestions() {
    let names = || TEMPLATE.fields.iter().map(|field| field.name);
    assert_eq!(suggest("livenesProbe", names()), Some("livenessProbe"));
    assert_eq!(suggest("WorkingDirectory", names()), Some("workingDirectory"));
    assert_eq!(suggest("comand", names()), Some("command"));
    assert_eq!(suggest("sidecars", names()), None);
    assert_eq!(suggest("x", names()), None);
    assert_eq!(translate("minReadySeconds"), Some("use rollout.bake"));
}

/// To renew the file after a change of the tables, run the tests with `OSTLER_WRITE_SCHEMA=1`.
#[test]
fn the_committed_json_schema_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema/ostler.v1.json");
    let text = format!("{:#}\n", json_schema());
    if std::env::var_os("OSTLER_WRITE_SCHEMA").is_some() {
        std::fs::write(path, &text).expect("the schema can be written");
    }
    let committed = std::fs::read_to_string(path).expect("the schema is committed");
    assert!(committed == text, "docs/schema/ostler.v1.json is not current: run with OSTLER_WRITE_SCHEMA=1");
}
