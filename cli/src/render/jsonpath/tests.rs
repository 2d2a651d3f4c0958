//! Templates against one small value.

use serde_json::{Value, json};

use super::*;

fn fleet() -> Value {
    json!({"kind": "List", "items": [
        {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "status": {"phase": "Ready", "n": 2}},
        {"metadata": {"name": "b"}, "status": {"phase": "Lost", "n": 10}},
    ]})
}

fn apply(template: &str) -> String {
    Template::parse(template).expect("parses").apply(&fleet())
}

#[test]
fn paths_give_what_they_name() {
    assert_eq!(apply("{.kind}"), "List");
    assert_eq!(apply("{.items[*].metadata.name}"), "a b");
    assert_eq!(apply("{$.items[0].metadata.name}"), "a");
    assert_eq!(apply("{.items[-1].metadata['name']}"), "b");
    assert_eq!(apply("{.items[0:1].metadata.name}"), "a");
    assert_eq!(apply("{..name}"), "a b");
    assert_eq!(apply("{.items[0].metadata.labels['x.y/z']}"), "1");
    assert_eq!(apply(r"{.items[0].metadata.labels.x\.y/z}"), "1");
    assert_eq!(apply("{.items[1].status}"), r#"{"phase":"Lost","n":10}"#);
    assert_eq!(apply("{.nothing.here}"), "");
}

#[test]
fn ranges_and_texts_make_lines() {
    let template = r#"{range .items[*]}{.metadata.name}{"\t"}{.status.phase}{"\n"}{end}done"#;
    assert_eq!(apply(template), "a\tReady\nb\tLost\ndone");
    assert_eq!(apply("{range .items}<{.status.n}>{end}"), "<2><10>");
}

#[test]
fn filters_compare_texts_and_numbers() {
    assert_eq!(apply(r#"{.items[?(@.status.phase=="Lost")].metadata.name}"#), "b");
    assert_eq!(apply("{.items[?(@.status.n > 9)].metadata.name}"), "b");
    assert_eq!(apply("{.items[?(@.metadata.labels)].metadata.name}"), "a");
    assert_eq!(apply("{.items[?(@.status.phase != 'Lost')].metadata.name}"), "a");
}

#[test]
fn mistakes_are_named() {
    for (template, why) in [
        ("{.a", "a { is not closed"),
        ("{range .items}", "{range} without {end}"),
        ("{end}", "{end} without {range}"),
        ("{.a[x]}", "[x] is no index"),
        ("{a}", "steps begin with . or ["),
    ] {
        let failure = Template::parse(template).expect_err("refused").to_string();
        assert!(failure.contains(why), "{template}: {failure}");
    }
}

#[test]
fn a_path_alone_needs_no_braces() {
    for text in [".items[0].metadata.name", "items[0].metadata.name", "{.items[0].metadata.name}"] {
        assert_eq!(Template::path(text).expect("parses").apply(&fleet()), "a");
    }
}
