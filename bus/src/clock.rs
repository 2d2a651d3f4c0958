//! The clock port. Product code never asks the operating system or the runtime for the time.

use std::sync::Arc;

use futures::future::BoxFuture;
use ostler_schemas::time::{Mono, Now, Timestamp};

/// A shared clock.
pub type ClockRef = Arc<dyn Clock>;

/// One machine's clock. In a simulation every node has its own, with rate, offset and pauses.
pub trait Clock: Send + Sync + 'static {
    /// Both readings, together.
    fn now(&self) -> Now;

    /// Done when the monotonic reading is at least `deadline`. While the machine is paused it is not done, and after
    /// the pause it may be done at once.
    fn sleep_until(&self, deadline: Mono) -> BoxFuture<'static, ()>;
}

impl dyn Clock {
    /// The monotonic reading.
    #[must_use]
    pub fn mono(&self) -> Mono {
        self.now().mono
    }

    /// The wall reading.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.now().wall
    }

    /// Done after `ms` milliseconds.
    #[must_use]
    pub fn sleep_ms(&self, ms: u64) -> BoxFuture<'static, ()> {
        self.sleep_until(self.mono().plus_ms(ms))
    }
}

/// The machine's real clock: `CLOCK_BOOTTIME` would count suspension, but timers of the runtime do not; so this is the
/// monotonic clock of the runtime, and long silences are recognised by who judges them.
#[derive(Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl SystemClock {
    /// Starts at zero.
    #[must_use]
    pub fn new() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    /// A shared one.
    #[must_use]
    pub fn shared() -> ClockRef {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mono = self.start.elapsed().as_millis();
        Now {
            mono: Mono(u64::try_from(mono).unwrap_or(u64::MAX)),
            wall: Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    fn sleep_until(&self, deadline: Mono) -> BoxFuture<'static, ()> {
        let at = self.start + std::time::Duration::from_millis(deadline.0);
        Box::pin(tokio::time::sleep_until(at))
    }
}
