//! A holder without an agent: the part of the whole that runs processes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::fleet::programs;
use ostler_agent::holder_client::{Events, HolderClient};
use ostler_agent_core::holder::protocol::{LogSpec, ProcKey, Spawn};
use ostler_schemas::Uid;
use serde_json::json;

use crate::bare;

/// Nothing healthy takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A holder of its own. Dropping it ends it.
pub(crate) struct Holder {
    folder: tempfile::TempDir,
    child: Child,
    _place: Option<bare::Place>,
}

impl Holder {
    pub(crate) fn start() -> anyhow::Result<Self> {
        // Its folder belongs on memory.
        let folder = tempfile::Builder::new().prefix("ostler-bench-").tempdir_in("/dev/shm")?;
        let place = bare::Place::make("holder");
        let mut command = Command::new(programs().join("ostler-agent"));
        command.args(["holder", "--dir"]).arg(folder.path().join("holder")).arg("--cgroup");
        match &place {
            Some(place) => command.arg(&place.0),
            None => command.arg("none"),
        };
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { folder, child, _place: place })
    }

    /// A folder that goes with it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<(HolderClient, Events)> {
        let begin = Instant::now();
        loop {
            match HolderClient::connect(&self.folder().join("holder"), "bench").await {
                Ok(connection) => return Ok(connection),
                Err(error) if begin.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// The `n`th process; everything that is not said is as an agent leaves it that has nothing to say about it.
pub(crate) fn spawn(n: usize, argv: &[&str], log: &LogSpec) -> anyhow::Result<Spawn> {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&(n as u64).to_be_bytes());
    let key = ProcKey { uid: Uid::from_bytes(bytes), incarnation: 1 };
    let spawn =
        json!({"key": key, "name": format!("many-{n}"), "namespace": "default", "argv": argv, "log": log});
    Ok(serde_json::from_value(spawn)?)
}
