//! One action, from its durable begin to its end.

use std::collections::BTreeMap;

use ostler_agent_core::acts::{ActState, Deed};
use ostler_agent_core::ledger::Change;
use ostler_agent_core::unit::Ask;
use ostler_schemas::spec::{Renewal, Selector};
use ostler_schemas::time::Mono;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::ProcessPhase;
use ostler_schemas::{Namespace, Uid};

use super::command::{self, Command};
use crate::actors::registry;
use crate::context::{ProcessView, Shared};
use crate::ports::UnitEnd;

/// How long before what failed for the moment (no ledger, no holder) is tried again.
const AGAIN_MS: u64 = 1_000;
/// How often processes are looked at although nothing was heard of them.
const LOOK_MS: u64 = 1_000;
/// How long a start may take where its template says nothing of it, or less: systemd's time for a start.
const LEAST_START_MS: u64 = 90_000;
/// Beyond the time that a process has: for everything on the way.
const SLACK_MS: u64 = 15_000;
/// How long the service manager may take: its own longest usual time for a stop and a start, and some.
const UNIT_MS: u64 = 300_000;

/// One action of one change of one file.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(super) uid: Uid,
    pub(super) n: u64,
    pub(super) index: usize,
    pub(super) plan: ostler_agent_core::acts::Plan,
}

/// What is to be done, and for whom.
pub(super) struct Job {
    pub(super) context: Shared,
    pub(super) deed: Deed,
    pub(super) parts: Vec<Part>,
    /// Which processes were there when an agent before this one began it.
    pub(super) begun: Option<BTreeMap<Uid, u64>>,
}

type End = Option<ActState>;

impl Job {
    pub(super) async fn carry_out(self) -> (Vec<Part>, End) {
        let end = self.end().await;
        if end.is_none() {
            // Left, or not to be begun now: not again at once.
            self.context.deps.clock.sleep_ms(AGAIN_MS).await;
        }
        (self.parts, end)
    }

    async fn end(&self) -> End {
        if !matches!(self.deed, Deed::Unit(..)) && self.context.board().host.is_none() {
            return None;
        }
        let on = match (&self.begun, &self.deed) {
            (Some(begun), _) => begun.clone(),
            (None, Deed::Processes(_, namespace, selector)) => meant(&self.context, namespace, selector),
            (None, Deed::Unit(..) | Deed::Exec { .. } | Deed::Unknown) => BTreeMap::new(),
        };
        if let Err(why) = self.begin(&on).await {
            tracing::warn!(why, "an action waits: its begin cannot be written");
            return None;
        }
        match &self.deed {
            Deed::Processes(Renewal::Restart, ..) => self.restart(&on).await,
            Deed::Processes(Renewal::Reload, ..) => self.reload(&on).await,
            Deed::Unit(how, unit) => Some(self.unit(*how, unit).await),
            Deed::Exec { words, user, owner, timeout, .. } => {
                let part = self.parts.first()?;
                let command = Command {
                    uid: part.uid,
                    plan: &part.plan,
                    words,
                    user: user.as_deref(),
                    owner,
                    timeout_ms: timeout.as_millis(),
                };
                Some(command::run(&self.context, command).await)
            }
            Deed::Unknown => Some(ActState::Failed("is of a form that this agent does not know".to_owned())),
        }
    }

    /// Nothing is done before it is durable that it is begun.
    async fn begin(&self, on: &BTreeMap<Uid, u64>) -> Result<(), String> {
        let now = self.context.deps.clock.wall();
        for Part { uid, n, index, .. } in &self.parts {
            let change = {
                let mut board = self.context.board();
                let Some(acts) = board.acts.get_mut(uid).filter(|acts| acts.progress.n == *n) else {
                    continue;
                };
                acts.progress.set(*index, ActState::Begun { on: on.clone() }, now);
                Change::Acts(*uid, Box::new(acts.progress.clone()))
            };
            self.context.persist(change).await?;
        }
        Ok(())
    }

    /// Whether no file is left that the action is for: all have changed again.
    fn is_outdated(&self) -> bool {
        let board = self.context.board();
        !self.parts.iter().any(|part| {
            let change = board.files.get(&part.uid).and_then(|view| view.change.as_ref());
            change.is_some_and(|plan| plan.n == part.n)
        })
    }

    async fn unit(&self, how: Renewal, unit: &str) -> ActState {
        if let Err(why) = self.context.deps.config.veto.unit(unit) {
            return ActState::Failed(format!("is refused: {why}"));
        }
        let end = tokio::select! {
            biased;
            end = self.context.deps.host.unit(how, unit.to_owned()) => end,
            () = self.context.deps.clock.sleep_ms(UNIT_MS) => {
                Err(format!("was not done within {}s", UNIT_MS / 1_000))
            }
        };
        match end {
            // What does not run has nothing to read.
            Ok(UnitEnd::Done | UnitEnd::NotRunning) => ActState::Done,
            Err(why) => ActState::Failed(format!("failed: {why}")),
        }
    }

    async fn restart(&self, on: &BTreeMap<Uid, u64>) -> End {
        let mut asked: BTreeMap<Uid, (Mono, u64)> = BTreeMap::new();
        self.until_all(on, |uid, incarnation, view, now| {
            let is_ending = view.report.phase == ProcessPhase::Stopping;
            if view.report.i == incarnation && !asked.contains_key(&uid) && !is_ending {
                if !is_running(view) && !is_waiting_out(view) {
                    // What waits for something reads what is new when it starts.
                    return Look::Settled;
                }
                let due = now.plus_ms(restart_ms(view));
                asked.insert(uid, (due, view.unplanned));
                return Look::Ask(Ask::Restart);
            }
            // One that is ending already, perhaps because an agent before this one asked, will read what is new.
            let (due, unplanned) =
                *asked.entry(uid).or_insert((now.plus_ms(restart_ms(view)), view.unplanned));
            let is_new = view.report.i > incarnation;
            if is_new && (view.ready || view.report.phase == ProcessPhase::Succeeded) {
                Look::Settled
            } else if view.unplanned > unplanned || view.report.phase == ProcessPhase::Failed {
                let said = view.report.message.as_deref().unwrap_or("no reason given");
                Look::Failed(format!("failed: process {} does not come up: {said}", view.name))
            } else if now >= due {
                let said = view.report.message.as_deref().unwrap_or("no reason given");
                Look::Failed(format!("failed: process {} is not ready in time: {said}", view.name))
            } else {
                Look::Wait
            }
        })
        .await
    }

    async fn reload(&self, on: &BTreeMap<Uid, u64>) -> End {
        let mut asked: BTreeMap<Uid, (Mono, u64)> = BTreeMap::new();
        self.until_all(on, |uid, incarnation, view, now| {
            if view.report.i != incarnation || !is_running(view) {
                return Look::Settled;
            }
            let known = asked.get(&uid).copied();
            // The numbers begin anew with the actor of the process.
            match known.filter(|(_, before)| view.reloads.asked >= *before) {
                None => {
                    let due = known.map_or_else(|| now.plus_ms(reload_ms(view)), |(due, _)| due);
                    asked.insert(uid, (due, view.reloads.asked));
                    Look::Ask(Ask::Reload)
                }
                Some((_, before)) if view.reloads.over > before => match &view.reloads.failure {
                    None => Look::Settled,
                    Some(why) => Look::Failed(format!("failed: process {}: {why}", view.name)),
                },
                Some((due, _)) if now >= due => {
                    Look::Failed(format!("failed: process {} was not reloaded in time", view.name))
                }
                Some(_) => Look::Wait,
            }
        })
        .await
    }

    /// Looks at each process until nothing is to be waited for any more.
    async fn until_all(
        &self,
        on: &BTreeMap<Uid, u64>,
        mut look: impl FnMut(Uid, u64, &ProcessView, Mono) -> Look,
    ) -> End {
        let mut open = on.clone();
        loop {
            let now = self.context.deps.clock.mono();
            let mut ask = Vec::new();
            let mut failed = None;
            {
                let holds = self.context.holds();
                let board = self.context.board();
                open.retain(|uid, incarnation| {
                    let Some(view) = board.processes.get(uid).filter(|view| is_meant(view)) else {
                        return false;
                    };
                    // Whoever holds it wants no other hand on it.
                    if holds.process(*uid).is_some() {
                        return false;
                    }
                    match look(*uid, *incarnation, view, now) {
                        Look::Settled => return false,
                        Look::Wait => {}
                        Look::Ask(what) => ask.push((*uid, what)),
                        Look::Failed(why) => failed = failed.take().or(Some(why)),
                    }
                    true
                });
            }
            if let Some(why) = failed {
                return Some(ActState::Failed(why));
            }
            if open.is_empty() {
                return Some(ActState::Done);
            }
            for (uid, what) in ask {
                self.context.registry.cast(registry::Msg::Ask(uid, what));
            }
            if self.is_outdated() {
                return None;
            }
            tokio::select! {
                biased;
                () = self.context.stirred.notified() => {}
                () = self.context.deps.clock.sleep_ms(LOOK_MS) => {}
            }
        }
    }
}

/// What is to be seen of one process.
enum Look {
    /// Nothing is to be waited for.
    Settled,
    /// It is to be asked.
    Ask(Ask),
    /// It has not come that far.
    Wait,
    /// It does not work, and why.
    Failed(String),
}

fn is_meant(view: &ProcessView) -> bool {
    view.goal == Goal::Run && view.orphan.is_none() && !view.retired
}

/// Whether it runs, or is about to with what may be old.
fn is_running(view: &ProcessView) -> bool {
    view.alive && view.report.phase != ProcessPhase::Stopping
}

/// Whether it is not tried for the moment, or no more.
fn is_waiting_out(view: &ProcessView) -> bool {
    let waits = view.report.phase == ProcessPhase::Pending
        && view.report.reason.is_some_and(|reason| !matches!(reason, Reason::NeedsNotMet | Reason::Held));
    waits || view.report.phase.has_ended()
}

/// Processes that a selector names now, and which incarnation each is.
fn meant(context: &Shared, namespace: &Namespace, selector: &Selector) -> BTreeMap<Uid, u64> {
    let board = context.board();
    let is_named = |view: &&ProcessView| {
        let labels = view.template.as_ref().map(|template| &template.labels);
        view.namespace == *namespace
            && is_meant(view)
            && labels.is_some_and(|labels| selector.matches(labels))
    };
    let named = board.processes.values().filter(is_named);
    named.map(|view| (view.report.u, view.report.i)).collect()
}

/// How long a restart may take: what its template gives stop and start.
fn restart_ms(view: &ProcessView) -> u64 {
    let Some(template) = &view.template else { return LEAST_START_MS + SLACK_MS };
    let stop = template.pre_stop_delay.as_millis().saturating_add(template.timeout_stop_sec.as_millis());
    let start = template.timeout_start_sec.as_millis().max(LEAST_START_MS);
    stop.saturating_add(start).saturating_add(SLACK_MS)
}

/// Likewise a reload, which waits until it is up.
fn reload_ms(view: &ProcessView) -> u64 {
    let hook = view.template.as_ref().and_then(|template| template.exec_reload.as_ref());
    restart_ms(view).saturating_add(hook.map_or(0, |exec| exec.timeout.as_millis()))
}
