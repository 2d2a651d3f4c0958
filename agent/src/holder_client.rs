//! How the agent (or a command on the host, when the agent is down) talks to the holder.
//!
//! A [`HolderClient`] is one connection. Calls may run at the same time; each waits for its own answer and not
//! longer than its time limit. Events come in a stream of their own, in the order in which they happened. When the
//! holder goes, every call and the stream end; connecting again, and then listing, is the caller's business.
//!
//! A call that ran out of time may still be carried out: look with [`HolderClient::list`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ostler_agent_core::holder::frame::{self, FrameBuffer, FrameError};
use ostler_agent_core::holder::protocol::{
    AckExit, Call, Event, ExitRecord, Hello, List, Message, PROTOCOL, ProcKey, ProcessInfo, Refusal, Reply,
    Request, Rlimit, SetLimits, SetRlimit, Signal, Spawn, Spawned, Stop, StopAll, Upgrade, Welcome,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::holder::{CANNOT_HOLD, can_hold};

/// The socket's name in the holder's folder.
pub const SOCKET: &str = "holder.sock";

/// How long an ordinary call may take. The holder answers within a millisecond; a host under heavy load, or a
/// state that is slow to write, gets ten seconds.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How long a start may take: the fork and exec of a program from a cold or remote disk.
const SPAWN_LIMIT: Duration = Duration::from_secs(60);

/// How long an upgrade may take: the new program judges the state, and starts under way are waited for.
const UPGRADE_LIMIT: Duration = Duration::from_secs(45);

/// Why the holder did not do it.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// Nobody listens.
    #[error("connect to the holder at {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection ended, before or while the call waited.
    #[error("the connection to the holder ended")]
    Gone,
    /// No answer in time. It may still be done.
    #[error("the holder did not answer within {} s", limit.as_secs())]
    Late {
        /// How long was waited.
        limit: Duration,
    },
    /// The holder refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The call is too large for one frame.
    #[error("the call cannot be sent")]
    Encode(#[source] FrameError),
    /// An answer of another kind: holder and client are of versions that do not fit.
    #[error("the holder's answer does not fit the question")]
    Mismatch,
}

impl HolderError {
    /// Whether the same call may succeed on a new connection.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Gone | Self::Late { .. } => true,
            Self::Refused(_) | Self::Encode(_) | Self::Mismatch => false,
        }
    }
}

/// Everything the holder has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Incarnations of which something may run, in order of their keys.
    pub processes: Vec<ProcessInfo>,
    /// Exits that were not acknowledged, in order of their sequence numbers.
    pub exits: Vec<ExitRecord>,
}

/// Events, in order. It ends with the connection. It has no limit: events are a few numbers each, and as many as
/// processes start and end; a bound would hold up the answers behind them.
pub type Events = mpsc::UnboundedReceiver<Event>;

#[derive(Debug, Default)]
struct Waiting {
    calls: BTreeMap<u64, oneshot::Sender<Reply>>,
    last_id: u64,
    gone: bool,
}

/// One connection to the holder. Dropping it closes the connection; what runs is not touched.
#[derive(Debug)]
pub struct HolderClient {
    welcome: Welcome,
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for HolderClient {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl HolderClient {
    /// Connects to the holder of the folder `dir`, says hello and subscribes to events.
    ///
    /// # Errors
    /// When nobody listens there, or who listens is no holder.
    pub async fn connect(dir: &Path, name: &str) -> Result<(Self, Events), HolderError> {
        let failed = |source| {
            let why = if can_hold() { source } else { io::Error::other(CANNOT_HOLD) };
            HolderError::Connect { path: dir.join(SOCKET), source: why }
        };
        let folder = File::open(dir).map_err(failed)?;
        let stream = UnixStream::connect(short_path(&folder)).await.map_err(failed)?;
        let (read, write) = stream.into_split();
        let (outgoing, frames) = mpsc::unbounded_channel();
        let (events, event_stream) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let tasks = [
            tokio::spawn(read_all(read, Arc::clone(&waiting), events)),
            tokio::spawn(write_all(write, frames, Arc::clone(&waiting))),
        ];
        let mut client = Self { welcome: Welcome::default(), outgoing, waiting, tasks };
        let hello = Hello { protocol: PROTOCOL, client: name.to_owned(), subscribe: true };
        match client.call(Request::Hello(hello), CALL_LIMIT).await? {
            Reply::Welcome(welcome) => client.welcome = *welcome,
            other => return Err(unexpected(other)),
        }
        Ok((client, event_stream))
    }

    /// What the holder said of itself.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Starts an incarnation. Done once the program runs.
    ///
    /// # Errors
    /// `start-failed` with the step and the system's words when it could not be started.
    pub async fn spawn(&self, spawn: Spawn) -> Result<Spawned, HolderError> {
        match self.call(Request::Spawn(Box::new(spawn)), SPAWN_LIMIT).await? {
            Reply::Spawned(spawned) => Ok(spawned),
            other => Err(unexpected(other)),
        }
    }

    /// Sends a signal to the main process, or to the whole tree.
    ///
    /// # Errors
    /// `not-found` when it has ended.
    pub async fn signal(&self, key: ProcKey, signal: i32, whole_tree: bool) -> Result<(), HolderError> {
        self.do_it(Request::Signal(Signal { key, signal, whole_tree }), CALL_LIMIT).await
    }

    /// Begins a stop; from now on the holder keeps its deadline. `None` takes what the start said.
    ///
    /// # Errors
    /// `not-found` when nothing of it is left.
    pub async fn stop(
        &self,
        key: ProcKey,
        signal: Option<i32>,
        grace_ms: Option<u64>,
    ) -> Result<(), HolderError> {
        self.do_it(Request::Stop(Stop { key, signal, grace_ms }), CALL_LIMIT).await
    }

    /// SIGKILLs the whole tree.
    ///
    /// # Errors
    /// `not-found` when nothing of it is left.
    pub async fn kill_tree(&self, key: ProcKey) -> Result<(), HolderError> {
        self.do_it(Request::KillTree(key), CALL_LIMIT).await
    }

    /// Changes resource limits of the main process.
    ///
    /// # Errors
    /// When it has ended or a limit is above what the holder may give.
    pub async fn set_rlimit(&self, key: ProcKey, limits: Vec<Rlimit>) -> Result<(), HolderError> {
        self.do_it(Request::SetRlimit(SetRlimit { key, limits }), CALL_LIMIT).await
    }

    /// Changes everything that can be changed while a process runs.
    ///
    /// # Errors
    /// When it has ended or a limit is one that this host does not take; `unsupported` by an older holder.
    pub async fn set_limits(&self, set: SetLimits) -> Result<(), HolderError> {
        self.do_it(Request::SetLimits(Box::new(set)), CALL_LIMIT).await
    }

    /// Says that an exit is safe elsewhere. Harmless to repeat.
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn ack_exit(&self, key: ProcKey, seq: u64) -> Result<(), HolderError> {
        self.do_it(Request::AckExit(AckExit { key, seq }), CALL_LIMIT).await
    }

    /// Stops everything and refuses new starts from now on; done when nothing is left. `limit` is how long this
    /// call waits for that.
    ///
    /// # Errors
    /// When the connection ended or `limit` is over; the stops go on.
    pub async fn stop_all(&self, grace_ms: Option<u64>, limit: Duration) -> Result<(), HolderError> {
        self.do_it(Request::StopAll(StopAll { grace_ms }), limit).await
    }

    /// Makes the holder another program with everything it holds: the one at `path`, or what is now where its own
    /// was. Done when this connection has ended; connect again then, which always works, and list.
    ///
    /// # Errors
    /// When it refused, with the reason, and goes on as before; `unsupported` from one that is too old for it.
    pub async fn upgrade(&self, path: Option<String>) -> Result<(), HolderError> {
        match self.call(Request::Upgrade(Upgrade { path }), UPGRADE_LIMIT).await {
            Err(HolderError::Gone) => Ok(()),
            Ok(other) => Err(unexpected(other)),
            Err(error) => Err(error),
        }
    }

    /// Everything the holder has.
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn list(&self) -> Result<Snapshot, HolderError> {
        let (mut all, mut list) = (Snapshot::default(), List::default());
        loop {
            let page = match self.call(Request::List(list.clone()), CALL_LIMIT).await? {
                Reply::Listing(page) => page,
                other => return Err(unexpected(other)),
            };
            all.processes.extend(page.processes);
            all.exits.extend(page.exits);
            if !page.more {
                return Ok(all);
            }
            list.after = all.processes.last().map(|process| process.key);
            list.after_exit = all.exits.last().map_or(0, |exit| exit.seq);
        }
    }

    async fn do_it(&self, request: Request, limit: Duration) -> Result<(), HolderError> {
        match self.call(request, limit).await? {
            Reply::Done(_) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn call(&self, request: Request, limit: Duration) -> Result<Reply, HolderError> {
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut waiting = lock(&self.waiting);
            if waiting.gone {
                return Err(HolderError::Gone);
            }
            waiting.last_id += 1;
            let id = waiting.last_id;
            waiting.calls.insert(id, sender);
            id
        };
        let sent = frame::encode(&Call { id, request })
            .map_err(HolderError::Encode)
            .and_then(|frame| self.outgoing.send(frame).map_err(|_| HolderError::Gone));
        let result = match sent {
            Ok(()) => match tokio::time::timeout(limit, answer).await {
                Ok(Ok(reply)) => Ok(reply),
                Ok(Err(_)) => Err(HolderError::Gone),
                Err(_) => Err(HolderError::Late { limit }),
            },
            Err(error) => Err(error),
        };
        lock(&self.waiting).calls.remove(&id);
        result
    }
}

fn unexpected(reply: Reply) -> HolderError {
    match reply {
        Reply::Refused(refusal) => HolderError::Refused(refusal),
        Reply::Done(_)
        | Reply::Welcome(_)
        | Reply::Spawned(_)
        | Reply::Listing(_)
        | Reply::Ran(_)
        | Reply::Unrecognised => HolderError::Mismatch,
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    // Nothing panics while it holds this lock; the map would be whole even then.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// After this every call ends at once.
fn give_up(waiting: &Mutex<Waiting>) {
    let mut waiting = lock(waiting);
    waiting.gone = true;
    waiting.calls.clear();
}

async fn read_all(
    mut read: OwnedReadHalf,
    waiting: Arc<Mutex<Waiting>>,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut inbox = FrameBuffer::new();
    let mut buffer = vec![0u8; 16 << 10];
    'connection: while let Ok(n) = read.read(&mut buffer).await {
        if n == 0 {
            break;
        }
        inbox.push(buffer.get(..n).unwrap_or_default());
        loop {
            match inbox.next_body() {
                Ok(Some(body)) => match frame::decode::<Message>(&body) {
                    Ok(message) => take(message, &waiting, &events),
                    Err(_) => break 'connection,
                },
                Ok(None) => break,
                Err(_) => break 'connection,
            }
        }
    }
    give_up(&waiting);
}

fn take(message: Message, waiting: &Mutex<Waiting>, events: &mpsc::UnboundedSender<Event>) {
    match message {
        Message::Answer(answer) => {
            if let Some(sender) = lock(waiting).calls.remove(&answer.id) {
                // Who asked may have given up.
                drop(sender.send(answer.reply));
            }
        }
        // The receiver may have no use for events.
        Message::Event(event) => drop(events.send(event)),
        Message::Unrecognised => {}
    }
}

async fn write_all(
    mut write: OwnedWriteHalf,
    mut frames: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
) {
    while let Some(frame) = frames.recv().await {
        if write.write_all(&frame).await.is_err() {
            break;
        }
    }
    give_up(&waiting);
}

/// The socket in an open folder. A socket's address has room for about a hundred bytes; through the descriptor any
/// folder will do. Valid as long as the folder is open.
pub(crate) fn short_path(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(SOCKET)
}
