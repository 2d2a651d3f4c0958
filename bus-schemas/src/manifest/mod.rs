//! From YAML text to checked objects, with every finding located; and back to YAML.
//!
//! * [`read_documents`] makes trees of text. A tree keeps places and the way scalars were written, so it can travel
//!   ([`encode_tree`], [`decode_tree`]) and be checked again by the server with the same words.
//! * [`check`] makes [`Manifest`]s of trees, or a [`Refusal`] with everything that is wrong.
//! * [`Manifest::complete`] makes the [`crate::spec::Spec`] that is stored.
//! * [`to_yaml`] writes what `get -o yaml` shows.
//!
//! Not here: whatever needs the store, such as whether a field changed that cannot.

mod change;
mod check;
mod finding;
mod places;
pub mod schema;
mod transfer;
mod tree;
mod typed;
mod yaml;

pub use change::immutable_changes;
pub use check::{MAX_CONTENT, MAX_OBJECT, MAX_OBJECTS, Options, check, decode_base64, expand_lists};
pub use finding::{Finding, FindingCode, Place, Refusal};
pub use places::Places;
pub use transfer::{InvalidTree, decode_tree, detach_content, encode_tree, written_spec};
pub use tree::{
    Document, Entry, InvalidWire, MAX_ALIASES, MAX_DEPTH, MAX_TEXT, Node, Problem, Scalar, ScalarType, Value,
    WireDocument, WireKey, WireNode, WireValue, read_documents,
};
pub use typed::{
    ConfigFileBody, Content, DeploymentBody, GivenValue, Manifest, ManifestBody, NodeBody, Origin,
    SecretBody, SecretWish,
};
pub use yaml::to_yaml;

/// Reads and checks the text of one file.
///
/// # Errors
/// A refusal with every finding, if there is any.
pub fn read_manifests(file: Option<&str>, bytes: &[u8], options: &Options) -> Result<Vec<Manifest>, Refusal> {
    check(read_documents(file, bytes), options)
}
