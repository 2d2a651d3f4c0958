//! A run that somebody attends: bytes go both ways as fast as both ends take them.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use ostler_agent_core::unit::HowEnded;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::order::{Asked, Order};
use super::terminal::Terminal;
use super::{READ_SIZE, SILENT, failed, make_pipe, receiver};
use crate::ports::{HostError, HostSession, RunOutcome, Screen, SessionInput, SessionOutput};

/// Messages between the two ends of a session.
const QUEUED: usize = 8;

/// Input that the command has not read: beyond this nothing is taken from who attends. Signals and sizes pass what
/// waits.
const INPUT_MAX: usize = 256 << 10;

/// What a terminal takes for the end of its input, at the start of a line.
const END_OF_INPUT: u8 = 4;

/// Starts it.
pub(in crate::linux) async fn attend(
    dir: &Path,
    order: Order,
    screen: Option<Screen>,
) -> Result<HostSession, HostError> {
    let (input, said) = mpsc::channel(QUEUED);
    let (out, output) = mpsc::channel(QUEUED);
    let (over, is_over) = watch::channel(false);
    let mut readers = JoinSet::new();
    let (sink, asked) = match screen {
        Some(screen) => {
            let (terminal, slave) = Terminal::open(screen, order.owner())?;
            let terminal = Arc::new(terminal);
            let source = Source::Terminal(Arc::clone(&terminal));
            readers.spawn(read_all(source, out.clone(), (SessionOutput::Stdout, is_over)));
            (Sink::Terminal(terminal), order.on_terminal().send(dir, vec![slave]).await?)
        }
        None => {
            let (their_in, our_in) = make_pipe()?;
            let (our_out, their_out) = make_pipe()?;
            let (our_err, their_err) = make_pipe()?;
            let sources = [
                (our_out, SessionOutput::Stdout as fn(Bytes) -> SessionOutput),
                (our_err, SessionOutput::Stderr),
            ];
            for (fd, wrap) in sources {
                let source = Source::Pipe(receiver(fd)?);
                readers.spawn(read_all(source, out.clone(), (wrap, is_over.clone())));
            }
            let sink =
                pipe::Sender::from_owned_fd(our_in).map_err(|error| failed("write to a pipe", &error))?;
            (Sink::Pipe(Some(sink)), order.send(dir, vec![their_in, their_out, their_err]).await?)
        }
    };
    let session =
        Session { asked, sink, said, out, readers, over, waiting: VecDeque::new(), held: 0, ended: false };
    tokio::spawn(session.run());
    Ok(HostSession { input, output })
}

enum Source {
    Terminal(Arc<Terminal>),
    Pipe(pipe::Receiver),
}

impl Source {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Terminal(terminal) => terminal.read(buffer).await,
            Self::Pipe(pipe) => pipe.read(buffer).await,
        }
    }
}

enum Sink {
    Terminal(Arc<Terminal>),
    Pipe(Option<pipe::Sender>),
}

impl Sink {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Terminal(terminal) => terminal.write(bytes).await,
            Self::Pipe(Some(pipe)) => pipe.write(bytes).await,
            Self::Pipe(None) => Ok(bytes.len()),
        }
    }
}

type Wrap = fn(Bytes) -> SessionOutput;

/// Passes on everything that is written, until nobody can write any more. Once the run is over, silence is the end.
async fn read_all(
    mut source: Source,
    out: mpsc::Sender<SessionOutput>,
    (wrap, mut is_over): (Wrap, watch::Receiver<bool>),
) {
    let mut buffer = vec![0; READ_SIZE];
    loop {
        let over = *is_over.borrow();
        let read = tokio::select! {
            read = source.read(&mut buffer) => read,
            // An error is an end of the session, which cannot be told otherwise.
            _ = is_over.changed(), if !over => continue,
            () = tokio::time::sleep(SILENT), if over => return,
        };
        let Ok(n @ 1..) = read else { return };
        let bytes = Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default());
        if out.send(wrap(bytes)).await.is_err() {
            return;
        }
    }
}

struct Session {
    asked: Asked,
    sink: Sink,
    said: mpsc::Receiver<SessionInput>,
    out: mpsc::Sender<SessionOutput>,
    readers: JoinSet<()>,
    over: watch::Sender<bool>,
    /// Input that was not written yet.
    waiting: VecDeque<Bytes>,
    held: usize,
    /// There is no more input.
    ended: bool,
}

impl Session {
    async fn run(mut self) {
        let Some(outcome) = self.talk().await else { return };
        // Everything of the run is dead: what it wrote is all there, and goes out at the pace of who attends.
        self.over.send_replace(true);
        while self.readers.join_next().await.is_some() {}
        drop(self.out.send(SessionOutput::Ended(outcome)).await);
    }

    /// Until the run has ended. None when nobody attends any more: dropping the rest kills the run.
    async fn talk(&mut self) -> Option<RunOutcome> {
        loop {
            let next = self.waiting.front().cloned();
            let room = self.held < INPUT_MAX && !self.ended;
            tokio::select! {
                outcome = self.asked.ended() => return Some(outcome.unwrap_or_else(not_started)),
                () = self.out.closed() => return None,
                said = self.said.recv(), if room => match said {
                    Some(said) => self.hear(said).await,
                    None => self.ended = true,
                },
                written = write_some(&mut self.sink, next.as_ref()), if next.is_some() => self.wrote(written),
            }
            if self.ended
                && self.waiting.is_empty()
                && let Sink::Pipe(pipe) = &mut self.sink
            {
                *pipe = None;
            }
        }
    }

    async fn hear(&mut self, said: SessionInput) {
        match said {
            SessionInput::Bytes(bytes) => {
                self.held += bytes.len();
                self.waiting.push_back(bytes);
            }
            SessionInput::End => {
                self.ended = matches!(self.sink, Sink::Pipe(_));
                if !self.ended {
                    self.waiting.push_back(Bytes::from_static(&[END_OF_INPUT]));
                }
            }
            SessionInput::Resize(screen) => {
                if let Sink::Terminal(terminal) = &self.sink {
                    terminal.resize(screen);
                }
            }
            SessionInput::Signal(signal) => {
                // A connection that ended is seen by who waits for the run's end.
                drop(self.asked.signal(i32::from(signal.number())).await);
            }
        }
    }

    fn wrote(&mut self, written: io::Result<usize>) {
        match (written, self.waiting.front_mut()) {
            (Ok(n), Some(front)) => {
                front.advance(n.min(front.len()));
                self.held = self.held.saturating_sub(n);
                if front.is_empty() {
                    self.waiting.pop_front();
                }
            }
            // It does not read any more: neither do we, and who attends may write on.
            (Err(_), _) | (Ok(_), None) => {
                self.waiting.clear();
                self.held = 0;
                if let Sink::Pipe(pipe) = &mut self.sink {
                    *pipe = None;
                }
            }
        }
    }
}

async fn write_some(sink: &mut Sink, bytes: Option<&Bytes>) -> io::Result<usize> {
    match bytes {
        Some(bytes) => sink.write(bytes).await,
        None => std::future::pending().await,
    }
}

fn not_started(error: HostError) -> RunOutcome {
    RunOutcome {
        how: HowEnded::Unknown("it was not started".to_owned()),
        timed_out: false,
        ended_because: Some(error.0),
        output: Bytes::new(),
    }
}
