//! `ostler-agent holder --dir DIR [--cgroup auto|none|PATH] [--boot-id FILE] [--stop-all MILLISECONDS]`.

use std::ffi::OsString;
use std::path::PathBuf;

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
    #[error("--stop-all needs a number of milliseconds")]
    NotANumber,
    /// Help was asked for.
    #[error("help")]
    Help,
}

impl Options {
    pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, OptionsError> {
        let mut words = words.into_iter();
        let (mut dir, mut cgroup, mut boot_id) = (None, CgroupChoice::Auto, PathBuf::from(BOOT_ID));
        let mut stop_all = None;
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--stop-all") => {
                    let value = words.next().ok_or(OptionsError::NoValue("--stop-all"))?;
                    let number = value.to_str().and_then(|text| text.parse().ok());
                    stop_all = Some(number.ok_or(OptionsError::NotANumber)?);
                }
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
        Ok(Self { dir: dir.ok_or(OptionsError::NoDir)?, cgroup, boot_id, stop_all })
    }
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
        assert_eq!(parse(&["--dir", "/d", "--stop-all", "soon"]), Err(OptionsError::NotANumber));
        assert_eq!(parse(&["--dir", "/d", "--cgroup", "none"]).unwrap().cgroup, CgroupChoice::None);
    }
}
