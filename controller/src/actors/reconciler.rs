//! One controller's loop: mail to keys, keys to plans, plans to fenced batches, outcomes back to the queue.
//!
//! Works only while this replica leads the controller. Decisions run inline: they are pure and short. One batch is in
//! flight; plans made meanwhile wait and go together in the next one (group commit). A key is not looked at again
//! before its plan's outcome is known *and* the snapshot shows it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ostler_bus::definite::Outcome;
use ostler_controller_core::fleet::Fleet;
use ostler_controller_core::lane::{self, LaneTerm, Rendered, Submission};
use ostler_controller_core::liveness::Signals;
use ostler_controller_core::plan::{Ids, Plan};
use ostler_controller_core::queue::{Done, WorkQueue};
use ostler_schemas::subject::EventSource;
use ostler_schemas::time::{Mono, Now};
use ostler_schemas::{ControllerName, Key, NodeName, Revision, TxnId};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::commit::{commit, term_now, transaction};
use super::tidy::tidy;
use super::{Context, FreshIds, Task, task};

/// Everything is looked at again so often, whatever was missed: the safety net of level-triggering.
const RESYNC_MS: u64 = 30_000;
/// Keys of one turn; the mailbox gets its turn in between.
const KEYS_PER_TURN: usize = 256;
/// A plan that has met so many conflicts without being overtaken is made anew.
const CONFLICTS_MAX: u32 = 5;
/// Pause before a batch that met an unexplained conflict is tried again (10164 while another write is in flight).
const CONFLICT_PAUSE_MS: u64 = 5;

/// The world as one decision sees it.
pub struct World<'a> {
    /// The snapshot.
    pub fleet: &'a Fleet,
    /// Liveness.
    pub signals: &'a Signals,
    /// The time.
    pub now: Now,
}

/// A controller's core, as the loop drives it.
pub trait Controller: Send + Sync + 'static {
    /// What it looks at one of at a time.
    type Key: Ord + Clone + std::fmt::Debug + Send + Sync + 'static;
    /// Its name.
    const NAME: ControllerName;
    /// What to look at when a key of the store has changed.
    fn affected(&self, fleet: &Fleet, changed: &Key) -> Vec<Self::Key>;
    /// What to look at when a node's liveness has changed.
    fn heard(&self, fleet: &Fleet, node: &NodeName) -> Vec<Self::Key>;
    /// Everything.
    fn all(&self, fleet: &Fleet) -> Vec<Self::Key>;
    /// The decision.
    fn reconcile(&self, world: &World<'_>, key: &Self::Key, ids: &mut dyn Ids) -> Plan;
}

/// The actor.
pub struct Reconciler<C>(std::marker::PhantomData<fn() -> C>);

impl<C> Default for Reconciler<C> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

/// Its messages.
pub enum Msg {
    /// There is mail.
    Wake,
    /// This replica leads the controller, or does no more.
    Lane,
    /// A delayed key is due, or a resync.
    Timer,
    /// A batch is decided.
    Committed(Box<Decided>),
}

/// The outcome of a batch.
pub struct Decided {
    lane: LaneTerm,
    number: u32,
    txn: TxnId,
    batch: Vec<Submission>,
    outcome: Outcome,
    /// After a conflict: whether the term still stands in the store; none = not known.
    term: Option<Revision>,
}

/// Its state.
pub struct State<C: Controller> {
    controller: C,
    context: Context,
    lane: Option<LaneTerm>,
    /// Number of the last batch committed in this term.
    number: u32,
    queue: WorkQueue<C::Key>,
    tickets: BTreeMap<u64, C::Key>,
    conflicts: BTreeMap<u64, u32>,
    next_ticket: u64,
    waiting: VecDeque<Submission>,
    /// Plans that may share a batch; one after an unexplained conflict, so that the culprit shows.
    together: usize,
    in_flight: Option<Task>,
    /// A batch that had ended at the last resync, with its outcome not handled.
    outcome_lost: bool,
    tidying: Option<Task>,
    /// The snapshot of the last turn: what a deleted key belonged to.
    before: Arc<Fleet>,
    resync_due: Mono,
    timer: Option<(Mono, Task)>,
    _tasks: Vec<Task>,
}

impl<C: Controller> Actor for Reconciler<C> {
    type Msg = Msg;
    type State = State<C>;
    type Arguments = (C, Context);

    async fn pre_start(
        &self,
        me: ActorRef<Msg>,
        (controller, context): (C, Context),
    ) -> Result<State<C>, ActorProcessingErr> {
        let tasks = vec![wake_on_mail(&context, C::NAME, me.clone()), wake_on_lane(&context, C::NAME, me)];
        let before = context.snapshot.fleet();
        let resync_due = context.clock.mono();
        Ok(State {
            controller,
            context,
            lane: None,
            number: 0,
            queue: WorkQueue::default(),
            tickets: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            next_ticket: 0,
            waiting: VecDeque::new(),
            together: usize::MAX,
            in_flight: None,
            outcome_lost: false,
            tidying: None,
            before,
            resync_due,
            timer: None,
            _tasks: tasks,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        msg: Msg,
        state: &mut State<C>,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Lane => state.take_lane(),
            Msg::Wake => {}
            Msg::Timer => state.timer = None,
            Msg::Committed(decided) => state.committed(*decided).await,
        }
        state.turn(&me).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Msg>,
        _: SupervisionEvent,
        _: &mut State<C>,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

fn wake_on_mail(context: &Context, c: ControllerName, me: ActorRef<Msg>) -> Task {
    let inboxes = Arc::clone(&context.inboxes);
    task(async move {
        loop {
            inboxes.of(c).wait().await;
            if me.cast(Msg::Wake).is_err() {
                return;
            }
        }
    })
}

fn wake_on_lane(context: &Context, c: ControllerName, me: ActorRef<Msg>) -> Task {
    let mut lane = context.lanes.of(c);
    task(async move {
        loop {
            if me.cast(Msg::Lane).is_err() || lane.changed().await.is_err() {
                return;
            }
        }
    })
}

impl<C: Controller> State<C> {
    fn take_lane(&mut self) {
        let lane = self.context.lanes.of(C::NAME).borrow().clone();
        if lane == self.lane {
            return;
        }
        self.queue.clear();
        self.tickets.clear();
        self.conflicts.clear();
        self.waiting.clear();
        self.in_flight = None;
        self.outcome_lost = false;
        self.number = 0;
        self.together = usize::MAX;
        self.resync_due = self.context.clock.mono();
        self.lane = lane;
    }

    async fn turn(&mut self, me: &ActorRef<Msg>) {
        let mail = self.context.inboxes.of(C::NAME).take();
        let view = self.context.snapshot.view();
        let fleet = view.fleet;
        let Some(lane) = self.lane.clone().filter(|_| view.synced) else {
            self.before = fleet;
            return;
        };
        let now = self.context.clock.now();
        let mut keys: BTreeSet<C::Key> = BTreeSet::new();
        for changed in &mail.keys {
            keys.extend(self.controller.affected(&self.before, changed));
            keys.extend(self.controller.affected(&fleet, changed));
        }
        for node in &mail.nodes {
            keys.extend(self.controller.heard(&fleet, node));
        }
        let due = now.mono >= self.resync_due;
        if due {
            self.look_after_batch(&lane);
        }
        if mail.everything || due {
            self.resync_due = now.mono.plus_ms(RESYNC_MS);
            keys.extend(self.controller.all(&fleet));
        }
        self.before = Arc::clone(&fleet);
        keys.into_iter().for_each(|k| self.queue.add(k));
        if let Some(since) = mail.since {
            self.context.metrics.lag(C::NAME, now.mono.since_ms(since));
        }
        let more = self.decide(&fleet, now);
        self.context.metrics.depth(C::NAME, self.queue.depth());
        self.launch(me, &fleet).await;
        if more {
            super::post(me, Msg::Wake);
        } else {
            self.set_timer(me);
        }
    }

    /// A batch whose task has ended without its outcome (it panicked) would keep all others waiting for ever: what
    /// became of it is not known, so the lane ends, and whoever takes it begins with the store.
    fn look_after_batch(&mut self, lane: &LaneTerm) {
        let ended = self.in_flight.as_ref().is_some_and(Task::is_finished);
        if ended && self.outcome_lost {
            tracing::error!(controller = %C::NAME, "the outcome of a batch was lost: stepping down");
            self.context.lanes.give_up(C::NAME, lane.term);
        }
        self.outcome_lost = ended;
    }

    /// Looks at what is due. Returns whether there is more.
    fn decide(&mut self, fleet: &Fleet, now: Now) -> bool {
        let signals = self.context.signals.borrow().clone();
        let world = World { fleet, signals: &signals, now };
        for _ in 0..KEYS_PER_TURN {
            let Some(key) = self.queue.take(now.mono) else { return false };
            let mut ids = FreshIds(&self.context.entropy);
            let begun = self.context.clock.mono();
            let decided =
                catch_unwind(AssertUnwindSafe(|| self.controller.reconcile(&world, &key, &mut ids)));
            let ended = self.context.clock.mono();
            self.queue.took(&key, ended.since_ms(begun), ended);
            match decided {
                Ok(plan) => self.take_plan(key, plan, now),
                Err(_) => {
                    tracing::error!(controller = %C::NAME, ?key, "a decision panicked; it is tried again later");
                    self.context.metrics.panics.inc();
                    self.done(&key, Done::Failed);
                }
            }
        }
        true
    }

    fn take_plan(&mut self, key: C::Key, plan: Plan, now: Now) {
        if let Some(ms) = plan.wake_in_ms {
            self.queue.add_at(key.clone(), now.mono.plus_ms(ms));
        }
        if !plan.why.is_empty() {
            tracing::debug!(controller = %C::NAME, ?key, why = plan.why.join("; "), "decided");
        }
        self.tidy(&plan);
        if plan.is_idle() {
            self.done(&key, Done::Well);
            return;
        }
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, key);
        self.waiting.push_back(Submission { ticket: self.next_ticket, plan });
    }

    fn tidy(&mut self, plan: &Plan) {
        let idle = self.tidying.as_ref().is_none_or(Task::is_finished);
        if idle && plan.aside != Default::default() {
            self.tidying = Some(task(tidy(self.context.clone(), plan.aside.clone())));
        }
    }

    fn done(&mut self, key: &C::Key, how: Done) {
        let now = self.context.clock.mono();
        self.queue.done(key, how, now, self.context.entropy.number());
    }

    fn finish(&mut self, ticket: u64, how: Done) {
        self.conflicts.remove(&ticket);
        if let Some(key) = self.tickets.remove(&ticket) {
            self.done(&key, how);
        }
    }

    async fn launch(&mut self, me: &ActorRef<Msg>, fleet: &Fleet) {
        let Some(lane) = self.lane.clone() else { return };
        // Also a task that has ended is in flight until its outcome is handled: another batch in its place would be
        // dropped with it, and its keys would wait for ever.
        if self.in_flight.is_some() || self.waiting.is_empty() {
            return;
        }
        if self.is_behind_agents(fleet) {
            return;
        }
        let (txn, number) = (self.context.entropy.txn(), self.number + 1);
        let Some((batch, writes)) = self.render(me, &lane, fleet, (number, txn)) else { return };
        self.context.metrics.batch(C::NAME, writes.len());
        let (context, me) = (self.context.clone(), me.clone());
        self.in_flight = Some(task(async move {
            let witness = Key::Fence(C::NAME);
            let outcome = commit(&context, &transaction(txn, writes), &witness).await;
            let term = match &outcome {
                Outcome::Conflict => {
                    context
                        .clock
                        .sleep_ms(CONFLICT_PAUSE_MS + context.entropy.below(CONFLICT_PAUSE_MS))
                        .await;
                    term_now(&context, C::NAME).await
                }
                Outcome::Done(_) | Outcome::Refused { .. } | Outcome::Undecidable { .. } => None,
            };
            let decided = Decided { lane, number, txn, batch, outcome, term };
            super::post(&me, Msg::Committed(Box::new(decided)));
        }));
    }

    /// What waits and fits into one batch, as writes; none when a plan among it cannot be stored, which is told and
    /// dropped.
    fn render(
        &mut self,
        me: &ActorRef<Msg>,
        lane: &LaneTerm,
        fleet: &Fleet,
        (number, txn): (u32, TxnId),
    ) -> Option<(Vec<Submission>, Vec<Rendered>)> {
        let mut most = self.together;
        loop {
            let batch = lane::fill(&mut self.waiting, most);
            match lane::render(lane, fleet, number, txn, &batch) {
                Ok(writes) if batch.len() > 1 && lane::bytes(&writes) > lane::BATCH_BYTES => {
                    most = batch.len() / 2;
                    batch.into_iter().rev().for_each(|s| self.waiting.push_front(s));
                }
                Ok(writes) => return Some((batch, writes)),
                Err(error) => {
                    let why = error.source.to_string();
                    tracing::error!(controller = %C::NAME, key = error.key, why, "a plan cannot be stored");
                    self.finish(error.ticket, Done::Failed);
                    let rest = batch.into_iter().filter(|s| s.ticket != error.ticket);
                    rest.rev().for_each(|s| self.waiting.push_front(s));
                    super::post(me, Msg::Wake);
                    return None;
                }
            }
        }
    }

    /// While an agent has seen a higher store incarnation than ours nothing is written: it would refuse it, and be
    /// right. [`super::warden`] raises the incarnation; the next turn goes on.
    fn is_behind_agents(&self, fleet: &Fleet) -> bool {
        let signals = self.context.signals.borrow();
        let only_incarnations = Revision(u64::MAX);
        ostler_controller_core::node::regression(fleet, &signals, only_incarnations).is_some()
    }

    async fn committed(&mut self, decided: Decided) {
        self.in_flight = None;
        if self.lane.as_ref() != Some(&decided.lane) {
            return;
        }
        match &decided.outcome {
            Outcome::Done(committed) => {
                self.number = decided.number;
                self.together = usize::MAX;
                self.tell(&decided, committed.last).await;
                for submission in decided.batch {
                    self.finish(submission.ticket, Done::Well);
                }
            }
            Outcome::Conflict => self.conflict(decided),
            Outcome::Refused { reason, retryable } => {
                tracing::warn!(controller = %C::NAME, reason, retryable, "the store refused a batch");
                self.context.metrics.refused.inc();
                for submission in decided.batch {
                    self.finish(submission.ticket, Done::Failed);
                }
            }
            Outcome::Undecidable { .. } => {
                tracing::error!(controller = %C::NAME, txn = %decided.txn, "an outcome cannot be known: stepping down");
                self.context.metrics.undecidable.inc();
                self.context.lanes.give_up(C::NAME, decided.lane.term);
            }
        }
    }

    fn conflict(&mut self, decided: Decided) {
        self.context.metrics.conflicts.inc();
        if decided.term.is_some_and(|term| term != decided.lane.term) {
            tracing::info!(controller = %C::NAME, "the term is over");
            self.context.lanes.give_up(C::NAME, decided.lane.term);
            return;
        }
        let overtaken = lane::overtaken(&decided.batch, &self.context.snapshot.fleet());
        self.together = if overtaken.is_empty() { 1 } else { usize::MAX };
        for submission in decided.batch.into_iter().rev() {
            let count = self.conflicts.entry(submission.ticket).or_insert(0);
            *count += 1;
            if overtaken.contains(&submission.ticket) || *count >= CONFLICTS_MAX {
                self.finish(submission.ticket, Done::Failed);
            } else {
                self.waiting.push_front(submission);
            }
        }
    }

    async fn tell(&self, decided: &Decided, revision: Revision) {
        for submission in &decided.batch {
            for telling in &submission.plan.tell {
                let source = EventSource::Controller(C::NAME);
                self.context.teller.tell(source, telling, Some(revision), Some(decided.txn)).await;
            }
        }
    }

    fn set_timer(&mut self, me: &ActorRef<Msg>) {
        let due = self.queue.next_due().map_or(self.resync_due, |d| d.min(self.resync_due));
        if self.timer.as_ref().is_some_and(|(at, t)| *at == due && !t.is_finished()) {
            return;
        }
        let sleep = self.context.clock.sleep_until(due);
        let me = me.clone();
        let waiter = task(async move {
            sleep.await;
            super::post(&me, Msg::Timer);
        });
        self.timer = Some((due, waiter));
    }
}
