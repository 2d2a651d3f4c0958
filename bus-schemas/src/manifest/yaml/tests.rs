//! Clean output, and that reading it gives the same value.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::manifest::tree::read_documents;

#[test]
fn looks_as_a_person_would_write_it() {
    let value = json!({
        "kind": "ConfigFile",
        "metadata": {"name": "app", "labels": {}, "annotations": {"a.b/c": "yes"}},
        "spec": {"mode": "0644", "content": "a = 1\n  b\n", "waves": ["100%", 1], "note": null,
            "list": [{"name": "x", "value": "1"}, {"name": "y: z"}], "port": 8080, "ok": true}
    });
    let expected = "\
kind: ConfigFile
metadata:
  name: app
  labels: {}
  annotations:
    a.b/c: \"yes\"
spec:
  mode: \"0644\"
  content: |
    a = 1
      b
  waves:
  - 100%
  - 1
  note: null
  list:
  - name: x
    value: \"1\"
  - name: \"y: z\"
  port: 8080
  ok: true
";
    assert_eq!(to_yaml(&value), expected);
}

fn reads_back(value: &Json) -> Result<(), TestCaseError> {
    let text = to_yaml(value);
    let documents = read_documents(None, text.as_bytes());
    prop_assert!(documents.iter().all(|d| d.problems.is_empty()), "{}\n{:?}", text, documents);
    let back = documents.first().map_or(Json::Null, |d| d.root.to_json());
    prop_assert_eq!(&back, value, "{}", text);
    Ok(())
}

#[test]
fn hard_texts() {
    let texts = [
        "",
        " ",
        "a ",
        " a",
        "\n",
        "\n\n",
        "a\n",
        "a\n\n",
        "a\n\n\n",
        "\na",
        " a\nb",
        "a\n b",
        "a\nb",
        "a\n\n b\n",
        "\t",
        "a\tb",
        "a\n\tb\n",
        "\r",
        "a\r\nb",
        "-",
        "- a",
        "a: b",
        "a:",
        ": a",
        "a #b",
        "#",
        "---",
        "...",
        "--- a",
        "a\n---\nb",
        "a\n...\n",
        "null",
        "~",
        "yes",
        "No",
        "0644",
        "1e3",
        "0x1f",
        ".5",
        "1_000",
        "12:30",
        "2026-11-20",
        "'",
        "\"",
        "\\",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a",
        "[a]",
        "{a}",
        "a, b",
        "?",
        "? a",
        "|",
        ">",
        "<<",
        "=",
        "\u{0}",
        "\u{7}",
        "\u{85}",
        "\u{a0}",
        "\u{2028}",
        "\u{feff}a",
        "é",
        "日本",
        "🦀",
        "a\u{200b}b",
        "a\n\u{2028}",
        "$(A)",
        "a: b\nc",
        "a \n b ",
        "x\n   \ny",
        "x\n ",
        "x\n  \n",
    ];
    for text in texts {
        for value in
            [json!(text), json!({ "k": text }), json!([[text]]), json!({ "a": [{ "b": text, "c": 1 }] })]
        {
            reads_back(&value).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        }
        if !text.contains('\0') {
            reads_back(&json!({ text: 1 })).unwrap_or_else(|e| panic!("key {text:?}: {e}"));
        }
    }
}

#[test]
fn long_keys() {
    let long = "k: ".repeat(700);
    for value in [json!(1), json!("a\nb\n"), json!({}), json!({"a": [1]}), json!([]), json!([1, {"b": 2}])] {
        let map = json!({ "a": 1, &long: value, "z": [{ &long: value, "y": 2 }] });
        reads_back(&map).unwrap_or_else(|e| panic!("{value}: {e}"));
    }
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[-a-z:#\\[\\]{},&*!|>'\"%@` \n\t0-9.]{0,16}", "\\PC{0,8}", "[a-z ]{0,4}(\n[ a-z]{0,5}){0,4}"]
}

fn any_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any_text().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(any_text(), inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_value_reads_back(value in any_value()) {
        reads_back(&value)?;
    }
}
