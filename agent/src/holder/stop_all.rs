//! `ostler-agent holder --dir DIR --stop-all MILLISECONDS`: what a service manager runs before the host goes down, agent or no agent.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use ostler_agent_core::holder::frame::{self, FrameBuffer, FrameError};
use ostler_agent_core::holder::protocol::{Call, Hello, Message, PROTOCOL, Refusal, Reply, Request, StopAll};

/// Why it is not known that everything stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum StopAllError {
    /// The holder cannot be reached, or went while it was stopping.
    #[error("talk to the holder")]
    Talk(#[source] io::Error),
    /// It speaks something else.
    #[error("understand the holder")]
    Frame(#[from] FrameError),
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Tells the holder of `dir` to stop everything, and waits until nothing is left.
pub(super) fn stop_all(dir: &Path, grace_ms: u64) -> Result<(), StopAllError> {
    let folder = File::open(dir).map_err(StopAllError::Talk)?;
    let mut stream =
        UnixStream::connect(crate::holder_client::short_path(&folder)).map_err(StopAllError::Talk)?;
    let hello = Hello { protocol: PROTOCOL, client: "stop-all".to_owned(), subscribe: false };
    let stop = StopAll { grace_ms: Some(grace_ms) };
    for (id, request) in [(1, Request::Hello(hello)), (2, Request::StopAll(stop))] {
        stream.write_all(&frame::encode(&Call { id, request })?).map_err(StopAllError::Talk)?;
    }
    let mut inbox = FrameBuffer::new();
    let mut buffer = [0u8; 4 << 10];
    loop {
        while let Some(body) = inbox.next_body()? {
            match frame::decode::<Message>(&body)? {
                Message::Answer(answer) if answer.id == 2 => {
                    return match answer.reply {
                        Reply::Refused(refusal) => Err(refusal.into()),
                        Reply::Done(_)
                        | Reply::Welcome(_)
                        | Reply::Spawned(_)
                        | Reply::Listing(_)
                        | Reply::Ran(_)
                        | Reply::Unrecognised => Ok(()),
                    };
                }
                Message::Answer(_) | Message::Event(_) | Message::Unrecognised => {}
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(StopAllError::Talk(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => inbox.push(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StopAllError::Talk(error)),
        }
    }
}
