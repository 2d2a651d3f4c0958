//! A decision as a value: what to write, under which conditions, what to tell, when to look again, and why.
//!
//! A plan is made from one snapshot. Its steps are guarded on the revisions of that snapshot, so a plan that has been
//! overtaken does nothing. What only the executor knows (epoch, batch number) is filled in when it is rendered.

use std::collections::BTreeSet;

use ostler_schemas::codec::{self, EncodeError};
use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::v1::document::{FileSpec, FileVars, FilesDocument, RunDocument};
use ostler_schemas::v1::epoch::{Epoch, Incarnation, Token};
use ostler_schemas::v1::process::{BindRecord, GoalRecord, ProcessSpecRecord, ProcessTemplateRecord};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::secret::SecretsDocument;
use ostler_schemas::v1::state::{NodeState, PendingState, RolloutState};
use ostler_schemas::{Key, NodeName, ObjectRef, Revision, Sha256, Uid};

use crate::fleet::Fleet;

/// Fresh identities. Random in a daemon, seeded in a simulation.
pub trait Ids {
    /// A fresh uid.
    fn uid(&mut self) -> Uid;
    /// A random number below `bound`; 0 if `bound` is 0.
    fn below(&mut self, bound: u64) -> u64;
}

/// Letters of a process's suffix: no vowels (no words), no digits that look like letters.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjkmnpqrstvwxz2456789";
/// 26^5 = 11.9 million suffixes for one owner and template.
const SUFFIX_LENGTH: usize = 5;

/// A random suffix of a process's name.
pub fn suffix(ids: &mut dyn Ids) -> String {
    let pick = |i: u64| char::from(SUFFIX_LETTERS[usize::try_from(i).unwrap_or(0)]);
    (0..SUFFIX_LENGTH).map(|_| pick(ids.below(SUFFIX_LETTERS.len() as u64))).collect()
}

/// The part of a process's name that stands for the fields whose change needs a restart.
#[must_use]
pub fn name_hash(hash: &Sha256) -> String {
    let letter = |b: &u8| char::from(SUFFIX_LETTERS[usize::from(*b) % SUFFIX_LETTERS.len()]);
    hash.as_bytes().iter().take(SUFFIX_LENGTH).map(letter).collect()
}

/// What a step writes.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants are the types that controllers write")]
pub enum Body {
    Template(Box<ProcessTemplate>),
    FileSpec(Box<FileSpec>),
    FileVars(Box<FileVars>),
    ProcessSpec(ProcessSpecRecord),
    ProcessTemplate(ProcessTemplateRecord),
    Bind(BindRecord),
    Goal(GoalRecord),
    Run(Box<RunDocument>),
    Files(Box<FilesDocument>),
    Secrets(Box<SecretsDocument>),
    NodeState(NodeState),
    Rollout(Box<RolloutState>),
    Pending(PendingState),
    Incarnation(Incarnation),
}

/// What a step does to its key.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Writes a value.
    Put(Body),
    /// Writes the marker of a deletion.
    Delete,
}

/// One guarded write: only if the key's last write is still `expect`.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The key.
    pub key: Key,
    /// The last write of the key in the snapshot; none = never written.
    pub expect: Option<Revision>,
    /// What to do.
    pub act: Act,
}

/// Something to tell once the plan has taken effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// About what.
    pub object: ObjectRef,
    /// Its uid.
    pub uid: Option<Uid>,
    /// On which node.
    pub node: Option<NodeName>,
    /// Why, one word.
    pub reason: Reason,
    /// One line for people.
    pub message: String,
}

/// Work that is no decision: deletions of what nobody reads any more, each guarded or conditional by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aside {
    /// Keys of the observed bucket to delete, if their last write is still this one. A batch cannot span two streams.
    pub observed: Vec<(Key, Revision)>,
    /// Markers of deletions to purge, if they are still the last write.
    pub purges: Vec<(Key, Revision)>,
}

/// A decision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What to write, all together or not at all.
    pub steps: Vec<Step>,
    /// Keys that were only read and must still be so.
    pub reads: Vec<(Key, Option<Revision>)>,
    /// What to tell.
    pub tell: Vec<Telling>,
    /// Tidying outside the lane; nothing depends on it.
    pub aside: Aside,
    /// Look again after so many milliseconds, even if nothing changes.
    pub wake_in_ms: Option<u64>,
    /// Why this, or why nothing: for the log and for people.
    pub why: Vec<String>,
}

impl Plan {
    /// Nothing to do.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.steps.is_empty()
    }

    /// Adds a write guarded on the snapshot.
    pub fn put(&mut self, fleet: &Fleet, key: Key, body: Body) {
        let expect = fleet.revision_of(&key);
        self.steps.push(Step { key, expect, act: Act::Put(body) });
    }

    /// Adds a deletion guarded on the snapshot.
    pub fn delete(&mut self, fleet: &Fleet, key: Key) {
        let expect = fleet.revision_of(&key);
        self.steps.push(Step { key, expect, act: Act::Delete });
    }

    /// Adds a template if the store does not have it, and returns its hash.
    ///
    /// # Errors
    /// If it is too large to be stored.
    pub fn template(&mut self, fleet: &Fleet, template: &ProcessTemplate) -> Result<Sha256, EncodeError> {
        let hash = ostler_schemas::hash::sha256(&codec::encode(template)?);
        self.immutable(fleet, hash, || Body::Template(Box::new(template.clone())));
        Ok(hash)
    }

    /// Adds a file spec if the store does not have it, and returns its hash.
    ///
    /// # Errors
    /// If it is too large to be stored.
    pub fn file_spec(&mut self, fleet: &Fleet, spec: &FileSpec) -> Result<Sha256, EncodeError> {
        let hash = ostler_schemas::hash::sha256(&codec::encode(spec)?);
        self.immutable(fleet, hash, || Body::FileSpec(Box::new(spec.clone())));
        Ok(hash)
    }

    /// Adds the values of a file if the store does not have them, and returns their hash.
    ///
    /// # Errors
    /// If they are too large to be stored.
    pub fn file_vars(&mut self, fleet: &Fleet, vars: &FileVars) -> Result<Sha256, EncodeError> {
        let hash = ostler_schemas::hash::sha256(&codec::encode(vars)?);
        self.immutable(fleet, hash, || Body::FileVars(Box::new(vars.clone())));
        Ok(hash)
    }

    fn immutable(&mut self, fleet: &Fleet, hash: Sha256, body: impl FnOnce() -> Body) {
        let key = Key::Template(hash);
        let planned = self.steps.iter().any(|s| s.key == key);
        if !planned && !fleet.templates.contains_key(&hash) {
            self.put(fleet, key, body());
        }
    }

    /// Looks again after `ms`, or earlier if that was planned already.
    pub fn wake_in(&mut self, ms: u64) {
        self.wake_in_ms = Some(self.wake_in_ms.map_or(ms, |known| known.min(ms)));
    }

    /// Every key that is written.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<&Key> {
        self.steps.iter().map(|s| &s.key).collect()
    }
}

/// What the executor knows when it makes a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchContext {
    /// The leader's epoch.
    pub epoch: Epoch,
    /// Number of the batch in its lane.
    pub batch: u32,
}

impl BatchContext {
    /// The fencing token of processes bound by this batch.
    #[must_use]
    pub fn token(&self) -> Token {
        Token { incarnation: self.epoch.incarnation, term: self.epoch.term.0, batch: self.batch }
    }

    fn fill(&self, token: &mut Token) {
        if *token == Token::default() {
            *token = self.token();
        }
    }
}

impl Body {
    /// The bytes to store: epochs set, and tokens that are still zero filled with this batch's.
    ///
    /// # Errors
    /// If the value passes the limit of its kind.
    pub fn render(&self, context: &BatchContext) -> Result<Vec<u8>, EncodeError> {
        match self {
            Body::Template(v) => codec::encode(&**v),
            Body::FileSpec(v) => codec::encode(&**v),
            Body::FileVars(v) => codec::encode(&**v),
            Body::ProcessSpec(v) => codec::encode(v),
            Body::ProcessTemplate(v) => codec::encode(v),
            Body::Bind(v) => {
                let mut v = v.clone();
                context.fill(&mut v.token);
                codec::encode(&v)
            }
            Body::Goal(v) => codec::encode(&GoalRecord { epoch: Some(context.epoch), ..v.clone() }),
            Body::Run(v) => {
                let mut v = (**v).clone();
                v.epoch = context.epoch;
                v.entries.iter_mut().for_each(|e| context.fill(&mut e.f));
                codec::encode(&v)
            }
            Body::Files(v) => codec::encode(&FilesDocument { epoch: context.epoch, ..(**v).clone() }),
            Body::Secrets(v) => codec::encode(&SecretsDocument { epoch: context.epoch, ..(**v).clone() }),
            Body::NodeState(v) => codec::encode(&NodeState { epoch: context.epoch, ..v.clone() }),
            Body::Rollout(v) => codec::encode(&RolloutState { epoch: context.epoch, ..(**v).clone() }),
            Body::Pending(v) => codec::encode(&PendingState { epoch: context.epoch, ..v.clone() }),
            Body::Incarnation(v) => codec::encode(v),
        }
    }

    /// The kind, for the headers of the stored message.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        use codec::Wire;
        match self {
            Body::Template(_) => ProcessTemplate::KIND,
            Body::FileSpec(_) => FileSpec::KIND,
            Body::FileVars(_) => FileVars::KIND,
            Body::ProcessSpec(_) => ProcessSpecRecord::KIND,
            Body::ProcessTemplate(_) => ProcessTemplateRecord::KIND,
            Body::Bind(_) => BindRecord::KIND,
            Body::Goal(_) => GoalRecord::KIND,
            Body::Run(_) => RunDocument::KIND,
            Body::Files(_) => FilesDocument::KIND,
            Body::Secrets(_) => SecretsDocument::KIND,
            Body::NodeState(_) => NodeState::KIND,
            Body::Rollout(_) => RolloutState::KIND,
            Body::Pending(_) => PendingState::KIND,
            Body::Incarnation(_) => Incarnation::KIND,
        }
    }
}
