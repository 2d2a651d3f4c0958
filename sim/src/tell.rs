//! What people see: how far it is, on standard error; what there is in the end, on standard output.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often the line of a terminal is written anew.
const ON_TERMINAL: Duration = Duration::from_millis(200);
/// How often a line is added where nobody can write over the last one.
const ELSEWHERE: Duration = Duration::from_secs(5);

/// One line for people.
pub(crate) fn say(text: &str) {
    // Nobody may be listening any more.
    writeln!(std::io::stderr(), "{text}").ok();
}

/// One line that was asked for.
pub(crate) fn data(text: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).ok();
}

/// How far something is, told as often as is of use.
pub(crate) struct Progress {
    on_terminal: bool,
    last: Option<(Instant, String)>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { on_terminal: std::io::stderr().is_terminal(), last: None }
    }

    /// Says it, unless that was said already or too much was said just now.
    pub(crate) fn say(&mut self, text: &str) {
        let every = if self.on_terminal { ON_TERMINAL } else { ELSEWHERE };
        if self.last.as_ref().is_some_and(|(at, last)| at.elapsed() < every || last == text) {
            return;
        }
        if self.on_terminal {
            // Carriage return, and what was longer before is erased.
            let mut err = std::io::stderr();
            write!(err, "\r{text}\x1b[K").and_then(|()| err.flush()).ok();
        } else {
            say(text);
        }
        self.last = Some((Instant::now(), text.to_owned()));
    }

    /// What is said next begins a line of its own.
    pub(crate) fn end(&mut self) {
        if self.last.take().is_some() && self.on_terminal {
            say("");
        }
    }
}

/// Memory of this program that is its own, in bytes.
pub(crate) fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let kib =
        |line: &str| line.strip_prefix("Anonymous:")?.trim().trim_end_matches(" kB").trim().parse().ok();
    text.lines().find_map(kib).map_or(0, |kib: u64| kib * 1024)
}
