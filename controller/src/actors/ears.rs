//! The ears: every replica hears every beat and keeps liveness warm; one of them (queue group) answers each.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use ostler_bus::topic::{Message, Outgoing};
use ostler_controller_core::liveness::{Limits, Liveness, Signals, TICK_MS, Verdict};
use ostler_schemas::key::DocumentKind;
use ostler_schemas::subject::{ALL_BEATS, API_GROUP, BeatSource};
use ostler_schemas::v1::beat::{Beat, BeatReply};
use ostler_schemas::v1::status::NodePhase;
use ostler_schemas::{Key, NodeName, Revision, codec};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{Semaphore, watch};

use super::{Context, Task, every, task};

/// Beats that may wait in the mailbox; more wait in the connection, whose overflow is counted and means blindness.
const CREDIT: usize = 4096;

/// The actor.
pub struct Ears;

/// What it starts with.
pub struct Args {
    /// The replica's ports and channels.
    pub context: Context,
    /// How long silence may last.
    pub limits: Limits,
    /// Where signals are published.
    pub signals: watch::Sender<Arc<Signals>>,
}

/// Its messages.
pub enum Msg {
    /// A beat was heard.
    Heard(Message),
    /// A beat is to be answered by this replica.
    Asked(Message),
    /// Time passed.
    Tick,
}

/// Its state.
pub struct State {
    context: Context,
    signals: watch::Sender<Arc<Signals>>,
    liveness: Liveness,
    /// Objects revision at which the set of nodes was last taken over.
    registered_at: Option<Revision>,
    credit: Arc<Semaphore>,
    _tasks: Vec<Task>,
}

impl Actor for Ears {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, me: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let Args { context, limits, signals } = args;
        let credit = Arc::new(Semaphore::new(CREDIT));
        let ticking = me.clone();
        let tasks = vec![
            pump(&context, None, me.clone(), Arc::clone(&credit), Msg::Heard),
            pump(&context, Some(API_GROUP), me, Arc::clone(&credit), Msg::Asked),
            every(context.clock.clone(), TICK_MS, move || ticking.cast(Msg::Tick).is_ok()),
        ];
        let liveness = Liveness::new(limits, context.clock.mono());
        Ok(State { context, signals, liveness, registered_at: None, credit, _tasks: tasks })
    }

    async fn handle(&self, _: ActorRef<Msg>, msg: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Heard(message) => {
                state.credit.add_permits(1);
                state.heard(&message);
            }
            Msg::Asked(message) => {
                state.credit.add_permits(1);
                state.answer(message).await;
            }
            Msg::Tick => state.tick(),
        }
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

/// Forwards one subscription, made again whenever it fails or ends.
fn pump(
    context: &Context,
    queue: Option<&'static str>,
    me: ActorRef<Msg>,
    credit: Arc<Semaphore>,
    wrap: fn(Message) -> Msg,
) -> Task {
    let (topic, clock) = (context.topic.clone(), context.clock.clone());
    task(async move {
        loop {
            match topic.subscribe(ALL_BEATS, queue).await {
                Ok(mut beats) => {
                    while let Some(beat) = beats.next().await {
                        let Ok(permit) = credit.acquire().await else { return };
                        permit.forget();
                        if me.cast(wrap(beat)).is_err() {
                            return;
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot listen for beats"),
            }
            clock.sleep_ms(TICK_MS).await;
        }
    })
}

impl State {
    fn heard(&mut self, message: &Message) {
        let now = self.context.clock.now();
        match BeatSource::parse(&message.subject) {
            Some(BeatSource::Canary(server)) => self.liveness.canary(server, now.mono),
            Some(BeatSource::Node(node)) => match codec::decode::<Beat>(&message.body) {
                Ok(beat) => {
                    self.context.metrics.beats.inc();
                    if let Verdict::Refused(why) = self.liveness.beat(&node, beat, now) {
                        tracing::warn!(%node, why, "DuplicateIdentity");
                        self.context.metrics.duplicates.inc();
                    }
                }
                Err(error) => self.garbage(&message.subject, &error),
            },
            None => {
                self.context.metrics.garbage.inc();
            }
        }
    }

    fn garbage(&self, subject: &str, error: &codec::DecodeError) {
        self.context.metrics.garbage.inc();
        tracing::debug!(subject, %error, "not a beat");
    }

    async fn answer(&mut self, message: Message) {
        let (Some(BeatSource::Node(node)), Some(reply)) =
            (BeatSource::parse(&message.subject), message.reply)
        else {
            return;
        };
        let Ok(beat) = codec::decode::<Beat>(&message.body) else { return };
        let answer = self.reply_to(&node, &beat);
        let body = codec::encode(&answer).unwrap_or_default();
        if let Err(error) = self.context.topic.publish(Outgoing::new(reply, body)).await {
            tracing::debug!(%error, %node, "a beat could not be answered");
        }
    }

    fn reply_to(&self, node: &NodeName, beat: &Beat) -> BeatReply {
        let view = self.context.snapshot.view();
        let fleet = &view.fleet;
        let last = |kind| fleet.revision_of(&Key::NodeDocument(node.clone(), kind)).unwrap_or_default();
        let known = self.liveness.signals_of(node, self.context.clock.mono());
        let other = known.as_ref().and_then(|s| s.beat.as_ref()).filter(|b| b.machine != beat.machine);
        let refused = other.filter(|_| known.as_ref().is_some_and(|s| s.duplicate));
        let report = fleet.reports.get(node).filter(|r| r.incarnation == beat.incarnation);
        BeatReply {
            run: last(DocumentKind::Run),
            files: last(DocumentKind::Files),
            secrets: last(DocumentKind::Secrets),
            report: report.map_or(0, |r| r.seq),
            refused: refused.map(|b| format!("machine {} is alive as {node}", b.machine)),
            unregistered: view.synced && fleet.node(node).is_none(),
        }
    }

    fn tick(&mut self) {
        let context = &self.context;
        let now = context.clock.mono();
        let fleet = context.snapshot.fleet();
        if self.registered_at != Some(fleet.revision) {
            self.registered_at = Some(fleet.revision);
            let names: BTreeSet<NodeName> = fleet.nodes().map(|(name, _, _)| name).collect();
            self.liveness.registered(&names, now);
        }
        {
            let link = context.topic.link();
            let state = link.borrow();
            self.liveness.link(state.connection, state.dropped, now);
        }
        let changed = self.liveness.tick(now);
        let signals = Arc::new(self.liveness.signals(now));
        context.metrics.nodes_by_phase(&signals);
        self.signals.send_replace(signals);
        if !changed.is_empty() {
            for (node, phase) in &changed {
                note(node, *phase);
            }
            let nodes: Vec<NodeName> = changed.into_iter().map(|(node, _)| node).collect();
            context.inboxes.heard(&nodes, now);
        }
    }
}

fn note(node: &NodeName, phase: NodePhase) {
    match phase {
        NodePhase::Suspect | NodePhase::Lost => {
            tracing::warn!(%node, phase = phase.as_str(), "beats are missing");
        }
        NodePhase::Ready | NodePhase::NotReady | NodePhase::Unknown => {
            tracing::debug!(%node, phase = phase.as_str(), "liveness");
        }
    }
}
