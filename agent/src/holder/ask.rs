//! What the holder's program does for a service manager or an operator, agent or no agent: stop everything
//! before the host goes down, upgrade the holder that runs, judge the state that a holder has written.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ostler_agent_core::holder::frame::{self, FrameBuffer, FrameError};
use ostler_agent_core::holder::protocol::{
    Call, Hello, Message, PROTOCOL, Refusal, Reply, Request, StopAll, Upgrade, Welcome,
};

use super::handover::HANDOVER;
use super::options::Options;
use super::say::say;
use super::start::{self, StartError};
use super::state_file::{StateError, StateFile};

/// How long the holder may take to be there again after it has become another program.
const BACK_LIMIT: Duration = Duration::from_secs(10);

/// Why it is not known to be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The holder cannot be reached, or went before it answered.
    #[error("talk to the holder")]
    Talk(#[source] io::Error),
    /// It speaks something else.
    #[error("understand the holder")]
    Frame(#[from] FrameError),
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The boot cannot be told.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The table of descriptors would not be understood.
    #[error("the handover has format {given}, this build reads up to {HANDOVER}")]
    Handover {
        /// Its format.
        given: u32,
    },
}

/// Tells the holder of `dir` to stop everything, and waits until nothing is left.
pub(super) fn stop_all(dir: &Path, grace_ms: u64) -> Result<(), AskError> {
    let mut line = Line::open(dir, "stop-all")?;
    match line.ask(2, Request::StopAll(StopAll { grace_ms: Some(grace_ms) }))? {
        Some(Reply::Refused(refusal)) => Err(refusal.into()),
        Some(_) => Ok(()),
        None => Err(AskError::Talk(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Tells the holder of `dir` to become another program, and waits until that one answers.
pub(super) fn upgrade(dir: &Path, path: Option<&Path>) -> Result<(), AskError> {
    let mut line = Line::open(dir, "upgrade")?;
    let before = line.welcome.clone();
    let path = path.map(|path| path.display().to_string());
    if let Some(Reply::Refused(refusal)) = line.ask(2, Request::Upgrade(Upgrade { path }))? {
        return Err(refusal.into());
    }
    // Its socket never closes: this connection waits in it until the new program takes it.
    let after = Line::open(dir, "upgrade")?.welcome;
    say(&format!(
        "of version {} went on as version {} in the same process ({})",
        before.version, after.version, after.pid
    ));
    Ok(())
}

/// Judges the state in the folder, and whether a table of descriptors of this format would be understood.
pub(super) fn check_state(options: &Options, handover: u32) -> Result<(), AskError> {
    if handover > HANDOVER {
        return Err(AskError::Handover { given: handover });
    }
    let boot_id = start::boot_id(options)?;
    let loaded = StateFile::checking(&options.dir).load(&boot_id)?;
    let (processes, exits) = (loaded.state.processes.len(), loaded.state.exits.len());
    say(&format!(
        "of version {} (protocol {PROTOCOL}) could go on with {processes} processes and {exits} exits",
        env!("CARGO_PKG_VERSION")
    ));
    Ok(())
}

/// A connection that waits for each answer.
struct Line {
    stream: UnixStream,
    inbox: FrameBuffer,
    welcome: Welcome,
}

impl Line {
    fn open(dir: &Path, name: &str) -> Result<Self, AskError> {
        let folder = File::open(dir).map_err(AskError::Talk)?;
        let stream =
            UnixStream::connect(crate::holder_client::short_path(&folder)).map_err(AskError::Talk)?;
        let mut line = Self { stream, inbox: FrameBuffer::new(), welcome: Welcome::default() };
        let hello = Hello { protocol: PROTOCOL, client: name.to_owned(), subscribe: false };
        line.stream.set_read_timeout(Some(BACK_LIMIT)).map_err(AskError::Talk)?;
        match line.ask(1, Request::Hello(hello))? {
            Some(Reply::Welcome(welcome)) => line.welcome = *welcome,
            Some(Reply::Refused(refusal)) => return Err(refusal.into()),
            Some(_) | None => return Err(AskError::Talk(io::ErrorKind::UnexpectedEof.into())),
        }
        // What is asked may take as long as it takes.
        line.stream.set_read_timeout(None).map_err(AskError::Talk)?;
        Ok(line)
    }

    /// The answer; none when the connection ended before it.
    fn ask(&mut self, id: u64, request: Request) -> Result<Option<Reply>, AskError> {
        self.stream.write_all(&frame::encode(&Call { id, request })?).map_err(AskError::Talk)?;
        let mut buffer = [0u8; 4 << 10];
        loop {
            while let Some(body) = self.inbox.next_body()? {
                match frame::decode::<Message>(&body)? {
                    Message::Answer(answer) if answer.id == id => return Ok(Some(answer.reply)),
                    Message::Answer(_) | Message::Event(_) | Message::Unrecognised => {}
                }
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(n) => self.inbox.push(buffer.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(AskError::Talk(error)),
            }
        }
    }
}
