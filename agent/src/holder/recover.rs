//! Finding processes of this holder that its state does not name, because the state was lost or damaged.
//!
//! With cgroups the host still says everything: each incarnation's cgroup bears its key. Without, the marks in the
//! environments do. What only the state knew (how to stop, where the log is) takes its default, or what other
//! processes of the holder have.
//!
//! An environment is memory of the process, which may have written anything there: a name in it is taken only if it
//! can be one, because it becomes a part of paths.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ostler_agent_core::holder::protocol::{
    KillMode, LogSpec, Phase, ProcKey, default_grace_ms, default_stop_signal,
};
use ostler_agent_core::holder::state::{HolderState, ProcessRecord};
use ostler_schemas::{Name, Namespace, Uid};

use super::launch::{self, Ground};
use super::proc_tree::{self, Stat};

/// One incarnation that runs and that nobody knows.
#[derive(Debug, Default)]
struct Found {
    members: Vec<Stat>,
    cgroup: Option<PathBuf>,
}

/// Adds to the state what runs and is not in it. Returns how many incarnations that were.
pub(super) fn recover(state: &mut HolderState, ground: &Ground) -> usize {
    let known: BTreeSet<ProcKey> = state.processes.iter().map(|record| record.key).collect();
    let ended: BTreeSet<ProcKey> = state.exits.iter().map(|exit| exit.key).collect();
    let mut found = match &ground.cgroups {
        Some(cgroups) => in_cgroups(cgroups.base()),
        None => by_marks(&ground.dir),
    };
    found.retain(|key, found| !known.contains(key) && !found.members.is_empty());
    let log = state.processes.first().map_or_else(
        || LogSpec::below(ground.dir.join("recovered-logs").display().to_string()),
        |record| record.log.clone(),
    );
    let records = found.iter().map(|(key, found)| record(*key, found, &ended, (&log, ground)));
    state.processes.extend(records);
    found.len()
}

fn record(
    key: ProcKey,
    found: &Found,
    ended: &BTreeSet<ProcKey>,
    (log, ground): (&LogSpec, &Ground),
) -> ProcessRecord {
    // Every main process leads a session; the oldest leader is it, unless it has ended.
    let leaders = found.members.iter().filter(|stat| stat.session == stat.pid);
    let main = leaders.min_by_key(|stat| stat.start_time);
    let variables = found.members.first().map_or_else(BTreeMap::new, |stat| environment(stat.pid));
    let (namespace, name) = names(&variables);
    let [stdout, stderr] = launch::fifo_paths(&ground.fifo_dir, key).map(|path| path.display().to_string());
    ProcessRecord {
        key,
        name: name.unwrap_or_else(|| key.uid.short()),
        namespace,
        pid: main.map_or(0, |stat| stat.pid),
        start_time: main.map_or(0, |stat| stat.start_time),
        started_at: 0,
        cgroup: found.cgroup.as_ref().map(|path| path.display().to_string()),
        stdout,
        stderr,
        log: log.clone(),
        kill_mode: KillMode::Mixed,
        stop_signal: default_stop_signal(),
        grace_ms: default_grace_ms(),
        phase: if ended.contains(&key) { Phase::Leftovers } else { Phase::Starting },
        stop_sent: None,
        kill_at: None,
        listen: None,
        said: ostler_agent_core::holder::notify::Said::default(),
        unwell: false,
    }
}

/// Namespace and name that an environment gives, as far as they can be such.
fn names(variables: &BTreeMap<String, String>) -> (String, Option<String>) {
    let namespace = variables.get("OSTLER_NAMESPACE").and_then(|text| text.parse::<Namespace>().ok());
    let name = variables.get("OSTLER_NAME").and_then(|text| text.parse::<Name>().ok());
    (namespace.unwrap_or_else(Namespace::default_namespace).to_string(), name.map(|name| name.to_string()))
}

fn in_cgroups(base: &Path) -> BTreeMap<ProcKey, Found> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let path = entry.path();
        let Some(key) = path.file_name().and_then(|name| key_of(name.to_str()?)) else { continue };
        let mut members = Vec::new();
        members_below(&path, &mut members);
        all.insert(key, Found { members, cgroup: Some(path) });
    }
    all
}

fn members_below(cgroup: &Path, members: &mut Vec<Stat>) {
    let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    members.extend(procs.lines().filter_map(|line| proc_tree::stat(line.parse().ok()?)));
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members_below(&entry.path(), members);
        }
    }
}

/// `UID.INCARNATION`, with a further number where a cgroup of that name was left behind.
fn key_of(name: &str) -> Option<ProcKey> {
    let mut parts = name.split('.');
    let uid: Uid = parts.next()?.parse().ok()?;
    let incarnation = parts.next()?.parse().ok()?;
    // Commands that run beside a process have a word there.
    let ours = parts.next().is_none_or(|number| number.parse::<u64>().is_ok());
    ours.then_some(ProcKey { uid, incarnation })
}

fn by_marks(holder: &Path) -> BTreeMap<ProcKey, Found> {
    let mut all: BTreeMap<ProcKey, Found> = BTreeMap::new();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(stat) = pid.filter(|pid| *pid != own).and_then(proc_tree::stat) else { continue };
        if let Some(key) = mark(stat.pid, holder).filter(|_| !stat.zombie) {
            all.entry(key).or_default().members.push(stat);
        }
    }
    all
}

/// The key that a process of this holder was started with; none for one that runs beside another.
pub(super) fn mark(pid: i32, holder: &Path) -> Option<ProcKey> {
    let variables = environment(pid);
    let [uid, incarnation, folder, run] = proc_tree::MARKS.map(|name| variables.get(name));
    if Path::new(folder?) != holder || run.is_some_and(|run| !run.is_empty()) {
        return None;
    }
    Some(ProcKey { uid: uid?.parse().ok()?, incarnation: incarnation?.parse().ok()? })
}

fn environment(pid: i32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let texts = bytes.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
    let pairs = texts.filter_map(|text| text.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_cannot_lead_a_log_elsewhere() {
        let of = |namespace: &str, name: &str| {
            let pairs = [("OSTLER_NAMESPACE", namespace), ("OSTLER_NAME", name)];
            names(&pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        };
        assert_eq!(of("shop", "web-0"), ("shop".to_owned(), Some("web-0".to_owned())));
        for odd in ["../../etc/logrotate.d", "..", "a/b", "", "a\nb"] {
            assert_eq!(of(odd, odd), ("default".to_owned(), None), "{odd:?}");
        }
    }

    #[test]
    fn names_of_cgroups_are_read_as_keys() {
        let uid = "0123456789abcdef0123456789abcdef";
        assert_eq!(key_of(&format!("{uid}.7")).map(|key| key.incarnation), Some(7));
        assert_eq!(key_of(&format!("{uid}.7.1")).map(|key| key.incarnation), Some(7));
        assert_eq!(key_of(&format!("{uid}.7.run1")), None);
        assert_eq!(key_of("holder"), None);
        assert_eq!(key_of(uid), None);
    }
}
