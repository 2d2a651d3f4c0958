//! The node's report: what it is made of, how it is kept within its size, and when it is sent.

use ostler_schemas::codec::{self, EncodeError, Wire};
use ostler_schemas::time::Mono;
use ostler_schemas::v1::report::Report;

/// Least time between two reports while many things change: with a thousand nodes that is a thousand writes a second
/// at most, which one server takes with ease.
pub const LEAST_INTERVAL_MS: u64 = 50;
/// First wait after a report could not be stored; doubles.
const RETRY_FIRST_MS: u64 = 200;
/// Longest such wait.
const RETRY_MAX_MS: u64 = 5_000;

/// Encodes a report, dropping the oldest exits until it fits; what is dropped is counted in it.
///
/// # Errors
/// If it is too large without any exit.
pub fn encode(mut report: Report) -> Result<(Vec<u8>, Report), EncodeError> {
    loop {
        match codec::encode(&report) {
            Ok(bytes) => return Ok((bytes, report)),
            Err(EncodeError::TooLarge { .. }) if !report.exits.is_empty() => {
                report.exits.sort_by_key(|e| (e.at, e.u, e.seq));
                let drop = report.exits.len().div_ceil(2);
                report.exits.drain(..drop);
                report.exits_dropped += drop as u64;
            }
            Err(EncodeError::TooLarge { .. }) if has_words(&report) => {
                for process in &mut report.processes {
                    process.message = None;
                }
                for drift in report.file_states.iter_mut().filter_map(|file| file.last_drift.as_mut()) {
                    if drift.diff.take().is_some() {
                        drift.no_diff = Some("the report of the node would be too large".to_owned());
                    }
                }
            }
            Err(EncodeError::TooLarge { .. })
                if report.file_states.iter().any(|f| f.last_drift.is_some()) =>
            {
                for file in &mut report.file_states {
                    file.last_drift = None;
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn has_words(report: &Report) -> bool {
    let mut drifts = report.file_states.iter().filter_map(|file| file.last_drift.as_ref());
    report.processes.iter().any(|p| p.message.is_some()) || drifts.any(|drift| drift.diff.is_some())
}

/// Most bytes of a report.
pub const LIMIT: usize = Report::LIMIT;

/// When to send: at once when idle, coalesced under load, with growing waits while the bus does not take it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sender {
    dirty: bool,
    sending: bool,
    last: Option<Mono>,
    retry: Option<(Mono, u64)>,
}

impl Sender {
    /// Something to be reported changed.
    pub fn changed(&mut self) {
        self.dirty = true;
    }

    /// The connection came back: try at once.
    pub fn connected(&mut self) {
        self.retry = None;
        self.dirty = true;
    }

    /// Whether to send now; if so it counts as being sent.
    pub fn take(&mut self, now: Mono) -> bool {
        let due = self.due().is_some_and(|at| now >= at);
        if due {
            self.dirty = false;
            self.sending = true;
            self.last = Some(now);
        }
        due
    }

    /// When to send; none while nothing is to be sent or one is under way.
    #[must_use]
    pub fn due(&self) -> Option<Mono> {
        if !self.dirty || self.sending {
            return None;
        }
        let paced = self.last.map_or(Mono(0), |last| last.plus_ms(LEAST_INTERVAL_MS));
        Some(self.retry.map_or(paced, |(at, _)| at.max(paced)))
    }

    /// It was stored.
    pub fn stored(&mut self) {
        self.sending = false;
        self.retry = None;
    }

    /// It was not stored, or that is not known.
    pub fn failed(&mut self, now: Mono) {
        self.sending = false;
        self.dirty = true;
        let ms = self.retry.map_or(RETRY_FIRST_MS, |(_, ms)| (ms * 2).min(RETRY_MAX_MS));
        self.retry = Some((now.plus_ms(ms), ms));
    }
}

#[cfg(test)]
mod tests {
    use ostler_schemas::Uid;
    use ostler_schemas::time::Timestamp;
    use ostler_schemas::v1::report::{ExitReason, ExitReport};

    use super::*;

    #[test]
    fn at_once_when_idle_and_coalesced_under_load() {
        let mut sender = Sender::default();
        assert!(!sender.take(Mono(0)));
        sender.changed();
        assert!(sender.take(Mono(1000)));
        sender.changed();
        assert!(!sender.take(Mono(1001)), "one is under way");
        sender.stored();
        assert!(!sender.take(Mono(1001)), "too soon");
        assert!(sender.take(Mono(1050)));
        sender.failed(Mono(1100));
        assert_eq!(sender.due(), Some(Mono(1300)));
        sender.connected();
        assert!(sender.take(Mono(1101)));
    }

    #[test]
    fn too_many_exits_are_dropped_and_counted() {
        let exit = |n: u64| ExitReport {
            u: Uid::from_bytes([1; 16]),
            i: n,
            seq: n,
            code: None,
            signal: None,
            reason: ExitReason::Unknown,
            why: Some("x".repeat(1000)),
            at: Timestamp(n),
        };
        let report = Report { exits: (0..2000).map(exit).collect(), ..Report::default() };
        let (bytes, sent) = encode(report).expect("fits");
        assert!(bytes.len() <= LIMIT);
        assert_eq!(sent.exits.len() as u64 + sent.exits_dropped, 2000);
        assert_eq!(sent.exits.last().map(|e| e.i), Some(1999), "the newest stay");
    }
}
