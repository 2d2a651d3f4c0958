//! Rollouts: which version of an object is in force and where, how a new one spreads in waves, how it is judged, and
//! what follows when it fails.
//!
//! The one state machine behind Deployments and ConfigFiles (CONTRACT.md section 3):
//!
//! ```text
//!   new version --> Progressing --wave healthy--> Baking --bake over--> next wave, or Complete
//!                    ^  |   ^                      |  |   +-- pauseAfter names the wave --> Paused
//!                    |  |   +-- healthy no more ---+  |
//!                    |  +-- too many failures, deadline, abort --+
//!       newer version|              +-- onFailure: pause -----------> Paused   (until resumed, or a newer version)
//!                    |              +-- no good version before -----> Failed   (until healthy, or a newer version)
//!                    |              +-- rollback --> RollingBack --all healthy--> RolledBack
//!                    +---------------------------------- from every state
//! ```
//!
//! A wave waits in `Progressing`, not started, until a window is open ([`start`]) and nobody has paused the object.
//!
//! Guarantees: a version that failed is not tried again by itself, nor by a change of other fields; an automatic
//! rollback changes this state only, never a spec; nothing of a wave is told to anybody before the waves before it
//! were healthy for a bake; a wave of which nobody can be asked is never taken for healthy. Everything lies in
//! [`RolloutState`], whose size does not grow with the fleet, so any leader goes on where another one ended.
//!
//! Pure: what is healthy and what failed is told by the caller as a [`Sight`]. Which nodes belong to a wave is worked
//! out by [`spread`]; of processes only numbers count.

mod machine;
mod people;
pub mod spread;

use ostler_schemas::quantity::{Increase, Size};
use ostler_schemas::spec::{Rollout, Spec};
use ostler_schemas::time::{Now, Timestamp};
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::Measure;
use ostler_schemas::v1::state::{RolloutPhase, RolloutState, WaveTally};
use ostler_schemas::{ObjectRef, Uid, Version};

use crate::fleet::Fleet;
use crate::plan::{Plan, Telling};

pub use machine::{advance, start};
pub use people::heed;

/// Most failures, and most of what is waited for, that are named; the others are counted.
const NAMED: usize = 3;

/// What a controller sees of the version in force in the waves so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// This controller has nothing left to do for the wave.
    pub settled: bool,
    /// So many belong to it.
    pub members: u32,
    /// Of these have the version and are well.
    pub well: u32,
    /// Of these are waited for.
    pub waiting: u32,
    /// Of these cannot be asked. They block nothing.
    pub offline: u32,
    /// What has failed.
    pub failures: Failures,
    /// Exits of the version's processes so far; 0 for files.
    pub exits: u64,
    /// Since when something is waited for that only a host can do; none while this controller itself moves on.
    pub waiting_since: Option<Timestamp>,
    /// The first of those that are waited for.
    pub waits_for: Vec<String>,
    /// What is so, in one line: `2 of 3 processes ready`.
    pub summary: String,
}

impl Sight {
    /// The present wave as it is to be seen.
    #[must_use]
    pub fn tally(&self, state: &RolloutState) -> Option<WaveTally> {
        let at = state.wave_started_at?;
        Some(WaveTally {
            wave: state.wave,
            size: self.members,
            healthy: self.well,
            failed: self.failures.count,
            offline: self.offline,
            at,
        })
    }

    /// One more that is waited for.
    pub fn wait_for(&mut self, what: impl FnOnce() -> String) {
        self.waiting = self.waiting.saturating_add(1);
        if self.waits_for.len() < NAMED {
            self.waits_for.push(what());
        }
    }

    /// Whether all is well but for `tolerated` failures. Nothing is well on the word of nobody, unless there is nobody.
    #[must_use]
    pub fn is_healthy(&self, tolerated: u32) -> bool {
        let answered = self.well + self.failures.count;
        self.settled
            && self.waiting == 0
            && self.failures.count <= tolerated
            && (answered > 0 || self.members == 0)
    }
}

/// What is more than the rules bear, compared with what was before.
#[must_use]
pub fn excess(rules: &Rollout, before: &Measure, now: &Measure) -> Option<String> {
    let is_more =
        |most: Option<Increase>, before, now| most.is_some_and(|most| most.is_exceeded(before, now));
    if is_more(rules.max_memory_increase, before.memory, now.memory) {
        let (was, is) = (Size::from_bytes(before.memory), Size::from_bytes(now.memory));
        return Some(format!("maxMemoryIncrease: {is} of memory, {was} before"));
    }
    is_more(rules.max_error_line_increase, before.error_lines, now.error_lines).then(|| {
        let (was, is) = (before.error_lines, now.error_lines);
        format!("maxErrorLineIncrease: {is} error lines an hour, {was} before")
    })
}

/// What has failed: counted, and the first of it named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub count: u32,
    named: Vec<String>,
}

impl Failures {
    /// One more.
    pub fn add(&mut self, what: impl FnOnce() -> String) {
        self.count = self.count.saturating_add(1);
        if self.named.len() < NAMED {
            self.named.push(what());
        }
    }

    /// The first ones, and why each failed.
    #[must_use]
    pub fn named(&self) -> &[String] {
        &self.named
    }

    /// Who failed and why, in one line.
    #[must_use]
    pub fn text(&self) -> String {
        let named = self.named.join("; ");
        match usize::try_from(self.count).unwrap_or(usize::MAX).saturating_sub(self.named.len()) {
            0 => named,
            more => format!("{named}; and {more} more"),
        }
    }
}

/// A state on its way through one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The state from now on.
    pub state: RolloutState,
    /// What to tell.
    pub tell: Vec<(Reason, String)>,
    /// When time alone can change something.
    pub wake_in_ms: Option<u64>,
}

impl Turn {
    /// The begin of one.
    #[must_use]
    pub fn of(state: RolloutState) -> Self {
        Self { state, tell: Vec::new(), wake_in_ms: None }
    }

    fn tell(&mut self, reason: Reason, message: impl Into<String>) {
        self.tell.push((reason, message.into()));
    }

    fn wake_in(&mut self, ms: u64) {
        self.wake_in_ms = Some(self.wake_in_ms.map_or(ms, |known| known.min(ms)));
    }
}

/// The rules that a version is judged by, and whether there is something to go back to.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The rules.
    pub rules: &'a Rollout,
    /// The last good version can still be read.
    pub can_revert: bool,
}

/// The state with the present spec taken in, and what to tell if that begins a rollout.
#[must_use]
pub fn admit(
    known: Option<&RolloutState>,
    object: &Object,
    now: Now,
) -> (RolloutState, Option<(Reason, String)>) {
    let version = object.metadata.version;
    let generation = object.metadata.generation.0;
    let Some(known) = known else {
        // Orders given before the controller ever looked are about nothing.
        let orders = object.metadata.order.as_ref().map_or(0, |order| order.n);
        let before = RolloutState { orders, ..RolloutState::default() };
        let state = begin(&before, version, generation, now);
        return (state, Some((Reason::RolloutStarted, format!("version {version}"))));
    };
    let mut state = known.clone();
    state.generation = generation;
    if version <= known.target.max(known.failed) {
        return (state, None);
    }
    let from = known.target;
    if is_settled(known.phase) {
        state.current = from;
    }
    let mut state = begin(&state, version, generation, now);
    if !is_over(known.phase) && known.seed.0 > 0 {
        // Where the version before went first its successor goes first: most are its correction.
        state.seed = known.seed;
    }
    (state, Some((Reason::RolloutStarted, format!("version {version} replaces version {from}"))))
}

fn begin(before: &RolloutState, target: Version, generation: u64, now: Now) -> RolloutState {
    RolloutState {
        current: before.current,
        target,
        last_good: before.last_good,
        wave: 1,
        phase: RolloutPhase::Progressing,
        generation,
        started_at: Some(now.wall),
        seed: target,
        bad: before.bad,
        orders: before.orders,
        baseline: before.baseline,
        epoch: before.epoch,
        ..RolloutState::default()
    }
}

/// Whether the target of this phase is held, rather than being brought about or left: then a newer version replaces it
/// and not what was there before it.
const fn is_settled(phase: RolloutPhase) -> bool {
    match phase {
        RolloutPhase::Complete | RolloutPhase::RolledBack | RolloutPhase::Paused | RolloutPhase::Failed => {
            true
        }
        RolloutPhase::Progressing
        | RolloutPhase::Baking
        | RolloutPhase::RollingBack
        | RolloutPhase::Unknown => false,
    }
}

/// Whether the target is in force everywhere, and nothing is on its way.
#[must_use]
pub const fn is_over(phase: RolloutPhase) -> bool {
    match phase {
        RolloutPhase::Complete | RolloutPhase::RolledBack => true,
        RolloutPhase::Progressing
        | RolloutPhase::Baking
        | RolloutPhase::Paused
        | RolloutPhase::RollingBack
        | RolloutPhase::Failed
        | RolloutPhase::Unknown => false,
    }
}

/// Whether things must be left as they are until a person decides.
#[must_use]
pub const fn is_frozen(phase: RolloutPhase) -> bool {
    match phase {
        RolloutPhase::Paused | RolloutPhase::Failed | RolloutPhase::Unknown => true,
        RolloutPhase::Progressing
        | RolloutPhase::Baking
        | RolloutPhase::Complete
        | RolloutPhase::RollingBack
        | RolloutPhase::RolledBack => false,
    }
}

/// Whether this phase waits for reports or time.
#[must_use]
pub const fn is_moving(phase: RolloutPhase) -> bool {
    match phase {
        RolloutPhase::Progressing
        | RolloutPhase::Baking
        | RolloutPhase::RollingBack
        | RolloutPhase::Failed => true,
        RolloutPhase::Complete | RolloutPhase::Paused | RolloutPhase::RolledBack | RolloutPhase::Unknown => {
            false
        }
    }
}

/// Whether the next wave is still to be started.
#[must_use]
pub fn waits_to_start(state: &RolloutState) -> bool {
    state.phase == RolloutPhase::Progressing && state.wave_started_at.is_none()
}

/// The spec of one version of an object: the present one if it has that version, else the newest kept revision of it.
#[must_use]
pub fn spec_of_version<'a>(fleet: &'a Fleet, object: &'a Object, version: Version) -> Option<&'a Spec> {
    if object.metadata.version == version {
        return Some(&object.spec);
    }
    let of = object.object_ref();
    revisions_of(fleet, &of, object.metadata.uid)
        .filter(|(_, revision)| revision.version == version)
        .last()
        .map(|(_, revision)| &revision.value.spec)
}

/// Kept revisions of an object, by rising generation.
pub fn revisions_of<'a>(
    fleet: &'a Fleet,
    of: &ObjectRef,
    uid: Uid,
) -> impl Iterator<
    Item = (ostler_schemas::Generation, &'a crate::fleet::Stored<ostler_schemas::v1::object::SpecRevision>),
> {
    let first = (of.clone(), uid, ostler_schemas::Generation(0));
    let last = (of.clone(), uid, ostler_schemas::Generation(u64::MAX));
    fleet.spec_revisions.range(first..=last).map(|((_, _, generation), revision)| (*generation, revision))
}

/// Adds what a rollout tells to a plan.
pub fn tell(plan: &mut Plan, object: &Object, tell: impl IntoIterator<Item = (Reason, String)>) {
    let told = tell.into_iter().map(|(reason, message)| Telling {
        object: object.object_ref(),
        uid: Some(object.metadata.uid),
        node: None,
        reason,
        message,
    });
    plan.tell.extend(told);
}

#[cfg(test)]
mod tests;
