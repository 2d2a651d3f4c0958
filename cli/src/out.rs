//! Standard output for data, standard error for talk.
//!
//! Colour appears only on a terminal, and never when `NO_COLOR` is set to anything. A reader that closes the pipe ends
//! the command quietly: that is [`Failure::PipeClosed`].

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::Failure;

/// Where a command speaks to.
pub struct Out {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
    /// Whether data may be coloured.
    pub colour: bool,
    /// Whether talk goes to a terminal, so that a line may be rewritten in place.
    pub live: bool,
}

/// What a test reads back.
#[derive(Debug, Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// All that was written so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Out {
    /// The process's own.
    #[must_use]
    pub fn process() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Self {
            colour: !plain && io::stdout().is_terminal(),
            live: !plain && io::stderr().is_terminal(),
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
        }
    }

    /// For tests: two buffers, no terminal.
    #[must_use]
    pub fn captured() -> (Self, Captured, Captured) {
        let (data, talk) = (Captured::default(), Captured::default());
        let out = Self {
            stdout: Box::new(data.clone()),
            stderr: Box::new(talk.clone()),
            colour: false,
            live: false,
        };
        (out, data, talk)
    }

    /// Data, as it is.
    ///
    /// # Errors
    /// [`Failure::PipeClosed`] when nobody reads any more.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.stdout.write_all(bytes).and_then(|()| self.stdout.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::PipeClosed,
            _ => Failure::local("cannot write to standard output", error),
        })
    }

    /// Data, as it is.
    ///
    /// # Errors
    /// As [`Out::bytes`].
    pub fn data(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// One line of data.
    ///
    /// # Errors
    /// As [`Out::bytes`].
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// One line of talk. Talk that cannot be heard is no reason to fail.
    pub fn say(&mut self, text: &str) {
        writeln!(self.stderr, "{text}").and_then(|()| self.stderr.flush()).ok();
    }

    /// A warning, before anything else is said.
    pub fn warn(&mut self, text: &str) {
        let line = format!("warning: {text}");
        let line = if self.live { format!("\x1b[33m{line}\x1b[0m") } else { line };
        self.say(&line);
    }

    /// All warnings.
    pub fn warnings(&mut self, texts: &[String]) {
        for text in texts {
            self.warn(text);
        }
    }
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Out").field("colour", &self.colour).field("live", &self.live).finish_non_exhaustive()
    }
}
