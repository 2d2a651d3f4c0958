//! Units of systemd: asked over the system bus to reload or restart, until that has ended.
//!
//! A connection is made for one request and dropped: an idle agent has none. Five calls and one signal are all that is
//! spoken, so the protocol is written out here ([`wire`]) rather than taken from a library that would be most of an
//! idle agent (docs/decisions/0013-units.md).

mod wire;

use std::io;
use std::path::Path;

use ostler_schemas::spec::Renewal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use self::wire::{Call, HEAD, Kind, Message, Value};
use crate::ports::UnitEnd;

/// Where the system bus listens.
pub(super) const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// Largest message that is read: those that are of interest have some hundred bytes.
const MESSAGE_MAX: usize = 1 << 20;
/// Longest line before messages begin.
const LINE_MAX: usize = 1 << 10;

const BUS: (&str, &str, &str) = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus");
const MANAGER: (&str, &str, &str) =
    ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
const MATCH: &str = "type='signal',sender='org.freedesktop.systemd1',\
                     interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// Why a unit was not reloaded or restarted.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnitError {
    #[error("this host has no system bus: {at}")]
    NoBus {
        at: String,
        #[source]
        source: io::Error,
    },
    #[error("the system bus ended the conversation")]
    Broken(#[source] io::Error),
    #[error("the system bus does not know this user")]
    Refused,
    #[error("the system bus said what is no message")]
    Nonsense,
    #[error("{message} ({name})")]
    Answer { name: String, message: String },
    #[error("systemd's job ended: {0}")]
    Job(String),
}

/// Has a unit reloaded or restarted, if it runs, and waits for the end of that.
pub(super) async fn renew(bus: &Path, how: Renewal, unit: &str) -> Result<UnitEnd, UnitError> {
    let no_bus = |source| UnitError::NoBus { at: bus.display().to_string(), source };
    let stream = UnixStream::connect(bus).await.map_err(no_bus)?;
    talk(stream, how, unit).await
}

async fn talk(stream: UnixStream, how: Renewal, unit: &str) -> Result<UnitEnd, UnitError> {
    let mut bus = Conversation { stream, serial: 0, removed: Vec::new() };
    bus.introduce().await?;
    bus.call(BUS, "Hello", &[]).await?;
    bus.call(BUS, "AddMatch", &[MATCH]).await?;
    bus.call(MANAGER, "Subscribe", &[]).await?;
    let method = match how {
        Renewal::Reload => "ReloadUnit",
        // What somebody has stopped stays so.
        Renewal::Restart => "TryRestartUnit",
    };
    let reply = match bus.call(MANAGER, method, &[unit, "replace"]).await {
        Err(UnitError::Answer { name, .. }) if name == "org.freedesktop.systemd1.NoSuchUnit" => {
            return Ok(UnitEnd::NotRunning);
        }
        other => other?,
    };
    let Some(Value::Text(job)) = reply.body.first() else { return Err(UnitError::Nonsense) };
    match bus.end_of(job).await?.as_str() {
        "done" => Ok(UnitEnd::Done),
        // So systemd calls the reload of what does not run.
        "invalid" => Ok(UnitEnd::NotRunning),
        other => Err(UnitError::Job(other.to_owned())),
    }
}

struct Conversation {
    stream: UnixStream,
    serial: u32,
    /// Jobs that have ended, and how.
    removed: Vec<(String, String)>,
}

impl Conversation {
    /// Says who we are: the kernel vouches for it.
    async fn introduce(&mut self) -> Result<(), UnitError> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes()).await?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > LINE_MAX {
                return Err(UnitError::Nonsense);
            }
            line.push(self.stream.read_u8().await.map_err(UnitError::Broken)?);
        }
        if !line.starts_with(b"OK ") {
            return Err(UnitError::Refused);
        }
        self.write(b"BEGIN\r\n").await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), UnitError> {
        self.stream.write_all(bytes).await.map_err(UnitError::Broken)
    }

    async fn call(
        &mut self,
        (destination, path, interface): (&str, &str, &str),
        member: &str,
        texts: &[&str],
    ) -> Result<Message, UnitError> {
        self.serial += 1;
        let serial = self.serial;
        let call = Call { serial, destination, path, interface, member, texts };
        self.write(&call.encode()).await?;
        loop {
            let message = self.read().await?;
            match message.kind {
                Kind::Return if message.reply_to == Some(serial) => return Ok(message),
                Kind::Error if message.reply_to == Some(serial) => {
                    let text = message.body.iter().find_map(|value| match value {
                        Value::Text(text) => Some(text.clone()),
                        Value::Number(_) => None,
                    });
                    let (name, message) = (message.error, text.unwrap_or_default());
                    return Err(UnitError::Answer { name, message });
                }
                Kind::Signal => self.hear(&message),
                Kind::Return | Kind::Error | Kind::Other => {}
            }
        }
    }

    fn hear(&mut self, signal: &Message) {
        if signal.member == "JobRemoved"
            && let [Value::Number(_), Value::Text(job), Value::Text(_), Value::Text(result)] =
                signal.body.as_slice()
        {
            self.removed.push((job.clone(), result.clone()));
        }
    }

    /// How a job ended.
    async fn end_of(&mut self, job: &str) -> Result<String, UnitError> {
        loop {
            if let Some((_, result)) = self.removed.iter().find(|(other, _)| other == job) {
                return Ok(result.clone());
            }
            self.removed.clear();
            let message = self.read().await?;
            if message.kind == Kind::Signal {
                self.hear(&message);
            }
        }
    }

    async fn read(&mut self) -> Result<Message, UnitError> {
        let mut head = [0; HEAD];
        self.stream.read_exact(&mut head).await.map_err(UnitError::Broken)?;
        let rest = wire::rest_of(&head).filter(|rest| *rest <= MESSAGE_MAX).ok_or(UnitError::Nonsense)?;
        let mut bytes = vec![0; HEAD + rest];
        bytes[..HEAD].copy_from_slice(&head);
        self.stream.read_exact(&mut bytes[HEAD..]).await.map_err(UnitError::Broken)?;
        Message::decode(&bytes).ok_or(UnitError::Nonsense)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bus that answers each call with the next of these.
    async fn bus(mut stream: UnixStream, answers: Vec<Vec<Vec<u8>>>) {
        let mut line = Vec::new();
        while !line.ends_with(b"BEGIN\r\n") {
            line.push(stream.read_u8().await.expect("reads"));
            if line.ends_with(b"\r\n") && line.starts_with(b"\0AUTH EXTERNAL ") {
                line.clear();
                stream.write_all(b"OK 1234\r\n").await.expect("writes");
            }
        }
        for answer in answers {
            let mut head = [0; HEAD];
            stream.read_exact(&mut head).await.expect("reads");
            let mut rest = vec![0; wire::rest_of(&head).expect("is a call")];
            stream.read_exact(&mut rest).await.expect("reads");
            for message in answer {
                stream.write_all(&message).await.expect("writes");
            }
        }
    }

    async fn said(how: Renewal, last: Vec<Vec<u8>>) -> Result<UnitEnd, UnitError> {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let other = wire::tests::signal("JobRemoved", 7, &["/job/7", "x.service", "failed"]);
        let answers = vec![
            vec![wire::tests::reply(1, &[":1.7"])],
            vec![wire::tests::signal("NameAcquired", 0, &[]), wire::tests::reply(2, &[])],
            vec![wire::tests::reply(3, &[]), other],
            last,
        ];
        let bus = tokio::spawn(bus(theirs, answers));
        let said = talk(ours, how, "nginx.service").await;
        bus.await.expect("ends");
        said
    }

    #[tokio::test]
    async fn the_end_of_the_job_is_waited_for() {
        let ended = |result: &str| {
            vec![
                wire::tests::reply(4, &["/job/9"]),
                wire::tests::signal("JobRemoved", 8, &["/job/8", "y.service", "failed"]),
                wire::tests::signal("JobRemoved", 9, &["/job/9", "nginx.service", result]),
            ]
        };
        assert_eq!(said(Renewal::Restart, ended("done")).await.ok(), Some(UnitEnd::Done));
        assert_eq!(said(Renewal::Reload, ended("invalid")).await.ok(), Some(UnitEnd::NotRunning));
        let failed = said(Renewal::Restart, ended("failed")).await.expect_err("fails");
        assert_eq!(failed.to_string(), "systemd's job ended: failed");
        // A signal can be faster than the answer to what it is about.
        let mut early = ended("done");
        early.rotate_left(1);
        assert_eq!(said(Renewal::Restart, early).await.ok(), Some(UnitEnd::Done));
    }

    #[tokio::test]
    async fn refusals_say_why() {
        let error = |name: &str| vec![wire::tests::error(4, name, "no such thing")];
        let absent = said(Renewal::Reload, error("org.freedesktop.systemd1.NoSuchUnit")).await;
        assert_eq!(absent.ok(), Some(UnitEnd::NotRunning));
        let refused = said(Renewal::Reload, error("org.freedesktop.DBus.Error.AccessDenied")).await;
        let text = refused.expect_err("is refused").to_string();
        assert_eq!(text, "no such thing (org.freedesktop.DBus.Error.AccessDenied)");
        let none = renew(Path::new("/nowhere/bus"), Renewal::Reload, "x.service").await;
        assert!(none.expect_err("fails").to_string().contains("no system bus"));
    }
}
