//! Asks the agent on its socket, and the holder when the agent does not answer.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ostler_agent_core::holder::protocol::{ProcKey, ProcessInfo};
use serde::de::DeserializeOwned;

use super::{Ask, Done, SOCKET};
use crate::config::{holder_dir, socket_dir};
use crate::holder_client::{HolderClient, HolderError};
use crate::status::Status;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same for what must be durable before it is answered: a disk may be slow.
const ACT_PATIENCE: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens, or the answer does not come.
    #[error("the agent does not answer")]
    Silent(#[source] io::Error),
    /// It is answered that it cannot be done.
    #[error("{0}")]
    Refused(String),
    /// The answer is none of this version's.
    #[error("the agent's answer cannot be read: it may be of another version")]
    Answer(#[source] serde_json::Error),
}

/// Asks the agent how things stand.
///
/// # Errors
/// [`AskError`].
pub fn status(run_dir: &Path) -> Result<Status, AskError> {
    ask(run_dir, &Ask::Status)
}

/// Asks the agent.
///
/// # Errors
/// [`AskError`].
pub fn ask<T: DeserializeOwned>(run_dir: &Path, question: &Ask) -> Result<T, AskError> {
    let line = talk(run_dir, question).map_err(AskError::Silent)?;
    if let Ok(Done { error: Some(error), .. }) = serde_json::from_str(&line) {
        return Err(AskError::Refused(error));
    }
    serde_json::from_str(&line).map_err(AskError::Answer)
}

fn talk(run_dir: &Path, question: &Ask) -> io::Result<String> {
    let folder = File::open(socket_dir(run_dir))?;
    let mut stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))?;
    let patience = match question {
        Ask::Act { .. } => ACT_PATIENCE,
        Ask::Status | Ask::Why { .. } | Ask::Owns { .. } | Ask::Managed { .. } => PATIENCE,
    };
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut question = serde_json::to_vec(question)?;
    question.push(b'\n');
    stream.write_all(&question)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        let text = "it hung up: only root and the agent's own user may ask";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(line)
}

/// Asks the holder what runs.
///
/// # Errors
/// If it does not answer.
pub async fn holder_list(run_dir: &Path) -> Result<Vec<ProcessInfo>, HolderError> {
    let (client, _events) = HolderClient::connect(&holder_dir(run_dir), "ps").await?;
    Ok(client.list().await?.processes)
}

/// Has the holder end a process in order, as its start said.
///
/// # Errors
/// If it does not answer, or nothing of it is left.
pub async fn holder_stop(run_dir: &Path, key: ProcKey) -> Result<(), HolderError> {
    let (client, _events) = HolderClient::connect(&holder_dir(run_dir), "stop").await?;
    client.stop(key, None, None).await
}
