//! The connection to the holder: made again and again, each time followed by a listing, then by what happens.

use std::sync::atomic::Ordering;

use futures::StreamExt;
use ostler_schemas::v1::reason::Reason;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::actors::registry;
use crate::context::{Shared, Task};
use crate::ports::{HostEvent, HostInfo, HostListing};

/// How long to wait before the holder is tried again: it is back within a second when its supervisor restarts it.
const AGAIN_MS: u64 = 250;

pub(crate) struct HostActor;

pub(crate) enum Msg {
    /// A connection was made.
    Connected(HostInfo),
    /// Everything that the holder has, and how many starts had been heard of when it was asked.
    Listed(HostListing, u64),
    /// Something happened.
    Event(HostEvent),
    /// There is no connection (any more).
    Lost(String),
    /// Somebody is not sure what lives: ask for a listing.
    Relist,
}

pub(crate) struct State {
    context: Shared,
    pump: Option<Task>,
    lister: Option<Task>,
}

impl Actor for HostActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Shared;

    async fn pre_start(&self, me: ActorRef<Msg>, context: Shared) -> Result<State, ActorProcessingErr> {
        context.host.set(me.clone());
        let pump = Some(Task::spawn(pump(context.clone(), me)));
        Ok(State { context, pump, lister: None })
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let context = &state.context;
        match message {
            Msg::Connected(info) => {
                let unenforced = (!info.unenforced.is_empty())
                    .then(|| format!("this host cannot enforce limits of {}", info.unenforced.join(" and ")));
                {
                    let mut board = context.board();
                    board.features.clone_from(&info.features);
                    board.bounds = context.deps.config.veto.bounds(&info.rlimits);
                    board.host = Some(info);
                }
                context.condition(Reason::LimitsUnenforced, unenforced);
                context.condition(Reason::HolderLost, None);
                context.changed();
            }
            Msg::Listed(listing, starts) => {
                context.registry.cast(registry::Msg::Listed(Box::new(listing), starts));
            }
            Msg::Event(HostEvent::Exited(uid, exit)) => {
                context.registry.cast(registry::Msg::Exited(uid, Box::new(exit)));
            }
            Msg::Event(HostEvent::TreeEmpty(key)) => {
                context.registry.cast(registry::Msg::TreeEmpty(key));
            }
            Msg::Event(HostEvent::Said(key, said)) => {
                context.registry.cast(registry::Msg::Said(key, Box::new(said)));
            }
            Msg::Lost(why) => {
                context.board().host = None;
                context.condition(Reason::HolderLost, Some(why));
                context.registry.cast(registry::Msg::HostLost);
            }
            Msg::Relist => {
                let context = state.context.clone();
                state.lister = Some(Task::spawn(async move {
                    let starts = context.starts.load(Ordering::Relaxed);
                    if let Ok(listing) = context.deps.host.list().await {
                        // The actor may have ended meanwhile; then its successor lists.
                        drop(me.cast(Msg::Listed(listing, starts)));
                    }
                }));
            }
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.pump = None;
        Ok(())
    }
}

async fn pump(context: Shared, me: ActorRef<Msg>) {
    let host = context.deps.host.clone();
    loop {
        let why = match host.connect().await {
            Err(error) => error.to_string(),
            Ok(mut connection) => {
                if me.cast(Msg::Connected(connection.info)).is_err() {
                    return;
                }
                let starts = context.starts.load(Ordering::Relaxed);
                match host.list().await {
                    Err(error) => error.to_string(),
                    Ok(listing) => {
                        if me.cast(Msg::Listed(listing, starts)).is_err() {
                            return;
                        }
                        while let Some(event) = connection.events.next().await {
                            if me.cast(Msg::Event(event)).is_err() {
                                return;
                            }
                        }
                        "the connection ended".to_owned()
                    }
                }
            }
        };
        if me.cast(Msg::Lost(why)).is_err() {
            return;
        }
        context.deps.clock.sleep_ms(AGAIN_MS).await;
    }
}
