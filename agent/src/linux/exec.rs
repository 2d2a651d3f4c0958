//! Runs, through the holder: the agent makes the pipes or the terminal, and gives the command's ends to the holder
//! beside the request. The command's bytes never pass through the holder, and each run has a connection of its own,
//! whose end is the end of the run.

mod order;
mod session;
mod terminal;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use ostler_agent_core::unit::HowEnded;
use rustix::pipe::PipeFlags;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

pub(super) use order::Order;
pub(super) use session::attend;

use crate::ports::{HostError, RunOutcome};

/// How much longer than the run's own time the holder's answer is awaited: it kills at that time, and gives up on what
/// does not die well before this.
const ANSWER_LATER: Duration = Duration::from_secs(30);

/// How long output may be silent once the run has ended before it is taken for complete. It ends by itself unless
/// something that left the run's tree holds it open; a terminal's last bytes may come a moment after its end.
const SILENT: Duration = Duration::from_millis(200);

/// Bytes read at once: what a pipe holds.
const READ_SIZE: usize = 64 << 10;

/// Runs to the end and keeps the last `output_max` bytes of what was written.
pub(super) async fn run(dir: &Path, order: Order, output_max: usize) -> Result<RunOutcome, HostError> {
    let nothing = OwnedFd::from(File::open("/dev/null").map_err(|error| failed("open /dev/null", &error))?);
    let (ours, theirs) = make_pipe()?;
    let errors = theirs.try_clone().map_err(|error| failed("make a pipe", &error))?;
    let mut reader = receiver(ours)?;
    let limit = order.timeout().map(|limit| limit + ANSWER_LATER);
    let mut asked = order.send(dir, vec![nothing, theirs, errors]).await?;
    let mut tail = Tail::new(output_max);
    let ended = async {
        let mut open = true;
        let mut buffer = vec![0; READ_SIZE];
        let outcome = loop {
            tokio::select! {
                outcome = asked.ended() => break outcome,
                read = reader.read(&mut buffer), if open => match read {
                    Ok(n) if n > 0 => tail.push(buffer.get(..n).unwrap_or_default()),
                    Ok(_) | Err(_) => open = false,
                },
            }
        };
        while open && let Ok(Ok(n @ 1..)) = tokio::time::timeout(SILENT, reader.read(&mut buffer)).await {
            tail.push(buffer.get(..n).unwrap_or_default());
        }
        outcome
    };
    let outcome = match limit {
        Some(limit) => tokio::time::timeout(limit, ended).await.unwrap_or_else(|_| Ok(unanswered())),
        None => ended.await,
    };
    outcome.map(|outcome| RunOutcome { output: tail.take(), ..outcome })
}

fn unanswered() -> RunOutcome {
    RunOutcome {
        how: HowEnded::Unknown("the holder does not answer".to_owned()),
        timed_out: true,
        ended_because: None,
        output: Bytes::new(),
    }
}

fn make_pipe() -> Result<(OwnedFd, OwnedFd), HostError> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("make a pipe", &error.into()))
}

fn receiver(fd: OwnedFd) -> Result<pipe::Receiver, HostError> {
    pipe::Receiver::from_owned_fd(fd).map_err(|error| failed("read from a pipe", &error))
}

fn failed(what: &str, error: &std::io::Error) -> HostError {
    HostError(format!("{what}: {error}"))
}

/// The end of a stream of bytes.
struct Tail {
    bytes: Vec<u8>,
    max: usize,
}

impl Tail {
    fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Cut seldom: moving the rest costs as much as it is long.
        if self.bytes.len() > 2 * self.max + READ_SIZE {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let over = self.bytes.len().saturating_sub(self.max);
        self.bytes.drain(..over);
    }

    fn take(&mut self) -> Bytes {
        self.cut();
        Bytes::from(std::mem::take(&mut self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::new(3);
        for part in 0..50_000u32 {
            tail.push(&part.to_be_bytes());
            assert!(tail.bytes.len() <= 2 * 3 + READ_SIZE + 4);
        }
        tail.push(b"abcdef");
        assert_eq!(tail.take(), Bytes::from_static(b"def"));
        tail.push(b"x");
        assert_eq!(tail.take(), Bytes::from_static(b"x"));
    }
}
