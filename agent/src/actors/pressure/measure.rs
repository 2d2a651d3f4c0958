//! What rollouts are judged by: memory and error lines of each process, in reports.
//!
//! Figures ride along in every report. They alone make one only while somebody may judge by them: a process has not
//! been up for long, or a file that it reads has changed not long ago. So a fleet at rest says nothing.

use std::collections::BTreeMap;

use ostler_agent_core::usage::{error_rate, is_news};
use ostler_schemas::Uid;
use ostler_schemas::v1::report::Measure;

use super::State;
use crate::context::{Board, Shared};
use ostler_schemas::time::Timestamp;

/// How often all processes are looked at while somebody may judge by it: a usual bake has two looks in it.
pub(super) const JUDGED_LOOK_MS: u64 = 5_000;
/// How often lines are counted else: the holder lists everything for it.
const ERRORS_MS: u64 = 60_000;
/// A process that has been up for less is new: a rollout bakes for no longer, as a rule.
const NEW_MS: u64 = 120_000;

/// By process: which incarnation, and how many lines.
pub(super) type ErrorLines = BTreeMap<Uid, (u64, u64)>;

/// Asks the holder.
pub(super) async fn error_lines(context: &Shared) -> ErrorLines {
    let all = context.deps.host.error_lines().await;
    all.into_iter().map(|(key, lines)| (key.uid, (key.incarnation, lines))).collect()
}

/// Whether somebody may judge by what processes take.
fn is_judged(board: &Board, now: Timestamp) -> bool {
    let is_new = |at: Option<Timestamp>| at.is_some_and(|at| now.since_ms(at) < NEW_MS);
    board.processes.values().any(|view| view.alive && is_new(view.report.started_at))
        || board.acts.values().any(|acts| !acts.is_over && acts.effect.is_some())
}

impl State {
    pub(super) fn is_judged(&self) -> bool {
        is_judged(&self.context.board(), self.context.deps.clock.wall())
    }

    /// Whether lines are to be counted with the next look.
    pub(super) fn counts_errors(&mut self) -> bool {
        let now = self.now();
        let counts = now >= self.next_errors || self.is_judged();
        if counts {
            self.next_errors = now.plus_ms(ERRORS_MS);
        }
        counts
    }

    /// Shows what is new of each process, and has it reported if somebody may judge by it.
    pub(super) fn tell_measures(&self) {
        let now = self.context.deps.clock.wall();
        let mut guard = self.context.board();
        let board = &mut *guard;
        let mut news = false;
        for (uid, memory) in self.meter.memory() {
            let Some(view) = board.processes.get(&uid) else { continue };
            let incarnation = view.report.i;
            let lines = self.errors.get(&uid).filter(|(i, _)| *i == incarnation).map_or(0, |(_, n)| *n);
            let uptime_ms = view.report.started_at.map_or(0, |at| now.since_ms(at));
            let measure = Measure { memory, error_lines: error_rate(lines, uptime_ms) };
            let told = board.measures.get(&uid).filter(|(i, _)| *i == incarnation);
            if told.is_none_or(|(_, told)| is_news(told, &measure)) {
                board.measures.insert(uid, (incarnation, measure));
                news = true;
            }
        }
        let processes = &board.processes;
        board.measures.retain(|uid, _| processes.contains_key(uid));
        let is_judged = is_judged(board, now);
        drop(guard);
        if news && is_judged {
            self.context.changed();
            self.context.act();
        }
    }
}
