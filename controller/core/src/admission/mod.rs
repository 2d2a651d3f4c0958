//! Admission: from a checked request and the snapshot to a transaction, or to the reasons why not.
//!
//! Guarantees: pure; all or nothing; every write is guarded on the revision that the decision was made from, so a
//! decision that has been overtaken does nothing. Every change of a spec writes `o.` and an immutable `rev.` together;
//! a change of metadata writes `o.` alone. Versions and generations only rise.
//!
//! Not here: authentication, the store, and fields of stored objects that this version does not know (the writer
//! keeps them: it reads the stored bytes right before it writes).

mod again;
mod apply;
mod change;
mod config;
mod delete;
mod deny;
mod edit;
mod reap;
mod references;
mod register;
mod release;
mod render;
mod rollout;
mod secret;
#[cfg(test)]
mod tests;

use ostler_schemas::spec::ContentRef;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::object::{Object, SpecRevision};
use ostler_schemas::v1::process::GoalRecord;
use ostler_schemas::{Actor, Key, Revision, TxnId};

use crate::fleet::Fleet;
use crate::liveness::Signals;
use crate::plan::Telling;

pub use again::{
    applied_already, config_already, deleted_already, named, node_already, put_already, rollout_already,
    scaled_already,
};
pub use apply::{Apply, ApplyOptions, apply};
pub use change::{node, put, scale};
pub use config::{ContentAt, Rendering, content, history, push, rendering, rollback, version_of};
pub use delete::delete;
pub use deny::{conflict, forbidden, invalid, not_found, refused, unavailable};
pub use reap::{bootstrap, nodes_that_have, reap};
pub use register::register;
pub use release::release;
pub use render::{FutureNodes, RenderCheck, Running};
pub use rollout::{rollout, rollout_history};
pub use secret::reseal;

/// Who asks, when, and in which transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub actor: Actor,
    /// When, by the wall clock of the replica that decides.
    pub at: Timestamp,
    /// The transaction.
    pub txn: TxnId,
}

/// What a decision is made from.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// The snapshot.
    pub fleet: &'a Fleet,
    /// What this replica hears.
    pub signals: &'a Signals,
    /// Who asks.
    pub by: &'a By,
}

/// What a write stores.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// An object; fields of the stored one that this version does not know are kept by the writer.
    Object(Box<Object>),
    /// A kept spec.
    SpecRevision(Box<SpecRevision>),
    /// The goal of a process.
    Goal(GoalRecord),
    /// The marker of a deletion.
    Delete,
}

/// One guarded write.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// Its last write in the snapshot; none = never written.
    pub expect: Option<Revision>,
    /// What to store.
    pub act: Act,
}

/// A content that must lie in the blob store before the transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededContent {
    /// Its name.
    pub content: ContentRef,
    /// Its bytes, if they came with the request; else they were sent ahead and must be found complete.
    pub bytes: Option<Vec<u8>>,
}

/// What is to be done, all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// In one transaction; none = there is nothing to change.
    pub writes: Vec<Write>,
    /// To be told once it has taken effect.
    pub tell: Vec<Telling>,
    /// To be stored or verified first.
    pub contents: Vec<NeededContent>,
    /// To be rendered before it is committed.
    pub renders: Vec<RenderCheck>,
}

impl Decision {
    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.writes.is_empty()
    }

    fn put(&mut self, fleet: &Fleet, key: Key, act: Act) {
        let expect = fleet.revision_of(&key);
        self.writes.push(Write { key, expect, act });
    }
}

/// A decision and what to answer once it has taken effect. Revisions in the answer are the writer's to fill in.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict<R> {
    /// What to do.
    pub decision: Decision,
    /// What to answer.
    pub reply: R,
}
