//! Canaries: a beat per NATS server, sent through a connection of its own, heard on the same subscription as the
//! nodes' beats. Silence of nodes means something only while canaries are heard.

use ostler_bus::topic::Outgoing;
use ostler_bus::{ClockRef, TopicRef};
use ostler_schemas::codec;
use ostler_schemas::subject::BeatSource;
use ostler_schemas::v1::beat::{BEAT_MS, Beat};

use super::{Task, task};

/// Beats for ever through one connection. The canary bears the name of the server that it is connected to; without a
/// connection it is silent, as it should be.
pub fn spawn(topic: TopicRef, clock: ClockRef) -> Task {
    task(async move {
        let link = topic.link();
        let mut n = 0;
        loop {
            let server = {
                let state = link.borrow();
                state.server.clone().filter(|_| state.connected)
            };
            if let Some(server) = server {
                n += 1;
                let beat = Beat { n, server: Some(server.clone()), ..Beat::default() };
                let body = codec::encode(&beat).unwrap_or_default();
                let subject = BeatSource::Canary(server).subject();
                if let Err(error) = topic.publish(Outgoing::new(subject, body)).await {
                    tracing::debug!(%error, "a canary could not beat");
                }
            }
            clock.sleep_ms(BEAT_MS).await;
        }
    })
}
