//! Managed files on the kernel's file system.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use ostler_agent_core::file::{
    Content, Difference, Found, Hand, Observed, Owner, SURE_AFTER_MS, Stamp, Step, StepError, StepErrorKind,
    in_folder, parent, temp_path,
};
use ostler_schemas::Sha256;
use ostler_schemas::quantity::Mode;
use rustix::fs::FileType;
use sha2::{Digest, Sha256 as Hasher};

use super::beneath::{Place, make_folders, not_regular, remove_tree, sync_folder};
use super::label;
use super::ledger::blocking;
use super::watch::Watcher;
use crate::compare::{COMPARED_MAX, compare};
use crate::ports::{Files, ReadFile};

/// Bytes that are read at one time: little for small files, and enough that large ones take few calls.
const PART_MIN: usize = 4 << 10;
const PART_MAX: usize = 64 << 10;

/// The file system.
pub struct LinuxFiles {
    watcher: Watcher,
}

impl LinuxFiles {
    /// With watches, where the kernel gives any; without them the slow rescan still finds every drift.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { watcher: Watcher::start() })
    }
}

impl Files for LinuxFiles {
    fn observe(&self, path: String, wanted: Option<Bytes>) -> BoxFuture<'_, Result<Observed, String>> {
        let hands = self.watcher.hands();
        blocking(move || {
            let mut seen = observe(&path, wanted.as_deref()).map_err(|error| format!("{path}: {error}"))?;
            seen.hand = hands.last(Path::new(&path));
            Ok(seen)
        })
        .boxed()
    }

    fn glance(&self, path: String) -> BoxFuture<'_, Stamp> {
        async move {
            let glance = tokio::task::spawn_blocking(move || glance(Path::new(&path)));
            glance.await.unwrap_or_default()
        }
        .boxed()
    }

    fn read(&self, path: String, most: usize) -> BoxFuture<'_, Result<Option<ReadFile>, String>> {
        blocking(move || read(Path::new(&path), most).map_err(|error| error.to_string())).boxed()
    }

    fn list(&self, dir: String) -> BoxFuture<'_, Result<Vec<String>, String>> {
        blocking(move || list(&dir).map_err(|error| format!("{dir}: {error}"))).boxed()
    }

    fn apply(&self, step: Step, content: Option<Bytes>) -> BoxFuture<'_, Result<(), StepError>> {
        async move {
            let done = tokio::task::spawn_blocking(move || apply(&step, content.as_deref())).await;
            done.unwrap_or_else(|error| {
                Err(StepError { kind: StepErrorKind::Failed, message: error.to_string() })
            })
        }
        .boxed()
    }

    fn watch(&self, path: String) -> BoxStream<'static, ()> {
        self.watcher.watch(Path::new(&path))
    }

    fn exists(&self, path: &str) -> bool {
        Path::new(path).exists()
    }

    fn is_mounted(&self, path: &str) -> bool {
        let own = fs::metadata(path);
        let above = fs::metadata(parent(path));
        matches!((own, above), (Ok(own), Ok(above)) if own.dev() != above.dev() || own.ino() == above.ino())
    }
}

/// Names that are no text are nobody's to remove, and left out.
fn list(dir: &str) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn observe(path: &str, wanted: Option<&[u8]>) -> io::Result<Observed> {
    let real_dir = match fs::canonicalize(parent(path)) {
        Ok(dir) => Some(dir.to_string_lossy().into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let Some(dir) = real_dir else {
        let leads_to = leads_to(Path::new(parent(path)))?;
        let found = Found::Missing;
        let (hand, stamp) = (Hand::Unasked, Stamp::Nothing);
        return Ok(Observed { found, real_dir: None, leads_to, temp: false, diff: None, hand, stamp });
    };
    // The folder that will be judged is the one that is looked into, whatever its path leads to meanwhile.
    let real = in_folder(&dir, path);
    let temp = Place::at(Path::new(&temp_path(&real)))?.look()?.is_some();
    let Looked { found, diff, stamp } = look(&Place::at(Path::new(&real))?, wanted)?;
    let leads_to = Some(dir.clone());
    Ok(Observed { found, leads_to, real_dir: Some(dir), temp, diff, hand: Hand::Unasked, stamp })
}

/// Without reading it. Links are not followed at the path itself, and are above it, as when it is looked at.
fn glance(path: &Path) -> Stamp {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => stamp_of(&meta),
        Ok(_) => Stamp::Unsure,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Stamp::Nothing,
        Err(_) => Stamp::Unsure,
    }
}

fn stamp_of(meta: &fs::Metadata) -> Stamp {
    Stamp::File {
        place: (meta.dev(), meta.ino()),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    }
}

/// What was read counts for as long as the stamp stays, if the last change was long enough ago by then.
fn sure(meta: &fs::Metadata) -> Stamp {
    let changed = Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or(u64::MAX));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let is_sure = now.saturating_sub(changed) >= Duration::from_millis(SURE_AFTER_MS);
    if is_sure { stamp_of(meta) } else { Stamp::Unsure }
}

fn read(path: &Path, most: usize) -> io::Result<Option<ReadFile>> {
    let place = match Place::at(path) {
        Ok(place) => place,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(stat) = place.look()? else { return Ok(None) };
    if let Some(what) = not_regular(FileType::from_raw_mode(stat.st_mode)) {
        return Err(io::Error::other(format!("it is {what}")));
    }
    let file = place.open()?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file any more"));
    }
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::other(format!("it is larger than {most} bytes")));
    }
    let (owner, group) = super::users::names(meta.uid(), meta.gid());
    Ok(Some(ReadFile { bytes: bytes.into(), mode: Mode::from_bits(meta.mode()), owner, group }))
}

/// Where a folder would be once it is made: the nearest one above it that is there, links resolved, and the rest.
fn leads_to(dir: &Path) -> io::Result<Option<String>> {
    for above in dir.ancestors() {
        match fs::canonicalize(above) {
            Ok(real) => {
                let rest = dir.strip_prefix(above).unwrap_or(Path::new(""));
                return Ok(Some(real.join(rest).to_string_lossy().into_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// What lies at a place.
struct Looked {
    found: Found,
    diff: Option<Difference>,
    stamp: Stamp,
}

impl Looked {
    fn bare(found: Found, stamp: Stamp) -> Self {
        Self { found, diff: None, stamp }
    }
}

fn look(place: &Place<'_>, wanted: Option<&[u8]>) -> io::Result<Looked> {
    let Some(stat) = place.look()? else { return Ok(Looked::bare(Found::Missing, Stamp::Nothing)) };
    if let Some(what) = not_regular(FileType::from_raw_mode(stat.st_mode)) {
        return Ok(Looked::bare(Found::NotRegular(what), Stamp::Unsure));
    }
    let mut file = place.open()?;
    // What was opened counts, not what was there a moment ago.
    let meta = file.metadata()?;
    if let Some(what) = not_regular(FileType::from_raw_mode(meta.mode())) {
        return Ok(Looked::bare(Found::NotRegular(what), Stamp::Unsure));
    }
    let mut hasher = Hasher::new();
    let mut kept = Vec::new();
    // A thousand small files are read at the same time, and what was taken for that is not soon given back.
    let room = usize::try_from(meta.len()).unwrap_or(PART_MAX).saturating_add(1).clamp(PART_MIN, PART_MAX);
    let mut part = vec![0; room];
    let is_kept = wanted.is_some() && meta.len() <= COMPARED_MAX;
    loop {
        let n = file.read(&mut part)?;
        if n == 0 {
            break;
        }
        hasher.update(&part[..n]);
        if is_kept && kept.len() as u64 <= COMPARED_MAX {
            kept.extend_from_slice(&part[..n]);
        }
    }
    let sha256 = Sha256::from_bytes(hasher.finalize().into());
    let (mode, owner) = (Mode::from_bits(meta.mode()), Owner { uid: meta.uid(), gid: meta.gid() });
    let is_whole = is_kept && kept.len() as u64 <= COMPARED_MAX;
    let diff = wanted.filter(|wanted| Sha256::from_bytes(Hasher::digest(wanted).into()) != sha256);
    let diff = diff.and_then(|wanted| compare(wanted, is_whole.then_some(kept.as_slice())));
    Ok(Looked { found: Found::Regular { sha256, mode, owner }, diff, stamp: sure(&meta) })
}

fn step_error(what: &str, error: &io::Error) -> StepError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StepErrorKind::DiskFull,
        _ => StepErrorKind::Failed,
    };
    StepError { kind, message: format!("{what}: {error}") }
}

/// Steps name the folder that was looked at, with its links resolved (see [`super::beneath`]); only where originals are
/// kept is the operator's own choice, links and all.
fn apply(step: &Step, content: Option<&[u8]>) -> Result<(), StepError> {
    let say = |what: String| move |error: io::Error| step_error(&what, &error);
    match step {
        // The ledger's business, and the validator's, not the file system's.
        Step::Record(_) | Step::Validate(_) => Ok(()),
        Step::Label { path, like } => relabel(path, like).map_err(say(format!("label {path}"))),
        Step::RemoveTree { dir } => remove_tree(Path::new(dir)).map_err(say(format!("remove {dir}"))),
        Step::MakeDirs { dir } => make_folders(Path::new(dir)).map_err(say(format!("make {dir}"))),
        Step::Keep { from, to } => keep(Path::new(from), Path::new(to)).map_err(say(format!("keep {from}"))),
        Step::WriteTemp { temp, content: Content::Blob(_) } => {
            let bytes = content.unwrap_or_default();
            write_new(Path::new(temp), bytes).map_err(say(format!("write {temp}")))
        }
        Step::WriteTemp { temp, content: Content::Kept(from) } => fs::read(from)
            .and_then(|bytes| write_new(Path::new(temp), &bytes))
            .map_err(say(format!("write {temp}"))),
        Step::Own { path, owner } => own(path, *owner),
        Step::SetMode { path, mode } => Place::at(Path::new(path))
            .and_then(|place| place.open_only()?.set_permissions(Permissions::from_mode(mode.bits())))
            .map_err(say(format!("chmod {path}"))),
        Step::Sync { path } => Place::at(Path::new(path))
            .and_then(|place| place.open()?.sync_all())
            .map_err(say(format!("sync {path}"))),
        Step::Rename { from, to } => rename(from, to),
        Step::SyncDir { dir } => sync_folder(Path::new(dir)).map_err(say(format!("sync {dir}"))),
        Step::Remove { path } => {
            Place::at(Path::new(path)).and_then(|place| place.remove()).map_err(say(format!("remove {path}")))
        }
        Step::Discard { kept } => discard(Path::new(kept)).map_err(say(format!("remove {kept}"))),
    }
}

fn keep(from: &Path, to: &Path) -> io::Result<()> {
    let dir = to.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut source = Place::at(from)?.open()?;
    if !source.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file any more"));
    }
    let temp: PathBuf = to.with_extension("new");
    discard(&temp)?;
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
    io::copy(&mut source, &mut copy)?;
    copy.sync_all()?;
    fs::rename(&temp, to)?;
    File::open(dir)?.sync_all()
}

/// Never follows what somebody may have put there: it is removed first and then made exclusively.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let place = Place::at(path)?;
    place.remove()?;
    place.make(0o600)?.write_all(bytes)
}

fn own(path: &str, owner: Owner) -> Result<(), StepError> {
    let say = |error: io::Error| step_error(&format!("chown {path}"), &error);
    let file = Place::at(Path::new(path)).and_then(|place| place.open_only()).map_err(say)?;
    let meta = file.metadata().map_err(say)?;
    if (meta.uid(), meta.gid()) == (owner.uid, owner.gid) {
        return Ok(());
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        // What is given away is what was written by us, and nothing that somebody has put in its place.
        return Err(say(io::Error::other(format!("user {} has put something else there", meta.uid()))));
    }
    fchown(&file, Some(owner.uid), Some(owner.gid)).map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => StepErrorKind::OwnerRefused,
            _ => StepErrorKind::Failed,
        };
        StepError { kind, message: format!("chown {path} to {}:{}: {error}", owner.uid, owner.gid) }
    })
}

fn relabel(path: &str, like: &str) -> io::Result<()> {
    let new = Place::at(Path::new(path))?.open_only()?;
    match Place::at(Path::new(like)).and_then(|place| place.open()) {
        Ok(old) => label::keep(&old, &new).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn rename(from: &str, to: &str) -> Result<(), StepError> {
    let say = |error: io::Error| step_error(&format!("rename {from}"), &error);
    let place = Place::at(Path::new(to)).map_err(say)?;
    // Somebody may have put a link or folder there since it was looked at. What wins the race between this look and
    // the rename is replaced by a regular file, which is what a rename does; nothing is written through it.
    if let Ok(Some(stat)) = place.look()
        && let Some(what) = not_regular(FileType::from_raw_mode(stat.st_mode))
    {
        return Err(StepError { kind: StepErrorKind::NotRegular, message: format!("{to} is {what}") });
    }
    let new = Place::at(Path::new(from)).map_err(say)?;
    if let Ok(old) = place.open() {
        let file = new.open_only().map_err(say)?;
        if label::keep(&old, &file).map_err(say)? {
            file.sync_all().map_err(say)?;
        }
    }
    new.rename(&place).map_err(say)
}

/// Removes what only Ostler writes.
fn discard(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use ostler_schemas::hash::sha256;

    use super::*;

    #[test]
    fn what_is_there_is_seen_and_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.conf");
        let text = path.to_str().expect("text");
        assert_eq!(observe(text, None).expect("looks").found, Found::Missing);
        fs::write(&path, "one\n").expect("writes");
        let seen = observe(text, Some(b"two\n")).expect("looks");
        assert!(matches!(seen.found, Found::Regular { sha256: h, .. } if h == sha256(b"one\n")));
        let diff = seen.diff.expect("differs");
        assert_eq!((diff.lines, diff.text.as_deref()), (Some((1, 1)), Ok("@@ -1 +1 @@\n-two\n+one\n")));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("links");
        let seen = observe(link.to_str().expect("text"), None).expect("looks");
        assert_eq!(seen.found, Found::NotRegular("a symbolic link"));
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_seen_through_links() {
        let dir = tempfile::tempdir().expect("a folder");
        let real = fs::canonicalize(dir.path()).expect("is there");
        fs::create_dir(dir.path().join("secret")).expect("makes it");
        std::os::unix::fs::symlink("secret", dir.path().join("open")).expect("links");
        let path = dir.path().join("open/new/deeper/a.conf");
        let seen = observe(path.to_str().expect("text"), None).expect("looks");
        assert_eq!((seen.real_dir, seen.found), (None, Found::Missing));
        assert_eq!(seen.leads_to.as_deref(), real.join("secret/new/deeper").to_str());
    }

    /// A folder above belongs to somebody who puts a link in its place after the path was looked at.
    #[test]
    fn a_link_that_comes_after_the_look_is_not_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let real = fs::canonicalize(dir.path()).expect("is there");
        let at = |name: &str| real.join(name).to_str().expect("text").to_owned();
        for name in ["theirs", "elsewhere", "kept"] {
            fs::create_dir(at(name)).expect("makes it");
        }
        fs::write(at("theirs/a.conf"), "one").expect("writes");
        fs::write(at("elsewhere/a.conf"), "secret").expect("writes");
        let seen = observe(&at("theirs/a.conf"), None).expect("looks");
        fs::rename(at("theirs"), at("moved")).expect("moves");
        std::os::unix::fs::symlink("elsewhere", at("theirs")).expect("links");
        let path = seen.reached(&at("theirs/a.conf"));
        let temp = temp_path(&path);
        let steps = [
            Step::MakeDirs { dir: at("theirs/new") },
            Step::Keep { from: path.clone(), to: at("kept/1") },
            Step::WriteTemp { temp, content: Content::Blob(sha256(b"content")) },
            Step::SetMode { path: path.clone(), mode: Mode::from_bits(0o666) },
            Step::Own { path: path.clone(), owner: Owner { uid: 1, gid: 1 } },
            Step::Rename { from: at("moved/a.conf"), to: path.clone() },
            Step::SyncDir { dir: at("theirs") },
            Step::Remove { path },
        ];
        for step in steps {
            let Err(refused) = apply(&step, Some(b"content")) else { panic!("{step:?} was done") };
            assert!(refused.message.contains("links are not followed"), "{step:?}: {refused}");
        }
        let names = fs::read_dir(at("elsewhere")).expect("reads").count();
        assert_eq!((names, fs::read(at("elsewhere/a.conf")).expect("reads")), (1, b"secret".to_vec()));
    }

    /// The folder itself is somebody's who puts a link in the place of what was just written.
    #[test]
    fn mode_and_owner_are_those_of_what_was_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let real = fs::canonicalize(dir.path()).expect("is there");
        let at = |name: &str| real.join(name).to_str().expect("text").to_owned();
        fs::write(at("secret"), "secret").expect("writes");
        fs::set_permissions(at("secret"), Permissions::from_mode(0o600)).expect("sets");
        std::os::unix::fs::symlink("secret", at("soft")).expect("links");
        fs::hard_link(at("secret"), at("hard")).expect("links");
        for name in ["soft", "hard"] {
            let path = at(name);
            apply(&Step::SetMode { path: path.clone(), mode: Mode::from_bits(0o666) }, None)
                .expect_err("refused");
            apply(&Step::Own { path, owner: Owner { uid: 1, gid: 1 } }, None).expect_err("refused");
        }
        let meta = fs::metadata(at("secret")).expect("there");
        assert_eq!((meta.mode() & 0o777, meta.uid()), (0o600, rustix::process::geteuid().as_raw()));
    }

    #[test]
    fn steps_write_replace_keep_and_remove() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
        let (path, temp, kept) = (at("etc/x/a.conf"), at("etc/x/.a.conf.ostler"), at("kept/1"));
        let go = |step: Step| apply(&step, Some(b"content"));
        go(Step::MakeDirs { dir: at("etc/x") }).expect("makes");
        std::os::unix::fs::symlink("/etc/passwd", &temp).expect("a trap");
        go(Step::WriteTemp { temp: temp.clone(), content: Content::Blob(sha256(b"content")) })
            .expect("writes");
        go(Step::SetMode { path: temp.clone(), mode: Mode::from_bits(0o640) }).expect("chmod");
        go(Step::Sync { path: temp.clone() }).expect("sync");
        go(Step::Rename { from: temp.clone(), to: path.clone() }).expect("rename");
        go(Step::SyncDir { dir: at("etc/x") }).expect("sync");
        go(Step::Keep { from: path.clone(), to: kept.clone() }).expect("keep");
        assert_eq!(fs::read(&kept).expect("reads"), b"content");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o640);
        fs::create_dir(at("etc/dir")).expect("a folder");
        fs::write(&temp, "x").expect("writes");
        let refused = go(Step::Rename { from: temp, to: at("etc/dir") }).expect_err("refused");
        assert_eq!(refused.kind, StepErrorKind::NotRegular);
        go(Step::Remove { path: path.clone() }).expect("removes");
        go(Step::Remove { path }).expect("twice is fine");
    }
}
