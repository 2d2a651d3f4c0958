//! How much one rendering may do.

use std::io::{Error as IoError, Result as IoResult, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::{Error, ErrorKind};

/// Most bytes of a rendered file (CONTRACT.md 1.3).
pub const MAX_RENDERED: usize = 8 << 20;

/// Deepest nesting of blocks and calls. Far below what the stack of a thread takes; people nest a handful.
pub(crate) const DEPTH: usize = 100;

/// Bytes of values that may be printed in one rendering, be it into the file or into a variable.
const PRINTED: usize = 4 * MAX_RENDERED;

/// Instructions of the shortest templates: some tenths of a second.
const MOST_FUEL: u64 = 1_000_000;
/// Instructions that the longest template may take, too: it is mostly text.
const LEAST_FUEL: u64 = 50_000;
/// Text that instructions may repeat: each of them can stand for a large part of the template.
const REPEATED: u64 = 1 << 30;

/// Instructions for a template of so many bytes. They follow from the template alone, so that what a controller admits
/// is what an agent renders.
pub(crate) fn fuel(bytes: usize) -> u64 {
    (REPEATED / (bytes.max(1) as u64)).clamp(LEAST_FUEL, MOST_FUEL)
}

/// Bytes printed so far.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    spent: AtomicUsize,
}

impl Budget {
    pub(crate) fn reset(&self) {
        self.spent.store(0, Ordering::Relaxed);
    }

    pub(crate) fn spend(&self, bytes: usize) -> Result<(), Error> {
        if self.spent.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > PRINTED {
            return Err(Error::new(ErrorKind::OutOfFuel, "prints too much"));
        }
        Ok(())
    }
}

/// A text that ends where it would be too long.
#[derive(Debug, Default)]
pub(crate) struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Bounded {
    pub(crate) const fn is_full(&self) -> bool {
        self.is_full
    }

    /// The engine writes whole texts only.
    pub(crate) fn into_text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> IoResult<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > MAX_RENDERED {
            self.is_full = true;
            return Err(IoError::other("the file would be too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> IoResult<()> {
        Ok(())
    }
}
