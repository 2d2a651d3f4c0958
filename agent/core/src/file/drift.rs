//! Drift: found, told, put back; and what becomes of a fight over a file (CONTRACT.md section 7).
//!
//! Guarantees:
//! * a drift under `enforce` is put back at once, until the file is contested;
//! * a file is contested after [`CONTEST_REPAIRS`] repairs within ten minutes: from then on one repair a minute, after
//!   an hour none until a person acts;
//! * a storm of changes costs one look a second and is told once: it is counted, not narrated.

use ostler_schemas::spec::Drift;

use super::evidence::{hand_text, rival_text, what_text};
use super::{
    DriftReport, Effect, FileSpec, FileState, ManagedFile, Mono, Now, Reason, Sight, Timestamp, Work, Written,
};

/// Repairs within [`CONTEST_WINDOW_MS`] that make a file contested (CONTRACT.md section 7).
pub const CONTEST_REPAIRS: usize = 3;
/// The window in which repairs are counted.
pub const CONTEST_WINDOW_MS: u64 = 600_000;
/// The pace of repairs of a contested file.
pub const CONTESTED_PACE_MS: u64 = 60_000;
/// After so long a contest nothing is repaired until a new version is pushed.
pub const CONTEST_END_MS: u64 = 3_600_000;
/// How often a file that is contested or left drifted is read at most, however often it is changed: what is shown of
/// it is a second old then, and a storm costs next to nothing.
const LOOK_PACE_MS: u64 = 1_000;
/// How often a drift that is not put back is told at most; what happens in between is counted.
const TELL_PACE_MS: u64 = 60_000;

/// Whether drift may be put back now.
enum Leave {
    Now,
    At(Mono),
    NoMore,
}

impl ManagedFile {
    /// Something happened at the path.
    pub(super) fn heard(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let is_left = matches!(self.standing.state, FileState::Contested | FileState::Drifted);
        let next = self.looked.plus_ms(LOOK_PACE_MS);
        if is_left && !self.looking && self.work.is_none() && now.mono < next {
            self.look_due = Some(next);
        } else {
            self.look(effects);
        }
    }

    /// A person has acted: what was fought over is taken up again.
    pub(super) fn forget_contest(&mut self) {
        self.record.repairs.clear();
        self.record.contested_since = None;
    }

    /// A clock that was set back must not make a wait of a day out of one of a minute.
    pub(super) fn heed_clock(&mut self, now: Now) {
        for at in self.record.repairs.iter_mut().chain(&mut self.record.contested_since) {
            *at = (*at).min(now.wall);
        }
    }

    pub(super) fn drifted(
        &mut self,
        now: Now,
        spec: &FileSpec,
        target: &Written,
        observed: &Sight,
        effects: &mut Vec<Effect>,
    ) {
        match spec.drift {
            Drift::Ignore => {
                self.set(now, FileState::InSync, None, None);
            }
            Drift::Warn | Drift::Unknown => {
                self.note(now, target, observed);
                self.warn(now, effects);
            }
            Drift::Enforce => match self.leave(now) {
                Leave::Now => self.repair(now, target, observed, effects),
                Leave::At(at) => {
                    self.note(now, target, observed);
                    self.pace = Some(at);
                    let message = self.contest_text();
                    self.set(now, FileState::Contested, Some(Reason::Contested), Some(message));
                }
                Leave::NoMore => {
                    self.note(now, target, observed);
                    let rival = rival_text(self.record.last_drift.as_ref());
                    let text = format!("contested for an hour, not put back until somebody acts; {rival}");
                    let ends = !self.has_given_up();
                    self.set(now, FileState::Contested, Some(Reason::Contested), Some(text.clone()));
                    if ends {
                        effects.push(Effect::Tell(Reason::Contested, text));
                    }
                }
            },
        }
    }

    fn has_given_up(&self) -> bool {
        let message = self.standing.message.as_deref().unwrap_or_default();
        self.standing.state == FileState::Contested && message.starts_with("contested for an hour")
    }

    fn leave(&self, now: Now) -> Leave {
        let Some(since) = self.record.contested_since else { return Leave::Now };
        if now.wall.since_ms(since) >= CONTEST_END_MS {
            return Leave::NoMore;
        }
        let last = self.record.repairs.last().copied().unwrap_or(Timestamp(0));
        let waited = now.wall.since_ms(last);
        if waited >= CONTESTED_PACE_MS {
            Leave::Now
        } else {
            Leave::At(now.mono.plus_ms(CONTESTED_PACE_MS - waited))
        }
    }

    /// Records what is different, once for each thing that is seen.
    pub(super) fn note(&mut self, now: Now, target: &Written, observed: &Sight) {
        let differing = observed.differing(target);
        if self.drift_seen.as_ref() == Some(&differing) {
            return;
        }
        self.drift_seen = Some(differing);
        self.record.drifts_total += 1;
        let repairs = self.record.repairs_total;
        self.record.last_drift = Some(self.evidence(now, target, observed, repairs));
    }

    fn evidence(&self, now: Now, target: &Written, observed: &Sight, repairs: u64) -> DriftReport {
        let is_secret = self.wanted.as_ref().is_some_and(|w| w.is_secret);
        let evidence = observed.evidence(now.wall, target, is_secret);
        DriftReport { repairs, seen: self.record.drifts_total, ..evidence }
    }

    /// Tells of what is not put back; a writer that goes on is told of once a minute.
    fn warn(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Some(drift) = &self.record.last_drift else { return };
        let hand = hand_text(drift).map(|hand| format!("; {hand}")).unwrap_or_default();
        let text = format!("{} not as it should be{hand}", what_text(drift));
        self.set(now, FileState::Drifted, Some(Reason::DriftFound), Some(text.clone()));
        let seen = self.record.drifts_total;
        match self.drift_told {
            Some((_, told)) if told == seen => {}
            Some((at, _)) if now.mono < at.plus_ms(TELL_PACE_MS) => {
                self.pace = Some(at.plus_ms(TELL_PACE_MS));
            }
            told => {
                let new = told.map_or(1, |(_, told)| seen.saturating_sub(told));
                let times =
                    if new > 1 { format!(" ({new} changes since it was told last)") } else { String::new() };
                self.drift_told = Some((now.mono, seen));
                effects.push(Effect::Tell(Reason::DriftFound, format!("{text}{times}")));
            }
        }
    }

    pub(super) fn contest_text(&self) -> String {
        let rival = rival_text(self.record.last_drift.as_ref());
        format!("put back {} times in 10m; {rival}", self.record.repairs.len())
    }

    fn repair(&mut self, now: Now, target: &Written, observed: &Sight, effects: &mut Vec<Effect>) {
        self.note(now, target, observed);
        // What comes next is another drift, even if it looks the same.
        self.drift_seen = None;
        let mut record = self.record.clone();
        record.repairs.retain(|at| now.wall.since_ms(*at) < CONTEST_WINDOW_MS);
        record.repairs.push(now.wall);
        record.repairs_total += 1;
        if let Some(drift) = &mut record.last_drift {
            drift.repairs = record.repairs_total;
        }
        if record.contested_since.is_none() && record.repairs.len() >= CONTEST_REPAIRS {
            record.contested_since = Some(now.wall);
            let rival = rival_text(record.last_drift.as_ref());
            let text = format!(
                "put back {} times in 10m; from now on once a minute, after an hour not any more; {rival}",
                record.repairs.len()
            );
            effects.push(Effect::Tell(Reason::Contested, text));
        }
        let steps = self.write_steps(target, observed, (&mut record, false));
        self.set(now, FileState::Drifted, Some(Reason::DriftFound), None);
        self.run(Work::Repair, steps, effects);
    }

    /// A repair is done. Those of a contest are counted: it was told when it began.
    pub(super) fn told_repair(&self, effects: &mut Vec<Effect>) {
        if self.record.contested_since.is_some() && self.record.repairs.len() > CONTEST_REPAIRS {
            return;
        }
        let drift = self.record.last_drift.as_ref();
        let what = drift.map_or_else(|| "it".to_owned(), what_text);
        let hand = drift.and_then(hand_text).map(|hand| format!("; {hand}")).unwrap_or_default();
        effects.push(Effect::Tell(Reason::DriftRepaired, format!("{what} put back{hand}")));
    }
}
