//! The terminal that this program runs in: its size, and raw mode, which is left on every way out.
//!
//! In raw mode keys are bytes for somebody else: Ctrl-C is not a signal to this program. The mode is given back when
//! the guard is dropped, and by a panic before its message is shown.

use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, Once, PoisonError};

use ostler_schemas::v1::api::ExecScreen;
use rustix::termios::{OptionalActions, Termios};

/// How the terminal was before; there is one for a program.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// A screen when the terminal does not tell its size.
const SCREEN: ExecScreen = ExecScreen { rows: 24, columns: 80 };

/// Raw mode, until it is dropped.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Enters raw mode on standard input.
    ///
    /// # Errors
    /// When that is no terminal.
    pub fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                next(panic);
            }));
        });
        let before = rustix::termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let guard = Self(());
        // What was typed ahead is for the command.
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(guard)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // A terminal that is gone needs no mode.
        let _gone = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

/// Whether standard input is a terminal.
#[must_use]
pub fn is_attended() -> bool {
    io::stdin().is_terminal()
}

/// The size of the terminal.
#[must_use]
pub fn screen() -> ExecScreen {
    let sizes = [rustix::termios::tcgetwinsize(io::stdout()), rustix::termios::tcgetwinsize(io::stdin())];
    let known = sizes.into_iter().flatten().find(|size| size.ws_row > 0 && size.ws_col > 0);
    known.map_or(SCREEN, |size| ExecScreen { rows: size.ws_row, columns: size.ws_col })
}
