//! Signals by name: `SIGTERM`.

use std::fmt;
use std::str::FromStr;

use super::{InvalidQuantity, always_text};

/// A signal of Linux, by its number. Manifests name it: numbers differ between systems and tell a reader nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

/// The standard signals in the order of their numbers, from 1 (signal(7), x86 and ARM).
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The first real-time signal that the C library leaves to programs, and the last one.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Signal {
    /// Asks a program to end.
    pub const TERM: Signal = Signal(15);
    /// Ends a program without asking.
    pub const KILL: Signal = Signal(9);
    /// Asks a program to read its configuration again.
    pub const HUP: Signal = Signal(1);

    /// By number, if programs can be sent that signal.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Signal> {
        (matches!(number, 1..=31) || (RTMIN..=RTMAX).contains(&number)).then_some(Signal(number))
    }

    /// The number on Linux.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0).wrapping_sub(1)) {
            Some(name) => f.pad(name),
            None if self.0 == RTMIN => f.pad("SIGRTMIN"),
            None => f.pad(&format!("SIGRTMIN+{}", self.0.saturating_sub(RTMIN))),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn by_name(text: &str) -> Option<Signal> {
    if let Some(at) = NAMES.iter().position(|name| *name == text) {
        return u8::try_from(at + 1).ok().map(Signal);
    }
    match text.strip_prefix("SIGRTMIN")? {
        "" => Some(Signal(RTMIN)),
        rest => {
            let above: u8 = rest.strip_prefix('+')?.parse().ok()?;
            let canonical = above > 0 && rest == format!("+{above}");
            canonical.then(|| RTMIN.checked_add(above).and_then(Signal::from_number)).flatten()
        }
    }
}

impl FromStr for Signal {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Signal, InvalidQuantity> {
        if let Some(signal) = by_name(text) {
            return Ok(signal);
        }
        let upper = text.to_ascii_uppercase();
        let meant = by_name(&upper)
            .or_else(|| by_name(&format!("SIG{upper}")))
            .or_else(|| text.parse().ok().and_then(Signal::from_number));
        Err(InvalidQuantity::form(match meant {
            Some(signal) => format!("{text:?} is not a signal: write {signal}"),
            None => format!("{text:?} is not a signal: write its name, for example SIGTERM"),
        }))
    }
}

always_text!(Signal);
