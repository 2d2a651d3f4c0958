//! Asks the agent on its socket, and the holder when the agent does not answer.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ostler_agent_core::holder::protocol::ProcessInfo;

use super::{Ask, SOCKET};
use crate::config::{holder_dir, socket_dir};
use crate::holder_client::{HolderClient, HolderError};
use crate::status::Status;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the agent how things stand.
///
/// # Errors
/// If nobody listens, or the answer is not one.
pub fn status(run_dir: &Path) -> io::Result<Status> {
    let folder = File::open(socket_dir(run_dir))?;
    let mut stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut question = serde_json::to_vec(&Ask::Status)?;
    question.push(b'\n');
    stream.write_all(&question)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Asks the holder what runs.
///
/// # Errors
/// If it does not answer.
pub async fn holder_list(run_dir: &Path) -> Result<Vec<ProcessInfo>, HolderError> {
    let (client, _events) = HolderClient::connect(&holder_dir(run_dir), "ps").await?;
    Ok(client.list().await?.processes)
}
