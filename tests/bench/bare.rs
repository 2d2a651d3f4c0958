//! The least that starting and stopping many processes costs here: a loop that makes a cgroup, two pipes and a child,
//! and nothing that remembers any of it.

use std::fs;
use std::io::PipeReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One of them.
struct Bare {
    child: Child,
    cgroup: Option<PathBuf>,
    _pipes: [PipeReader; 2],
}

/// A place for cgroups of this program, removed at the end. None without root and a cgroup2 file system.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn make(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
        let path =
            Path::new(mount.split(' ').nth(1)?).join(format!("ostler-bench-{name}-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            fs::remove_dir(entry.path()).ok();
        }
        fs::remove_dir(&self.0).ok();
    }
}

/// How long it takes to start so many, and to stop them.
pub(crate) fn start_and_stop(count: usize) -> anyhow::Result<(Duration, Duration)> {
    let place = Place::make("bare");
    let begin = Instant::now();
    let mut all = Vec::with_capacity(count);
    for n in 0..count {
        all.push(start(place.as_ref(), n).context("a bare start")?);
    }
    let started = begin.elapsed();
    let begin = Instant::now();
    for bare in &all {
        kill(Pid::from_raw(i32::try_from(bare.child.id())?), Signal::SIGTERM)?;
    }
    for bare in &mut all {
        bare.child.wait()?;
        if let Some(path) = &bare.cgroup {
            // The kernel needs a moment after the last exit.
            while fs::remove_dir(path).is_err() && path.exists() {
                std::thread::yield_now();
            }
        }
    }
    Ok((started, begin.elapsed()))
}

fn start(place: Option<&Place>, n: usize) -> anyhow::Result<Bare> {
    let cgroup = place.map(|place| place.0.join(n.to_string()));
    if let Some(path) = &cgroup {
        fs::create_dir(path)?;
    }
    let (out, their_out) = std::io::pipe()?;
    let (err, their_err) = std::io::pipe()?;
    let mut command = Command::new("/bin/sleep");
    let child = command.arg("infinity").stdin(Stdio::null()).stdout(their_out).stderr(their_err).spawn()?;
    if let Some(path) = &cgroup {
        fs::write(path.join("cgroup.procs"), child.id().to_string())?;
    }
    Ok(Bare { child, cgroup, _pipes: [out, err] })
}
