//! Connections of the fleet's own parties, under their real keys.

use std::sync::Arc;
use std::time::Duration;

use ostler_bus::entropy::{EntropyRef, SeededEntropy};
use ostler_bus::layout::Identity;
use ostler_bus::nats::{Bus, Config};
use ostler_cli::client::Client;

use super::{Fleet, PATIENCE};

/// How long a caller of the API goes on asking.
const PERSISTENCE: Duration = Duration::from_secs(20);

impl Fleet {
    /// The servers of the bus.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        let state = self.state();
        let ports = state["ports"].as_array().cloned().unwrap_or_default();
        ports.iter().filter_map(|port| Some(format!("tls://127.0.0.1:{}", port["port"].as_u64()?))).collect()
    }

    /// What a connection of `identity` needs.
    #[must_use]
    pub fn config(&self, identity: Identity) -> Config {
        let (folder, key) = match &identity {
            Identity::Controller => ("controller".to_owned(), "controller.nk"),
            Identity::Canary { .. } => ("controller".to_owned(), "canary.nk"),
            Identity::Node(node) => (format!("nodes/{node}"), "node.nk"),
            Identity::Simulated(_) => panic!("the connections of simulated nodes are those of ostler sim"),
            Identity::Operator(user) => (format!("operators/{user}"), "operator.nk"),
            Identity::View => ("view".to_owned(), "view.nk"),
        };
        let folder = self.setup().join(folder);
        let name = format!("{} of a test", identity.caller());
        Config {
            servers: self.servers(),
            credentials: folder.join(key),
            ca: folder.join("ca.pem"),
            identity,
            name,
        }
    }

    /// A connection of `identity`.
    ///
    /// # Panics
    /// When there is none within [`PATIENCE`].
    pub async fn connect(&self, identity: Identity) -> Bus {
        let entropy: EntropyRef = Arc::new(SeededEntropy::from_system().expect("system entropy"));
        let bus = Bus::connect(&self.config(identity), &entropy).await.expect("usable settings");
        assert!(bus.connected(PATIENCE).await, "no connection: {:?}", bus.topic.link().borrow());
        bus
    }

    /// The operator as a caller of the API, with the connection that this needs.
    ///
    /// # Panics
    /// When there is no connection within [`PATIENCE`].
    pub async fn operator(&self) -> (Client, Bus) {
        let user: ostler_schemas::Name = "dev".parse().expect("a name");
        let bus = self.connect(Identity::Operator(user.clone())).await;
        let servers = self.servers().join(", ");
        let entropy: EntropyRef = Arc::new(SeededEntropy::from_system().expect("system entropy"));
        (Client::new(bus.topic.clone(), user, servers, entropy).with_persistence(PERSISTENCE), bus)
    }
}
