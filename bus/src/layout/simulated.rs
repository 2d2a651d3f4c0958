//! Names and keys of simulated nodes: fleets that show how the whole behaves with more hosts than anybody has at hand.
//!
//! A connection belongs to one identity, and ten thousand connections cost more than what is to be shown. So simulated
//! nodes share keys by the block, and a block shares one connection. The key of a block may act as each of its nodes,
//! which its permissions name one by one, and as nobody else: a simulated fleet on a real bus can lie about itself only.

use std::fmt;

use ostler_schemas::{Name, NodeName};

/// Nodes that share a key. A server reads what one connection sends with one of its threads, and looks a permission up
/// among those of the block: some hundred nodes keep both short, and ten thousand nodes need but a few connections.
pub const BLOCK: u32 = 500;
/// The most nodes of one prefix: five digits name them, and the servers' configuration names each ten times.
pub const SIMULATED_MAX: u32 = 50_000;
/// The longest prefix, so that every name made of it is a DNS label.
const PREFIX_MAX: usize = 40;

/// Simulated nodes that share a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    prefix: Name,
    number: u32,
    nodes: Vec<NodeName>,
}

impl Block {
    /// The blocks of the nodes `PREFIX-00001` to `PREFIX-<count>`; none if the prefix makes no names of nodes, or there
    /// are too many.
    #[must_use]
    pub fn all(prefix: &Name, count: u32) -> Option<Vec<Block>> {
        if prefix.as_str().len() > PREFIX_MAX || count > SIMULATED_MAX {
            return None;
        }
        let numbers: Vec<u32> = (1..=count).collect();
        let blocks = (1..).zip(numbers.chunks(BLOCK as usize));
        let block = |(number, numbers): (u32, &[u32])| {
            let nodes = numbers.iter().map(|n| format!("{prefix}-{n:05}").parse().ok());
            Some(Block { prefix: prefix.clone(), number, nodes: nodes.collect::<Option<_>>()? })
        };
        blocks.map(block).collect()
    }

    /// Which of its prefix's blocks it is, from 1.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Its nodes, in order.
    #[must_use]
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// Where its key lies below a setup's folder.
    #[must_use]
    pub fn key_file(&self) -> String {
        format!("simulated/{}/{}", self.prefix, self.key_name())
    }

    /// The key's file in the prefix's folder.
    #[must_use]
    pub fn key_name(&self) -> String {
        format!("block-{:03}.nk", self.number)
    }
}

/// No name begins with `_`, so this is nobody else's.
impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "_simulated-{}-{}", self.prefix, self.number)
    }
}
