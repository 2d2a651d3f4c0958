//! The connection of one run: what is asked, what the holder says.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use ostler_agent_core::holder::frame::{self, FrameBuffer};
use ostler_agent_core::holder::protocol::{
    Call, Exit, Hello, Message, PROTOCOL, RefusalCode, Reply, Request, Spawn,
};
use ostler_agent_core::holder::runs::protocol::{RUN_PIPES, Ran, Run, SignalRun};
use ostler_agent_core::unit::HowEnded;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

use super::failed;
use crate::holder_client::{SOCKET, short_path};
use crate::ports::{HostError, RunOutcome};

/// Ids of the calls of this connection.
const HELLO: u64 = 1;
const RUN: u64 = 2;

/// A run that will be asked for.
pub(in crate::linux) struct Order {
    run: Run,
}

impl Order {
    /// With everything that the process would be started with; killed after `timeout_ms`, if that is not 0.
    pub(in crate::linux) fn new(beside: bool, timeout_ms: u64, spawn: Spawn) -> Self {
        let timeout_ms = Some(timeout_ms).filter(|ms| *ms > 0);
        Self { run: Run { spawn: Box::new(spawn), beside, timeout_ms, terminal: false } }
    }

    /// On a terminal.
    pub(super) fn on_terminal(mut self) -> Self {
        self.run.terminal = true;
        self
    }

    /// Whom it runs as.
    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        self.run.spawn.user.as_ref().map(|user| (user.uid, user.gid))
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.run.timeout_ms.map(Duration::from_millis)
    }

    /// Asks the holder of a folder, and gives it the command's descriptors.
    pub(super) async fn send(self, dir: &Path, ends: Vec<OwnedFd>) -> Result<Asked, HostError> {
        let connect =
            |error: io::Error| failed(&format!("connect to {}", dir.join(SOCKET).display()), &error);
        let folder = std::fs::File::open(dir).map_err(connect)?;
        let mut stream = UnixStream::connect(short_path(&folder)).await.map_err(connect)?;
        let hello = Hello { protocol: PROTOCOL, client: "run".to_owned(), subscribe: false };
        let calls = [
            Call { id: HELLO, request: Request::Hello(hello) },
            Call { id: RUN, request: Request::Run(Box::new(self.run)) },
        ];
        let mut bytes = Vec::new();
        for call in &calls {
            let frame = frame::encode(call).map_err(|error| HostError(error.to_string()))?;
            bytes.extend_from_slice(&frame);
        }
        let sent = stream
            .async_io(Interest::WRITABLE, || send_with(&stream, &bytes, &ends))
            .await
            .map_err(|error| failed("ask the holder", &error))?;
        // The holder has its copies; the agent's would keep pipes open after the command's end.
        drop(ends);
        let rest = bytes.get(sent..).unwrap_or_default();
        stream.write_all(rest).await.map_err(|error| failed("ask the holder", &error))?;
        Ok(Asked { stream, inbox: FrameBuffer::new(), next: RUN })
    }
}

fn send_with(stream: &UnixStream, bytes: &[u8], ends: &[OwnedFd]) -> io::Result<usize> {
    let ends: Vec<BorrowedFd<'_>> = ends.iter().map(|fd| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(RUN_PIPES))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&ends)), "room for three descriptors");
    Ok(rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

/// A run that was asked for. It is killed when this is dropped.
pub(super) struct Asked {
    stream: UnixStream,
    inbox: FrameBuffer,
    next: u64,
}

impl Asked {
    /// Waits for its end. May be dropped and called again. An error means that it was not started.
    pub(super) async fn ended(&mut self) -> Result<RunOutcome, HostError> {
        let mut buffer = [0u8; 4096];
        loop {
            if let Some(reply) = self.take()? {
                return self.judge(reply);
            }
            match self.stream.read(&mut buffer).await {
                Ok(n) if n > 0 => self.inbox.push(buffer.get(..n).unwrap_or_default()),
                Ok(_) | Err(_) => {
                    let how = HowEnded::Unknown("the holder went away meanwhile".to_owned());
                    return Ok(outcome(how, false, None));
                }
            }
        }
    }

    /// Signals everything in it.
    pub(super) async fn signal(&mut self, signal: i32) -> Result<(), HostError> {
        self.next += 1;
        let request = Request::SignalRun(SignalRun { call: RUN, signal });
        let frame =
            frame::encode(&Call { id: self.next, request }).map_err(|error| HostError(error.to_string()))?;
        self.stream.write_all(&frame).await.map_err(|error| failed("ask the holder", &error))
    }

    fn take(&mut self) -> Result<Option<Reply>, HostError> {
        let unfit = |error: frame::FrameError| HostError(error.to_string());
        while let Some(body) = self.inbox.next_body().map_err(unfit)? {
            match frame::decode::<Message>(&body).map_err(unfit)? {
                Message::Answer(answer) if answer.id == RUN => return Ok(Some(answer.reply)),
                Message::Answer(_) | Message::Event(_) | Message::Unrecognised => {}
            }
        }
        Ok(None)
    }

    fn judge(&self, reply: Reply) -> Result<RunOutcome, HostError> {
        match reply {
            Reply::Ran(Ran { exit, timed_out, ended_because }) => {
                let how = match exit {
                    Exit::Code(code) => HowEnded::Code(code),
                    Exit::Signal(signal) => HowEnded::Signal(signal),
                    Exit::Unknown(why) => HowEnded::Unknown(why),
                    Exit::Unrecognised => HowEnded::Unknown("told by a holder of another version".to_owned()),
                };
                Ok(outcome(how, timed_out, ended_because))
            }
            Reply::Refused(refusal) if refusal.code == RefusalCode::Unsupported => {
                let why =
                    "this host's holder is too old to run commands: restart ostler-holder to upgrade it";
                Err(HostError(why.to_owned()))
            }
            Reply::Refused(refusal) => Err(HostError(refusal.message)),
            Reply::Done(_)
            | Reply::Welcome(_)
            | Reply::Spawned(_)
            | Reply::Listing(_)
            | Reply::Unrecognised => {
                Err(HostError("the holder's answer does not fit the question".to_owned()))
            }
        }
    }
}

fn outcome(how: HowEnded, timed_out: bool, ended_because: Option<String>) -> RunOutcome {
    RunOutcome { how, timed_out, ended_because, output: Bytes::new() }
}
