//! Simulated stops: the holder sends the signal once, keeps the deadline, and only ever tightens it.

use ostler_agent_core::holder::protocol::ProcKey;
use ostler_agent_core::unit::HowEnded;
use ostler_schemas::quantity::Signal;
use ostler_schemas::time::Mono;

use super::{SIGKILL, SimEvent, SimHost};
use crate::context::lock;
use crate::ports::{HostError, HostEvent};

/// How soon a holder that is back does what it should have done meanwhile.
const AGAIN_MS: u64 = 500;

impl SimHost {
    pub(super) fn begin_stop(
        &self,
        key: ProcKey,
        signal: Option<Signal>,
        grace_ms: u64,
    ) -> Result<(), HostError> {
        self.up()?;
        let now = self.clock.now();
        let deadline = now.mono.plus_ms(grace_ms);
        let mut inner = lock(&self.inner);
        if inner.leftovers.contains_key(&key) {
            drop(inner);
            self.kill_at(key, deadline);
            return Ok(());
        }
        let Some(living) = inner.living.get_mut(&key) else {
            return Err(HostError(format!("{key} is not here")));
        };
        let first = living.killed_at.is_none();
        if !first && living.killed_at.is_some_and(|at| at <= deadline) {
            return Ok(());
        }
        living.killed_at = Some(deadline);
        let (name, argv) = (living.spawn.name.clone(), living.spawn.argv.clone());
        let stops_in = inner.program(&argv).stops_in_ms;
        inner.note(now, key, &name, SimEvent::Asked(signal, grace_ms));
        drop(inner);
        if let Some(ms) = stops_in.filter(|_| first) {
            let how = signal.map_or(HowEnded::Code(0), |s| HowEnded::Signal(i32::from(s.number())));
            self.end_after(key, ms, how);
        }
        self.kill_at(key, deadline);
        Ok(())
    }

    /// Without a holder nobody is killed; the next one knows the deadline.
    fn kill_at(&self, key: ProcKey, deadline: Mono) {
        let (me, clock) = (self.me.clone(), self.clock.clone());
        tokio::spawn(async move {
            clock.sleep_until(deadline).await;
            loop {
                let Some(host) = me.upgrade() else { return };
                if host.up().is_ok() {
                    host.end(key, HowEnded::Signal(SIGKILL));
                    host.clear(key);
                    return;
                }
                drop(host);
                clock.sleep_ms(AGAIN_MS).await;
            }
        });
    }

    /// Nothing of an incarnation is left.
    pub(super) fn clear(&self, key: ProcKey) {
        let mut inner = lock(&self.inner);
        if inner.leftovers.remove(&key).is_some() {
            inner.tell(&HostEvent::TreeEmpty(key));
        }
    }
}
