//! What a fleet of simulated nodes is started from.

use std::path::{Path, PathBuf};

use ostler_schemas::Name;
use serde::{Deserialize, Serialize};

use super::State;
use super::files::Builder;
use crate::layout::{Block, Identity};
use crate::nats::Config;

/// `fleet.json`: the simulated nodes of one prefix and how they reach the bus. Relative paths are relative to the
/// file's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SimulatedFleet {
    /// What the nodes' names begin with.
    pub prefix: Name,
    /// How many there are.
    pub nodes: u32,
    /// URLs of every server.
    pub servers: Vec<String>,
    /// File with the certificate authority.
    pub ca: PathBuf,
}

impl SimulatedFleet {
    /// The blocks of its nodes, each with its connection, given the folder of the file.
    #[must_use]
    pub fn connections(&self, folder: &Path) -> Vec<(Block, Config)> {
        let blocks = Block::all(&self.prefix, self.nodes).unwrap_or_default();
        let config = |block: Block| {
            let identity = Identity::Simulated(block.clone());
            let config = Config {
                servers: self.servers.clone(),
                credentials: folder.join(block.key_name()),
                ca: folder.join(&self.ca),
                name: identity.caller(),
                identity,
            };
            (block, config)
        };
        blocks.into_iter().map(config).collect()
    }
}

pub(super) fn settings(out: &mut Builder<'_>, state: &State) {
    let ca = out.files.get("ca/ca.pem").map(|f| f.bytes.clone()).unwrap_or_default();
    let servers: Vec<String> = state.servers.iter().map(super::Server::url).collect();
    for (prefix, nodes) in &state.simulated {
        let folder = format!("simulated/{prefix}");
        let fleet = SimulatedFleet {
            prefix: prefix.clone(),
            nodes: *nodes,
            servers: servers.clone(),
            ca: "ca.pem".into(),
        };
        out.json(&format!("{folder}/fleet.json"), &fleet);
        out.open(&format!("{folder}/ca.pem"), ca.clone());
    }
}
