//! What looks at a file before it is put in place: a syntax that is built in, a command of the host, or both.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::expand::expand;
use crate::quantity::Dur;

/// What looks at a file before it is put in place. At least one of `command` and `syntax` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Validator {
    /// The program and its words, no shell; `$(FILE)` is the candidate. Empty for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Name or number of the user that the command runs as; none means the owner of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How long the command may take before it is killed and the file is refused.
    pub timeout: Dur,
    /// The syntax that every file of the version must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syntax: Option<Syntax>,
}

/// A syntax that is checked without a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Syntax {
    /// RFC 8259.
    Json,
    /// YAML 1.2.
    Yaml,
    /// TOML 1.
    Toml,
    /// Sections, keys and values.
    Ini,
    /// A choice of a newer server: an older agent refuses the file, because it cannot look at it.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Syntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Syntax::Json => "json",
            Syntax::Yaml => "yaml",
            Syntax::Toml => "toml",
            Syntax::Ini => "ini",
            Syntax::Unknown => "unknown",
        })
    }
}

/// The variable that stands for the candidate.
pub const CANDIDATE: &str = "FILE";

/// Variables that a validator has, and its words can name.
pub const VALIDATOR_VARIABLES: [&str; 11] = [
    CANDIDATE,
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "OSTLER_NAME",
    "OSTLER_NAMESPACE",
    "OSTLER_NODE",
    "OSTLER_VERSION",
    "OSTLER_ROOT",
];

impl Validator {
    /// Whether a command looks at the candidate.
    #[must_use]
    pub fn has_command(&self) -> bool {
        !self.command.is_empty()
    }

    /// The words of its command with these variables.
    ///
    /// # Errors
    /// The name of one that is not among them.
    pub fn words(&self, variables: &BTreeMap<String, String>) -> Result<Vec<String>, String> {
        let word = |word: &String| expand(word, |name| variables.get(name).cloned()).map_err(str::to_owned);
        self.command.iter().map(word).collect()
    }
}
