//! Serves the agent's socket: one question, one answer, per connection.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use ostler_agent_core::holds::By;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::{Ask, Done, REQUEST_MAX, SOCKET};
use crate::run::Viewer;

/// How long a question and its answer may take: whoever connects and says nothing must not stay, and what a caller does
/// not wait for any longer need not be answered.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait when nobody can be let in: descriptors may be short.
const AGAIN: Duration = Duration::from_secs(5);

/// Binds the socket in `dir` (made if missing) and serves it until the task is dropped. Only the agent's own user and
/// root may ask.
///
/// # Errors
/// If the socket cannot be made.
pub fn serve(dir: &Path, viewer: Viewer) -> io::Result<JoinHandle<()>> {
    fs::create_dir_all(dir)?;
    let folder = File::open(dir)?;
    let path = dir.join(SOCKET);
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Through the open folder: a socket's address has room for a hundred bytes only.
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(tokio::spawn(async move {
        let _folder = folder;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let viewer = viewer.clone();
                    tokio::spawn(async move {
                        if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, answer(stream, &viewer)).await
                        {
                            tracing::debug!(%error, "a question on the host was not answered");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the agent's socket");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }))
}

fn said<T: Serialize>(result: Result<T, String>) -> serde_json::Result<Vec<u8>> {
    match result {
        Ok(value) => serde_json::to_vec(&value),
        Err(error) => serde_json::to_vec(&Done { done: None, error: Some(error) }),
    }
}

/// Who asks, as the kernel says; with who logged in, where that is somebody else (`sudo`).
fn by(caller: UCred) -> By {
    let name = |uid: u32| {
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
        user.map_or_else(|| uid.to_string(), |user| user.name)
    };
    let uid = caller.uid();
    let login = caller.pid().and_then(|pid| fs::read_to_string(format!("/proc/{pid}/loginuid")).ok());
    let login = login.and_then(|text| text.trim().parse::<u32>().ok());
    let user = match login.filter(|login| *login != u32::MAX && *login != uid) {
        Some(login) => format!("{} as {}", name(login), name(uid)),
        None => name(uid),
    };
    By { uid, user }
}

async fn answer(stream: UnixStream, viewer: &Viewer) -> io::Result<()> {
    let caller = stream.peer_cred()?;
    if caller.uid() != 0 && caller.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_MAX)).read_line(&mut line).await?;
    let mut text = match serde_json::from_str::<Ask>(&line) {
        Ok(Ask::Status) => serde_json::to_vec(&viewer.status())?,
        Ok(Ask::Why { process }) => said(viewer.why(&process).await)?,
        Ok(Ask::Owns { path }) => serde_json::to_vec(&viewer.owns(&path))?,
        Ok(Ask::Managed { path }) => said(viewer.managed(&path).await)?,
        Ok(Ask::Act { act }) => {
            // The name service may take its time, and others wait for this thread.
            let by = tokio::task::spawn_blocking(move || by(caller)).await.map_err(io::Error::other)?;
            let done = viewer.act(act, by).await;
            said(done.map(|done| Done { done: Some(done), error: None }))?
        }
        Err(error) => said::<Done>(Err(error.to_string()))?,
    };
    text.push(b'\n');
    write.write_all(&text).await?;
    write.shutdown().await
}
