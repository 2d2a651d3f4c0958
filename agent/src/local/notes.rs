//! Stops that were asked for while the agent was down: the holder ends the process at once, and this note keeps the
//! next agent from starting it again. Taken into the ledger before the agent looks at anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ostler_agent_core::holds::Hold;
use ostler_agent_core::ledger::Ledger;

use crate::linux::FileLedger;
use crate::ports::LedgerStore as _;

/// The file, one hold per line.
fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("asked-while-down.ndjson")
}

/// Leaves a note, synced.
///
/// # Errors
/// If it cannot be written: the state folder is the agent's.
pub fn leave(state_dir: &Path, hold: &Hold) -> io::Result<()> {
    let mut line = serde_json::to_vec(hold)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path(state_dir))?;
    file.write_all(&line)?;
    file.sync_all()?;
    File::open(state_dir)?.sync_all()
}

/// Takes every note into the ledger, then removes them: a crash in between takes them in twice, which is the same.
///
/// # Errors
/// If the ledger can be neither read nor written.
pub async fn take_up(state_dir: &Path, ledger: &FileLedger) -> Result<(), String> {
    let at = path(state_dir);
    let text = match fs::read_to_string(&at) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", at.display())),
    };
    let mut record = match ledger.load().await? {
        Some(bytes) => Ledger::decode(&bytes).map_err(|error| error.to_string())?,
        None => Ledger::default(),
    };
    // A line cut short by a loss of power was never answered.
    for hold in text.lines().filter_map(|line| serde_json::from_str::<Hold>(line).ok()) {
        tracing::info!(name = hold.name, text = hold.text(), "asked while the agent was down");
        if let Err(error) = record.holds.set(hold) {
            tracing::warn!(%error, "a note of the time while the agent was down is lost");
        }
    }
    record.generation += 1;
    let bytes = record.encode().map_err(|error| error.to_string())?;
    ledger.save(bytes.into()).await?;
    fs::remove_file(&at).map_err(|error| format!("{}: {error}", at.display()))
}
