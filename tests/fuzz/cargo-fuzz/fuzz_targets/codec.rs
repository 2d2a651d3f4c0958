//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz/cargo-fuzz codec tests/fuzz/corpus/codec`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ostler_fuzz::codec(data));
