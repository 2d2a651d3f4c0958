//! The leader: runs the leadership machine, and gives each controller its lane while this replica leads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use ostler_bus::definite::Outcome;
use ostler_bus::store::Read;
use ostler_bus::topic::{Message, Outgoing};
use ostler_controller_core::lane::{self, LaneTerm};
use ostler_controller_core::lease::{Acts, Leadership, Leading};
use ostler_schemas::subject::{ALL_BEACONS, beacon};
use ostler_schemas::v1::epoch::{Beacon, Lease};
use ostler_schemas::{ControllerName, Key, Revision, TxnId, codec};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::{Notify, Semaphore, watch};

use super::commit::{commit, term_now, transaction};
use super::{Context, Task, every, task};

/// How often the machine is asked. A quarter of the time after which a connection counts as unhealthy, and half a
/// beacon.
const TICK_MS: u64 = 125;
/// Beacons that may wait in the mailbox.
const CREDIT: usize = 256;

/// What this replica leads, as the latest value per controller.
#[derive(Clone)]
pub struct Lanes(Arc<BTreeMap<ControllerName, Lane>>);

struct Lane {
    present: watch::Sender<Option<LaneTerm>>,
    /// For the second who waits for a lane, see [`Lanes::moved`].
    moved: Notify,
}

impl Lane {
    fn new() -> Self {
        Self { present: watch::Sender::new(None), moved: Notify::new() }
    }

    fn change(&self, change: impl FnOnce(&mut Option<LaneTerm>) -> bool) {
        if self.present.send_if_modified(change) {
            self.moved.notify_one();
        }
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self(Arc::new(ControllerName::ALL.into_iter().map(|c| (c, Lane::new())).collect()))
    }
}

impl Lanes {
    /// A receiver of one controller's lane, for its reconciler.
    #[must_use]
    pub fn of(&self, c: ControllerName) -> watch::Receiver<Option<LaneTerm>> {
        self.0[&c].present.subscribe()
    }

    /// Done when one controller's lane has changed since the last call, for one who waits beside its reconciler: two
    /// receivers of one channel wake in a random order, and a simulation must repeat itself.
    pub async fn moved(&self, c: ControllerName) {
        self.0[&c].moved.notified().await;
    }

    /// Whether this replica leads the controller now.
    #[must_use]
    pub fn leads(&self, c: ControllerName) -> bool {
        self.0[&c].present.borrow().is_some()
    }

    /// The term under which this replica leads the controller.
    #[must_use]
    pub fn term(&self, c: ControllerName) -> Option<Revision> {
        self.0[&c].present.borrow().as_ref().map(|l| l.term)
    }

    /// Ends a lane from inside: its holder has seen that its term is over, or an outcome that it cannot know.
    pub fn give_up(&self, c: ControllerName, term: Revision) {
        self.0[&c].change(|lane| {
            let ours = lane.as_ref().is_some_and(|l| l.term == term);
            if ours {
                *lane = None;
            }
            ours
        });
    }

    fn set(&self, c: ControllerName, lane: Option<LaneTerm>) {
        self.0[&c].change(|present| {
            let changed = *present != lane;
            if changed {
                *present = lane;
            }
            changed
        });
    }
}

/// The actor.
pub struct Leader;

/// Its messages.
pub enum Msg {
    /// Time passed.
    Tick,
    /// A beacon came.
    Beacon(Message),
    /// A takeover is decided.
    Stood(Vec<ControllerName>, Option<BTreeMap<ControllerName, Leading>>),
    /// A renewal is decided.
    Renewed(Renewal),
    /// Give everything back; answered when it is done.
    Retire(RpcReplyPort<()>),
}

/// How a renewal ended.
pub enum Renewal {
    /// The leases have these revisions now.
    Done(BTreeMap<ControllerName, Revision>),
    /// These leases are no longer ours.
    Lost(Vec<ControllerName>),
    /// Not known, or not taken: again later.
    Again,
}

/// Its state.
pub struct State {
    context: Context,
    machine: Leadership,
    credit: Arc<Semaphore>,
    _tasks: Vec<Task>,
    _busy: Vec<Task>,
}

impl Actor for Leader {
    type Msg = Msg;
    type State = State;
    type Arguments = Context;

    async fn pre_start(&self, me: ActorRef<Msg>, context: Context) -> Result<State, ActorProcessingErr> {
        let credit = Arc::new(Semaphore::new(CREDIT));
        let ticking = me.clone();
        let tasks = vec![
            listen(&context, me, Arc::clone(&credit)),
            every(context.clock.clone(), TICK_MS, move || ticking.cast(Msg::Tick).is_ok()),
        ];
        let machine = Leadership::new(context.replica.clone(), context.clock.mono());
        Ok(State { context, machine, credit, _tasks: tasks, _busy: Vec::new() })
    }

    async fn handle(&self, me: ActorRef<Msg>, msg: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        let now = state.context.clock.mono();
        match msg {
            Msg::Tick => state.tick(&me).await,
            Msg::Beacon(message) => {
                state.credit.add_permits(1);
                match codec::decode::<Beacon>(&message.body) {
                    Ok(beacon) => state.machine.heard(&beacon, now),
                    Err(_) => {
                        state.context.metrics.garbage.inc();
                    }
                }
            }
            Msg::Stood(asked, taken) => state.stood(&asked, taken),
            Msg::Renewed(Renewal::Done(revisions)) => state.machine.renewed(&revisions),
            Msg::Renewed(Renewal::Lost(lost)) => state.machine.lost(&lost, now),
            Msg::Renewed(Renewal::Again) => state.machine.not_renewed(),
            Msg::Retire(reply) => state.retire(reply).await,
        }
        state.publish();
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Msg>,
        _: SupervisionEvent,
        _: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

fn listen(context: &Context, me: ActorRef<Msg>, credit: Arc<Semaphore>) -> Task {
    let (topic, clock) = (context.topic.clone(), context.clock.clone());
    task(async move {
        loop {
            if let Ok(mut beacons) = topic.subscribe(ALL_BEACONS, None).await {
                while let Some(message) = beacons.next().await {
                    let Ok(permit) = credit.acquire().await else { return };
                    permit.forget();
                    if me.cast(Msg::Beacon(message)).is_err() {
                        return;
                    }
                }
            }
            clock.sleep_ms(TICK_MS).await;
        }
    })
}

impl State {
    async fn tick(&mut self, me: &ActorRef<Msg>) {
        let now = self.context.clock.mono();
        let view = self.context.snapshot.view();
        self.machine.synced(view.synced);
        if view.synced {
            for c in ControllerName::ALL {
                self.machine.saw_lease(c, view.fleet.leases.get(&c).map(|l| &*l.value), now);
                if let Some(term) = view.fleet.terms.get(&c) {
                    self.machine.saw_term(c, term.revision, now);
                }
            }
        }
        self.forget_given_up(now);
        let acts = self.machine.tick(now);
        self.act(me, acts).await;
    }

    /// Reconcilers end their own lanes when they see that a term is over; the machine follows.
    fn forget_given_up(&mut self, now: ostler_schemas::time::Mono) {
        let leading: Vec<ControllerName> = self.machine.leading().keys().copied().collect();
        let lost: Vec<ControllerName> =
            leading.into_iter().filter(|c| !self.context.lanes.leads(*c)).collect();
        if !lost.is_empty() {
            self.machine.lost(&lost, now);
        }
    }

    async fn act(&mut self, me: &ActorRef<Msg>, acts: Acts) {
        if let Some(body) = acts.beacon {
            let bytes = codec::encode(&body).unwrap_or_default();
            let subject = beacon(&self.context.replica);
            if let Err(error) = self.context.topic.publish(Outgoing::new(subject, bytes)).await {
                tracing::debug!(%error, "no beacon");
            }
        }
        if !acts.renew.is_empty() {
            let (context, me) = (self.context.clone(), me.clone());
            self.spawn(async move {
                let result = renew(&context, acts.renew).await;
                super::post(&me, Msg::Renewed(result));
            });
        }
        if !acts.stand.is_empty() {
            let (context, me) = (self.context.clone(), me.clone());
            self.spawn(async move {
                let taken = stand(&context, &acts.stand).await;
                super::post(&me, Msg::Stood(acts.stand, taken));
            });
        }
    }

    fn spawn(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        self._busy.retain(|t| !t.is_finished());
        self._busy.push(task(future));
    }

    fn stood(&mut self, asked: &[ControllerName], taken: Option<BTreeMap<ControllerName, Leading>>) {
        let now = self.context.clock.mono();
        match taken {
            None => asked.iter().for_each(|c| self.machine.not_taken(*c, now)),
            Some(taken) => {
                let names: Vec<&str> = taken.keys().map(|c| c.as_str()).collect();
                tracing::info!(replica = %self.context.replica, controllers = names.join(","), "LeaseTaken");
                self.context.metrics.takeovers.inc();
                for (c, leading) in taken {
                    self.machine.took(c, leading);
                    self.context.lanes.set(c, Some(self.lane(c, leading)));
                }
            }
        }
    }

    fn lane(&self, controller: ControllerName, leading: Leading) -> LaneTerm {
        LaneTerm {
            controller,
            replica: self.context.replica.clone(),
            term: leading.term,
            nonce: leading.nonce,
        }
    }

    async fn retire(&mut self, reply: RpcReplyPort<()>) {
        let leases = self.machine.retire();
        for c in ControllerName::ALL {
            self.context.lanes.set(c, None);
        }
        if !leases.is_empty()
            && let Ok(writes) = lane::leases(&leases)
        {
            let txn = transaction(self.context.entropy.txn(), writes);
            if let Err(error) = self.context.store.commit(&txn).await {
                tracing::warn!(%error, "leases could not be given back; others take them after 2 s");
            }
        }
        if reply.send(()).is_err() {
            tracing::debug!("nobody waits for the retirement");
        }
    }

    fn publish(&self) {
        for c in ControllerName::ALL {
            let lane = self.machine.leading().get(&c).map(|l| self.lane(c, *l));
            if lane.is_none() || self.context.lanes.leads(c) {
                self.context.lanes.set(c, lane);
            }
        }
    }
}

/// Takes over, or says that it did not.
async fn stand(
    context: &Context,
    controllers: &[ControllerName],
) -> Option<BTreeMap<ControllerName, Leading>> {
    let fleet = context.snapshot.fleet();
    let nonce = u32::try_from(context.entropy.below(u64::from(u32::MAX))).unwrap_or(0);
    let id: TxnId = context.entropy.txn();
    let first = if fleet.incarnation.is_none() { 1 } else { 0 };
    let writes = lane::takeover(&fleet, controllers, &context.replica, nonce, id).ok()?;
    let witness = Key::Fence(*controllers.first()?);
    let Outcome::Done(committed) = commit(context, &transaction(id, writes), &witness).await else {
        return None;
    };
    let leading = |i: usize| {
        let at = first + i * lane::TAKEOVER_WRITES;
        let n = fleet.leases.get(&controllers[i]).map_or(0, |l| l.n) + 1;
        Leading { term: committed.revision(at + 2), nonce, lease: committed.revision(at), n }
    };
    Some(controllers.iter().enumerate().map(|(i, c)| (*c, leading(i))).collect())
}

async fn renew(context: &Context, renewals: Vec<(ControllerName, Lease, Revision)>) -> Renewal {
    let Ok(writes) = lane::leases(&renewals) else { return Renewal::Again };
    let Some((first, _, _)) = renewals.first() else { return Renewal::Again };
    let witness = Key::Lease(*first);
    let txn = transaction(context.entropy.txn(), writes);
    match commit(context, &txn, &witness).await {
        Outcome::Done(committed) => {
            let revisions = renewals.iter().enumerate().map(|(i, (c, _, _))| (*c, committed.revision(i)));
            Renewal::Done(revisions.collect())
        }
        Outcome::Conflict => whose(context, &renewals).await,
        Outcome::Refused { .. } | Outcome::Undecidable { .. } => Renewal::Again,
    }
}

/// After a conflict: which leases show another holder, and what revision the others have.
async fn whose(context: &Context, renewals: &[(ControllerName, Lease, Revision)]) -> Renewal {
    let mut ours = BTreeMap::new();
    let mut lost = Vec::new();
    for (c, _, _) in renewals {
        let Ok(entry) = context.store.get(&Key::Lease(*c), Read::Leader).await else { return Renewal::Again };
        let held = entry.as_ref().and_then(|e| codec::decode::<Lease>(e.value()?).ok());
        let still = held.and_then(|l| l.replica).as_ref() == Some(&context.replica);
        let ours_term = context.lanes.term(*c);
        let same_term = ours_term.is_some() && ours_term == term_now(context, *c).await;
        match entry {
            Some(entry) if still && same_term => {
                ours.insert(*c, entry.revision);
            }
            Some(_) | None => lost.push(*c),
        }
    }
    if lost.is_empty() { Renewal::Done(ours) } else { Renewal::Lost(lost) }
}
