//! Writes what survives. Many changes become one write: while one is being synced the next ones gather.

use bytes::Bytes;
use ostler_agent_core::ledger::Change;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::context::{Shared, lock};

pub(crate) struct LedgerActor;

pub(crate) enum Msg {
    /// Make a change; tell when it is durable.
    Change(Box<Change>, Option<oneshot::Sender<Result<(), String>>>),
    /// Write what has gathered.
    Flush,
}

pub(crate) struct State {
    context: Shared,
    waiting: Vec<oneshot::Sender<Result<(), String>>>,
    dirty: bool,
    queued: bool,
}

impl Actor for LedgerActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(&self, me: ActorRef<Msg>, context: Shared) -> Result<State, ActorProcessingErr> {
        context.ledger.set(me);
        // What an actor before this one did not manage to write is in memory and is written with the next change.
        Ok(State { context, waiting: Vec::new(), dirty: true, queued: false })
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Change(change, done) => {
                state.dirty |= lock(&state.context.memory).apply(*change);
                state.waiting.extend(done);
                if !state.queued {
                    // Behind everything that is in the mailbox already: all of that goes into the same write.
                    state.queued = me.cast(Msg::Flush).is_ok();
                }
            }
            Msg::Flush => {
                state.queued = false;
                let result = state.flush().await;
                for done in state.waiting.drain(..) {
                    // A waiter that is gone does not care.
                    drop(done.send(result.clone()));
                }
            }
        }
        Ok(())
    }
}

impl State {
    async fn flush(&mut self) -> Result<(), String> {
        if !self.dirty {
            return Ok(());
        }
        let encoded = {
            let mut memory = lock(&self.context.memory);
            memory.generation += 1;
            memory.encode().map_err(|error| error.to_string())
        };
        let result = match encoded {
            Ok(bytes) => self.context.deps.ledger.save(Bytes::from(bytes)).await,
            Err(error) => Err(error),
        };
        match &result {
            Ok(()) => self.dirty = false,
            Err(error) => tracing::error!(error, "the ledger could not be written"),
        }
        result
    }
}
