//! Fetches one file and proves its hash.
//!
//! Guarantees: what has another hash, or is larger than allowed, never lies under its final name; a file that does is
//! whole and was synced. A fetch that breaks goes on where it stopped, if the server says that it still serves the
//! same (`If-Range`, RFC 9110 section 13.1.5); else from the start.
//!
//! Not guaranteed: that a server which changes a file without changing its validator is noticed before the end; then
//! the hash differs, and the fetch begins anew once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ostler_schemas::Sha256;
use ostler_schemas::spec::Artifact;
use sha2::Digest as _;
use ureq::Agent;
use ureq::http::{Response, StatusCode};

use crate::linux::beneath::Place;

/// How often a broken fetch is taken up again before it has failed; the process's own restart delay comes on top.
const ATTEMPTS: u32 = 5;
/// The pause before the second attempt; doubles with each.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a connection may take to be made, and to send its next bytes.
const SILENCE: Duration = Duration::from_secs(30);
/// Redirects that are followed.
const REDIRECTS: u32 = 10;
/// Bytes at a time.
const CHUNK: usize = 256 << 10;
/// Permission bit of files that everybody may read.
const OTHERS_READ: u32 = 0o004;
/// How fetched files lie: anybody may read and run them, nobody may write.
const BLOB_MODE: u32 = 0o555;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The server cannot be asked, or broke off: trying again may help.
    #[error("{url}: {why}")]
    Broken {
        /// Where from.
        url: String,
        /// In words.
        why: String,
    },
    /// Asking again would end in the same way.
    #[error("{url}: {why}")]
    Hopeless {
        /// Where from.
        url: String,
        /// In words.
        why: String,
    },
    /// The server will not give it.
    #[error("{url}: status {status}")]
    Refused {
        /// Where from.
        url: String,
        /// What it said.
        status: StatusCode,
    },
    /// Not what the manifest says.
    #[error("{url}: sha256 is {found}, the manifest says {wanted} ({bytes} bytes were fetched)")]
    Mismatch {
        /// Where from.
        url: String,
        /// Of what came.
        found: Sha256,
        /// Of what should have come.
        wanted: Sha256,
        /// How much came.
        bytes: u64,
    },
    /// More than the host allows.
    #[error("{url}: more than {limit} bytes, which is what this host allows (artifact_max in agent.toml)")]
    TooLarge {
        /// Where from.
        url: String,
        /// What is allowed.
        limit: u64,
    },
    /// The host's own file or folder.
    #[error("{}: {act}", path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// What was tried.
        act: &'static str,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// Nobody wants it any more.
    #[error("given up: nobody wants it any more")]
    Cancelled,
}

impl FetchError {
    const fn may_pass(&self) -> bool {
        match self {
            FetchError::Broken { .. } => true,
            FetchError::Refused { status, .. } => matches!(status.as_u16(), 408 | 425 | 429 | 500..=599),
            FetchError::Hopeless { .. }
            | FetchError::Mismatch { .. }
            | FetchError::TooLarge { .. }
            | FetchError::Disk { .. }
            | FetchError::Cancelled => false,
        }
    }

    /// Whether the disk is full.
    pub(super) fn is_full(&self) -> bool {
        match self {
            FetchError::Disk { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            FetchError::Broken { .. }
            | FetchError::Hopeless { .. }
            | FetchError::Refused { .. }
            | FetchError::Mismatch { .. }
            | FetchError::TooLarge { .. }
            | FetchError::Cancelled => false,
        }
    }
}

/// How far a fetch is, for whoever waits for it; and whether anybody still does.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) done: AtomicU64,
    /// 0 = not known.
    pub(super) total: AtomicU64,
    pub(super) cancelled: AtomicBool,
}

/// What all fetches share.
#[derive(Debug)]
pub(super) struct Fetcher {
    /// Made at the first fetch: most agents never need the host's certificates.
    agent: OnceLock<Agent>,
    /// What `file:` paths lie below.
    root: String,
    max: u64,
}

/// Where one fetch goes.
pub(super) struct Target<'a> {
    pub(super) partial: &'a Path,
    pub(super) blob: &'a Path,
}

impl Fetcher {
    pub(super) const fn new(root: String, max: u64) -> Self {
        Self { agent: OnceLock::new(), root, max }
    }

    /// With the certificates that the host trusts, and its proxy settings (`https_proxy`, `no_proxy` …).
    fn make_agent() -> Agent {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "a certificate of the host cannot be used");
        }
        let certificates = loaded.certs.iter().map(|der| ureq::tls::Certificate::from_der(der).to_owned());
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::Specific(Arc::new(certificates.collect())))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(REDIRECTS)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("ostler-agent/", env!("CARGO_PKG_VERSION")))
            .build();
        Agent::new_with_config(config)
    }

    /// Fetches until it is there or cannot be had. Blocks.
    pub(super) fn fetch(
        &self,
        artifact: &Artifact,
        target: &Target<'_>,
        progress: &Progress,
    ) -> Result<(), FetchError> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let resumes = !artifact.source.starts_with("file:");
            let begun = resumes && fs::metadata(target.partial).is_ok_and(|meta| meta.len() > 0);
            match self.attempt(artifact, target, progress) {
                // What was there before may have been of another file of that name.
                Err(FetchError::Mismatch { .. }) if begun && attempt < ATTEMPTS => {}
                Err(error) if error.may_pass() && attempt < ATTEMPTS => {
                    tracing::info!(source = artifact.source, %error, "a fetch is taken up again");
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                other => return other,
            }
        }
        Err(FetchError::Cancelled)
    }

    fn attempt(
        &self,
        artifact: &Artifact,
        target: &Target<'_>,
        progress: &Progress,
    ) -> Result<(), FetchError> {
        let mut partial = match artifact.source.strip_prefix("file:") {
            Some(_) => Partial::anew(target.partial)?,
            None => Partial::open(target.partial)?,
        };
        match artifact.source.strip_prefix("file:") {
            Some(path) => {
                let unreadable = |error: io::Error| hopeless(artifact, &error);
                let path = public_file(&self.root, path).map_err(unreadable)?;
                // No link that was put in the way since is followed, and a pipe without a writer holds nothing up.
                let mut file = Place::at(&path).and_then(|place| place.open()).map_err(unreadable)?;
                let meta = file.metadata().map_err(unreadable)?;
                if !meta.is_file() {
                    return Err(hopeless(artifact, &"is not a regular file"));
                }
                // What was opened may not be what was looked at.
                if meta.permissions().mode() & OTHERS_READ == 0 {
                    return Err(hopeless(artifact, &"is not open to everybody on this host"));
                }
                progress.total.store(meta.len(), Ordering::Relaxed);
                self.copy(artifact, &mut file, &mut partial, progress)?;
            }
            None => {
                let mut response = self.ask(artifact, &mut partial)?;
                let rest = response.body().content_length();
                let total = rest.map_or(0, |rest| partial.length + rest);
                progress.total.store(total, Ordering::Relaxed);
                if total > self.max {
                    return Err(FetchError::TooLarge { url: artifact.source.clone(), limit: self.max });
                }
                let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
                self.copy(artifact, &mut body, &mut partial, progress)?;
            }
        }
        partial.finish(artifact, target)
    }

    /// Asks for what is missing; afterwards the answer's body goes on at the end of the partial file.
    fn ask(
        &self,
        artifact: &Artifact,
        partial: &mut Partial<'_>,
    ) -> Result<Response<ureq::Body>, FetchError> {
        let url = &artifact.source;
        // Content encodings would change the bytes that are hashed.
        let mut request =
            self.agent.get_or_init(Self::make_agent).get(url).header("Accept-Encoding", "identity");
        let validator = partial.validator.clone().filter(|_| partial.length > 0);
        if let Some(validator) = &validator {
            request = request.header("Range", format!("bytes={}-", partial.length));
            request = request.header("If-Range", validator);
        }
        let response = request.call().map_err(|error| not_answered(artifact, &error))?;
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        match response.status().as_u16() {
            200 => {
                // A weak validator does not say that bytes are the same (RFC 9110 section 8.8.1).
                let strong = header("ETag").filter(|tag| !tag.starts_with("W/"));
                let validator = strong.map(str::to_owned);
                partial.restart(validator)?;
                Ok(response)
            }
            206 if validator.is_some() && starts_at(header("Content-Range"), partial.length) => Ok(response),
            206 | 416 => {
                partial.restart(None)?;
                Err(broken(artifact, &"the server gave another range than was asked for"))
            }
            _ => Err(FetchError::Refused { url: url.clone(), status: response.status() }),
        }
    }

    fn copy(
        &self,
        artifact: &Artifact,
        from: &mut dyn Read,
        to: &mut Partial<'_>,
        progress: &Progress,
    ) -> Result<(), FetchError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            if progress.cancelled.load(Ordering::Relaxed) {
                return Err(FetchError::Cancelled);
            }
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(artifact, &error)),
            };
            if to.length + read as u64 > self.max {
                return Err(FetchError::TooLarge { url: artifact.source.clone(), limit: self.max });
            }
            to.write(&buffer[..read])?;
            progress.done.store(to.length, Ordering::Relaxed);
        }
        let total = progress.total.load(Ordering::Relaxed);
        if total != 0 && to.length < total {
            return Err(broken(artifact, &format!("ended after {} of {total} bytes", to.length)));
        }
        Ok(())
    }
}

fn broken(artifact: &Artifact, why: &dyn std::fmt::Display) -> FetchError {
    FetchError::Broken { url: artifact.source.clone(), why: why.to_string() }
}

fn hopeless(artifact: &Artifact, why: &dyn std::fmt::Display) -> FetchError {
    FetchError::Hopeless { url: artifact.source.clone(), why: why.to_string() }
}

/// Names that are not known and ports that nobody listens on may be back soon; a chain of redirects stays one.
fn not_answered(artifact: &Artifact, error: &ureq::Error) -> FetchError {
    match error {
        ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed | ureq::Error::BadUri(_) => {
            hopeless(artifact, error)
        }
        _ => broken(artifact, error),
    }
}

/// Where a file of the host really is, if everybody on the host may read it: the agent may read everything, and what
/// it fetches lies open to all processes.
fn public_file(root: &str, path: &str) -> io::Result<PathBuf> {
    const OTHERS_ENTER: u32 = 0o001;
    let root = fs::canonicalize(if root.is_empty() { "/" } else { root })?;
    let file = fs::canonicalize(root.join(path.trim_start_matches('/')))?;
    let inside = file.strip_prefix(&root).map_err(|_| io::Error::other("leads out of the sandbox"))?;
    let mut at = root.clone();
    for part in inside.components() {
        at.push(part);
        let needed = if at == file { OTHERS_READ } else { OTHERS_ENTER };
        if fs::metadata(&at)?.permissions().mode() & needed == 0 {
            let why = format!("{} is not open to everybody on this host", at.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
    }
    Ok(file)
}

/// Whether `bytes 100-199/200` begins where it should.
fn starts_at(content_range: Option<&str>, offset: u64) -> bool {
    let Some(range) = content_range.and_then(|text| text.strip_prefix("bytes ")) else { return false };
    range.split_once('-').and_then(|(first, _)| first.trim().parse().ok()) == Some(offset)
}

/// A file on its way, hashed as it grows, with the server's name for what it is a part of beside it.
struct Partial<'a> {
    path: &'a Path,
    file: File,
    length: u64,
    hasher: sha2::Sha256,
    validator: Option<String>,
}

impl<'a> Partial<'a> {
    /// From nothing: what was left of it before is not even read.
    fn anew(path: &'a Path) -> Result<Self, FetchError> {
        let disk = |act| move |source| FetchError::Disk { path: path.to_owned(), act, source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.map_err(disk("open"))?;
        fs::write(validator_of(path), "").map_err(disk("write"))?;
        Ok(Self { path, file, length: 0, hasher: sha2::Sha256::new(), validator: None })
    }

    /// From where it was left, if it was begun.
    fn open(path: &'a Path) -> Result<Self, FetchError> {
        let disk = |act| move |source| FetchError::Disk { path: path.to_owned(), act, source };
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(disk("open"))?;
        let mut hasher = sha2::Sha256::new();
        let mut length = 0;
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = file.read(&mut buffer).map_err(disk("read"))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            length += read as u64;
        }
        let validator = fs::read_to_string(validator_of(path)).ok().filter(|text| !text.is_empty());
        Ok(Self { path, file, length, hasher, validator })
    }

    fn restart(&mut self, validator: Option<String>) -> Result<(), FetchError> {
        let path = self.path;
        let disk = |act| move |source| FetchError::Disk { path: path.to_owned(), act, source };
        self.file.set_len(0).map_err(disk("truncate"))?;
        self.file.seek(SeekFrom::Start(0)).map_err(disk("seek"))?;
        fs::write(validator_of(path), validator.as_deref().unwrap_or_default()).map_err(disk("write"))?;
        (self.length, self.hasher, self.validator) = (0, sha2::Sha256::new(), validator);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let disk = |source| FetchError::Disk { path: self.path.to_owned(), act: "write", source };
        self.file.write_all(bytes).map_err(disk)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn finish(self, artifact: &Artifact, target: &Target<'_>) -> Result<(), FetchError> {
        let disk = |path: &Path, act| {
            let path = path.to_owned();
            move |source| FetchError::Disk { path, act, source }
        };
        let found = Sha256::from_bytes(self.hasher.finalize().into());
        if found != artifact.sha256 {
            fs::remove_file(self.path).ok();
            let (url, wanted, bytes) = (artifact.source.clone(), artifact.sha256, self.length);
            return Err(FetchError::Mismatch { url, found, wanted, bytes });
        }
        let mode = fs::Permissions::from_mode(BLOB_MODE);
        self.file.set_permissions(mode).map_err(disk(self.path, "set the mode of"))?;
        self.file.sync_all().map_err(disk(self.path, "sync"))?;
        fs::rename(self.path, target.blob).map_err(disk(target.blob, "rename into place"))?;
        fs::remove_file(validator_of(self.path)).ok();
        sync_folder(target.blob)
    }
}

fn sync_folder(of: &Path) -> Result<(), FetchError> {
    let Some(folder) = of.parent() else { return Ok(()) };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| FetchError::Disk { path: folder.to_owned(), act: "sync", source })
}

fn validator_of(partial: &Path) -> PathBuf {
    partial.with_extension("validator")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert!(starts_at(Some("bytes 100-199/200"), 100));
        for other in [None, Some("bytes */200"), Some("100-199/200"), Some("bytes 0-199/200")] {
            assert!(!starts_at(other, 100), "{other:?}");
        }
    }
}
