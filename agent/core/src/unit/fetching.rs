//! Files that a start waits for, and that a running process is not stopped for before they are there.
//!
//! The host prepares a set of artifacts and tells how far it is. A set that cannot be had is a failed start of what
//! asked for it; what runs goes on meanwhile.

use ostler_schemas::Sha256;
use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::time::Mono;

use super::{Effect, Reason, Turn, Unit};
use crate::artifacts::{Preparing, set_id};

/// How long after a failure a set is asked for again while the version before goes on running. A start that fails has
/// the process's own delays.
const AGAIN_MS: u64 = 30_000;

/// A set that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetching {
    set: Sha256,
    state: Preparing,
    /// When it is asked for again after it has failed.
    pub(super) again: Option<Mono>,
}

/// How the artifacts of a template are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Artifacts {
    /// It has none, or they are there.
    There,
    /// They are on their way.
    Awaited,
    /// They cannot be had; why, for people.
    Failed(String),
}

impl Unit {
    /// How the artifacts of a template are; asks for them where that was not done.
    pub(super) fn artifacts_of(&mut self, template: &ProcessTemplate, turn: &mut Turn) -> Artifacts {
        if template.artifacts.is_empty() {
            self.fetching = None;
            return Artifacts::There;
        }
        let set = set_id(&template.artifacts);
        if let Some(fetching) = self.fetching.as_ref().filter(|fetching| fetching.set == set) {
            match (&fetching.state, fetching.again) {
                (Preparing::Ready(_), _) => return Artifacts::There,
                (Preparing::Underway(_), _) => return Artifacts::Awaited,
                (Preparing::Failed(why), None) => return Artifacts::Failed(why.clone()),
                (Preparing::Failed(_), Some(again)) if turn.now.mono < again => return Artifacts::Awaited,
                (Preparing::Failed(_), Some(_)) => {}
            }
        }
        let state = Preparing::Underway("its artifacts are asked for".to_owned());
        self.fetching = Some(Fetching { set, state, again: None });
        turn.push(Effect::Prepare(template.artifacts.clone()));
        Artifacts::Awaited
    }

    /// The host tells how far a set is.
    pub(super) fn artifacts_told(&mut self, set: Sha256, state: Preparing) {
        if let Some(fetching) = self.fetching.as_mut().filter(|fetching| fetching.set == set) {
            fetching.state = state;
        }
    }

    /// What is to replace a running process cannot be had: it goes on, and the set is asked for again.
    pub(super) fn put_off_replacement(&mut self, why: &str, turn: &mut Turn) {
        turn.tell(Reason::ArtifactFailed, format!("{why}; the version before goes on"));
        if let Some(fetching) = &mut self.fetching {
            fetching.again = Some(turn.now.mono.plus_ms(AGAIN_MS));
        }
    }

    /// How far the set is that a start waits for.
    pub(super) fn fetching_message(&self) -> Option<&str> {
        self.fetching.as_ref().and_then(|fetching| match &fetching.state {
            Preparing::Underway(text) => Some(text.as_str()),
            Preparing::Ready(_) | Preparing::Failed(_) => None,
        })
    }
}
