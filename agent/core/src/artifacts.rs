//! Files that processes are started from: what belongs together, where it lies, what may go.
//!
//! The artifacts of a template are one *set*, named by a hash over what is in it, so that processes which ask for the
//! same share one read-only folder, and a folder that is there is right. Fetched files lie apart, named by their own
//! hash, and are shared by sets.
//!
//! Pure: fetching, unpacking and removing are the host's.

use std::collections::BTreeSet;

use ostler_schemas::Sha256;
use ostler_schemas::hash::sha256;
use ostler_schemas::spec::{Artifact, Unpack};

/// Layout of the cache below its folder.
pub const BLOBS: &str = "blobs";
/// What is being fetched.
pub const PARTIAL: &str = "partial";
/// Sets, each a folder.
pub const SETS: &str = "sets";
/// Sets that are being built.
pub const BUILDING: &str = "building";

/// Names a set: a hash over what is in it, whatever the order and wherever it is fetched from.
#[must_use]
pub fn set_id(artifacts: &[Artifact]) -> Sha256 {
    let mut lines: Vec<String> = artifacts
        .iter()
        .map(|a| {
            let unpack = match a.unpack {
                Unpack::None => "none",
                Unpack::Tar => "tar",
                Unpack::Zip => "zip",
            };
            format!("{} {} {unpack} {}\n", a.sha256, a.mode, a.path)
        })
        .collect();
    lines.sort();
    sha256(lines.concat().as_bytes())
}

/// Why a path cannot lie below a folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPath(String);

/// The parts of a path that stays below the folder it is joined to: relative, without `..`.
///
/// # Errors
/// [`BadPath`], with the path.
pub fn inner_parts(path: &str) -> Result<Vec<&str>, BadPath> {
    let bad = |why: &str| Err(BadPath(format!("{path:?} {why}")));
    if path.starts_with('/') {
        return bad("is absolute");
    }
    if path.contains('\0') {
        return bad("holds a zero byte");
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return bad("leaves its folder");
    }
    Ok(parts)
}

/// How far the preparation of a set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preparing {
    /// Not yet; in words for people.
    Underway(String),
    /// It lies here.
    Ready(String),
    /// It cannot be had; in words for people. Trying again later may help.
    Failed(String),
}

/// `fetching web-linux-amd64: 42 of 118 MiB`.
#[must_use]
pub fn progress(artifact: &Artifact, done: u64, total: Option<u64>) -> String {
    let name = artifact.source.rsplit('/').find(|part| !part.is_empty()).unwrap_or(&artifact.source);
    match total {
        Some(total) if total >= MIB => format!("fetching {name}: {} of {} MiB", done / MIB, total / MIB),
        Some(total) => format!("fetching {name}: {done} of {total} bytes"),
        None => format!("fetching {name}: {} MiB", done / MIB),
    }
}

const MIB: u64 = 1 << 20;

/// Something in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// A set's id, or a file's hash.
    pub hash: Sha256,
    /// Whether it is a set.
    pub is_set: bool,
    /// Bytes on disk that go with it.
    pub bytes: u64,
    /// When it was last used, in seconds since 1970.
    pub used: u64,
}

/// What has to go so that the cache keeps to its limit: what was not used for longest first, and never a set in use.
///
/// Files of sets that are there go before the sets of the same age: what was built from them needs them no more.
#[must_use]
pub fn to_remove(cached: &[Cached], in_use: &BTreeSet<Sha256>, limit: u64) -> Vec<Cached> {
    let mut total: u64 = cached.iter().map(|c| c.bytes).sum();
    let mut candidates: Vec<&Cached> =
        cached.iter().filter(|c| !(c.is_set && in_use.contains(&c.hash))).collect();
    candidates.sort_by_key(|c| (c.used, c.is_set, c.hash));
    let mut gone = Vec::new();
    for candidate in candidates {
        if total <= limit {
            break;
        }
        total = total.saturating_sub(candidate.bytes);
        gone.push(candidate.clone());
    }
    gone
}

#[cfg(test)]
mod tests {
    use ostler_schemas::quantity::Mode;
    use proptest::prelude::*;

    use super::*;

    fn artifact(n: u8, path: &str) -> Artifact {
        Artifact {
            source: format!("https://repo.example.net/{n}/web-linux-amd64"),
            sha256: Sha256::from_bytes([n; 32]),
            path: path.to_owned(),
            mode: Mode::from_bits(0o755),
            unpack: Unpack::None,
        }
    }

    #[test]
    fn a_set_is_what_is_in_it() {
        let (a, b) = (artifact(1, "bin/a"), artifact(2, "bin/b"));
        let id = set_id(&[a.clone(), b.clone()]);
        assert_eq!(id, set_id(&[b.clone(), a.clone()]), "order means nothing");
        let elsewhere = Artifact { source: "file:/srv/a".to_owned(), ..a.clone() };
        assert_eq!(id, set_id(&[elsewhere, b.clone()]), "nor where it comes from");
        for other in [
            Artifact { path: "bin/c".to_owned(), ..a.clone() },
            Artifact { mode: Mode::from_bits(0o644), ..a.clone() },
            artifact(3, "bin/a"),
            Artifact { unpack: Unpack::Tar, ..a },
        ] {
            assert_ne!(id, set_id(&[other, b.clone()]));
        }
    }

    #[test]
    fn paths_stay_below_their_folder() {
        assert_eq!(inner_parts("bin//./web"), Ok(vec!["bin", "web"]));
        for bad in ["/etc/passwd", "../x", "a/../../x", "a/..", "a\0b"] {
            assert!(inner_parts(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn progress_is_short() {
        assert_eq!(
            progress(&artifact(1, "x"), 42 * MIB, Some(118 * MIB)),
            "fetching web-linux-amd64: 42 of 118 MiB"
        );
        assert_eq!(progress(&artifact(1, "x"), 3, Some(10)), "fetching web-linux-amd64: 3 of 10 bytes");
    }

    proptest! {
        #[test]
        fn what_is_in_use_stays_and_the_limit_is_kept(
            sizes in prop::collection::vec((0u64..100, any::<bool>(), 0u64..50, any::<bool>()), 0..30),
            limit in 0u64..2000,
        ) {
            let cached: Vec<Cached> = sizes.iter().enumerate().map(|(i, (bytes, is_set, used, _))| Cached {
                hash: Sha256::from_bytes([u8::try_from(i).unwrap_or(0); 32]),
                is_set: *is_set,
                bytes: *bytes,
                used: *used,
            }).collect();
            let in_use: BTreeSet<Sha256> =
                cached.iter().zip(&sizes).filter(|(_, s)| s.3).map(|(c, _)| c.hash).collect();
            let gone = to_remove(&cached, &in_use, limit);
            prop_assert!(gone.iter().all(|c| !c.is_set || !in_use.contains(&c.hash)));
            let left: Vec<&Cached> = cached.iter().filter(|c| !gone.contains(c)).collect();
            let total: u64 = left.iter().map(|c| c.bytes).sum();
            let only_used = left.iter().all(|c| c.is_set && in_use.contains(&c.hash));
            prop_assert!(total <= limit || only_used);
            // Nothing older that could have gone stays.
            let newest = gone.iter().map(|c| c.used).max().unwrap_or(0);
            prop_assert!(left.iter().all(|c| c.used >= newest || (c.is_set && in_use.contains(&c.hash))));
        }
    }
}
