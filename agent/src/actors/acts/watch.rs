//! What is looked at after the actions of a change, for as long as a rollout may judge by it: the file's probe, and the
//! processes that its actions name.

use std::collections::BTreeMap;

use ostler_agent_core::acts::{Plan, Standing};
use ostler_agent_core::probe::{self, Question};
use ostler_agent_core::unit::Verdict;
use ostler_schemas::spec::{Probe, ProbeAction, ProcessTemplate};
use ostler_schemas::time::Mono;
use ostler_schemas::v1::report::{FileEffect, Measure};
use ostler_schemas::{Uid, time::Timestamp};
use ractor::ActorRef;

use super::command::{self, Command};
use super::{Msg, State};
use crate::context::{ProcessView, Shared, Task};

/// A probe that is asked.
pub(super) struct Prober {
    n: u64,
    _task: Task,
}

/// Whether an action of a plan names this process.
fn is_named(plan: &Plan, view: &ProcessView) -> bool {
    let Some(template) = view.template.as_ref().filter(|_| view.namespace == plan.named.0) else {
        return false;
    };
    plan.selectors().any(|selector| selector.matches(&template.labels))
}

/// The unplanned ends so far of the processes that a plan's actions name.
pub(super) fn unplanned(context: &Shared, plan: &Plan) -> BTreeMap<Uid, u64> {
    let board = context.board();
    let named = board.processes.iter().filter(|(_, view)| is_named(plan, view));
    named.map(|(uid, view)| (*uid, view.unplanned)).collect()
}

/// What the processes that a plan's actions name take together; none while that is not known of each.
pub(super) fn taken(context: &Shared, plan: &Plan) -> Option<Measure> {
    let board = context.board();
    let named = board.processes.iter().filter(|(_, view)| view.alive && is_named(plan, view));
    let mut sum: Option<Measure> = None;
    for (uid, view) in named {
        let (incarnation, measure) = board.measures.get(uid)?;
        if *incarnation != view.report.i {
            return None;
        }
        let so_far = sum.unwrap_or_default();
        sum = Some(Measure {
            memory: so_far.memory.saturating_add(measure.memory),
            error_lines: so_far.error_lines.saturating_add(measure.error_lines),
        });
    }
    sum
}

impl State {
    /// Looks at what is on trial. Returns when the next of it is over.
    pub(super) fn watch(&mut self, me: &ActorRef<Msg>, files: &BTreeMap<Uid, (Plan, bool)>) -> Option<Mono> {
        let (now, wall) = (self.context.deps.clock.mono(), self.context.deps.clock.wall());
        self.probers.retain(|uid, prober| files.get(uid).is_some_and(|(plan, _)| plan.n == prober.n));
        let mut due: Option<Mono> = None;
        for (uid, (plan, _)) in files.iter().filter(|(_, (plan, _))| plan.is_placed) {
            match self.left(uid, plan, wall) {
                Left::Nothing => {
                    self.probers.remove(uid);
                    continue;
                }
                Left::Actions => {}
                Left::Ms(ms) => {
                    let until = now.plus_ms(ms);
                    due = Some(due.map_or(until, |known| known.min(until)));
                    self.probe(me, *uid, plan);
                }
            }
            self.measure(uid, plan);
        }
        due
    }

    /// For how long a change is still looked at.
    fn left(&self, uid: &Uid, plan: &Plan, wall: Timestamp) -> Left {
        let standing = self.standing(uid, plan);
        let mut board = self.context.board();
        let Some(acts) = board.acts.get_mut(uid).filter(|acts| !acts.is_over) else { return Left::Nothing };
        if let Standing::At(_) = standing {
            return Left::Actions;
        }
        let passed = wall.since_ms(acts.progress.at);
        // What is bad is asked on: it may come right, and must not be taken for well because nobody asks.
        let is_bad = matches!(acts.probed, Some(Verdict::Bad(_) | Verdict::NotYet(_)))
            || (acts.probed.is_none() && plan.probe.is_some() && standing == Standing::Done);
        match plan.watch_ms.saturating_sub(passed) {
            0 if !is_bad => {
                acts.is_over = true;
                Left::Nothing
            }
            0 => Left::Actions,
            ms => Left::Ms(ms),
        }
    }

    fn probe(&mut self, me: &ActorRef<Msg>, uid: Uid, plan: &Plan) {
        let Some(asked) = plan.probe.clone() else { return };
        if self.probers.contains_key(&uid) || self.standing(&uid, plan) != Standing::Done {
            return;
        }
        let (context, me, plan) = (self.context.clone(), me.clone(), plan.clone());
        let n = plan.n;
        let task = Task::spawn(async move {
            ask_on(&context, (uid, &plan, asked), |verdict| drop(me.cast(Msg::Probed(uid, n, verdict))))
                .await;
        });
        self.probers.insert(uid, Prober { n, _task: task });
    }

    pub(super) fn probed(&mut self, uid: Uid, n: u64, verdict: Verdict) {
        let mut board = self.context.board();
        if let Some(acts) = board.acts.get_mut(&uid).filter(|acts| acts.progress.n == n && !acts.is_over) {
            acts.probed = Some(verdict);
        }
        drop(board);
        self.context.changed();
    }

    /// What has become of the processes that the actions name.
    fn measure(&self, uid: &Uid, plan: &Plan) {
        if plan.selectors().next().is_none() {
            return;
        }
        let (now, takes) = (unplanned(&self.context, plan), taken(&self.context, plan));
        let mut board = self.context.board();
        let Some(acts) = board.acts.get_mut(uid).filter(|acts| acts.progress.n == plan.n) else { return };
        let since = |uid: &Uid| acts.progress.since.get(uid).copied().unwrap_or(0);
        let restarts = now.iter().map(|(uid, n)| n.saturating_sub(since(uid))).sum();
        let effect = Some(FileEffect { restarts, before: acts.progress.before, now: takes });
        let changed = acts.effect != effect;
        acts.effect = effect;
        drop(board);
        if changed {
            self.context.changed();
        }
    }
}

/// What is left to be looked at.
enum Left {
    Nothing,
    /// Its end is not known: actions are to be done, or a probe does not succeed.
    Actions,
    Ms(u64),
}

/// A question with everything resolved.
enum Asked {
    Network(Question),
    Exec(Vec<String>),
    Nonsense(String),
}

/// Asks for as long as this is waited for.
async fn ask_on(context: &Shared, (uid, plan, asked): (Uid, &Plan, Probe), tell: impl Fn(Verdict)) {
    let clock = context.deps.clock.clone();
    let timeout_ms = asked.timeout.as_millis();
    let question = match asked.action() {
        Some(ProbeAction::Exec(exec)) => Asked::Exec(exec.command.clone()),
        Some(ProbeAction::HttpGet(_) | ProbeAction::TcpSocket(_)) | None => {
            let address = context.board().facts.address.clone();
            // Ports of a file's probe have numbers.
            let template = ProcessTemplate::of(Vec::new());
            probe::question(&asked, &template, &BTreeMap::new(), &address)
                .map_or_else(Asked::Nonsense, Asked::Network)
        }
    };
    let mut prober = probe::Prober::new(asked, clock.mono(), (false, false));
    loop {
        clock.sleep_until(prober.next()).await;
        let answer = match &question {
            Asked::Network(question) => context.deps.host.ask(question.clone(), timeout_ms).await,
            Asked::Exec(words) => {
                let (user, owner) = (None, plan.owner.as_str());
                command::ask(context, Command { uid, plan, words, user, owner, timeout_ms }).await
            }
            Asked::Nonsense(why) => Err(why.clone()),
        };
        if let Some(verdict) = prober.answered(clock.mono(), answer) {
            tell(verdict);
        }
    }
}
