//! What fuzzers feed: one function each for the envelope codec, for keys and subjects, for manifests, and for what
//! the holder reads: frames of its socket and the journal of its state.
//!
//! A body takes any bytes, must not panic by itself, and asserts what must hold of whatever it could read: that it
//! is written and read again to the same thing. The same bodies run in three places: in `cargo fuzz` (the folder
//! `cargo-fuzz`, a workspace of its own that needs nightly), over the kept inputs of `corpus/` on stable, and over
//! inputs made by chance there.

mod codec;
mod holder;
mod keys;
mod manifests;

pub use codec::codec;
pub use holder::{holder_frames, holder_journal};
pub use keys::keys;
pub use manifests::manifests;
