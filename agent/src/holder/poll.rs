//! The poll set: what the holder waits for, each with a name.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ostler_agent_core::holder::lines::Stream;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Events taken in one turn.
const TURN: usize = 128;

/// What something happened to. The number is the client's or the incarnation's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Signals,
    Listener,
    Client(u64),
    Output(Stream, u64),
    Start(u64),
    Adopted(u64),
    /// Logs that were full have room.
    LogRoom,
    Run(u64),
    Ear(u64),
}

/// The kind is in the top byte of the kernel's 64 bits.
const KIND_SHIFT: u32 = 56;

impl Source {
    const fn token(self) -> u64 {
        let (kind, number) = match self {
            Self::Signals => (1, 0),
            Self::Listener => (2, 0),
            Self::Client(number) => (3, number),
            Self::Output(Stream::Stdout, number) => (4, number),
            Self::Output(Stream::Stderr, number) => (5, number),
            Self::Start(number) => (6, number),
            Self::Adopted(number) => (7, number),
            Self::LogRoom => (20, 0),
            Self::Run(number) => (8, number),
            Self::Ear(number) => (9, number),
        };
        (kind << KIND_SHIFT) | number
    }

    const fn from_token(token: u64) -> Option<Self> {
        let number = token & ((1 << KIND_SHIFT) - 1);
        Some(match token >> KIND_SHIFT {
            1 => Self::Signals,
            2 => Self::Listener,
            3 => Self::Client(number),
            4 => Self::Output(Stream::Stdout, number),
            5 => Self::Output(Stream::Stderr, number),
            6 => Self::Start(number),
            7 => Self::Adopted(number),
            20 => Self::LogRoom,
            8 => Self::Run(number),
            9 => Self::Ear(number),
            _ => return None,
        })
    }
}

/// For what to wait. An end is always told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    Read,
    ReadAndWrite,
    EndOnly,
}

impl Interest {
    const fn flags(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::ReadAndWrite => EventFlags::IN.union(EventFlags::OUT),
            Self::EndOnly => EventFlags::empty(),
        }
    }
}

/// The poll set. Descriptors are taken out before they are closed: a child between fork and exec has a copy.
#[derive(Debug)]
pub(super) struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub(super) fn add(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(source.token()), EventFlags::IN)?)
    }

    pub(super) fn change(&self, fd: impl AsFd, source: Source, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(source.token()), interest.flags())?)
    }

    pub(super) fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until something happens or the time is over; without a time, for as long as it takes.
    pub(super) fn wait(&self, timeout_ms: Option<u64>) -> io::Result<Vec<Source>> {
        let timeout = timeout_ms.map(|ms| Timespec {
            tv_sec: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ms % 1_000 * 1_000_000).unwrap_or(0),
        });
        let mut events = Vec::with_capacity(TURN);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        Ok(events.iter().filter_map(|event| Source::from_token(event.data.u64())).collect())
    }
}
