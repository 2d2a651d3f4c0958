//! One process's log files: `current.log`, older ones as `current.log.1` and on, and `about` beside them.
//!
//! Guarantees: no file grows beyond its size, nor their number beyond theirs (a single line longer than a file is
//! written whole); a line is in one file, whole, or nowhere; each file begins with a line that says its number and how
//! many bytes all earlier ones had, so that a reader knows what it missed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ostler_agent_core::holder::lines::about::{About, Beginning};
use ostler_agent_core::holder::protocol::{LogSpec, LogTo, ProcKey};
use ostler_schemas::v1::log_line::{self, Note, Source};

/// The first line of a file is shorter than this.
const HEADER_MAX: u64 = 256;

/// What lies beside a log is never longer.
const ABOUT_MAX: u64 = 64 << 10;

/// Where one incarnation's lines go.
#[derive(Debug)]
pub(in crate::holder) struct LogTarget {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) key: ProcKey,
    pub(super) block: bool,
    pub(super) stdout: LogTo,
    pub(super) stderr: LogTo,
    folder: PathBuf,
    current: PathBuf,
    file_max: u64,
    files: u32,
    keep_s: u64,
}

impl LogTarget {
    pub(in crate::holder) fn new(spec: &LogSpec, (namespace, name): (&str, &str), key: ProcKey) -> Arc<Self> {
        let current = PathBuf::from(spec.current(namespace, name));
        Arc::new(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key,
            block: spec.block,
            stdout: spec.stdout,
            stderr: spec.stderr,
            folder: current.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned),
            current,
            file_max: spec.file_max.max(1),
            files: spec.files.max(1),
            keep_s: spec.keep_s,
        })
    }

    /// The same with other sizes.
    pub(in crate::holder) fn resized(&self, spec: &LogSpec) -> Arc<Self> {
        Arc::new(Self {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            key: self.key,
            block: self.block,
            stdout: self.stdout,
            stderr: self.stderr,
            folder: self.folder.clone(),
            current: self.current.clone(),
            file_max: spec.file_max.max(1),
            files: spec.files.max(1),
            keep_s: spec.keep_s,
        })
    }

    /// Where standard output goes.
    pub(in crate::holder) const fn stdout(&self) -> LogTo {
        self.stdout
    }

    /// Where standard error goes.
    pub(in crate::holder) const fn stderr(&self) -> LogTo {
        self.stderr
    }

    pub(super) const fn sink(&self, source: Source) -> LogTo {
        match source {
            Source::Process(log_line::LogStream::Stdout) => self.stdout,
            Source::Process(log_line::LogStream::Stderr) => self.stderr,
            Source::Host => self.notes(),
        }
    }

    /// Where what the host says goes: to the files, if there are any.
    pub(super) const fn notes(&self) -> LogTo {
        match (self.stdout, self.stderr) {
            (LogTo::File, _) | (_, LogTo::File) => LogTo::File,
            (LogTo::Journal, _) | (_, LogTo::Journal) => LogTo::Journal,
            (LogTo::Null, LogTo::Null) => LogTo::Null,
        }
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.current.clone().into_os_string();
        path.push(format!(".{number}"));
        PathBuf::from(path)
    }

    /// Appends lines. What was not written is told by how many bytes were.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            done += self.write_some(rest).map_err(|error| (done, error))?;
        }
        Ok(())
    }

    /// As many whole lines as the present file has room for; the next call makes room.
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let (mut file, mut size) = self.open()?;
        let is_new = size == 0;
        if is_new {
            size = self.begin_file(&mut file)?;
        }
        let room = usize::try_from(self.file_max.saturating_sub(size)).unwrap_or(usize::MAX);
        let mut fits = bytes.len();
        if fits > room {
            fits = bytes.get(..room).and_then(|head| memchr::memrchr(b'\n', head)).map_or(0, |at| at + 1);
        }
        if fits == 0 && !is_new {
            let next = self.rotate(size)?;
            size = self.start(&mut self.open()?.0, next)?;
            return self.write_at_start(bytes, size);
        }
        if fits == 0 {
            return self.write_at_start(bytes, size);
        }
        append(&mut file, size, bytes.get(..fits).unwrap_or_default())?;
        Ok(fits)
    }

    /// The first lines of a file: at least one, even if it is longer than the file may be.
    fn write_at_start(&self, bytes: &[u8], size: u64) -> io::Result<usize> {
        let room = usize::try_from(self.file_max.saturating_sub(size)).unwrap_or(usize::MAX);
        let head = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        let fits = memchr::memrchr(b'\n', head).or_else(|| memchr::memchr(b'\n', bytes));
        let fits = fits.map_or(bytes.len(), |at| at + 1);
        append(&mut self.open()?.0, size, bytes.get(..fits).unwrap_or_default())?;
        Ok(fits)
    }

    fn open(&self) -> io::Result<(File, u64)> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o640);
        let file = match options.open(&self.current) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_folder()?;
                options.open(&self.current)?
            }
            other => other?,
        };
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    fn make_folder(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(&self.folder)
    }

    /// The first line of a file that nobody rotated to: the very first, or one whose former was deleted by hand.
    fn begin_file(&self, file: &mut File) -> io::Result<u64> {
        let older = self.numbered(1);
        let next = match fs::metadata(&older) {
            Ok(meta) => after(&older, meta.len()),
            Err(_) => (1, 0),
        };
        self.start(file, next)
    }

    fn start(&self, file: &mut File, (part, after): (u64, u64)) -> io::Result<u64> {
        let line = Note::Part { part, after }.line(super::unix_us());
        append(file, 0, &line)?;
        Ok(line.len() as u64)
    }

    /// Makes room for a new file. Returns its number, and the bytes before it.
    fn rotate(&self, size: u64) -> io::Result<(u64, u64)> {
        let next = after(&self.current, size);
        if self.files == 1 {
            fs::remove_file(&self.current)?;
            return Ok(next);
        }
        for number in (1..self.files - 1).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&self.current, self.numbered(1))?;
        Ok(next)
    }

    /// Writes down that the incarnation begins.
    pub(super) fn begin(&self, at_us: u64) -> io::Result<()> {
        let ProcKey { uid, incarnation } = self.key;
        self.change_about(|about| about.begin(Beginning { at_us, uid, incarnation }))?;
        self.write(&Note::Begins { uid, incarnation }.line(at_us)).map_err(|(_, error)| error)
    }

    /// Brings what is there within the sizes, which may have been changed.
    pub(super) fn tidy(&self) -> io::Result<()> {
        self.change_about(|_| {})?;
        let mut kept = Vec::new();
        let mut total = fs::metadata(&self.current).map_or(0, |meta| meta.len());
        for number in 1.. {
            let Ok(meta) = fs::metadata(self.numbered(number)) else { break };
            kept.push((number, meta.len()));
            total += meta.len();
        }
        let cap = self.file_max.saturating_mul(u64::from(self.files));
        for (number, size) in kept.into_iter().rev() {
            if number < self.files && total <= cap {
                break;
            }
            fs::remove_file(self.numbered(number))?;
            total -= size;
        }
        Ok(())
    }

    fn change_about(&self, change: impl FnOnce(&mut About)) -> io::Result<()> {
        let path = self.folder.join("about");
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => drop(file.take(ABOUT_MAX).read_to_end(&mut bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_folder()?,
            Err(error) => return Err(error),
        }
        let mut about = About::parse(&bytes);
        about.keep_s = Some(self.keep_s);
        change(&mut about);
        let text = about.text();
        if text.as_bytes() == bytes {
            return Ok(());
        }
        // Replaced as a whole: a full disk leaves the old one.
        let next = self.folder.join("about.next");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o640).open(&next)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&next, &path)
    }
}

/// What follows a file of this size.
fn after(path: &Path, size: u64) -> (u64, u64) {
    let mut first = Vec::new();
    let read = File::open(path)
        .and_then(|file| BufReader::with_capacity(512, file.take(HEADER_MAX)).read_until(b'\n', &mut first));
    let line = read.ok().and_then(|_| log_line::parse(&first)).filter(|line| line.source == Source::Host);
    match line.map(|line| Note::parse(line.text)) {
        Some(Note::Part { part, after }) => (part.saturating_add(1), after.saturating_add(size)),
        // Written by an older holder.
        Some(Note::Begins { .. } | Note::Lost { .. } | Note::Overtaken { .. } | Note::Other(_)) | None => {
            (2, size)
        }
    }
}

/// All of `bytes` or nothing.
fn append(file: &mut File, size: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes).inspect_err(|_| {
        // A torn line would be read as something the process said. If even this fails there is nothing left to try.
        drop(file.set_len(size));
    })
}
