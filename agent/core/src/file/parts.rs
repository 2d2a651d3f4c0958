//! The files of which one version consists: one, or several in a folder.
//!
//! A version of several files is staged whole before the first of them is put in place: every new file is written,
//! owned and synced beside its path, and only then are they renamed, one right after the other. So each of them is
//! whole at every instant, and a version that cannot be staged (no room, a folder in the way) changes nothing. Between
//! the first rename and the last a reader of several files can see some old and some new; after a crash in between
//! the rest is finished by whoever looks next.

use std::collections::BTreeMap;

use ostler_schemas::Sha256;
use ostler_schemas::hash::sha256;
use ostler_schemas::quantity::Mode;
use serde::{Deserialize, Serialize};

use super::{Found, Observed, Owner, Written};

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where it is below the folder; empty for the only one.
    pub name: String,
    /// Its content.
    pub sha256: Sha256,
    /// Its mode.
    pub mode: Mode,
}

impl Part {
    /// Whether it lies there as it should.
    #[must_use]
    pub fn is_as(&self, found: &Found, owner: Owner) -> bool {
        match found {
            Found::Regular { sha256, mode, owner: is } => {
                *sha256 == self.sha256 && *mode == self.mode && *is == owner
            }
            Found::Missing | Found::NotRegular(_) => false,
        }
    }

    /// What differs, in words: `content`, `mode`, `owner`, `missing`, or `kind`; with its name where it is one of several.
    #[must_use]
    pub fn differences(&self, found: &Found, owner: Owner) -> String {
        let what = match found {
            Found::Regular { sha256, mode, owner: is } => {
                let all = [
                    ("content", *sha256 != self.sha256),
                    ("mode", *mode != self.mode),
                    ("owner", *is != owner),
                ];
                all.into_iter()
                    .filter(|(_, differs)| *differs)
                    .map(|(word, _)| word)
                    .collect::<Vec<_>>()
                    .join(", ")
            }
            Found::Missing => "missing".to_owned(),
            Found::NotRegular(_) => "kind".to_owned(),
        };
        if self.name.is_empty() { what } else { format!("{}: {what}", self.name) }
    }
}

/// Names a set of files as one: of the only one it is the hash of its content.
#[must_use]
pub fn digest(parts: &[Part]) -> Sha256 {
    match parts {
        [Part { name, sha256, .. }] if name.is_empty() => *sha256,
        parts => {
            let line = |part: &Part| format!("{} {} {}\n", part.name, part.sha256, part.mode);
            let lines: std::collections::BTreeSet<String> = parts.iter().map(line).collect();
            sha256(lines.into_iter().collect::<String>().as_bytes())
        }
    }
}

impl Written {
    /// A version of these files.
    #[must_use]
    pub fn of(version: ostler_schemas::Version, parts: &[Part], mode: Mode, owner: Owner) -> Written {
        let several = match parts {
            [Part { name, .. }] if name.is_empty() => Vec::new(),
            parts => parts.to_vec(),
        };
        let mode = if several.is_empty() { parts.first().map_or(mode, |part| part.mode) } else { mode };
        Written { version, sha256: digest(parts), mode, owner, parts: several }
    }

    /// Its files, in order.
    #[must_use]
    pub fn all(&self) -> Vec<Part> {
        if self.parts.is_empty() {
            return vec![Part { name: String::new(), sha256: self.sha256, mode: self.mode }];
        }
        self.parts.clone()
    }
}

/// What was seen of a version's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Of each that was looked for.
    pub parts: BTreeMap<String, Observed>,
    /// Regular files in the folder that nobody named, where they are to be removed.
    pub unlisted: BTreeMap<String, Observed>,
    /// Of a folder: where candidates are looked at.
    pub candidate: Option<Box<Observed>>,
}

impl Sight {
    /// Of the only file.
    #[must_use]
    pub fn alone(observed: Observed) -> Sight {
        Sight {
            parts: BTreeMap::from([(String::new(), observed)]),
            unlisted: BTreeMap::new(),
            candidate: None,
        }
    }

    /// What lies at one of them.
    #[must_use]
    pub fn found(&self, name: &str) -> &Found {
        self.parts.get(name).map_or(&Found::Missing, |seen| &seen.found)
    }

    /// What lies there and differs from a version, by name.
    #[must_use]
    pub fn differing(&self, target: &Written) -> Vec<(String, Found)> {
        let parts = target.all().into_iter().filter_map(|part| {
            let found = self.found(&part.name);
            (!part.is_as(found, target.owner)).then(|| (part.name.clone(), found.clone()))
        });
        let extra = self.unlisted.iter().map(|(name, seen)| (name.clone(), seen.found.clone()));
        parts.chain(extra).collect()
    }

    /// Likewise in words.
    #[must_use]
    pub fn differences(&self, target: &Written) -> String {
        let parts = target.all().into_iter().filter_map(|part| {
            let found = self.found(&part.name);
            (!part.is_as(found, target.owner)).then(|| part.differences(found, target.owner))
        });
        let extra = self.unlisted.keys().map(|name| format!("{name}: not named"));
        parts.chain(extra).collect::<Vec<_>>().join("; ")
    }

    /// Names what is there as [`digest`] does; none while anything is missing.
    #[must_use]
    pub fn digest(&self) -> Option<Sha256> {
        let mut parts = Vec::new();
        for (name, seen) in &self.parts {
            let Found::Regular { sha256, mode, .. } = &seen.found else { return None };
            parts.push(Part { name: name.clone(), sha256: *sha256, mode: *mode });
        }
        (!parts.is_empty()).then(|| digest(&parts))
    }
}
