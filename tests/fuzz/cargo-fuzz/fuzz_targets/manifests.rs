//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz/cargo-fuzz manifests tests/fuzz/corpus/manifests`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ostler_fuzz::manifests(data));
