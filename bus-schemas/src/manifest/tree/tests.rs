//! Reading, places, refusals of the text itself, and the wire form.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(text: &str) -> Vec<Document> {
    read_documents(Some("a.yaml"), text.as_bytes())
}

fn problems(text: &str) -> Vec<String> {
    let all = read(text).into_iter().flat_map(|d| d.problems);
    all.map(|p| format!("{}:{}: {}: {}", p.place.line, p.place.column, p.field, p.message)).collect()
}

#[test]
fn places_and_raw_text_are_kept() {
    let documents = read("a: 0644\nb:\n  - {c: \"x\", d: yes}\n---\n\n---\n- 1\n");
    assert_eq!(documents.len(), 2);
    let root = &documents[0].root;
    assert_eq!(root.get("a").and_then(Node::text), Some("0644"));
    let d = root.get("b").and_then(|b| b.items()[0].get("d")).expect("is there");
    assert_eq!((d.place, d.text()), (Place { line: 3, column: 17 }, Some("yes")));
    assert_eq!(root.to_json(), json!({"a": 644, "b": [{"c": "x", "d": "yes"}]}));
    assert_eq!(documents[1].root.place, Place { line: 7, column: 1 });
}

#[test]
fn the_core_schema() {
    let text =
        "[null, ~, true, False, -1, 0o17, 0xff, 1.5, .5, 1e3, .inf, 'true', yes, no, 0b1, 1_000, 1:30]";
    let expected = json!([
        null, null, true, false, -1, 15, 255, 1.5, 0.5, 1000.0, ".inf", "true", "yes", "no", "0b1", "1_000",
        "1:30"
    ]);
    assert_eq!(read(text)[0].root.to_json(), expected);
}

#[test]
fn what_is_wrong_with_the_text_is_located() {
    assert_eq!(problems("a: 1\nb: 2\na: 3\n"), ["3:1: a: given twice: first at line 1"]);
    assert_eq!(
        problems("a: {b: 1,\n  b: 2, b: 3}"),
        ["2:3: a.b: given twice: first at line 1", "2:9: a.b: given twice: first at line 1"]
    );
    assert_eq!(problems("a: !!str 1"), ["1:4: a: tags are not allowed: remove !!str"]);
    assert_eq!(problems("? [a]\n: b"), ["1:3: : a key must be text"]);
    assert_eq!(problems("x: &a [*a]"), ["1:8: x[0]: an alias cannot stand inside of what it stands for"]);
    assert_eq!(problems("a: \"\u{1}\""), ["1:5: : has the control character U+0001"]);
    assert!(problems("a: [1").first().is_some_and(|p| p.contains("is not YAML")));
    let bad = read_documents(None, b"a: 1\nb: \xff");
    assert_eq!(bad[0].problems[0].message, "is not UTF-8: byte 0xff");
    assert_eq!(bad[0].problems[0].place, Place { line: 2, column: 4 });
}

#[test]
fn documents_before_a_syntax_error_are_whole() {
    let documents = read("a: 1\n---\nb: {c: 2, d: [\n");
    assert_eq!((documents.len(), documents[0].problems.len()), (2, 0));
    assert_eq!(documents[1].root.get("b").and_then(|b| b.get("c")?.text()), Some("2"));
}

#[test]
fn aliases_are_expanded_and_bounded() {
    assert_eq!(read("a: &x {b: 1}\nc: *x")[0].root.to_json(), json!({"a": {"b": 1}, "c": {"b": 1}}));
    let mut laughs = "a0: &a0 [x]\n".to_owned();
    for i in 1..12 {
        laughs.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", ")));
    }
    assert!(problems(&laughs)[0].contains("more than 1000 alias expansions"));
    let wide = format!("a: &a \"{}\"\nb: [{}]", "x".repeat(1 << 20), vec!["*a"; 900].join(", "));
    assert!(problems(&wide)[0].contains("aliases expanded"));
}

#[test]
fn nesting_is_bounded() {
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(problems(&nested(MAX_DEPTH)).is_empty());
    assert!(problems(&nested(MAX_DEPTH + 1))[0].contains("nests deeper than 64"));
    // The scanner reads ahead of the tree and has a bound of its own.
    assert!(problems(&nested(100_000))[0].contains("recursion limit exceeded"));
    let by_alias = format!("a: &a {}\nb: {}*a{}", nested(40), "[".repeat(40), "]".repeat(40));
    assert!(problems(&by_alias)[0].contains("nests deeper than 64"));
}

#[test]
fn the_wire_form_is_checked() {
    let plain = |text: &str| WireNode { at: (0, 0), key: None, is: WireValue::Plain(text.to_owned()) };
    let of = |is| WireNode { at: (0, 0), key: None, is };
    let keyed =
        |text: &str| WireNode { key: Some(WireKey { text: text.to_owned(), at: (0, 0) }), ..plain("v") };
    let result = |nodes| Document::from_wire(WireDocument { file: None, nodes }).map(|_| ());
    assert_eq!(result(vec![plain("x")]), Ok(()));
    assert_eq!(result(vec![]), Err(InvalidWire::Shape));
    assert_eq!(result(vec![plain("x"), plain("y")]), Err(InvalidWire::Shape));
    assert_eq!(result(vec![of(WireValue::List(2)), plain("x")]), Err(InvalidWire::Shape));
    assert_eq!(result(vec![of(WireValue::Map(1)), plain("x")]), Err(InvalidWire::Key));
    assert_eq!(result(vec![of(WireValue::List(1)), keyed("k")]), Err(InvalidWire::Key));
    let twice = vec![of(WireValue::Map(2)), keyed("k"), keyed("k")];
    assert_eq!(result(twice), Err(InvalidWire::DuplicateKey));
    let mut deep: Vec<_> = (0..100_000).map(|_| of(WireValue::List(1))).collect();
    deep.push(plain("x"));
    assert_eq!(result(deep), Err(InvalidWire::Depth));
    assert_eq!(result(vec![of(WireValue::List(u32::MAX))]), Err(InvalidWire::Shape));
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        "\\PC{0,12}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            prop::collection::btree_map("[a-zA-Z./]{0,8}", inner, 0..5)
                .prop_map(|m| Json::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let documents = read_documents(None, &bytes);
        prop_assert!(documents.len() <= 200);
    }

    #[test]
    fn yaml_like_text_never_panics(text in "([-a-z0-9:&*!#|>'\"{}\\[\\],?% \n]|: |\n  |- ){0,60}") {
        for document in read(&text) {
            if document.problems.is_empty() {
                let back = Document::from_wire(document.to_wire());
                prop_assert_eq!(back.as_ref(), Ok(&document));
            }
        }
    }

    #[test]
    fn json_is_yaml(json in any_json()) {
        let text = json.to_string();
        let documents = read(&text);
        let found = documents.first().map_or(Json::Null, |d| d.root.to_json());
        prop_assert!(documents.iter().all(|d| d.problems.is_empty()), "{:?}", documents);
        prop_assert_eq!(&found, &json);
        prop_assert_eq!(Node::from_json(&json).map(|n| n.to_json()), Some(json));
    }
}
