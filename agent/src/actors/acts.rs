//! What follows changes of files on this node: one action after the other, then probes.
//!
//! The order and what counts as equal is the core's ([`ostler_agent_core::acts`]); here it is carried out. At most one
//! action is under way: two that restart the same thing would undo each other's waiting.
//!
//! * [`job`]: one action, from its durable begin to its end.
//! * [`command`]: commands that belong to files.
//! * [`watch`]: what is looked at after the actions: probes, and the processes that they name.

mod command;
mod job;
mod watch;

use std::collections::BTreeMap;

use ostler_agent_core::acts::{ActState, Deed, GATHER_MS, Plan, Progress, Queue, Standing, choose};
use ostler_agent_core::ledger::Change;
use ostler_agent_core::unit::Verdict;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::FileState;
use ostler_schemas::{Kind, ObjectRef, Uid};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use self::job::{Job, Part};
use crate::context::{ActsView, FileView, Shared, Task, lock};

pub(crate) struct ActsActor;

pub(crate) enum Msg {
    /// A file or a process has changed.
    Wake,
    /// The action under way has ended; none if it was left because all its files have changed again, or could not be
    /// begun.
    Over(Vec<Part>, Option<ActState>),
    /// The answers of a file's probe came to something. With the change that it is of.
    Probed(Uid, u64, Verdict),
    /// Something is due.
    Due,
}

pub(crate) struct State {
    context: Shared,
    job: Option<Task>,
    /// Since when a change is on disk, as far as this actor has seen.
    placed: BTreeMap<Uid, (u64, Mono)>,
    probers: BTreeMap<Uid, watch::Prober>,
    armed: Option<(Mono, Task)>,
}

impl Actor for ActsActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(&self, me: ActorRef<Msg>, context: Shared) -> Result<State, ActorProcessingErr> {
        context.acts.set(me.clone());
        // A wake that was on its way to the actor before this one went with it: nobody would ring again.
        context.acts_wake.answered();
        me.cast(Msg::Wake)?;
        let state =
            State { context, job: None, placed: BTreeMap::new(), probers: BTreeMap::new(), armed: None };
        state.recover();
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Wake => state.context.acts_wake.answered(),
            Msg::Over(parts, end) => state.over(&parts, end).await,
            Msg::Probed(uid, n, verdict) => state.probed(uid, n, verdict),
            Msg::Due => state.armed = None,
        }
        state.look(&me);
        Ok(())
    }
}

impl State {
    /// Takes up what the ledger knows of an actor or agent before this one.
    fn recover(&self) {
        let (all, plans) = {
            let memory = lock(&self.context.memory);
            let plan = |uid: &Uid| memory.file_records.get(uid)?.change.as_deref().cloned();
            let plans: BTreeMap<Uid, Plan> =
                memory.acts.keys().filter_map(|uid| Some((*uid, plan(uid)?))).collect();
            (memory.acts.clone(), plans)
        };
        let now = self.context.deps.clock.wall();
        for (uid, mut progress) in all {
            if let Some(plan) = plans.get(&uid)
                && let Some(told) = progress.recover(plan, now)
            {
                self.context.note(Change::Acts(uid, Box::new(progress.clone())));
                self.tell(uid, plan, Reason::ActionFailed, told);
            }
            let view = ActsView { progress, ..ActsView::default() };
            self.context.board().acts.insert(uid, view);
        }
    }

    fn tell(&self, uid: Uid, plan: &Plan, reason: Reason, message: String) {
        let (namespace, name) = plan.named.clone();
        let object = ObjectRef { kind: Kind::ConfigFile, namespace: Some(namespace), name };
        self.context.tell(object, Some(uid), reason, message);
    }

    /// Decides anew what is to be done.
    fn look(&mut self, me: &ActorRef<Msg>) {
        let now = self.context.deps.clock.mono();
        let (files, coming) = self.files();
        self.begin_changes(&files);
        self.placed.retain(|uid, (n, _)| files.get(uid).is_some_and(|(plan, _)| plan.n == *n));
        let mut due = None;
        let mut queues = BTreeMap::new();
        for (uid, (plan, is_held)) in files.iter().filter(|(_, (plan, _))| plan.is_placed) {
            let (_, since) = *self.placed.entry(*uid).or_insert((plan.n, now));
            let Standing::At(index) = self.standing(uid, plan) else { continue };
            if *is_held {
                // Whoever holds the file wants nothing to follow from it.
                continue;
            }
            let deeds = plan.actions[index..].iter().map(|action| plan.deed(*uid, action)).collect();
            let until = since.plus_ms(GATHER_MS);
            let may_wait = now < until;
            if may_wait {
                due = Some(due.map_or(until, |known: Mono| known.min(until)));
            }
            queues.insert(*uid, Queue { deeds, may_wait });
        }
        if self.job.as_ref().is_none_or(|job| !job.is_running())
            && let Some((deed, of)) = choose(&queues, &coming)
        {
            self.start(me, deed, &of, &files);
        }
        let watched = self.watch(me, &files);
        let due = due.into_iter().chain(watched).min();
        self.arm(me, due);
    }

    /// Files from whose last change something follows, and whether each is held; and what will follow from what is not
    /// on disk yet.
    fn files(&self) -> (BTreeMap<Uid, (Plan, bool)>, Vec<Deed>) {
        let mut board = self.context.board();
        let board = &mut *board;
        let (files, acts) = (&board.files, &mut board.acts);
        acts.retain(|uid, _| files.contains_key(uid));
        let plan = |(uid, view): (&Uid, &FileView)| {
            let is_held = view.report.state == FileState::Held;
            Some((*uid, (view.change.clone()?, is_held)))
        };
        let coming = files.values().flat_map(|view| view.coming.iter().cloned()).collect();
        (files.iter().filter_map(plan).collect(), coming)
    }

    /// A change that is new here has come to nothing yet.
    fn begin_changes(&self, files: &BTreeMap<Uid, (Plan, bool)>) {
        for (uid, (plan, _)) in files {
            let is_known = |acts: &ActsView| acts.progress.n == plan.n;
            if self.context.board().acts.get(uid).is_some_and(is_known) {
                continue;
            }
            let mut progress = Progress::new(plan, self.context.deps.clock.wall());
            progress.since = watch::unplanned(&self.context, plan);
            progress.before = watch::taken(&self.context, plan);
            self.context.note(Change::Acts(*uid, Box::new(progress.clone())));
            let view = ActsView { progress, ..ActsView::default() };
            self.context.board().acts.insert(*uid, view);
        }
    }

    fn standing(&self, uid: &Uid, plan: &Plan) -> Standing {
        let board = self.context.board();
        board.acts.get(uid).map_or(Standing::At(0), |acts| acts.progress.standing(plan))
    }

    fn start(&mut self, me: &ActorRef<Msg>, deed: Deed, of: &[Uid], files: &BTreeMap<Uid, (Plan, bool)>) {
        let mut parts = Vec::new();
        let mut begun = None;
        for uid in of {
            let Some((plan, _)) = files.get(uid) else { continue };
            let Standing::At(index) = self.standing(uid, plan) else { continue };
            let board = self.context.board();
            let state = board.acts.get(uid).and_then(|acts| acts.progress.states.get(index));
            if let Some(ActState::Begun { on }) = state {
                begun = begun.or_else(|| Some(on.clone()));
            }
            parts.push(Part { uid: *uid, n: plan.n, index, plan: plan.clone() });
        }
        let (context, me) = (self.context.clone(), me.clone());
        self.job = Some(Task::spawn(async move {
            let job = Job { context, deed, parts, begun };
            let (parts, end) = job.carry_out().await;
            // An actor that has ended is replaced by one that takes up what the ledger knows.
            drop(me.cast(Msg::Over(parts, end)));
        }));
    }

    async fn over(&mut self, parts: &[Part], end: Option<ActState>) {
        self.job = None;
        let Some(end) = end else { return };
        let now = self.context.deps.clock.wall();
        let mut changes = Vec::new();
        {
            let mut board = self.context.board();
            for Part { uid, n, index, .. } in parts {
                if let Some(acts) = board.acts.get_mut(uid).filter(|acts| acts.progress.n == *n) {
                    acts.progress.set(*index, end.clone(), now);
                    changes.push(Change::Acts(*uid, Box::new(acts.progress.clone())));
                }
            }
        }
        self.context.changed();
        for change in changes {
            if let Err(why) = self.context.persist(change).await {
                tracing::error!(why, "what became of an action could not be written");
            }
        }
        let mut told: Vec<Uid> = Vec::new();
        for Part { uid, index, plan, .. } in parts {
            if told.contains(uid) {
                continue;
            }
            told.push(*uid);
            let what = plan.actions.get(*index).map(ToString::to_string).unwrap_or_default();
            let (reason, message) = match &end {
                ActState::Failed(why) | ActState::Unknown(why) => {
                    (Reason::ActionFailed, format!("version {}: {what} {why}", plan.version))
                }
                ActState::Done | ActState::Planned | ActState::Begun { .. } => {
                    (Reason::ActionRun, format!("version {}: {what}", plan.version))
                }
            };
            self.tell(*uid, plan, reason, message);
        }
    }

    fn arm(&mut self, me: &ActorRef<Msg>, due: Option<Mono>) {
        if due == self.armed.as_ref().map(|(at, _)| *at) {
            return;
        }
        self.armed = due.map(|at| {
            let (clock, me) = (self.context.deps.clock.clone(), me.clone());
            let task = Task::spawn(async move {
                clock.sleep_until(at).await;
                drop(me.cast(Msg::Due));
            });
            (at, task)
        });
    }
}
