//! What is admitted, what is refused, and in which words.

mod apply;
mod config;
mod others;
mod release;
mod render;
mod rollout;
mod runtime;
mod secret;
mod sequences;

use ostler_schemas::manifest::{Finding, Options, Refusal, read_manifests};
use ostler_schemas::v1::object::Object;
use ostler_schemas::{Actor, Key, TxnId, Uid};

use super::{Act, Apply, ApplyOptions, By, Decision, World};
use crate::plan::Ids;
use crate::status::rig::{NOW, Rig, name};

/// Uids from 1000 on, never those of a rig.
pub(super) struct Numbers(u64);

impl Ids for Numbers {
    fn uid(&mut self) -> Uid {
        self.0 += 1;
        let mut bytes = [0xee; 16];
        bytes[8..].copy_from_slice(&self.0.to_be_bytes());
        Uid::from_bytes(bytes)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.0 % bound.max(1)
    }
}

pub(super) fn ids() -> Numbers {
    /// No uid is given twice within a test, whoever asks for it.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1_000);
    Numbers(NEXT.fetch_add(1_000, std::sync::atomic::Ordering::Relaxed))
}

pub(super) fn by() -> By {
    By { actor: Actor::User(name("ben")), at: NOW, txn: TxnId::from_bytes([3; 16]) }
}

pub(super) fn world<'a>(rig: &'a Rig, by: &'a By) -> World<'a> {
    World { fleet: &rig.fleet, signals: &rig.signals, by }
}

pub(super) fn try_apply(rig: &Rig, yaml: &str, options: &ApplyOptions) -> Result<Apply, Refusal> {
    let manifests = read_manifests(Some("m.yaml"), yaml.as_bytes(), &Options::default()).expect("checks");
    super::apply(&world(rig, &by()), manifests, options, &mut ids())
}

/// Stores what was decided, as the writer does.
pub(super) fn commit(rig: &mut Rig, decision: &Decision) {
    for write in &decision.writes {
        assert_eq!(rig.fleet.revision_of(&write.key), write.expect, "guarded on what is: {:?}", write.key);
        match &write.act {
            Act::Object(object) => drop(rig.put(&write.key, &**object)),
            Act::SpecRevision(revision) => drop(rig.put(&write.key, &**revision)),
            Act::Goal(goal) => drop(rig.put(&write.key, goal)),
            Act::Delete => rig.delete(&write.key),
        }
    }
}

pub(super) fn applied(rig: &mut Rig, yaml: &str) -> Apply {
    let done = try_apply(rig, yaml, &ApplyOptions::default()).expect("admitted");
    commit(rig, &done.decision);
    done
}

/// The findings of an apply that must be refused.
pub(super) fn findings(rig: &Rig, yaml: &str) -> Vec<Finding> {
    try_apply(rig, yaml, &ApplyOptions::default()).expect_err("refused").findings
}

pub(super) fn after(done: &Apply) -> &Object {
    done.results[0].after.as_ref().expect("an object")
}

pub(super) fn keys(decision: &Decision) -> Vec<&Key> {
    decision.writes.iter().map(|w| &w.key).collect()
}
