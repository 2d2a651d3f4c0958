//! The report: made from the board, stored by a guarded write, at once when idle and coalesced under load.

use bytes::Bytes;
use ostler_agent_core::report::{Sender, encode};
use ostler_bus::store::{CommitError, Expect, Headers};
use ostler_schemas::codec::Wire;
use ostler_schemas::headers as names;
use ostler_schemas::v1::report::Report;
use ostler_schemas::{Revision, time::Mono};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::context::{Shared, Task, fact_labels};

pub(crate) struct ReporterActor;

type Outcome = Result<Revision, (CommitError, Option<Revision>)>;

pub(crate) enum Msg {
    /// Something changed.
    Wake,
    /// The connection is there (again).
    Connected,
    /// A report was stored, or was not.
    Put(u64, Outcome),
    /// It is time.
    Due,
    /// The last report of this life, please; answered when it is stored or was given up.
    Final(tokio::sync::oneshot::Sender<()>),
}

pub(crate) struct State {
    context: Shared,
    sender: Sender,
    last: Option<Revision>,
    seq: u64,
    putting: Option<Task>,
    armed: Option<(Mono, Task)>,
    last_words: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Actor for ReporterActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(&self, me: ActorRef<Msg>, context: Shared) -> Result<State, ActorProcessingErr> {
        context.reporter.set(me.clone());
        // A wake that was on its way to the reporter before this one went with it: nobody would ring again.
        context.report_wake.answered();
        me.cast(Msg::Wake)?;
        let seq = context.board().report_seq;
        let mut sender = Sender::default();
        sender.changed();
        Ok(State { context, sender, last: None, seq, putting: None, armed: None, last_words: None })
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Wake => {
                state.context.report_wake.answered();
                state.sender.changed();
            }
            Msg::Connected => state.sender.connected(),
            Msg::Put(seq, outcome) => state.outcome(seq, outcome),
            Msg::Due => {}
            Msg::Final(done) => {
                state.sender.changed();
                state.last_words = Some(done);
            }
        }
        state.send(&me);
        state.arm(&me);
        Ok(())
    }
}

impl State {
    fn outcome(&mut self, seq: u64, outcome: Outcome) {
        self.putting = None;
        let now = self.context.deps.clock.mono();
        match outcome {
            Ok(revision) => {
                self.last = Some(revision);
                self.sender.stored();
                self.context.board().report_seq = seq;
                if self.sender.due().is_none()
                    && let Some(done) = self.last_words.take()
                {
                    // Whoever asked may have stopped waiting.
                    done.send(()).ok();
                }
            }
            Err((error, last)) => {
                tracing::debug!(%error, "a report was not stored");
                // A report of an earlier life, of a store that was rolled back, or our own whose answer was lost.
                if error == CommitError::Conflict {
                    self.last = last.or(self.last);
                }
                self.sender.failed(now);
            }
        }
    }

    fn send(&mut self, me: &ActorRef<Msg>) {
        let now = self.context.deps.clock.mono();
        let silent = {
            let board = self.context.board();
            !board.bus.connected || board.bus.refused.is_some()
        };
        if silent || !self.sender.take(now) {
            return;
        }
        self.seq += 1;
        let (seq, report) = (self.seq, self.report());
        let bytes = match encode(report) {
            Ok((bytes, _)) => bytes,
            Err(error) => {
                tracing::error!(%error, "the report is too large");
                self.sender.failed(now);
                return;
            }
        };
        let (link, me, expect) = (self.context.deps.link.clone(), me.clone(), Expect::after(self.last));
        self.putting = Some(Task::spawn(async move {
            let headers = Headers::new()
                .with(names::CONTENT_TYPE, names::MSGPACK)
                .with(names::SCHEMA, Report::SCHEMA.to_string())
                .with(names::KIND, Report::KIND);
            let outcome = link.put_report_or_last(Bytes::from(bytes), headers, expect).await;
            drop(me.cast(Msg::Put(seq, outcome)));
        }));
    }

    fn report(&self) -> Report {
        let context = &self.context;
        let at = context.deps.clock.wall();
        let board = context.board();
        let mut facts = board.facts.clone();
        facts.sealing_key = context.deps.keys.newest();
        facts.holder = board.host.as_ref().map(|h| h.version.clone()).unwrap_or_default();
        let orphans = board.processes.values().filter_map(|v| v.orphan.clone());
        let file_orphans = board.files.values().filter_map(|v| v.orphan.clone());
        let dropped: u64 =
            board.processes.values().map(|v| v.report.exits.saturating_sub(v.exits.len() as u64)).sum();
        Report {
            machine: context.identity.machine.clone(),
            boot: context.identity.boot.clone(),
            incarnation: context.incarnation,
            seq: self.seq,
            at,
            run: board.run,
            files: board.files_held,
            labels: fact_labels(&facts),
            facts,
            others: board.others,
            bounds: board.bounds.clone(),
            features: board.features.clone(),
            conditions: board.conditions.values().cloned().collect(),
            processes: board.processes.values().map(|view| board.process_report(view)).collect(),
            exits: board.processes.values().flat_map(|v| v.exits.iter().cloned()).collect(),
            exits_dropped: board.exits_dropped + dropped,
            file_states: board.files.iter().map(|(uid, view)| board.file_report(uid, view)).collect(),
            orphans: orphans.chain(file_orphans).collect(),
        }
    }

    fn arm(&mut self, me: &ActorRef<Msg>) {
        let due = self.sender.due().filter(|_| self.context.board().bus.connected);
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
