//! What a person on the host does and asks without the control plane: `why`, `events`, `files diff`, `hold`,
//! `release`, `stop`, `start`, `restart`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ostler_agent_core::holder::protocol::ProcessInfo;
use ostler_agent_core::holds::{By, Hold, Kind, Target};
use ostler_schemas::quantity::Dur;
use ostler_schemas::time::{Timestamp, age};
use serde::Serialize;
use similar::TextDiff;

use super::questions::{holder, not_running, print, warn};
use super::{SettingsArgs, complain};
use crate::local::client::{self, AskError};
use crate::local::{Act, Ask, Done, Managed, Why, find, notes, story};

/// What a stop or restart is told with when nobody says why.
const NO_REASON: &str = "no reason given";

/// Draws a fresh key for the secrets of this node. The agent says it at its next start.
pub(super) fn rotate_key(args: &SettingsArgs) -> ExitCode {
    let entropy = match ostler_bus::entropy::SeededEntropy::from_system() {
        Ok(entropy) => entropy,
        Err(error) => return complain(&format!("cannot draw a key: {error}")),
    };
    match crate::secrets::rotate(&args.state_dir(), &entropy) {
        Ok(ring) => {
            let key = ring.newest().map(|key| key.short()).unwrap_or_default();
            print(&format!(
                "key {key} is this node's from the next start of the agent on: systemctl restart ostler-agent\n"
            ))
        }
        Err(error) => complain(&super::chain(&error)),
    }
}

/// As JSON, for programs.
pub(super) fn json<T: Serialize>(value: &T) -> ExitCode {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => complain(&error.to_string()),
    }
}

/// Many things as JSON, in the shape of every list.
pub(super) fn json_list<T: Serialize>(items: &[T]) -> ExitCode {
    json(&serde_json::json!({ "kind": "List", "items": items }))
}

pub(super) fn failed(args: &SettingsArgs, error: &AskError) -> ExitCode {
    match error {
        AskError::Silent(source) => not_running(&args.run_dir(), source),
        AskError::Refused(why) => complain(why),
        AskError::Answer(_) => complain(&super::chain(error)),
    }
}

pub(super) fn why(args: &SettingsArgs, process: &str, as_json: bool) -> ExitCode {
    let question = Ask::Why { process: process.to_owned() };
    match client::ask::<Why>(&args.run_dir(), &question) {
        Ok(why) if as_json => json(&why),
        Ok(why) => print(&why.text()),
        Err(error) => failed(args, &error),
    }
}

/// From the file: also with the agent down.
pub(super) fn events(args: &SettingsArgs, count: usize, as_json: bool) -> ExitCode {
    let lines = match story::last(&args.state_dir(), count) {
        Ok(lines) => lines,
        Err(error) => return complain(&error.to_string()),
    };
    if as_json {
        return json_list(&lines);
    }
    let now = now();
    let mut rows = vec![["LAST", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(str::to_owned).to_vec()];
    let row = |line: &story::Line| {
        let last = age(now.since_ms(line.at));
        vec![last, line.kind.clone(), line.reason.clone(), line.object.clone(), line.message.clone()]
    };
    rows.extend(lines.iter().map(row));
    print(&crate::local::table(&rows))
}

/// Absolute, and through links of its folder: `/etc/x` is managed however one came there.
pub(super) fn spelled(path: &Path) -> io::Result<String> {
    let absolute = std::path::absolute(path)?;
    let real = match (absolute.parent().map(fs::canonicalize), absolute.file_name()) {
        (Some(Ok(folder)), Some(name)) => folder.join(name),
        (_, _) => absolute,
    };
    Ok(real.to_string_lossy().into_owned())
}

/// What is on disk against what should be: `-` is managed, `+` is there. Exit 1 if they differ.
pub(super) fn diff(args: &SettingsArgs, path: &Path) -> ExitCode {
    let asked = match spelled(path) {
        Ok(asked) => asked,
        Err(error) => return complain(&format!("{}: {error}", path.display())),
    };
    let managed: Managed = match client::ask(&args.run_dir(), &Ask::Managed { path: asked }) {
        Ok(managed) => managed,
        Err(error) => return failed(args, &error),
    };
    let (there, shown) = match fs::read_to_string(&managed.path) {
        Ok(text) => (text, managed.path.clone()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), "/dev/null".to_owned()),
        Err(error) => return complain(&format!("{}: {error}", managed.path)),
    };
    if there == managed.content && shown == managed.path {
        return ExitCode::SUCCESS;
    }
    let diff = TextDiff::from_lines(&managed.content, &there);
    print(&diff.unified_diff().header(&managed.of, &shown).to_string());
    ExitCode::from(1)
}

/// What is named on a command line: a process, a path, or everything.
pub(super) fn what(named: Option<&str>, all: bool) -> Result<String, String> {
    match (named, all) {
        (Some(_), true) => Err("give a PROCESS or PATH, or --all, not both".to_owned()),
        (None, true) => Ok("--all".to_owned()),
        (None, false) => Err("give a PROCESS, a PATH or --all".to_owned()),
        (Some(path), false) if path.contains('/') && (path.starts_with(['/', '.'])) => {
            spelled(Path::new(path)).map_err(|error| format!("{path}: {error}"))
        }
        (Some(process), false) => Ok(process.to_owned()),
    }
}

pub(super) fn hold(
    args: &SettingsArgs,
    what: Result<String, String>,
    limit: Option<&str>,
    reason: &str,
) -> ExitCode {
    let for_ms = match limit.map(|text| text.parse::<Dur>().map_err(|error| format!("--for {text}: {error}")))
    {
        None => None,
        Some(Ok(limit)) => Some(limit.as_millis()),
        Some(Err(why)) => return complain(&why),
    };
    match what {
        Ok(what) => act(args, Act::Hold { what, for_ms, reason: reason.to_owned() }),
        Err(why) => complain(&why),
    }
}

pub(super) fn release(args: &SettingsArgs, what: Result<String, String>) -> ExitCode {
    match what {
        Ok(what) => act(args, Act::Release { what }),
        Err(why) => complain(&why),
    }
}

pub(super) fn restart(args: &SettingsArgs, process: &str, reason: Option<&str>) -> ExitCode {
    let reason = reason.unwrap_or(NO_REASON).to_owned();
    act(args, Act::Restart { process: process.to_owned(), reason })
}

pub(super) fn start(args: &SettingsArgs, process: &str) -> ExitCode {
    act(args, Act::Start { process: process.to_owned() })
}

fn act(args: &SettingsArgs, act: Act) -> ExitCode {
    match client::ask::<Done>(&args.run_dir(), &Ask::Act { act }) {
        Ok(done) => print(&format!("{}\n", done.done.unwrap_or_default())),
        Err(error) => failed(args, &error),
    }
}

/// Through the agent; straight to the holder when there is none.
pub(super) fn stop(args: &SettingsArgs, process: &str, reason: Option<&str>) -> ExitCode {
    let reason = reason.unwrap_or(NO_REASON).to_owned();
    let act = Act::Stop { process: process.to_owned(), reason: reason.clone() };
    let silent = match client::ask::<Done>(&args.run_dir(), &Ask::Act { act }) {
        Ok(done) => return print(&format!("{}\n", done.done.unwrap_or_default())),
        Err(AskError::Silent(error)) => error,
        Err(error) => return failed(args, &error),
    };
    let Ok(processes) = holder(&args.run_dir()) else { return not_running(&args.run_dir(), &silent) };
    warn("the agent does not run; the holder is asked");
    match stop_by_holder(args, &processes, process, reason) {
        Ok(said) => print(&said),
        Err(why) => complain(&why),
    }
}

fn stop_by_holder(
    args: &SettingsArgs,
    processes: &[ProcessInfo],
    asked: &str,
    reason: String,
) -> Result<String, String> {
    let all = processes.iter().map(|p| (p.key.uid, p.namespace.clone(), p.name.clone()));
    let (uid, namespace, name) = find(asked, all)?;
    let user = nix::unistd::geteuid();
    let known = nix::unistd::User::from_uid(user).ok().flatten();
    let hold = Hold {
        target: Target::Process(uid),
        kind: Kind::Stop,
        name: format!("{namespace}/{name}"),
        reason,
        by: By { uid: user.as_raw(), user: known.map(|user| user.name).unwrap_or_default() },
        since: now(),
        until: None,
    };
    // First the note: an agent that comes in between must not start it again.
    notes::leave(&args.state_dir(), &hold)
        .map_err(|error| format!("{}: {error}; nothing was stopped", args.state_dir().display()))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    for key in processes.iter().map(|p| p.key).filter(|key| key.uid == uid) {
        runtime.block_on(client::holder_stop(&args.run_dir(), key)).map_err(|error| error.to_string())?;
    }
    Ok(format!("{}: {}\n", hold.name, hold.text()))
}

pub(super) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Where the agent keeps what survives it, as said, else as the file says, else the usual place.
pub(super) fn usual_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/ostler/agent")
}
