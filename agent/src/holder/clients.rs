//! Connections to the holder's socket.
//!
//! Only root and the holder's own user may connect. A connection that sends anything but the protocol, or does
//! not read what it asked for, is closed; the others do not notice. Nothing here waits.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use ostler_agent_core::holder::frame::{self, FrameBuffer};
use ostler_agent_core::holder::protocol::{
    Answer, Call, Event, Hello, Message, Refusal, RefusalCode, Reply, Request,
};
use ostler_agent_core::holder::runs::RUNS_MAX;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// Bytes waiting for one client before it is given up: many listings' worth. It connects again and lists.
const OUTBOX_MAX: usize = 8 << 20;

/// Bytes waiting for all clients together; past it the one that is furthest behind is given up.
const OUTBOX_ALL: usize = 32 << 20;

/// Sent bytes that may lie before the unsent ones. Moving those is not worth it for less.
const SENT_MAX: usize = 64 << 10;

/// Calls of one client taken in one turn. The rest waits, so that a flood costs others one turn's time and not more.
const CALLS_TURN: usize = 64;

/// Connections at one time. One agent, one for each command it runs beside processes, a few commands on the host; the
/// rest is a mistake.
const CLIENTS_MAX: usize = 64 + RUNS_MAX;

/// Bytes read from one client in one turn, so that a busy one does not starve the pipes.
const READ_TURN: usize = 256 << 10;

/// Descriptors of one client that no call has taken yet. A call comes with three at most.
const DESCRIPTORS_MAX: usize = 16;

/// One connection.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    inbox: FrameBuffer,
    descriptors: VecDeque<OwnedFd>,
    outbox: Vec<u8>,
    sent: usize,
    greeted: bool,
    subscribed: bool,
    broken: bool,
    /// Whether the poll set was told to wait for room.
    waits_for_room: bool,
    /// Whether calls that came are left for the next turn.
    has_more: bool,
}

/// What the loop must do about a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// Wait for room to write, or no longer.
    WaitForRoom(u64, bool),
    /// It is gone: forget it.
    Gone(u64),
}

/// All connections.
#[derive(Debug)]
pub(super) struct Clients {
    listener: UnixListener,
    /// A descriptor that is given up where no other is left, to turn a connection away: one that nobody takes would
    /// wake the loop for ever.
    spare: Option<File>,
    clients: BTreeMap<u64, Client>,
    next: u64,
}

impl Clients {
    pub(super) fn new(listener: UnixListener) -> Self {
        Self { listener, spare: spare(), clients: BTreeMap::new(), next: 1 }
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub(super) fn fd(&self, client: u64) -> Option<BorrowedFd<'_>> {
        self.clients.get(&client).map(|client| client.stream.as_fd())
    }

    /// Takes the next connection that waits, if it may come in.
    pub(super) fn accept(&mut self) -> Option<u64> {
        loop {
            let (stream, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_short(&error) && self.spare.take().is_some() => {
                    drop(self.listener.accept());
                    self.spare = spare();
                    continue;
                }
                Err(_) => return None,
            };
            let refused = !may_connect(&stream) || stream.set_nonblocking(true).is_err();
            if refused || (self.clients.len() >= CLIENTS_MAX && !self.make_room()) {
                continue;
            }
            let id = self.next;
            self.next += 1;
            let client = Client {
                stream,
                inbox: FrameBuffer::new(),
                descriptors: VecDeque::new(),
                outbox: Vec::new(),
                sent: 0,
                greeted: false,
                subscribed: false,
                broken: false,
                waits_for_room: false,
                has_more: false,
            };
            self.clients.insert(id, client);
            return Some(id);
        }
    }

    /// Gives up the oldest connection that has said nothing of the protocol yet. False if there is none.
    fn make_room(&mut self) -> bool {
        let silent = self.clients.values_mut().find(|client| !client.greeted && !client.broken);
        silent.map(|client| client.broken = true).is_some()
    }

    /// Clients whose calls were left from the last turn.
    pub(super) fn with_more(&self) -> Vec<u64> {
        self.clients.iter().filter(|(_, client)| client.has_more).map(|(id, _)| *id).collect()
    }

    /// Reads what a client sent and gives its calls. The first must be hello; it is given too.
    pub(super) fn read(&mut self, id: u64) -> Vec<Call> {
        let Some(client) = self.clients.get_mut(&id) else { return Vec::new() };
        let mut calls = Vec::new();
        client.take_calls(&mut calls);
        let mut buffer = [0u8; 16 << 10];
        let mut total = 0;
        while total < READ_TURN && !client.broken && !client.has_more {
            match client.receive(&mut buffer) {
                Ok(0) => client.broken = true,
                Ok(n) => {
                    total += n;
                    client.inbox.push(buffer.get(..n).unwrap_or_default());
                    client.take_calls(&mut calls);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => client.broken = true,
            }
        }
        calls
    }

    /// The next descriptors that a client sent, if there are so many. They come before the call that they are for.
    pub(super) fn take_descriptors(&mut self, id: u64, count: usize) -> Option<Vec<OwnedFd>> {
        let descriptors = &mut self.clients.get_mut(&id)?.descriptors;
        (descriptors.len() >= count).then(|| descriptors.drain(..count).collect())
    }

    pub(super) fn subscribe(&mut self, id: u64) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.subscribed = true;
        }
    }

    /// Answers a call; a caller that is gone gets none.
    pub(super) fn answer(&mut self, id: u64, call: u64, reply: Reply) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.broken) else { return };
        let frame = frame::encode(&Message::Answer(Answer { id: call, reply })).or_else(|error| {
            let refusal = Refusal::new(RefusalCode::Failed, format!("the answer could not be sent: {error}"));
            frame::encode(&Message::Answer(Answer { id: call, reply: Reply::Refused(refusal) }))
        });
        match frame {
            Ok(frame) => client.queue(&frame),
            Err(_) => client.broken = true,
        }
        self.bound_all();
    }

    /// One that does not read must not cost the others their answers, nor the host its memory.
    fn bound_all(&mut self) {
        while self.clients.values().map(Client::unsent).sum::<usize>() > OUTBOX_ALL {
            let Some(slowest) = self.clients.values_mut().max_by_key(|client| client.unsent()) else {
                return;
            };
            slowest.give_up();
        }
    }

    /// Tells every subscriber.
    pub(super) fn publish(&mut self, event: Event) {
        let mut subscribers = self.clients.values_mut().filter(|client| client.subscribed).peekable();
        if subscribers.peek().is_none() {
            return;
        }
        // An event is a few numbers; it always fits.
        let Ok(frame) = frame::encode(&Message::Event(event)) else { return };
        for client in subscribers {
            client.queue(&frame);
        }
    }

    /// Sends what can be sent and says which connections need care.
    pub(super) fn flush(&mut self) -> Vec<Care> {
        let mut care = Vec::new();
        for (id, client) in &mut self.clients {
            client.send();
            let waits = !client.outbox.is_empty();
            if client.broken {
                care.push(Care::Gone(*id));
            } else if waits != client.waits_for_room {
                client.waits_for_room = waits;
                care.push(Care::WaitForRoom(*id, waits));
            }
        }
        care
    }

    pub(super) fn forget(&mut self, id: u64) {
        self.clients.remove(&id);
    }
}

impl Client {
    /// Reads bytes, and takes what descriptors come with them.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(buffer)];
        let received =
            rustix::net::recvmsg(&self.stream, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if self.descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(received.bytes)
    }

    fn take_calls(&mut self, calls: &mut Vec<Call>) {
        self.has_more = false;
        while !self.broken {
            if calls.len() >= CALLS_TURN {
                self.has_more = true;
                return;
            }
            let call = match self.inbox.next_body() {
                Ok(Some(body)) => frame::decode::<Call>(&body),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            match call {
                Ok(call) if self.greeted || is_hello(&call) => {
                    self.greeted = true;
                    calls.push(call);
                }
                Ok(_) | Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    fn queue(&mut self, frame: &[u8]) {
        if self.unsent() + frame.len() > OUTBOX_MAX {
            self.give_up();
        }
        if !self.broken {
            self.outbox.extend_from_slice(frame);
        }
    }

    fn unsent(&self) -> usize {
        self.outbox.len() - self.sent
    }

    /// Nothing more for this one; its memory is free at once.
    fn give_up(&mut self) {
        self.broken = true;
        self.outbox = Vec::new();
        self.sent = 0;
    }

    fn send(&mut self) {
        while self.sent < self.outbox.len() && !self.broken {
            match self.stream.write(self.outbox.get(self.sent..).unwrap_or_default()) {
                Ok(0) => self.broken = true,
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.sent > SENT_MAX {
                        self.outbox.drain(..self.sent);
                        self.sent = 0;
                    }
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.broken = true,
            }
        }
        // Everything is out: an idle connection keeps no memory.
        self.outbox = Vec::new();
        self.sent = 0;
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Whether there are no descriptors left, here or on the whole host.
fn is_short(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

fn is_hello(call: &Call) -> bool {
    matches!(&call.request, Request::Hello(Hello { protocol, .. }) if *protocol >= 1)
}

fn may_connect(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid();
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid.is_root() || peer.uid == own)
}
