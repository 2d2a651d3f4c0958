//! From YAML text to checked objects, with every finding located.

pub mod finding;
pub mod schema;
pub mod tree;

pub use finding::{Finding, FindingCode, Place, Refusal};
pub use tree::{Document, WireDocument, read_documents};
