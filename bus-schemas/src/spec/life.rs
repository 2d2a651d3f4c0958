//! How a process is started, told, stopped and read: the words of its template that stand for themselves.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InvalidSpec;
use crate::ids::Sha256;
use crate::quantity::{Dur, Mode, Signal, Size};

/// How a process says that it is up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessType {
    /// It is up when its program runs.
    #[default]
    Exec,
    /// It is up when it says `READY=1` (sd_notify(3)).
    Notify,
    /// It is ready once it has ended with success.
    Oneshot,
}

/// Whom a stop signals, and whom it kills at the end of its grace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillMode {
    /// The signal goes to the main process, SIGKILL to the whole tree.
    #[default]
    Mixed,
    /// Both go to the whole tree.
    ControlGroup,
    /// Both go to the main process only.
    Process,
}

/// Where an output goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputTo {
    /// To files that the holder writes and rotates.
    #[default]
    File,
    /// To the host's journal.
    Journal,
    /// Nowhere.
    Null,
}

/// What happens to lines that come faster than they can be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// They are dropped and counted; the process never waits.
    #[default]
    Drop,
    /// The process waits.
    Block,
}

/// How much of a process's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Logs {
    /// Size at which a file is rotated.
    pub max_size: Size,
    /// How many files are kept, the growing one included.
    pub max_files: u32,
    /// How long they are kept after the process is gone.
    pub keep_after_exit: Dur,
    /// What happens to lines that come too fast.
    pub overflow: Overflow,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            max_size: Size::from_mib(10),
            max_files: 5,
            keep_after_exit: Dur::from_secs(7 * 86_400),
            overflow: Overflow::Drop,
        }
    }
}

/// A command that is run for a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exec {
    /// The program and its words; no shell.
    pub command: Vec<String>,
    /// Name or number of the user; none means the process's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How long it may take before it is killed and has failed.
    pub timeout: Dur,
}

/// A file of variables, one `NAME=value` in a line, read on the host at each start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentFile {
    /// Where it is.
    pub path: String,
    /// Whether the process starts without it too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A file fetched and checked before a start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Where from: `https:`, `http:` or `file:`.
    pub source: String,
    /// Hash of what is fetched.
    pub sha256: Sha256,
    /// Where it lies below `OSTLER_ARTIFACTS`; of an archive, the folder that it is unpacked into.
    pub path: String,
    /// Permission bits of the file.
    pub mode: Mode,
    /// Whether it is an archive.
    pub unpack: Unpack,
}

/// What is done with a file that was fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unpack {
    /// It is taken as it is.
    #[default]
    None,
    /// It is unpacked with tar, compressed or not.
    Tar,
    /// It is unpacked as a zip archive.
    Zip,
}

/// An end that means success: a code, or a signal by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitStatus {
    /// An exit code, 0 to 255.
    Code(u8),
    /// Death by this signal.
    Signal(Signal),
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(f, "{code}"),
            ExitStatus::Signal(signal) => write!(f, "{signal}"),
        }
    }
}

impl FromStr for ExitStatus {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        if let Ok(code) = text.parse::<u8>() {
            return Ok(ExitStatus::Code(code));
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidSpec(format!("must be between 0 and 255, found {text}")));
        }
        text.parse().map(ExitStatus::Signal).map_err(|_| {
            InvalidSpec(format!("{text:?} is neither a code nor a signal: write for example 143 or SIGTERM"))
        })
    }
}

/// Capabilities of Linux by number, from 0 (capabilities(7)).
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A capability of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

impl Capability {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// All names, in the order of their numbers.
    #[must_use]
    pub const fn names() -> &'static [&'static str] {
        &CAPABILITIES
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(CAPABILITIES.get(usize::from(self.0)).copied().unwrap_or("CAP_UNKNOWN"))
    }
}

impl FromStr for Capability {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let position = |name: &str| CAPABILITIES.iter().position(|known| *known == name);
        if let Some(number) = position(text).and_then(|at| u8::try_from(at).ok()) {
            return Ok(Capability(number));
        }
        let upper = text.to_ascii_uppercase();
        let meant = position(&upper).or_else(|| position(&format!("CAP_{upper}")));
        Err(InvalidSpec(match meant.and_then(|at| CAPABILITIES.get(at)) {
            Some(name) => format!("{text:?} is not a capability: write {name}"),
            None => format!("{text:?} is not a capability: write its name, for example CAP_NET_BIND_SERVICE"),
        }))
    }
}

/// Numbers of cores, as the kernel writes them: `0-3,8`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuList(Vec<(u16, u16)>);

/// The highest number of a core that the kernel can have (`CONFIG_NR_CPUS` is 8192 at most).
const LAST_CPU: u16 = 8_191;

impl CpuList {
    /// First and last core of each range, rising, none touching another.
    #[must_use]
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// How many cores it names.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|(first, last)| u32::from(last - first) + 1).sum()
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        Ok(())
    }
}

impl FromStr for CpuList {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let wrong = || InvalidSpec(format!("{text:?} is not a list of cores: write for example 0-3,8"));
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse::<u16>().ok()).flatten().filter(|n| *n <= LAST_CPU).ok_or_else(wrong)
        };
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
                Some(_) | None => merged.push((first, last)),
            }
        }
        Ok(CpuList(merged))
    }
}

/// Serde as text in every format.
macro_rules! as_text {
    ($($name:ident)+) => { $(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+ };
}
as_text!(Capability CpuList);

/// Codes are numbers, signals are text: as people write them.
impl Serialize for ExitStatus {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            ExitStatus::Code(code) => s.serialize_u8(*code),
            ExitStatus::Signal(signal) => s.collect_str(signal),
        }
    }
}

impl<'de> Deserialize<'de> for ExitStatus {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl serde::de::Visitor<'_> for Either {
            type Value = ExitStatus;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an exit code or the name of a signal")
            }
            fn visit_u64<E: serde::de::Error>(self, code: u64) -> Result<ExitStatus, E> {
                u8::try_from(code).map(ExitStatus::Code).map_err(E::custom)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ExitStatus, E> {
                text.parse().map_err(E::custom)
            }
        }
        d.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cores_are_put_in_order_and_together() {
        let list: CpuList = "8,0-2,3,2".parse().expect("a list");
        assert_eq!((list.to_string().as_str(), list.count()), ("0-3,8", 5));
        for wrong in ["", "3-1", "a", "1,", "-1", "0-9999", "1-2-3"] {
            assert!(wrong.parse::<CpuList>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn capabilities_have_the_kernels_numbers() {
        let bind: Capability = "CAP_NET_BIND_SERVICE".parse().expect("a capability");
        assert_eq!(bind.number(), 10);
        let error = "net_admin".parse::<Capability>().expect_err("refused");
        assert!(error.to_string().contains("write CAP_NET_ADMIN"), "{error}");
    }

    #[test]
    fn ends_are_codes_or_signals() {
        assert_eq!("143".parse::<ExitStatus>().expect("a code"), ExitStatus::Code(143));
        assert_eq!("SIGTERM".parse::<ExitStatus>().expect("a signal"), ExitStatus::Signal(Signal::TERM));
        assert!("256".parse::<ExitStatus>().is_err() && "TERM".parse::<ExitStatus>().is_err());
        let ends = vec![ExitStatus::Code(143), ExitStatus::Signal(Signal::TERM)];
        assert_eq!(serde_json::to_string(&ends).expect("encodes"), r#"[143,"SIGTERM"]"#);
        let bytes = rmp_serde::to_vec_named(&ends).expect("encodes");
        assert_eq!(rmp_serde::from_slice::<Vec<ExitStatus>>(&bytes).expect("decodes"), ends);
    }

    proptest! {
        #[test]
        fn lists_of_cores_keep_their_cores(cores in prop::collection::btree_set(0u16..=LAST_CPU, 1..40)) {
            let text = cores.iter().rev().map(u16::to_string).collect::<Vec<_>>().join(",");
            let list: CpuList = text.parse().map_err(|e: InvalidSpec| TestCaseError::fail(e.to_string()))?;
            let told: BTreeSet<u16> = list.ranges().iter().flat_map(|(first, last)| *first..=*last).collect();
            prop_assert_eq!(&told, &cores);
            prop_assert_eq!(list.count() as usize, cores.len());
            prop_assert_eq!(list.to_string().parse::<CpuList>().ok(), Some(list));
        }

        #[test]
        fn ends_are_written_as_they_are_read(number in 0u16..400) {
            let read = number.to_string().parse::<ExitStatus>();
            prop_assert_eq!(read.is_ok(), number < 256);
            if let Ok(end) = read {
                prop_assert_eq!(end.to_string().parse(), Ok(end));
            }
        }
    }
}
