//! What an agent removes of its own when a disk is full, before anybody's work is ended for it.
//!
//! Guarantees: only what nobody uses goes, only on file systems that are short, no more than is missing, and what is
//! missed least goes first: what was fetched only in part, then artifacts (they can be fetched again), then rotated
//! logs of processes that are gone, then the rest of their logs; of each the oldest first.
//!
//! Pure: what there is comes from the host, and the host removes what is chosen.

use std::collections::BTreeMap;

use ostler_schemas::quantity::Size;

use crate::pressure::Lack;

/// What can go, in the order in which it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A part of an artifact that nobody fetches now.
    Partial,
    /// An artifact, or a set of them, that nothing here is started from.
    Artifact,
    /// A rotated file of the log of a process that is gone.
    RotatedLog,
    /// All that is left of such a log.
    Log,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Partial, Kind::Artifact, Kind::RotatedLog, Kind::Log];

    const fn words(self, many: bool) -> &'static str {
        match (self, many) {
            (Kind::Partial, false) => "unfinished download",
            (Kind::Partial, true) => "unfinished downloads",
            (Kind::Artifact, false) => "artifact that nothing uses",
            (Kind::Artifact, true) => "artifacts that nothing uses",
            (Kind::RotatedLog, false) => "rotated log of a process that is gone",
            (Kind::RotatedLog, true) => "rotated logs of processes that are gone",
            (Kind::Log, false) => "log of a process that is gone",
            (Kind::Log, true) => "logs of processes that are gone",
        }
    }
}

/// Something that could go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spare {
    /// What it is.
    pub kind: Kind,
    /// Where it is, as whoever told of it finds it again.
    pub id: String,
    /// The file system that it lies on.
    pub device: u64,
    /// Bytes that its end frees.
    pub bytes: u64,
    /// Files that its end frees.
    pub files: u64,
    /// When it was last used or written, in seconds since 1970.
    pub used: u64,
}

/// What goes.
#[must_use]
pub fn choose(spares: &[Spare], lacks: &[Lack]) -> Vec<Spare> {
    let mut missing: BTreeMap<u64, (u64, u64)> =
        lacks.iter().map(|lack| (lack.device, (lack.bytes, lack.files))).collect();
    let mut sorted: Vec<&Spare> = spares.iter().collect();
    sorted.sort_by_key(|spare| (spare.kind, spare.used, spare.id.as_str()));
    let mut chosen = Vec::new();
    for spare in sorted {
        let Some((bytes, files)) = missing.get_mut(&spare.device) else { continue };
        let helps = (*bytes > 0 && spare.bytes > 0) || (*files > 0 && spare.files > 0);
        if helps {
            *bytes = bytes.saturating_sub(spare.bytes);
            *files = files.saturating_sub(spare.files);
            chosen.push(spare.clone());
        }
    }
    chosen
}

/// What was removed, for people: `removed 310Mi: 2 artifacts that nothing uses (300Mi), 1 rotated log … (10Mi)`.
/// Nothing if nothing was.
#[must_use]
pub fn words(removed: &[Spare]) -> Option<String> {
    let sum = |of: &mut dyn Iterator<Item = &Spare>| -> Size {
        let bytes = of.map(|spare| spare.bytes).fold(0, u64::saturating_add);
        // In whole MiB, as soon as there is one: a figure like 851443712 helps nobody.
        if bytes >> 20 > 0 { Size::from_mib(bytes >> 20) } else { Size::from_bytes(bytes) }
    };
    let parts: Vec<String> = Kind::ALL
        .into_iter()
        .filter_map(|kind| {
            let of_kind = || removed.iter().filter(move |spare| spare.kind == kind);
            let count = of_kind().count();
            (count > 0).then(|| format!("{count} {} ({})", kind.words(count > 1), sum(&mut of_kind())))
        })
        .collect();
    (!parts.is_empty()).then(|| format!("removed {}: {}", sum(&mut removed.iter()), parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spare(kind: Kind, id: &str, bytes: u64, used: u64) -> Spare {
        Spare { kind, id: id.to_owned(), device: 1, bytes, files: 1, used }
    }

    fn lack(bytes: u64, files: u64) -> Vec<Lack> {
        vec![Lack { device: 1, bytes, files, used: 960, total: 1000 }]
    }

    fn ids(chosen: &[Spare]) -> Vec<&str> {
        chosen.iter().map(|spare| spare.id.as_str()).collect()
    }

    #[test]
    fn what_is_missed_least_goes_first_and_no_more_than_is_missing() {
        let all = [
            spare(Kind::Log, "log", 100, 1),
            spare(Kind::RotatedLog, "rotated", 100, 2),
            spare(Kind::Artifact, "new", 100, 9),
            spare(Kind::Artifact, "old", 100, 3),
            spare(Kind::Partial, "part", 100, 8),
            Spare { device: 2, ..spare(Kind::Partial, "elsewhere", 100, 1) },
        ];
        assert_eq!(ids(&choose(&all, &lack(150, 0))), ["part", "old"]);
        assert_eq!(ids(&choose(&all, &lack(0, 1))), ["part"], "files are freed too");
        assert_eq!(ids(&choose(&all, &lack(9_999, 0))), ["part", "old", "new", "rotated", "log"]);
        assert_eq!(choose(&all, &[]), []);
        assert_eq!(
            choose(&[spare(Kind::Artifact, "shared", 0, 1)], &lack(1, 0)),
            [],
            "its end frees nothing"
        );
    }

    #[test]
    fn what_went_is_told() {
        let removed = [
            spare(Kind::Artifact, "a", 200 << 20, 1),
            spare(Kind::Artifact, "b", 100 << 20, 1),
            spare(Kind::RotatedLog, "c", 10 << 20, 1),
        ];
        let told = "removed 310Mi: 2 artifacts that nothing uses (300Mi), 1 rotated log of a process that is gone (10Mi)";
        assert_eq!(words(&removed).as_deref(), Some(told));
        assert_eq!(words(&[]), None);
    }

    proptest! {
        #[test]
        fn enough_goes_or_all_that_helps_does(
            sizes in prop::collection::vec((0u64..100, 0u64..50, 0u64..3), 0..30),
            bytes in 0u64..2000,
        ) {
            let all: Vec<Spare> = sizes.iter().enumerate().map(|(i, (bytes, used, device))| {
                Spare { device: *device, ..spare(Kind::ALL[i % 4], &i.to_string(), *bytes, *used) }
            }).collect();
            let chosen = choose(&all, &lack(bytes, 0));
            let freed: u64 = chosen.iter().map(|spare| spare.bytes).sum();
            let here = all.iter().filter(|spare| spare.device == 1 && spare.bytes > 0).count();
            prop_assert!(freed >= bytes || chosen.len() == here);
            prop_assert!(chosen.iter().all(|spare| spare.device == 1));
            // Without the last one it would not have been enough.
            let last = chosen.last().map_or(0, |spare| spare.bytes);
            prop_assert!(chosen.is_empty() || freed - last < bytes);
        }
    }
}
