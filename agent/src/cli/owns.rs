//! `ostler-agent owns PATH`: from the agent, else from its ledger.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;

use ostler_schemas::time::Timestamp;

use super::acts::{failed, json, now, spelled};
use super::questions::{not_running, print, warn};
use super::{SettingsArgs, complain};
use crate::linux::FileLedger;
use crate::local::client::{self, AskError};
use crate::local::owns::{Owned, owner};
use crate::local::{Ask, on_host};

/// A path that Ostler does not manage.
const NOT_OURS: u8 = 1;

/// 0 if Ostler manages the path, 1 if not, 3 if neither an agent nor what it remembers can be asked.
pub(super) fn owns(args: &SettingsArgs, path: &Path, as_json: bool) -> ExitCode {
    let asked = match spelled(path) {
        Ok(asked) => asked,
        Err(error) => return complain(&format!("{}: {error}", path.display())),
    };
    let question = Ask::Owns { path: asked.clone() };
    let found = match client::ask::<Option<Owned>>(&args.run_dir(), &question) {
        Ok(found) => found,
        Err(AskError::Silent(error)) => match remembered(args, &asked) {
            Ok(found) => {
                warn("the agent does not run; this is what it remembered last");
                found
            }
            Err(_) => return not_running(&args.run_dir(), &error),
        },
        Err(error) => return failed(args, &error),
    };
    let Some(mut owned) = found else { return ExitCode::from(NOT_OURS) };
    // What is in sync was put there by its last write.
    let meta = fs::symlink_metadata(&owned.path).ok().filter(fs::Metadata::is_file);
    owned.since =
        meta.and_then(|meta| u64::try_from(meta.mtime()).ok()).map(|seconds| Timestamp(seconds * 1_000));
    if as_json { json(&owned) } else { print(&owned.text(now())) }
}

fn remembered(args: &SettingsArgs, asked: &str) -> Result<Option<Owned>, String> {
    let state_dir = args.state_dir();
    let memory = FileLedger::peek(&state_dir)?;
    let memory = memory.ok_or_else(|| format!("nothing is remembered in {}", state_dir.display()))?;
    Ok(owner(&memory, &[], &on_host(&args.root(), asked)))
}
