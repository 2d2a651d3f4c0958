//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz/cargo-fuzz holder_journal tests/fuzz/corpus/holder_journal`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ostler_fuzz::holder_journal(data));
