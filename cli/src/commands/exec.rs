//! `exec`: a command beside a process, with this program's input, output and signals.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use bytes::Bytes;
use ostler_schemas::Kind;
use ostler_schemas::v1::api::{EXEC_CHUNK, ExecCommand, ExecEnded, ExecItem, ExecOutput, ExecRequest};
use serde_bytes::ByteBuf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::args::exec::Exec as Args;
use crate::args::target;
use crate::client::exec::{Exec, Speaker};
use crate::client::{Replies, decode};
use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;
use crate::term::{self, Raw};

/// Pieces of input and of output that wait here.
const QUEUED: usize = 8;
/// Messages after which is said how many were read: a fraction of what may be unread.
const SAY_READ: u64 = 16;
/// How often it is said anyway.
const SAY_READ_EVERY: Duration = Duration::from_secs(1);
/// Exit codes of what was ended by a signal are this plus its number, as in every shell.
const BY_SIGNAL: i32 = 128;
/// A second Ctrl-C so soon after the first is meant for this program.
const TWICE: Duration = Duration::from_secs(2);

/// Runs it; the exit code is the command's.
///
/// # Errors
/// Whatever keeps it from ending well, and [`Failure::Exited`] for every code but 0.
pub async fn run(session: &Session, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let (kind, name) = target::one(std::slice::from_ref(&args.process), Some(Kind::Process))?;
    if args.tty && !term::is_attended() {
        return Err(Failure::message(
            "-t needs a terminal, and standard input is none: leave -t out, -i alone passes input on",
        ));
    }
    let exec = ExecCommand {
        words: args.command.clone(),
        stdin: args.stdin,
        screen: args.tty.then(term::screen),
        term: std::env::var("TERM").ok().filter(|_| args.tty),
    };
    let namespace = session.namespace.clone();
    let request = ExecRequest { namespace, kind, name, exec, reason: args.reason.clone() };
    let mut signals = Signals::take().map_err(|error| Failure::local("cannot take signals", error))?;
    let Exec { replies, speaker } = session.client.exec(&request).await?;
    let (said, mut messages) = mpsc::channel(QUEUED);
    let reader = tokio::spawn(read_all(replies, said));
    let mut talk = Talk { args, speaker, input: None, say: None, raw: None, read: 0, told: 0 };
    let result = talk.run(&mut messages, &mut signals, out).await;
    // The terminal first: what is said next is for people.
    talk.raw = None;
    reader.abort();
    match result? {
        ExecEnded { message, code: None, signal: None } => {
            let why = message.unwrap_or_else(|| "how the command ended is not known".to_owned());
            Err(Failure::message(why))
        }
        ExecEnded { message, code, signal } => {
            if let Some(why) = &message {
                out.warn(&format!("the command was ended: {why}"));
            }
            match (code, signal) {
                (Some(0), _) => Ok(()),
                (Some(code), _) => Err(Failure::Exited(u8::try_from(code & 0xff).unwrap_or(1))),
                (None, Some(signal)) => Err(Failure::Exited(u8::try_from(BY_SIGNAL + signal).unwrap_or(255))),
                (None, None) => Err(Failure::message("how the command ended is not known")),
            }
        }
    }
}

/// A message of the answer, and its number.
type Said = Result<(Option<Bytes>, u64), Failure>;

/// Reads the answer; its patience must not begin anew with every key.
async fn read_all(mut replies: Replies, said: mpsc::Sender<Said>) {
    loop {
        let next = replies.next().await.map(|body| (body, replies.seen()));
        let over = !matches!(&next, Ok((Some(_), _)));
        if said.send(next).await.is_err() || over {
            return;
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    resize: Signal,
}

impl Signals {
    fn take() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            resize: signal(SignalKind::window_change())?,
        })
    }

    /// The next one that is for the command or for this program.
    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.resize.recv() => SignalKind::window_change(),
        }
    }
}

struct Talk<'a> {
    args: &'a Args,
    speaker: Speaker,
    /// For everything that goes to the command; there is none before it has begun.
    input: Option<mpsc::Sender<ExecItem>>,
    say: Option<tokio::task::JoinHandle<Result<(), Failure>>>,
    raw: Option<Raw>,
    read: u64,
    told: u64,
}

impl Drop for Talk<'_> {
    fn drop(&mut self) {
        if let Some(say) = &self.say {
            say.abort();
        }
    }
}

impl Talk<'_> {
    async fn run(
        &mut self,
        messages: &mut mpsc::Receiver<Said>,
        signals: &mut Signals,
        out: &mut Out,
    ) -> Result<ExecEnded, Failure> {
        let mut interrupted: Option<Instant> = None;
        let mut tick = interval_at(Instant::now() + SAY_READ_EVERY, SAY_READ_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(Ok((Some(body), seen))) => {
                        if let Some(ended) = self.hear(&body, out)? {
                            return Ok(ended);
                        }
                        self.read = seen;
                        if self.read - self.told >= SAY_READ {
                            self.say_read().await;
                        }
                    }
                    Some(Err(failure)) => return Err(failure),
                    Some(Ok((None, _))) | None => {
                        return Err(Failure::message("the answer ended before the command did"));
                    }
                },
                kind = signals.next() => {
                    let again = interrupted.is_some_and(|at| at.elapsed() < TWICE);
                    if kind == SignalKind::interrupt() {
                        interrupted = Some(Instant::now());
                    }
                    self.signalled(kind, again)?;
                }
                failed = said_all(&mut self.say) => {
                    self.say = None;
                    failed?;
                }
                _ = tick.tick() => self.say_read().await,
            }
        }
    }

    async fn say_read(&mut self) {
        if self.read != self.told {
            self.told = self.read;
            self.speaker.has_read(self.read).await;
        }
    }

    fn hear(&mut self, body: &[u8], out: &mut Out) -> Result<Option<ExecEnded>, Failure> {
        match decode::<ExecOutput>(body)? {
            ExecOutput::Begun => self.begin()?,
            ExecOutput::Stdout(bytes) => out.bytes(&bytes)?,
            ExecOutput::Stderr(bytes) => {
                let mut stderr = std::io::stderr();
                // Nobody reads it: the command goes on.
                let _unread = stderr.write_all(&bytes).and_then(|()| stderr.flush());
            }
            ExecOutput::Ended(ended) => return Ok(Some(ended)),
            ExecOutput::Refused(refused) => return Err(Failure::message(refused.message)),
            ExecOutput::Unknown => {}
        }
        Ok(None)
    }

    /// It runs: from now on keys and signals are the command's.
    fn begin(&mut self) -> Result<(), Failure> {
        if self.args.tty && self.args.stdin {
            let raw = Raw::enter().map_err(|error| Failure::local("cannot set up the terminal", error))?;
            self.raw = Some(raw);
        }
        let (input, items) = mpsc::channel(QUEUED);
        let speaker = self.speaker.clone();
        self.say = Some(tokio::spawn(async move { speaker.say_all(items).await }));
        if self.args.stdin {
            let keys = input.clone();
            // A read of standard input cannot be cancelled: it has a thread that ends with the program.
            std::thread::spawn(move || read_input(&keys));
        }
        if self.args.tty {
            // It may have changed since it was asked for.
            let _full = input.try_send(ExecItem::Resize(term::screen()));
        }
        self.input = Some(input);
        Ok(())
    }

    /// Passes a signal on, or ends this program.
    fn signalled(&self, kind: SignalKind, again: bool) -> Result<(), Failure> {
        if kind == SignalKind::window_change() {
            if let Some(input) = self.input.as_ref().filter(|_| self.args.tty) {
                // With so much before it the next change says it too.
                let _full = input.try_send(ExecItem::Resize(term::screen()));
            }
            return Ok(());
        }
        let number = kind.as_raw_value();
        let ends = Failure::Exited(u8::try_from(BY_SIGNAL + number).unwrap_or(u8::MAX));
        // With a terminal of its own the command hears of keys through it; what signals this program ends it.
        let Some(input) = self.input.as_ref().filter(|_| !self.args.tty && !again) else { return Err(ends) };
        input.try_send(ExecItem::Signal(u8::try_from(number).unwrap_or(0))).map_err(|_| ends)
    }
}

/// Done when the input cannot be said any more.
async fn said_all(say: &mut Option<tokio::task::JoinHandle<Result<(), Failure>>>) -> Result<(), Failure> {
    match say {
        Some(task) => task.await.unwrap_or_else(|_| Err(Failure::message("the input cannot be sent"))),
        None => std::future::pending().await,
    }
}

fn read_input(items: &mpsc::Sender<ExecItem>) {
    let mut stdin = std::io::stdin().lock();
    let mut buffer = vec![0; EXEC_CHUNK];
    loop {
        let item = match stdin.read(&mut buffer) {
            Ok(0) => ExecItem::End,
            Ok(n) => ExecItem::Bytes(ByteBuf::from(buffer.get(..n).unwrap_or_default())),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => ExecItem::End,
        };
        let last = item == ExecItem::End;
        if items.blocking_send(item).is_err() || last {
            return;
        }
    }
}
