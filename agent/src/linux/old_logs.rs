//! Logs of processes that are gone, as what can be removed when a disk is full.
//!
//! Their owner asked to keep them (`keepAfterExit`), so they are the last to go of what is Ostler's own; the rotated
//! files go before the last words. Logs of which nothing is written down are never touched.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ostler_agent_core::reclaim::{Kind, Spare};
use ostler_schemas::Uid;
use ostler_schemas::ids::is_label;

use super::log::ProcessLog;
use super::log::sweep::names;
use super::weight::weigh;

/// Every log below `dir` whose process is not `known`.
pub(super) fn find(dir: &Path, known: &BTreeSet<Uid>) -> Vec<Spare> {
    let gone = names(dir).into_iter().filter(|(namespace, name)| is_gone(dir, namespace, name, known));
    gone.flat_map(|(namespace, name)| of(dir, &format!("{namespace}/{name}"))).collect()
}

fn is_gone(dir: &Path, namespace: &str, name: &str, known: &BTreeSet<Uid>) -> bool {
    let about = ProcessLog::new(dir, namespace, name).about();
    about.beginnings.last().is_some_and(|last| !known.contains(&last.uid))
}

/// The rotated files of one log, and the rest of it.
fn of(dir: &Path, log: &str) -> Vec<Spare> {
    let spare = |kind, id: String| {
        let weight = weigh(&dir.join(&id))?;
        let (device, bytes, files, used) = (weight.device, weight.bytes, weight.files, weight.changed);
        Some(Spare { kind, id, device, bytes, files, used })
    };
    let entries = fs::read_dir(dir.join(log)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let rotated: Vec<Spare> = names
        .filter(|name| is_rotated(name))
        .filter_map(|name| spare(Kind::RotatedLog, format!("{log}/{name}")))
        .collect();
    let whole = spare(Kind::Log, log.to_owned()).map(|whole| Spare {
        bytes: whole.bytes.saturating_sub(rotated.iter().map(|one| one.bytes).sum()),
        files: whole.files.saturating_sub(rotated.len() as u64),
        ..whole
    });
    rotated.into_iter().chain(whole).collect()
}

fn is_rotated(name: &str) -> bool {
    let number = name.strip_prefix("current.log.");
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Removes some of them, if their processes are gone still.
pub(super) fn remove(dir: &Path, known: &BTreeSet<Uid>, logs: Vec<Spare>) -> Vec<Spare> {
    logs.into_iter().filter(|log| path_of(dir, known, log).is_some_and(|path| remove_one(&path))).collect()
}

/// Where it lies; none if it is no log of a process that is gone.
fn path_of(dir: &Path, known: &BTreeSet<Uid>, log: &Spare) -> Option<PathBuf> {
    let mut parts = log.id.split('/');
    let (namespace, name, file) = (parts.next()?, parts.next()?, parts.next());
    let is_sound = parts.next().is_none()
        && is_label(namespace)
        && is_label(name)
        && file.is_none_or(is_rotated)
        && is_gone(dir, namespace, name, known);
    is_sound.then(|| dir.join(&log.id))
}

fn remove_one(path: &Path) -> bool {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Ok(()) => {
            // Goes with its last log; with others in it, it stays.
            path.parent().filter(|_| is_folder).map(|namespace| fs::remove_dir(namespace).ok());
            true
        }
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "an old log could not be removed");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use ostler_agent_core::holder::lines::about::{About, Beginning};

    use super::*;

    fn uid(digit: &str) -> Uid {
        digit.repeat(32).parse().expect("a uid")
    }

    fn log(dir: &Path, name: &str, who: &str) {
        let folder = dir.join("default").join(name);
        fs::create_dir_all(&folder).expect("makes it");
        let beginnings = vec![Beginning { at_us: 1, uid: uid(who), incarnation: 1 }];
        let about = About { keep_s: Some(60), beginnings };
        fs::write(folder.join("about"), about.text()).expect("writes");
        for file in ["current.log", "current.log.1", "current.log.2"] {
            fs::write(folder.join(file), vec![b'x'; 100 << 10]).expect("writes");
        }
    }

    #[test]
    fn only_what_is_left_of_processes_that_are_gone_can_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        log(dir, "gone", "a");
        log(dir, "lives", "b");
        fs::create_dir_all(dir.join("default/foreign")).expect("makes it");
        let known = BTreeSet::from([uid("b")]);
        let found = find(dir, &known);
        let mut ids: Vec<_> = found.iter().map(|spare| (spare.kind, spare.id.as_str())).collect();
        ids.sort();
        let rotated = |n| {
            (
                Kind::RotatedLog,
                if n == 1 { "default/gone/current.log.1" } else { "default/gone/current.log.2" },
            )
        };
        assert_eq!(ids, [rotated(1), rotated(2), (Kind::Log, "default/gone")]);
        assert!(found.iter().all(|spare| spare.bytes >= 100 << 10), "{found:?}");

        let now_known = BTreeSet::from([uid("a"), uid("b")]);
        assert_eq!(remove(dir, &now_known, found.clone()), [], "it has come back meanwhile");
        let removed =
            remove(dir, &known, found.iter().filter(|s| s.kind == Kind::RotatedLog).cloned().collect());
        assert_eq!(removed.len(), 2);
        assert!(dir.join("default/gone/current.log").exists());
        assert_eq!(remove(dir, &known, found).len(), 1);
        assert!(!dir.join("default/gone").exists() && dir.join("default/lives/current.log.2").exists());
        let odd =
            |id: &str| Spare { kind: Kind::Log, id: id.to_owned(), device: 0, bytes: 0, files: 0, used: 0 };
        assert_eq!(
            remove(dir, &BTreeSet::new(), vec![odd("../x"), odd("default/lives/about"), odd("default")]),
            []
        );
    }
}
