//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz/cargo-fuzz keys tests/fuzz/corpus/keys`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ostler_fuzz::keys(data));
