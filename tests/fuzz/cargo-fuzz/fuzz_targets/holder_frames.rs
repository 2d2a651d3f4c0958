//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz/cargo-fuzz holder_frames tests/fuzz/corpus/holder_frames`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ostler_fuzz::holder_frames(data));
