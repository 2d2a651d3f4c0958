//! Which paths of a host a ConfigFile is about, and who has them already.

use std::collections::BTreeMap;

use super::Unlisted;

/// The paths of a host that one ConfigFile is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Files.
    pub paths: Vec<String>,
    /// A folder in which everything is its own.
    pub whole: Option<String>,
}

impl Claims {
    /// Of a file, or of files in a folder.
    #[must_use]
    pub fn new<'a>(path: &str, names: impl Iterator<Item = &'a str>, unlisted: Unlisted) -> Claims {
        let mut paths: Vec<String> = names.map(|name| format!("{path}/{name}")).collect();
        let whole = match unlisted {
            Unlisted::Delete if !paths.is_empty() => Some(path.to_owned()),
            Unlisted::Keep | Unlisted::Delete | Unlisted::Unknown => None,
        };
        if paths.is_empty() {
            paths.push(path.to_owned());
        }
        Claims { paths, whole }
    }

    /// A path that both want, if there is one.
    #[must_use]
    pub fn collides_with(&self, other: &Claims) -> Option<String> {
        let mut taken = Taken::default();
        taken.take(other, ());
        taken.holder_of(self).map(|(path, ())| path)
    }
}

/// Paths that are taken, and by whom.
#[derive(Debug, Clone)]
pub struct Taken<T> {
    paths: BTreeMap<String, T>,
    wholes: BTreeMap<String, T>,
}

impl<T> Default for Taken<T> {
    fn default() -> Taken<T> {
        Taken { paths: BTreeMap::new(), wholes: BTreeMap::new() }
    }
}

impl<T: Clone> Taken<T> {
    /// Notes who has these; what somebody has already stays theirs.
    pub fn take(&mut self, claims: &Claims, holder: T) {
        for path in &claims.paths {
            self.paths.entry(path.clone()).or_insert_with(|| holder.clone());
        }
        if let Some(whole) = &claims.whole {
            self.wholes.entry(whole.clone()).or_insert(holder);
        }
    }

    /// Who has one of these paths, and which it is. A file where somebody needs a folder is taken, too.
    #[must_use]
    pub fn holder_of(&self, claims: &Claims) -> Option<(String, T)> {
        let found = |path: &str, holder: &T| Some((path.to_owned(), holder.clone()));
        for path in &claims.paths {
            let at = self.paths.get(path).or_else(|| below(&self.paths, path));
            if let Some(holder) = at {
                return found(path, holder);
            }
            for above in folders(path) {
                if let Some(holder) = self.paths.get(above).or_else(|| self.wholes.get(above)) {
                    return found(path, holder);
                }
            }
        }
        let whole = claims.whole.as_deref()?;
        let above = folders(whole).find_map(|folder| self.wholes.get(folder));
        let holder = self.wholes.get(whole).or(above).or_else(|| below(&self.wholes, whole));
        let holder = holder.or_else(|| below(&self.paths, whole))?;
        found(whole, holder)
    }
}

/// The folders above a path, the nearest first.
fn folders(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('/').map(|(at, _)| &path[..at]).filter(|folder| !folder.is_empty())
}

/// Anything below a folder.
fn below<'a, T>(map: &'a BTreeMap<String, T>, folder: &str) -> Option<&'a T> {
    let start = format!("{folder}/");
    let (path, holder) = map.range(start.clone()..).next()?;
    path.starts_with(&start).then_some(holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Claims {
        Claims::new(path, std::iter::empty(), Unlisted::Keep)
    }

    fn folder(path: &str, names: &[&'static str], unlisted: Unlisted) -> Claims {
        Claims::new(path, names.iter().copied(), unlisted)
    }

    #[test]
    fn who_wants_the_same() {
        let keep = folder("/etc/app.d", &["a.conf", "x/b.conf"], Unlisted::Keep);
        let own = folder("/etc/app.d", &["a.conf"], Unlisted::Delete);
        let cases = [
            (file("/etc/a"), file("/etc/a"), Some("/etc/a")),
            (file("/etc/a"), file("/etc/ab"), None),
            (file("/etc/a"), file("/etc/a/b"), Some("/etc/a")),
            (file("/etc/a/b"), file("/etc/a"), Some("/etc/a/b")),
            (file("/etc/app.d/a.conf"), keep.clone(), Some("/etc/app.d/a.conf")),
            (file("/etc/app.d/c.conf"), keep.clone(), None),
            (file("/etc/app.d"), keep.clone(), Some("/etc/app.d")),
            (file("/etc/app.d/c.conf"), own.clone(), Some("/etc/app.d/c.conf")),
            (own.clone(), file("/etc/app.d/c.conf"), Some("/etc/app.d")),
            (folder("/etc/app.d", &["c"], Unlisted::Keep), keep, None),
            (folder("/etc/app.d/x", &["c"], Unlisted::Delete), own, Some("/etc/app.d/x/c")),
        ];
        for (mine, theirs, expected) in cases {
            assert_eq!(mine.collides_with(&theirs).as_deref(), expected, "{mine:?} {theirs:?}");
        }
    }
}
