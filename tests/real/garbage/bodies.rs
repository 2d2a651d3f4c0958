//! Bodies that nobody can want.

use bytes::Bytes;
use harness::seeds::child;
use ostler_schemas::codec;
use ostler_schemas::v1::api::{ApplyRequest, ListRequest};

/// Names that envelopes bear, those of every plane among them.
const KINDS: [&str; 22] = [
    "Beat",
    "Report",
    "Event",
    "AuditRecord",
    "Beacon",
    "Lease",
    "Term",
    "Fence",
    "Incarnation",
    "Object",
    "SpecRevision",
    "ProcessSpecRecord",
    "ProcessTemplateRecord",
    "BindRecord",
    "GoalRecord",
    "RunDocument",
    "FilesDocument",
    "NodeState",
    "RolloutState",
    "ApplyRequest",
    "RegisterRequest",
    "LogsRequest",
];
/// What a body may be instead of a map with the right fields: an empty map, nil, a number, a list that promises more
/// than there is, a map of a text to itself.
const INSIDES: [&[u8]; 5] =
    [&[0x80], &[0xc0], &[0x2a], &[0xdd, 0xff, 0xff, 0xff, 0xff], &[0x81, 0xa1, b'x', 0xa1, b'x']];
/// Close to the most that the bus carries.
const LARGE: usize = 1_100_000;

fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    [&[0xd9, length], text.as_bytes()].concat()
}

/// An envelope of this kind and schema around these bytes.
pub(super) fn envelope(kind: &str, schema: u8, inside: &[u8]) -> Bytes {
    [&[0x83][..], &text("v"), &[schema], &text("kind"), &text(kind), &text("body"), inside].concat().into()
}

/// Valid requests of ours.
fn valid() -> [Vec<u8>; 2] {
    let apply = ApplyRequest {
        documents: Vec::new(),
        content: None,
        force: true,
        retry: false,
        dry_run: false,
        reason: Some("x".repeat(200)),
    };
    let list = ListRequest {
        kind: ostler_schemas::Kind::Node,
        namespace: None,
        labels: Vec::new(),
        names: vec!["n".to_owned()],
    };
    [codec::encode(&apply).expect("encodes"), codec::encode(&list).expect("encodes")]
}

/// Random, truncated, nested, lying, of another kind, of a newer schema.
pub(super) fn small() -> Vec<Bytes> {
    let entropy = child(7, "garbage");
    let mut all: Vec<Bytes> = vec![
        Bytes::from_static(b"\0"),
        Bytes::from_static(b"{\"json\": true}"),
        Bytes::from(vec![0xc1; 64]),
        Bytes::from(vec![0x91; 50_000]),
        Bytes::from(vec![0x81; 50_000]),
        Bytes::from_static(&[0xdf, 0xff, 0xff, 0xff, 0xff]),
        Bytes::from_static(&[0xc6, 0xff, 0xff, 0xff, 0xff]),
    ];
    for length in [1usize, 7, 100, 4_000] {
        let mut bytes = vec![0; length];
        entropy.fill(&mut bytes);
        all.push(bytes.into());
    }
    for whole in valid() {
        all.extend([1, 2, 3].map(|part| Bytes::copy_from_slice(&whole[..whole.len() * part / 4])));
    }
    for kind in KINDS {
        all.extend(INSIDES.map(|inside| envelope(kind, 1, inside)));
        all.push(envelope(kind, 99, &[0x80]));
    }
    all
}

/// As large as the bus lets pass.
pub(super) fn large() -> Vec<Bytes> {
    vec![Bytes::from(vec![0; LARGE]), Bytes::from(vec![0x91; LARGE])]
}
