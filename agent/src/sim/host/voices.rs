//! Simulated processes that say something of themselves, and hear signals.

use ostler_agent_core::holder::notify::{Listen, Said};
use ostler_agent_core::holder::protocol::ProcKey;
use ostler_schemas::quantity::Signal;

use super::{Program, SimEvent, SimHost};
use crate::context::lock;
use crate::ports::{HostError, HostEvent};

impl SimHost {
    /// An incarnation says something of itself from now on, as a program would over its notification socket.
    pub fn say(&self, key: ProcKey, change: impl FnOnce(&mut Said)) {
        let mut inner = lock(&self.inner);
        let Some(living) = inner.living.get_mut(&key) else { return };
        let was_ready = living.process.said.ready;
        change(&mut living.process.said);
        let said = living.process.said.clone();
        if said.ready && !was_ready {
            let name = living.spawn.name.clone();
            inner.note(self.clock.now(), key, &name, SimEvent::SaidReady);
        }
        inner.tell(&HostEvent::Said(key, said));
    }

    /// What a program that is listened to says by itself.
    pub(super) fn speak(&self, key: ProcKey, listen: Listen, program: &Program) {
        let (me, clock) = (self.me.clone(), self.clock.clone());
        let (mute, ready_after_ms) = (program.mute, program.ready_after_ms);
        let silence_ms = program.alive_for_ms.filter(|_| listen.watchdog_ms > 0);
        tokio::spawn(async move {
            clock.sleep_ms(ready_after_ms).await;
            // Words to a holder that does not run are lost, and programs do not say this one twice.
            if let Some(host) = me.upgrade().filter(|host| !mute && host.up().is_ok()) {
                host.say(key, |said| said.ready = true);
            }
            let Some(silence_ms) = silence_ms else { return };
            clock.sleep_ms(silence_ms).await;
            loop {
                clock.sleep_ms(listen.watchdog_ms).await;
                let Some(host) = me.upgrade() else { return };
                // One that comes back gives a whole interval anew, and one that is being stopped is not watched.
                if host.up().is_ok() {
                    if !host.is_ending(key) {
                        host.end_by_watchdog(key);
                    }
                    return;
                }
            }
        });
    }

    fn is_ending(&self, key: ProcKey) -> bool {
        lock(&self.inner).living.get(&key).is_none_or(|living| living.killed_at.is_some())
    }

    /// Whether a process listens on a port: it was given the port, has run long enough, and wants to.
    pub(super) fn answers(&self, port: u16) -> bool {
        let now = self.clock.now();
        let text = port.to_string();
        let mut inner = lock(&self.inner);
        let unready = inner.unready_ports.contains_key(&port);
        let mut told = Vec::new();
        let mut answers = false;
        for (key, living) in &inner.living {
            let given = living.spawn.env.iter().filter(|(_, value)| *value == text);
            let Some(name) = given.filter_map(|(name, _)| name.strip_prefix("OSTLER_PORT_")).next() else {
                continue;
            };
            let name = name.to_lowercase();
            let program = inner.program_of(living);
            let ready = now.mono.since_ms(living.since) >= program.ready_after_ms;
            let good = ready && !unready && !program.deaf.contains(&name);
            answers |= good;
            if living.answered.get(&name) != Some(&good) {
                told.push((*key, living.spawn.name.clone(), name, good));
            }
        }
        for (key, process, name, good) in told {
            inner.note(now, key, &process, SimEvent::Answers(name.clone(), good));
            if let Some(living) = inner.living.get_mut(&key) {
                living.answered.insert(name, good);
            }
        }
        answers
    }

    pub(super) fn signalled(&self, key: ProcKey, signal: Signal) -> Result<(), HostError> {
        self.up()?;
        let mut inner = lock(&self.inner);
        let Some(living) = inner.living.get(&key) else {
            return Err(HostError(format!("{key} is not here")));
        };
        let name = living.spawn.name.clone();
        inner.note(self.clock.now(), key, &name, SimEvent::Signalled(signal));
        Ok(())
    }
}
