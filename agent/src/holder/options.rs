//! `ostler-agent holder --dir DIR [--cgroup auto|none|PATH] [--boot-id FILE] [--stop-all MILLISECONDS]`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use super::handover::HANDOVER;

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What `--help` prints.
pub(super) const USAGE: &str = "\
Usage: ostler-agent holder --dir DIR [OPTION]...

The parent of every process on this host. It listens on DIR/holder.sock, keeps what it needs to be replaced in
DIR/state.mpk and the pipes of its processes in DIR/fifo. SIGTERM ends it and leaves its processes running.

  --dir DIR              its own folder; best on memory (/run), nothing in it outlives the boot
  --cgroup auto|none|PATH  where processes get their cgroups (auto: below the holder's own, if delegated to it)
  --boot-id FILE         a file whose text changes when the host was restarted
  --stop-all MILLISECONDS  tells the holder that runs on DIR to stop everything, for the end of the host: each
                         process gets its own grace, at most so long; returns when nothing is left
  --upgrade              tells the holder that runs on DIR to become the program that is now in its place, with
                         everything it holds; the new program checks the state first (SIGUSR2 does the same)
  --upgrade-to FILE      the same with another program
  --check-state [--handover N]
                         says whether this program could go on from the state in DIR, and changes nothing
";

/// Where incarnations get their cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CgroupChoice {
    /// Below the holder's own cgroup, if that was delegated to it.
    Auto,
    /// Nowhere: trees are found by session, descent and marks.
    None,
    /// Below this folder of a cgroup2 file system.
    Below(PathBuf),
}

/// How the holder was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) dir: PathBuf,
    pub(super) cgroup: CgroupChoice,
    pub(super) boot_id: PathBuf,
    /// Not to be a holder, but to tell the one there is to stop everything.
    pub(super) stop_all: Option<u64>,
    /// Not to be a holder, but to tell the one there to become another program: its own file as it is now, or this one.
    pub(super) upgrade: Option<Option<PathBuf>>,
    /// Not to be a holder, but to say whether this build could go on from the state in the folder.
    pub(super) check_state: Option<u32>,
    /// The descriptor of the table that the former program of this process left.
    pub(super) resume: Option<RawFd>,
    /// All words but those of `--resume`, for the next program of this process.
    pub(super) words: Vec<OsString>,
    /// Abilities of the host not to use (`clone3,mounts`): for tests of what older hosts do.
    pub(super) without: BTreeSet<String>,
}

/// Why a command line is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OptionsError {
    /// An option nobody knows.
    #[error("unknown option {0:?}; see ostler-agent holder --help")]
    Unknown(OsString),
    /// An option without its value.
    #[error("{0} needs a value; see ostler-agent holder --help")]
    NoValue(&'static str),
    /// The one that must be there.
    #[error("--dir DIR is missing; see ostler-agent holder --help")]
    NoDir,
    /// Relative paths would change their meaning with the working directory.
    #[error("{0} must be an absolute path")]
    NotAbsolute(&'static str),
    /// Not a number.
    #[error("{0} needs a number; see ostler-agent holder --help")]
    NotANumber(&'static str),
    /// Help was asked for.
    #[error("help")]
    Help,
}

impl Options {
    pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, OptionsError> {
        let all: Vec<OsString> = words.into_iter().collect();
        let resume_at = all.iter().position(|word| word == "--resume");
        let is_of_resume = |at: usize| resume_at.is_some_and(|resume| at == resume || at == resume + 1);
        let kept = all.iter().enumerate().filter(|(at, _)| !is_of_resume(*at)).map(|(_, word)| word.clone());
        let kept: Vec<OsString> = kept.collect();
        let mut words = all.into_iter();
        let (mut upgrade, mut check_state, mut resume) = (None, None, None);
        let (mut dir, mut cgroup, mut boot_id) = (None, CgroupChoice::Auto, PathBuf::from(BOOT_ID));
        let mut stop_all = None;
        let mut without = BTreeSet::new();
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--stop-all") => {
                    stop_all = Some(number(words.next(), "--stop-all")?);
                }
                Some("--without") => {
                    let value = words.next().ok_or(OptionsError::NoValue("--without"))?;
                    without = value.to_string_lossy().split(',').map(str::to_owned).collect();
                }
                Some("--upgrade") => upgrade = Some(upgrade.flatten()),
                Some("--upgrade-to") => upgrade = Some(Some(path(words.next(), "--upgrade-to")?)),
                Some("--check-state") => check_state = Some(check_state.unwrap_or(HANDOVER)),
                Some("--handover") => check_state = Some(number(words.next(), "--handover")?),
                Some("--resume") => resume = Some(number(words.next(), "--resume")?),
                Some("--dir") => dir = Some(path(words.next(), "--dir")?),
                Some("--boot-id") => boot_id = path(words.next(), "--boot-id")?,
                Some("--cgroup") => {
                    let value = words.next().ok_or(OptionsError::NoValue("--cgroup"))?;
                    cgroup = match value.to_str() {
                        Some("auto") => CgroupChoice::Auto,
                        Some("none") => CgroupChoice::None,
                        Some(_) | None => CgroupChoice::Below(path(Some(value), "--cgroup")?),
                    };
                }
                Some("--help" | "-h") => return Err(OptionsError::Help),
                Some(_) | None => return Err(OptionsError::Unknown(word)),
            }
        }
        Ok(Self {
            dir: dir.ok_or(OptionsError::NoDir)?,
            cgroup,
            boot_id,
            stop_all,
            upgrade,
            check_state,
            resume,
            words: kept,
            without,
        })
    }
}

fn number<N: std::str::FromStr>(word: Option<OsString>, option: &'static str) -> Result<N, OptionsError> {
    let word = word.ok_or(OptionsError::NoValue(option))?;
    word.to_str().and_then(|text| text.parse().ok()).ok_or(OptionsError::NotANumber(option))
}

fn path(word: Option<OsString>, option: &'static str) -> Result<PathBuf, OptionsError> {
    let path = PathBuf::from(word.ok_or(OptionsError::NoValue(option))?);
    if path.is_absolute() { Ok(path) } else { Err(OptionsError::NotAbsolute(option)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, OptionsError> {
        Options::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn a_folder_is_enough_and_nothing_is_guessed() {
        let options = parse(&["--dir", "/run/ostler/holder"]).unwrap();
        assert_eq!(options.cgroup, CgroupChoice::Auto);
        assert_eq!(parse(&[]), Err(OptionsError::NoDir));
        assert_eq!(parse(&["--dir", "here"]), Err(OptionsError::NotAbsolute("--dir")));
        assert_eq!(parse(&["--dir"]), Err(OptionsError::NoValue("--dir")));
        assert!(matches!(parse(&["--dir", "/d", "--colour"]), Err(OptionsError::Unknown(_))));
        assert_eq!(parse(&["--dir", "/d", "--stop-all", "500"]).unwrap().stop_all, Some(500));
        assert_eq!(
            parse(&["--dir", "/d", "--stop-all", "soon"]),
            Err(OptionsError::NotANumber("--stop-all"))
        );
        assert_eq!(parse(&["--dir", "/d", "--cgroup", "none"]).unwrap().cgroup, CgroupChoice::None);
    }
}
