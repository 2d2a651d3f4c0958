//! The fuzz bodies on stable: over every kept input, over those inputs with damage, and over bytes by chance.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![here.join("corpus").join(target)];
    let fixtures = here.join("../../bus-schemas/fixtures");
    match target {
        "manifests" => {
            folders.extend(["manifests/good", "manifests/bad"].map(|folder| fixtures.join(folder)));
        }
        "codec" => folders.push(fixtures.join("v1")),
        "holder_frames" => folders.push(here.join("../../agent/core/fixtures/holder-1")),
        _ => {}
    }
    let mut found = Vec::new();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        for entry in std::fs::read_dir(folder).expect("a folder of inputs can be listed") {
            let path = entry.expect("a folder of inputs can be listed").path();
            if path.is_file() {
                found.push((path.clone(), std::fs::read(&path).expect("an input can be read")));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "there are inputs for {target}");
    found
}

fn over_corpus(target: &str, body: fn(&[u8])) {
    for (path, bytes) in inputs(target) {
        println!("{}", path.display());
        body(&bytes);
        // A message that was cut off anywhere is refused, not believed and not fatal.
        let step = (bytes.len() / 40).max(1);
        for end in (0..bytes.len()).step_by(step) {
            body(&bytes[..end]);
        }
    }
}

/// A kept input with a few bytes exchanged, taken out or put in.
fn damaged(target: &str) -> impl Strategy<Value = Vec<u8>> {
    let inputs: Vec<Vec<u8>> = inputs(target).into_iter().map(|(_, bytes)| bytes).collect();
    let damage = (any::<prop::sample::Index>(), 0usize..4, prop::collection::vec(any::<u8>(), 0..4));
    (prop::sample::select(inputs), prop::collection::vec(damage, 1..4)).prop_map(|(mut bytes, damages)| {
        for (at, removed, put) in damages {
            let at = at.index(bytes.len() + 1);
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, put);
        }
        bytes
    })
}

/// A few thousand inputs per body: seconds, not minutes.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn codec_over_its_corpus() {
    over_corpus("codec", ostler_fuzz::codec);
}

#[test]
fn holder_frames_over_their_corpus() {
    over_corpus("holder_frames", ostler_fuzz::holder_frames);
}

#[test]
fn holder_journal_over_its_corpus() {
    over_corpus("holder_journal", ostler_fuzz::holder_journal);
}

#[test]
fn keys_over_their_corpus() {
    over_corpus("keys", ostler_fuzz::keys);
}

#[test]
fn manifests_over_their_corpus() {
    over_corpus("manifests", ostler_fuzz::manifests);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn codec_over_chance(bytes in prop_oneof![damaged("codec"), prop::collection::vec(any::<u8>(), 0..200)]) {
        ostler_fuzz::codec(&bytes);
    }

    #[test]
    fn holder_frames_over_chance(
        bytes in prop_oneof![damaged("holder_frames"), prop::collection::vec(any::<u8>(), 0..200)]
    ) {
        ostler_fuzz::holder_frames(&bytes);
    }

    #[test]
    fn holder_journal_over_chance(bytes in damaged("holder_journal")) {
        ostler_fuzz::holder_journal(&bytes);
    }

    #[test]
    fn keys_over_chance(bytes in prop_oneof![damaged("keys"), "[-.a-z0-9/$>*_@:=]{0,60}".prop_map(String::into_bytes)]) {
        ostler_fuzz::keys(&bytes);
    }

    #[test]
    fn manifests_over_chance(bytes in prop_oneof![damaged("manifests"), prop::collection::vec(any::<u8>(), 0..200)]) {
        ostler_fuzz::manifests(&bytes);
    }
}
