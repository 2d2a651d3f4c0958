//! From nothing to a holder that is ready: the folder and its lock, signals, the former holder's state, the
//! processes to adopt, and last the socket, so that whoever connects finds everything in place.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ostler_agent_core::holder::HolderCore;
use ostler_agent_core::holder::protocol::{PROTOCOL, Welcome};
use rustix::fs::{FlockOperation, Mode};
use rustix::process::{Resource, Rlimit};

use super::abilities::Abilities;
use super::cgroup::Cgroups;
use super::clients::Clients;
use super::handover::{Handover, Taken};
use super::host_limits;
use super::launch::Ground;
use super::log_writer::LogWriter;
use super::options::Options;
use super::poll::{Poll, Source};
use super::recover::recover;
use super::say::say;
use super::shell::{Own, Shell, Work, unix_ms};
use super::state_file::{Loaded, StateError, StateFile};
use super::sys;

/// The first descriptor that is not standard input, output or error.
const FIRST_INHERITED: u32 = 3;

/// How long a lock may be held by what a former holder left between fork and exec: milliseconds on a healthy host.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Between two looks at it.
const LOCK_LOOK: Duration = Duration::from_millis(5);

/// Why the holder cannot start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// Something with a path failed.
    #[error("{act} {path}")]
    Path {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Two parents of the same processes would fight over them.
    #[error("another holder{pid} runs on {dir}: stop it first, or choose another --dir")]
    AnotherHolder {
        /// Its folder.
        dir: PathBuf,
        /// " (pid N)", if it wrote that.
        pid: String,
    },
    /// The former holder's state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Something of the system.
    #[error("{act}")]
    System {
        /// What was tried.
        act: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

fn at<T>(act: &'static str, path: &Path, result: io::Result<T>) -> Result<T, StartError> {
    result.map_err(|source| StartError::Path { act, path: path.to_owned(), source })
}

fn system<T>(act: &'static str, result: Result<T, impl Into<io::Error>>) -> Result<T, StartError> {
    result.map_err(|source| StartError::System { act, source: source.into() })
}

/// Starts the holder, or goes on as one in a process in which another program was it.
pub(super) fn start(options: &Options) -> Result<Shell, StartError> {
    rustix::process::umask(Mode::from_raw_mode(0o027));
    // Before anything is opened, or what was left open could be mistaken for something else.
    let taken = options.resume.and_then(take_over);
    sys::close_on_exec_from(FIRST_INHERITED);
    let dir = make_dir(&options.dir)?;
    let (lock, listener, nofile, kept) = match taken {
        Some(Taken { lock, listener, nofile, processes }) => {
            (lock, Some(UnixListener::from(listener)), nofile, processes)
        }
        None => (lock(&dir)?, None, None, BTreeMap::new()),
    };
    let poll = system("make a poll set", Poll::new())?;
    let signals = take_signals()?;
    let boot_id = boot_id(options)?;
    let state_file = StateFile::in_dir(&dir);
    let Loaded { mut state, complete, warning } = state_file.load(&boot_id)?;
    if let Some(warning) = warning {
        say(&warning);
    }
    let mut ground = ground(options, &dir)?;
    ground.nofile = nofile.unwrap_or(ground.nofile);
    if !complete && state.boot_id == boot_id {
        let found = recover(&mut state, &ground);
        if found > 0 {
            say(&format!(
                "found {found} processes that its state does not know: takes them over with defaults"
            ));
        }
    }
    let welcome = welcome(&ground, &boot_id);
    let core = HolderCore::restore(state, &boot_id, unix_ms());
    let logs = system("start the log writer", LogWriter::start())?;
    let clients = Clients::new(listener.map_or_else(|| listen(&dir), Ok)?);
    system("watch signals", poll.add(&signals, Source::Signals))?;
    system("watch the socket", poll.add(clients.listener(), Source::Listener))?;
    system("watch the log writer", poll.add(logs.room(), Source::LogRoom))?;
    let work = Work::default();
    let program = at("find", Path::new("/proc/self/exe"), std::env::current_exe())?;
    let own = Own { lock, program, words: options.words.clone() };
    let mut shell = Shell { core, poll, signals, clients, ground, logs, state_file, welcome, work, own };
    shell.adopt_all(kept);
    Ok(shell)
}

/// What the former program left. Without it everything is found again by the state, with what that loses.
///
/// Whatever it left open is closed then, its lock above all: as long as that is open somewhere, nobody gets the lock.
fn take_over(table: RawFd) -> Option<Taken> {
    match Handover::take(table) {
        Ok(taken) => Some(taken),
        Err(error) => {
            say(&format!("cannot read what the former program left ({error}): adopts by the state"));
            sys::close_from(FIRST_INHERITED);
            None
        }
    }
}

/// Which boot this is.
pub(super) fn boot_id(options: &Options) -> Result<String, StartError> {
    Ok(at("read", &options.boot_id, fs::read_to_string(&options.boot_id))?.trim().to_owned())
}

/// The folder, as a path without links in it. Nobody else may list it; processes pass through it to the sockets of
/// theirs, and each file in it is closed for itself.
fn make_dir(dir: &Path) -> Result<PathBuf, StartError> {
    at("make", dir, fs::DirBuilder::new().recursive(true).mode(0o711).create(dir))?;
    let dir = at("find", dir, dir.canonicalize())?;
    at("protect", &dir, fs::set_permissions(&dir, Permissions::from_mode(0o711)))?;
    Ok(dir)
}

/// One holder per folder, as long as it lives, however it ends.
fn lock(dir: &Path) -> Result<File, StartError> {
    let path = dir.join("holder.lock");
    let options =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = at("open", &path, options)?;
    match lock_patiently(&file) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // Only for the message.
            drop(file.read_to_string(&mut text));
            let pid = text.trim().parse::<u32>().map_or(String::new(), |pid| format!(" (pid {pid})"));
            return Err(StartError::AnotherHolder { dir: dir.to_owned(), pid });
        }
        Err(error) => return at("lock", &path, Err(error.into())),
    }
    at("write", &path, file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())))?;
    Ok(file)
}

/// A child that a killed holder had just forked shares its lock until it has become another program or has ended.
fn lock_patiently(file: &File) -> rustix::io::Result<()> {
    let begin = Instant::now();
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if begin.elapsed() < LOCK_WAIT => {
                std::thread::sleep(LOCK_LOOK);
            }
            done => return done,
        }
    }
}

/// Signals come through the poll set, and orphans of the trees come to the holder.
fn take_signals() -> Result<SignalFd, StartError> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2] {
        mask.add(signal);
    }
    system("block signals", mask.thread_block())?;
    let own = rustix::process::getpid();
    system("become the parent of orphans", rustix::process::set_child_subreaper(Some(own)))?;
    system("take signals", SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC))
}

fn ground(options: &Options, dir: &Path) -> Result<Ground, StartError> {
    let fifo_dir = dir.join("fifo");
    at("make", &fifo_dir, fs::DirBuilder::new().recursive(true).mode(0o700).create(&fifo_dir))?;
    let cgroups = match Cgroups::find(&options.cgroup) {
        Ok(cgroups) => Some(cgroups),
        Err(why) => {
            say(&format!("has no cgroups for its processes ({why}): limits are not enforced"));
            None
        }
    };
    let null = at("open", Path::new("/dev/null"), File::open("/dev/null"))?;
    Ok(Ground {
        dir: dir.to_owned(),
        fifo_dir,
        abilities: Abilities::find(cgroups.as_ref(), &options.without),
        host_limits: host_limits::find(),
        cgroups,
        nofile: raise_open_files(),
        null: OwnedFd::from(null),
    })
}

/// A process costs three descriptors; the ordinary soft limit would end at three hundred.
fn raise_open_files() -> (u64, u64) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if rustix::process::setrlimit(Resource::Nofile, raised).is_err() {
        say("may not raise its limit of open files: there is room for fewer processes");
    }
    (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

fn welcome(ground: &Ground, boot_id: &str) -> Welcome {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // Asked of a process that was not reaped: an answer without the exit means that the kernel knows the question.
    let exit_of_adopted = super::proc_tree::stat(own)
        .and_then(|stat| super::proc_tree::open_verified(own, stat.start_time))
        .is_some_and(|pidfd| {
            use std::os::fd::AsFd as _;
            sys::pidfd_wait_status(pidfd.as_fd()).is_ok()
        });
    let cgroups = ground.cgroups.as_ref();
    Welcome {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: own,
        boot_id: boot_id.to_owned(),
        started_at: unix_ms(),
        cgroup: cgroups.map(|cgroups| cgroups.base().display().to_string()),
        controllers: cgroups.map_or(Vec::new(), |cgroups| cgroups.controllers().map(str::to_owned).collect()),
        exit_of_adopted,
        other_users: rustix::process::geteuid().is_root(),
        features: ground.abilities.names(),
        rlimits: ground.abilities.hard_limits(),
    }
}

fn listen(dir: &Path) -> Result<UnixListener, StartError> {
    let path = dir.join("holder.sock");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return at("remove", &path, Err(error)),
        Ok(()) | Err(_) => {}
    }
    // Socket addresses are short; through the descriptor of its folder any path will do.
    let folder = at("open", dir, File::open(dir))?;
    let listener = at("listen on", &path, UnixListener::bind(crate::holder_client::short_path(&folder)))?;
    at("protect", &path, fs::set_permissions(&path, Permissions::from_mode(0o600)))?;
    at("listen on", &path, listener.set_nonblocking(true))?;
    Ok(listener)
}
