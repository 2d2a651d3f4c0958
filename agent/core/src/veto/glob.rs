//! Patterns of paths: `*` and `?` within a name, `**` for any number of folders. A pattern matches a path and
//! everything below it.

use std::fmt;

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Neither absolute nor beginning with `**`.
    #[error("{0:?} is no pattern of paths: begin it with / or **/")]
    Relative(String),
    /// It would never match what it seems to.
    #[error("{0:?} has \".\", \"..\" or an empty part: write it in normal form")]
    NotNormal(String),
    /// It looks like a class or a choice, which there is not.
    #[error("{0:?}: only *, ? and ** have a meaning here, not [, ], {{ or }}")]
    Unknown(String),
}

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<String>,
    folded: Vec<String>,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Pattern {
    /// Reads one. `/a/**` and `/a` are the same.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.contains(['[', ']', '{', '}']) {
            return Err(PatternError::Unknown(text.to_owned()));
        }
        let rest = match text.strip_prefix('/') {
            Some(rest) => rest,
            None if text.starts_with("**/") => text,
            None => return Err(PatternError::Relative(text.to_owned())),
        };
        let mut parts: Vec<String> = rest.trim_end_matches('/').split('/').map(str::to_owned).collect();
        if rest.is_empty() {
            parts.clear();
        } else if parts.iter().any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(PatternError::NotNormal(text.to_owned()));
        }
        while parts.len() > 1 && parts.last().is_some_and(|last| last == "**") {
            parts.pop();
        }
        let folded = parts.iter().map(|part| part.to_lowercase()).collect();
        Ok(Self { text: text.to_owned(), parts, folded })
    }

    /// Whether it matches a path in normal form, or a folder above it.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let names: Vec<&str> = names(path).collect();
        below(&self.parts, &names)
    }

    /// The same whatever the case: some file systems do not tell apart what is denied and what is not.
    #[must_use]
    pub fn matches_any_case(&self, path: &str) -> bool {
        let path = path.to_lowercase();
        let names: Vec<&str> = names(&path).collect();
        below(&self.folded, &names)
    }
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// A path without empty parts, `.` and `..`.
pub(super) fn normal(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for name in names(path) {
        match name {
            "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Whether the parts match a beginning of the names. The latest `**` takes one name more whenever what follows it does
/// not fit; an earlier one never needs to, because whatever it could take the later one can.
fn below(parts: &[String], names: &[&str]) -> bool {
    let (mut part, mut at) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        match parts.get(part) {
            None => return true,
            Some(text) if text == "**" => {
                back = Some((part, at));
                part += 1;
            }
            Some(text) => match names.get(at) {
                Some(name) if is_like(text, name) => {
                    part += 1;
                    at += 1;
                }
                Some(_) | None => match &mut back {
                    Some((stars, from)) if *from < names.len() => {
                        *from += 1;
                        part = *stars + 1;
                        at = *from;
                    }
                    Some(_) | None => return false,
                },
            },
        }
    }
}

/// One name against one part, with `*` and `?`.
fn is_like(part: &str, name: &str) -> bool {
    let (part, name): (Vec<char>, Vec<char>) = (part.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        match part.get(p) {
            Some('*') => {
                back = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || name.get(n) == Some(c) => {
                p += 1;
                n += 1;
            }
            Some(_) | None => match &mut back {
                Some((star, from)) => {
                    *from += 1;
                    p = *star + 1;
                    n = *from;
                }
                None => return false,
            },
        }
    }
    part.get(p..).unwrap_or_default().iter().all(|c| *c == '*')
}
