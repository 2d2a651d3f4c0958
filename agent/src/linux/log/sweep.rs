//! Logs of processes that are gone, removed after the time that was asked for.
//!
//! What is kept for how long is written beside each log, so this needs nobody who remembers, and holds over reboots. The
//! age is that of the last line. Folders of other things, and logs of older holders, of which nothing is written down,
//! are never touched.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ostler_schemas::Uid;
use ostler_schemas::ids::is_label;

use super::ProcessLog;

/// Removes what is too old below `dir`. Processes in `known` may still say something.
pub(crate) fn sweep(dir: &Path, known: &BTreeSet<Uid>, now: SystemTime) {
    for (namespace, name) in names(dir) {
        let log = ProcessLog::new(dir, &namespace, &name);
        match is_due(&log, known, now) {
            Ok(true) => {
                let folder = dir.join(&namespace).join(&name);
                if let Err(error) = fs::remove_dir_all(&folder) {
                    tracing::debug!(folder = %folder.display(), %error, "an old log could not be removed");
                }
                // Goes with its last log; with others in it, it stays.
                fs::remove_dir(dir.join(&namespace)).ok();
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%namespace, %name, %error, "a log could not be looked at"),
        }
    }
}

fn is_due(log: &ProcessLog, known: &BTreeSet<Uid>, now: SystemTime) -> io::Result<bool> {
    let about = log.about();
    let (Some(keep_s), Some(last)) = (about.keep_s, about.beginnings.last()) else { return Ok(false) };
    if known.contains(&last.uid) {
        return Ok(false);
    }
    let mut youngest = fs::metadata(log.current.with_file_name("about"))?.modified()?;
    if let Ok(current) = fs::metadata(&log.current) {
        youngest = youngest.max(current.modified()?);
    }
    Ok(now.duration_since(youngest).is_ok_and(|age| age >= Duration::from_secs(keep_s)))
}

/// Folders that may be those of logs.
pub(in crate::linux) fn names(dir: &Path) -> Vec<(String, String)> {
    let entries = |path: &Path| {
        let all = fs::read_dir(path).into_iter().flatten().flatten();
        let folders = all.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| is_label(name)).collect::<Vec<_>>()
    };
    let of = |namespace: String| {
        let names = entries(&dir.join(&namespace));
        names.into_iter().map(move |name| (namespace.clone(), name))
    };
    entries(dir).into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use ostler_agent_core::holder::lines::about::{About, Beginning};

    use super::*;

    #[test]
    fn only_logs_of_processes_that_are_gone_and_old_enough_are_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let uid = |digit: &str| digit.repeat(32).parse::<Uid>().expect("a uid");
        for (name, who, keep_s) in [("gone", "a", 60), ("lives", "b", 60), ("kept", "c", 600)] {
            let folder = dir.path().join("default").join(name);
            fs::create_dir_all(&folder).expect("makes it");
            let beginnings = vec![Beginning { at_us: 1, uid: uid(who), incarnation: 1 }];
            let about = About { keep_s: Some(keep_s), beginnings };
            fs::write(folder.join("about"), about.text()).expect("writes");
            fs::write(folder.join("current.log"), "x\n").expect("writes");
        }
        fs::create_dir_all(dir.path().join("default/foreign")).expect("makes it");
        let there = || {
            let mut names: Vec<_> = names(dir.path()).into_iter().map(|(_, name)| name).collect();
            names.sort();
            names
        };
        let known = BTreeSet::from([uid("b")]);
        sweep(dir.path(), &known, SystemTime::now());
        assert_eq!(there(), ["foreign", "gone", "kept", "lives"]);
        sweep(dir.path(), &known, SystemTime::now() + Duration::from_secs(61));
        assert_eq!(there(), ["foreign", "kept", "lives"]);
        sweep(dir.path(), &BTreeSet::new(), SystemTime::now() + Duration::from_secs(601));
        assert_eq!(there(), ["foreign"]);
    }
}
