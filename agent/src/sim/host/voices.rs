//! Simulated processes that say something of themselves, and hear signals.

use ostler_agent_core::holder::notify::{Listen, Said};
use ostler_agent_core::holder::protocol::ProcKey;
use ostler_schemas::quantity::Signal;

use super::{Program, SimEvent, SimHost, SimRecord};
use crate::context::lock;
use crate::ports::{HostError, HostEvent};

impl SimHost {
    /// An incarnation says something of itself from now on, as a program would over its notification socket.
    pub fn say(&self, key: ProcKey, change: impl FnOnce(&mut Said)) {
        let mut inner = lock(&self.inner);
        let Some(living) = inner.living.get_mut(&key) else { return };
        change(&mut living.process.said);
        let said = living.process.said.clone();
        inner.tell(&HostEvent::Said(key, said));
    }

    /// What a program that is listened to says by itself.
    pub(super) fn speak(&self, key: ProcKey, listen: Listen, program: &Program) {
        let (me, clock, ready_after_ms) = (self.me.clone(), self.clock.clone(), program.ready_after_ms);
        let silence_ms = program.alive_for_ms.filter(|_| listen.watchdog_ms > 0);
        tokio::spawn(async move {
            clock.sleep_ms(ready_after_ms).await;
            if let Some(host) = me.upgrade() {
                host.say(key, |said| said.ready = true);
            }
            let Some(silence_ms) = silence_ms else { return };
            clock.sleep_ms(silence_ms.saturating_add(listen.watchdog_ms)).await;
            if let Some(host) = me.upgrade() {
                host.end_by_watchdog(key);
            }
        });
    }

    pub(super) fn signalled(&self, key: ProcKey, signal: Signal) -> Result<(), HostError> {
        self.up()?;
        let at = self.clock.wall();
        let mut inner = lock(&self.inner);
        let Some(living) = inner.living.get(&key) else {
            return Err(HostError(format!("{key} is not here")));
        };
        let name = living.spawn.name.clone();
        inner.history.push(SimRecord { at, key, name, event: SimEvent::Signalled(signal) });
        Ok(())
    }
}
