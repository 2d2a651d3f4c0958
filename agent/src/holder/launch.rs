//! Making a child: FIFOs, cgroup, everything the child will need, then the fork.
//!
//! What was made is unmade when a later step fails. Texts of errors name the step and the system's words, because
//! they end as the reason of a failed start in front of a user.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use ostler_agent_core::holder::protocol::{LogTo, ProcKey, Rlimit, RunAs, Spawn};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::pipe::PipeFlags;

use super::abilities::Abilities;
use super::cgroup::{self, Cgroups};
use super::child::confined::{ASKED_SHIFT, Confined};
use super::child::{self, Identity, Plan, RLIMIT_BASE, Step};
use super::mounts;
use super::proc_tree;

/// Where a command without a slash is looked for when the environment has no `PATH`.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What never changes between starts.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) dir: PathBuf,
    pub(super) fifo_dir: PathBuf,
    pub(super) cgroups: Option<Cgroups>,
    /// The limit of open files that the holder itself was started with; it raised its own since.
    pub(super) nofile: (u64, u64),
    /// Limits of the host's own, which processes get where nothing else is said.
    pub(super) host_limits: Vec<(u32, libc::rlimit)>,
    pub(super) null: OwnedFd,
    /// What this host can do for processes.
    pub(super) abilities: Abilities,
}

/// A child that waits.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) pid: i32,
    pub(super) start_time: u64,
    pub(super) pidfd: OwnedFd,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) unenforced: Vec<String>,
    /// Where its outputs are read; none of one that nobody wants.
    pub(super) stdout: Option<File>,
    pub(super) stderr: Option<File>,
    /// One byte lets it go on; closing it ends it.
    pub(super) go: OwnedFd,
    /// Its records (see [`child`]).
    pub(super) report: File,
}

/// The FIFOs of an incarnation.
pub(super) fn fifo_paths(fifo_dir: &Path, key: ProcKey) -> [PathBuf; 2] {
    [fifo_dir.join(format!("{key}.out")), fifo_dir.join(format!("{key}.err"))]
}

/// Opens a FIFO for the holder. Both ends at once, so that it never ends while a holder has it and a process
/// that writes is never killed for want of a reader.
pub(super) fn open_fifo(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Makes the child.
///
/// # Errors
/// With the step that failed, in words.
pub(super) fn launch(ground: &Ground, spawn: &Spawn) -> Result<Launched, String> {
    let texts = Texts::of(spawn, &ground.dir, None)?;
    let fifos = fifo_paths(&ground.fifo_dir, spawn.key);
    let made = make_cgroup(ground, spawn)?;
    let cgroup = made.0.clone();
    let launched = launch_with_fifos(ground, (spawn, &texts), &fifos, made);
    if launched.is_err() {
        for fifo in &fifos {
            drop(fs::remove_file(fifo));
        }
        if let Some(cgroup) = cgroup {
            cgroup::remove(&cgroup);
        }
    }
    launched
}

fn make_cgroup(ground: &Ground, spawn: &Spawn) -> Result<(Option<PathBuf>, Vec<String>), String> {
    match ground.cgroups.as_ref().filter(|_| spawn.own_cgroup) {
        Some(cgroups) => {
            let (path, unenforced) = cgroups.make(spawn.key, &spawn.limits)?;
            Ok((Some(path), unenforced))
        }
        None => Ok((None, cgroup::unenforced_without(&spawn.limits))),
    }
}

/// Where a run belongs.
#[derive(Debug)]
pub(super) struct RunPlace {
    pub(super) id: u64,
    pub(super) cgroup: Option<PathBuf>,
    /// The mounts of the process that it runs beside, if it has its own.
    pub(super) mounts: Option<OwnedFd>,
    pub(super) terminal: bool,
}

/// Makes the child of a run: with the descriptors that came for it, in a cgroup that there is. It may go on at once.
///
/// # Errors
/// With the step that failed, in words.
pub(super) fn launch_run(
    ground: &Ground,
    spawn: &mut Spawn,
    ends: &[OwnedFd],
    place: &RunPlace,
) -> Result<Child, String> {
    let stdio = match ends {
        [terminal] if place.terminal => [terminal.as_fd(); 3],
        [stdin, stdout, stderr] if !place.terminal => [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        _ => return Err("its descriptors did not come with it".to_owned()),
    };
    if place.mounts.is_some() {
        // It shares those that this would make.
        spawn.isolation.private_tmp = None;
        spawn.isolation.read_only_paths.clear();
    }
    let texts = Texts::of(spawn, &ground.dir, Some(place.id))?;
    let child = prepare_and_fork(ground, (spawn, &texts), stdio, &Place::of_run(place))?;
    // One that was killed meanwhile cannot be let go; its end is seen elsewhere.
    let _written = rustix::io::write(&child.go, b"1");
    Ok(child)
}

/// What a child is born into.
struct Place<'a> {
    cgroup: Option<&'a Path>,
    mounts: Option<BorrowedFd<'a>>,
    terminal: bool,
    dies_with_holder: bool,
}

impl<'a> Place<'a> {
    fn of_run(place: &'a RunPlace) -> Self {
        Self {
            cgroup: place.cgroup.as_deref(),
            mounts: place.mounts.as_ref().map(AsFd::as_fd),
            terminal: place.terminal,
            dies_with_holder: true,
        }
    }
}

/// A child that waits, and the holder's handles on it.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) start_time: u64,
    pub(super) pidfd: OwnedFd,
    pub(super) go: OwnedFd,
    pub(super) report: File,
}

/// Makes the FIFOs of an incarnation, then its child.
fn launch_with_fifos(
    ground: &Ground,
    (spawn, texts): (&Spawn, &Texts),
    fifos: &[PathBuf; 2],
    (cgroup, unenforced): (Option<PathBuf>, Vec<String>),
) -> Result<Launched, String> {
    let user = other_user(spawn)?;
    let [out, err] = fifos;
    let (stdout, their_stdout) = outlet(spawn.log.stdout, out, user)?;
    let (stderr, their_stderr) = outlet(spawn.log.stderr, err, user)?;
    let stdio = [ground.null.as_fd(), their_stdout.as_fd(), their_stderr.as_fd()];
    let place = Place { cgroup: cgroup.as_deref(), mounts: None, terminal: false, dies_with_holder: false };
    let child = prepare_and_fork(ground, (spawn, texts), stdio, &place)?;
    let Child { pid, start_time, pidfd, go, report } = child;
    Ok(Launched { pid, start_time, pidfd, cgroup, unenforced, stdout, stderr, go, report })
}

fn prepare_and_fork(
    ground: &Ground,
    (spawn, texts): (&Spawn, &Texts),
    [stdin, stdout, stderr]: [BorrowedFd<'_>; 3],
    place: &Place<'_>,
) -> Result<Child, String> {
    let user = other_user(spawn)?;
    let rlimits = rlimits(&spawn.rlimits, ground)?;
    let confined = Confined {
        nice: spawn.isolation.nice,
        capabilities: spawn.isolation.capabilities,
        mounts: mounts::plan(&spawn.isolation)?,
    };
    let pipe =
        || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| say("make a pipe", &error.into()));
    let (their_go, go) = pipe()?;
    let (report, their_report) = pipe()?;
    rustix::fs::fcntl_setfl(&report, OFlags::NONBLOCK).map_err(|error| say("make a pipe", &error.into()))?;
    let folder = place.cgroup.filter(|_| ground.abilities.clone3).and_then(|path| File::open(path).ok());
    let procs = match place.cgroup {
        Some(path) => Some(c_string(&path.join("cgroup.procs").to_string_lossy())?),
        None => None,
    };
    let oom_score_adjust = spawn.oom_score_adjust.to_string();
    let plan = Plan {
        argv: &texts.argv,
        env: &texts.env,
        programs: &texts.programs,
        cwd: &texts.cwd,
        cgroup_procs: procs.as_deref(),
        cgroup: folder.as_ref().map(AsFd::as_fd),
        mount_namespace: place.mounts,
        terminal: place.terminal,
        dies_with_holder: place.dies_with_holder,
        confined: &confined,
        user: user.map(|user| Identity { uid: user.uid, gid: user.gid, groups: &user.groups }),
        rlimits: &rlimits,
        umask: spawn.umask & 0o777,
        oom_score_adjust: oom_score_adjust.as_bytes(),
        allow_new_privileges: spawn.allow_new_privileges,
        stdin,
        stdout,
        stderr,
        go: their_go.as_fd(),
        report: their_report.as_fd(),
    };
    let child::Child { pid, pidfd } = child::fork(&plan).map_err(|error| say("fork", &error))?;
    // The child cannot be reaped by anyone else, so its number is its own. If this fails, dropping `go` ends it.
    let start_time = proc_tree::stat(pid).map(|stat| stat.start_time).ok_or("fork: the child is gone")?;
    let pidfd = pidfd
        .or_else(|| proc_tree::open_verified(pid, start_time))
        .ok_or_else(|| say("open a pidfd (Linux 5.3 or newer is needed)", &io::Error::last_os_error()))?;
    let report = File::from(report);
    Ok(Child { pid, start_time, pidfd, go, report })
}

/// Whom the child has to become; nobody where it stays who the holder is.
fn other_user(spawn: &Spawn) -> Result<Option<&RunAs>, String> {
    let user = spawn.user.as_ref().filter(|user| !is_self(user));
    match user.filter(|_| !rustix::process::geteuid().is_root()) {
        Some(user) => Err(format!("run as user {}: the holder is not root", user.uid)),
        None => Ok(user),
    }
}

fn is_self(user: &RunAs) -> bool {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    // Root asked for by number still gets exactly the groups that were asked for.
    !uid.is_root() && user.uid == uid.as_raw() && user.gid == gid.as_raw()
}

/// Where one output of a child goes, and where the holder reads it. What nobody wants goes nowhere: a change of that
/// is another start, so there is no need to be able to read it later.
fn outlet(to: LogTo, path: &Path, user: Option<&RunAs>) -> Result<(Option<File>, File), String> {
    match to {
        LogTo::Null => {
            let null = OpenOptions::new().write(true).open("/dev/null");
            Ok((None, null.map_err(|error| say("open /dev/null", &error))?))
        }
        LogTo::File | LogTo::Journal => make_fifo(path, user).map(|(ours, theirs)| (Some(ours), theirs)),
    }
}

/// Makes a FIFO, gives it to the user and opens it twice: for the holder, which must not wait, and for the child,
/// which must.
fn make_fifo(path: &Path, user: Option<&RunAs>) -> Result<(File, File), String> {
    let failed = |error: io::Error| say(&format!("make {}", path.display()), &error);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .map_err(|error| failed(error.into()))?;
    if let Some(user) = user {
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).map_err(failed)?;
    }
    let ours = open_fifo(path).map_err(failed)?;
    let theirs = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    Ok((ours, theirs))
}

/// The limits that can be set, by name.
const RESOURCES: [(&str, u32); 9] = [
    ("nofile", libc::RLIMIT_NOFILE),
    ("nproc", libc::RLIMIT_NPROC),
    ("core", libc::RLIMIT_CORE),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("stack", libc::RLIMIT_STACK),
    ("fsize", libc::RLIMIT_FSIZE),
    ("as", libc::RLIMIT_AS),
    ("cpu", libc::RLIMIT_CPU),
    ("data", libc::RLIMIT_DATA),
];

/// The number of a limit by its name.
pub(super) fn resource(name: &str) -> Option<u32> {
    RESOURCES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

fn rlimits(asked: &[Rlimit], ground: &Ground) -> Result<Vec<(u32, libc::rlimit)>, String> {
    let mut limits = ground.host_limits.clone();
    let (soft, hard) = ground.nofile;
    limits.push((libc::RLIMIT_NOFILE, libc::rlimit { rlim_cur: soft, rlim_max: hard }));
    for limit in asked {
        let number =
            resource(&limit.resource).ok_or_else(|| format!("no limit is named {:?}", limit.resource))?;
        let value = libc::rlimit { rlim_cur: limit.soft.min(limit.hard), rlim_max: limit.hard };
        limits.retain(|(other, _)| *other != number);
        limits.push((number, value));
    }
    Ok(limits)
}

/// What a failed child said, in words.
pub(super) fn describe(step: u8, errno: i32, spawn: &Told) -> String {
    let what = match Step::from_byte(step) {
        Some(Step::Session) => "start a session".to_owned(),
        Some(Step::Cgroup) => "join its cgroup".to_owned(),
        Some(Step::Descriptors) => "set up its descriptors".to_owned(),
        Some(Step::Groups) => "set supplementary groups".to_owned(),
        Some(Step::Group) => "change the group".to_owned(),
        Some(Step::User) => "change the user".to_owned(),
        Some(Step::NoNewPrivileges) => "give up new privileges".to_owned(),
        Some(Step::Directory) => format!("change to {}", spawn.cwd),
        Some(Step::Exec) => format!("exec {}", spawn.program),
        Some(Step::Nice) => "set nice".to_owned(),
        Some(Step::OomScore) => "set the out-of-memory score".to_owned(),
        Some(Step::Mounts) => "have mounts of its own".to_owned(),
        Some(Step::PrivateTmp) => "mount its own /tmp".to_owned(),
        Some(Step::ReadOnly) => {
            let asked = usize::try_from(errno >> ASKED_SHIFT).unwrap_or_default();
            let path = spawn.read_only.get(asked).map_or("a path", String::as_str);
            format!("make {path} read-only")
        }
        Some(Step::Capabilities) => "set capabilities".to_owned(),
        None => {
            let number = u32::from(step & !RLIMIT_BASE);
            let limit = RESOURCES.iter().find(|(_, known)| *known == number).map_or("", |(name, _)| *name);
            format!("set limit {limit}")
        }
    };
    format!("{what}: {}", Errno::from_raw(errno & ((1 << ASKED_SHIFT) - 1)).desc())
}

/// What is needed to word a failure that comes later.
#[derive(Debug, Clone)]
pub(super) struct Told {
    program: String,
    cwd: String,
    read_only: Vec<String>,
}

impl Told {
    pub(super) fn of(spawn: &Spawn) -> Self {
        Self {
            program: spawn.argv.first().cloned().unwrap_or_default(),
            cwd: spawn.cwd.clone(),
            read_only: spawn.isolation.read_only_paths.clone(),
        }
    }
}

/// All texts of a start, as C strings.
struct Texts {
    argv: Vec<CString>,
    env: Vec<CString>,
    programs: Vec<CString>,
    cwd: CString,
}

impl Texts {
    fn of(spawn: &Spawn, holder: &Path, run: Option<u64>) -> Result<Self, String> {
        let argv = spawn.argv.iter().map(|text| c_string(text)).collect::<Result<Vec<_>, _>>()?;
        let program = spawn.argv.first().map(String::as_str).unwrap_or_default();
        let search = spawn.env.iter().find(|(name, _)| name == "PATH").map_or(SEARCH_PATH, |(_, path)| path);
        let programs = if program.contains('/') {
            vec![c_string(program)?]
        } else {
            let places = search.split(':').filter(|place| !place.is_empty());
            places.map(|place| c_string(&format!("{place}/{program}"))).collect::<Result<_, _>>()?
        };
        let marks = proc_tree::marks((spawn.key, run), holder);
        let given = spawn.env.iter().filter(|(name, _)| marks.iter().all(|(mark, _)| name != mark));
        let given = given.map(|(name, value)| format!("{name}={value}"));
        let marks = marks.iter().filter(|(_, value)| !value.is_empty());
        let marks = marks.map(|(name, value)| format!("{name}={value}"));
        let env = given.chain(marks).map(|variable| c_string(&variable));
        Ok(Self { env: env.collect::<Result<_, _>>()?, argv, programs, cwd: c_string(&spawn.cwd)? })
    }
}

pub(super) fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} has a zero byte in it"))
}

pub(super) fn say(what: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => format!("{what}: {}", Errno::from_raw(errno).desc()),
        None => format!("{what}: {error}"),
    }
}
