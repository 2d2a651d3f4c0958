use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Old {
    name: String,
    inner: Vec<OldInner>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OldInner {
    a: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct New {
    name: String,
    inner: Vec<NewInner>,
    extra: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct NewInner {
    a: u32,
    b: u32,
}

impl Wire for Old {
    const KIND: &'static str = "Sample";
    const LIMIT: usize = 1000;
}
impl Wire for New {
    const KIND: &'static str = "Sample";
    const LIMIT: usize = 1000;
}

fn new() -> New {
    New { name: "x".into(), inner: vec![NewInner { a: 1, b: 2 }], extra: Some("keep".into()) }
}

#[test]
fn an_old_reader_keeps_what_it_does_not_know() {
    let bytes = encode(&new()).expect("encodes");
    let (mut old, unknown) = decode_kept::<Old>(&bytes).expect("decodes");
    assert!(!unknown.is_empty());
    old.name = "y".into();
    old.inner[0].a = 9;
    let back: New = decode(&unknown.encode(&old).expect("encodes")).expect("decodes");
    assert_eq!(
        back,
        New { name: "y".into(), inner: vec![NewInner { a: 9, b: 2 }], extra: Some("keep".into()) }
    );
}

#[test]
fn nothing_is_kept_when_all_is_known() {
    let bytes = encode(&New { extra: None, ..new() }).expect("encodes");
    assert!(decode_kept::<New>(&bytes).expect("decodes").1.is_empty());
}

#[test]
fn size_is_checked_first_and_kind_before_body() {
    assert!(matches!(
        decode::<Old>(&[0xff; 1001]),
        Err(DecodeError::TooLarge { found: 1001, limit: 1000, .. })
    ));
    let other = Envelope { v: 1, kind: "Other".to_owned(), body: 3 };
    let bytes = rmp_serde::to_vec_named(&other).expect("packs");
    assert!(matches!(decode::<Old>(&bytes), Err(DecodeError::OtherKind { .. })));
    let newer = Envelope { v: 2, kind: "Sample".to_owned(), body: new() };
    let bytes = rmp_serde::to_vec_named(&newer).expect("packs");
    assert!(matches!(decode::<Old>(&bytes), Err(DecodeError::NewerSchema { found: 2, known: 1, .. })));
    let large = New { name: "x".repeat(2000), ..new() };
    assert!(matches!(encode(&large), Err(EncodeError::TooLarge { limit: 1000, .. })));
}

#[test]
fn deep_nesting_is_an_error_and_not_a_crash() {
    let mut bytes = vec![0x83, 0xa1, b'v', 1, 0xa4];
    bytes.extend(b"kind");
    bytes.extend([0xa6]);
    bytes.extend(b"Sample");
    bytes.extend([0xa4]);
    bytes.extend(b"body");
    bytes.extend(std::iter::repeat_n(0x91, 900));
    assert!(decode::<Old>(&bytes).is_err());
    assert!(inspect(&bytes).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(decode::<Old>(&bytes));
        prop_assert_eq!(decode_kept::<New>(&bytes).is_ok(), decode::<New>(&bytes).is_ok());
        prop_assert!(inspect(&bytes).is_ok() || decode::<New>(&bytes).is_err());
    }

    #[test]
    fn every_prefix_is_refused(cut in 0usize..60) {
        let bytes = encode(&new()).expect("encodes");
        prop_assume!(cut < bytes.len());
        prop_assert!(decode::<New>(&bytes[..cut]).is_err());
    }
}
