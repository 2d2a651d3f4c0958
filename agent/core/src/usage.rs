//! Usage: from counters of the kernel to what processes take, and to what the rest of the host takes.
//!
//! * [`parse`]: the files of cgroup and `/proc`, whatever they hold.
//! * [`Meter`]: rates from two looks at growing counters.
//! * [`Outside`]: what runs outside Ostler takes, smoothed, and told only when it has really changed.
//!
//! Pure: texts, counters and time are arguments.

pub mod parse;
mod trees;

use std::collections::BTreeMap;

use ostler_schemas::Uid;
use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::time::Mono;
use ostler_schemas::v1::report::Measure;
use ostler_schemas::v1::usage::{Others, ProcessUsage, UsageEntry};

pub use trees::{ProcLine, Trees};

/// Two looks closer than this give no rate: a tick of the kernel's clock is 10 ms, and would show as a tenth.
pub const LEAST_MS: u64 = 200;

/// What the kernel counts for one process and everything below it. None is what it does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Processor time ever taken, in microseconds.
    pub cpu_us: Option<u64>,
    /// Memory now, in bytes, without what is dropped first.
    pub memory: Option<u64>,
    /// Threads now.
    pub tasks: Option<u32>,
    /// Bytes ever read from devices.
    pub read: Option<u64>,
    /// Bytes ever written to devices.
    pub write: Option<u64>,
}

/// A process whose usage is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The process.
    pub uid: Uid,
    /// Its incarnation.
    pub incarnation: u64,
    /// Its main pid.
    pub pid: u32,
    /// Its cgroup, where it has one of its own.
    pub cgroup: Option<String>,
}

/// One look at a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The process.
    pub uid: Uid,
    /// Its incarnation.
    pub incarnation: u64,
    /// Its counters.
    pub counters: Counters,
}

/// One look at a host: its processes, and its own processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostLook {
    /// Processor time that the whole host ever took, in microseconds; none where the kernel does not tell.
    pub cpu_us: Option<u64>,
    /// Memory in use on the whole host.
    pub memory: Option<u64>,
    /// The processes that were asked for and live.
    pub processes: Vec<Look>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    incarnation: u64,
    at: Mono,
    counters: Counters,
    usage: ProcessUsage,
}

/// Makes rates of looks.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    samples: BTreeMap<Uid, Sample>,
    host: Option<(Mono, u64)>,
    looked: Option<Mono>,
    /// How long the last rates were taken over; none before the second look.
    over_ms: Option<u64>,
}

/// What one look told of the host as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares {
    /// What everything outside Ostler takes; none before the second look.
    pub others: Option<Others>,
}

impl Meter {
    /// Takes a look in. Processes that were not seen are forgotten.
    pub fn look(&mut self, now: Mono, look: &HostLook) -> Shares {
        let before = std::mem::take(&mut self.samples);
        for one in &look.processes {
            let old = before.get(&one.uid).filter(|s| s.incarnation == one.incarnation);
            let sample = Sample {
                incarnation: one.incarnation,
                at: now,
                counters: one.counters,
                usage: usage(now, &one.counters, old),
            };
            match old.filter(|s| now.since_ms(s.at) < LEAST_MS) {
                // Too soon for a rate: the older counters stay, so that the next look has something to go by.
                Some(old) => self.samples.insert(one.uid, Sample { usage: sample.usage, ..*old }),
                None => self.samples.insert(one.uid, sample),
            };
        }
        let passed = self.looked.map(|at| now.since_ms(at));
        if passed.is_none_or(|ms| ms >= LEAST_MS) {
            self.over_ms = passed;
            self.looked = Some(now);
        }
        Shares { others: self.others(now, look) }
    }

    /// What everything outside takes: the host's figures less those of the processes.
    fn others(&mut self, now: Mono, look: &HostLook) -> Option<Others> {
        let busy = look.cpu_us?;
        let old = self.host;
        if old.is_none_or(|(at, _)| now.since_ms(at) >= LEAST_MS) {
            self.host = Some((now, busy));
        }
        let (at, before) = old.filter(|(at, _)| now.since_ms(*at) >= LEAST_MS)?;
        let ours: u64 = self.samples.values().filter_map(|s| s.usage.cpu).map(Cpu::as_millis).sum();
        let all = millicores(busy.saturating_sub(before), now.since_ms(at));
        let held: u64 = look.processes.iter().filter_map(|p| p.counters.memory).sum();
        Some(Others {
            cpu: Cpu::from_millis(all.saturating_sub(ours)),
            memory: Size::from_bytes(look.memory.unwrap_or(0).saturating_sub(held)),
        })
    }

    /// How old the last look is, and how long its rates were taken over; none while there are no rates.
    #[must_use]
    pub fn age(&self, now: Mono) -> Option<(u64, u64)> {
        Some((now.since_ms(self.looked?), self.over_ms?))
    }

    /// What each process takes.
    #[must_use]
    pub fn usage(&self) -> Vec<UsageEntry> {
        self.samples.iter().map(|(u, s)| UsageEntry { u: *u, usage: s.usage }).collect()
    }

    /// How many processes were seen in the last look.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Bytes of memory of each process.
    pub fn memory(&self) -> impl Iterator<Item = (Uid, u64)> {
        self.samples.iter().filter_map(|(u, s)| Some((*u, s.usage.memory?.as_bytes())))
    }

    /// Threads of each process.
    pub fn tasks(&self) -> impl Iterator<Item = (Uid, u64)> {
        self.samples.iter().filter_map(|(u, s)| Some((*u, u64::from(s.usage.tasks?))))
    }
}

/// A change of memory below this is no news: allocators give and take as much without anything having happened.
const NEWS_BYTES: u64 = 1 << 20;
/// A rate of error lines is over this time at least: a program that has just started says a few things at once.
pub const LEAST_UPTIME_MS: u64 = 60_000;

/// Error lines per hour, of so many in so long.
#[must_use]
pub fn error_rate(lines: u64, uptime_ms: u64) -> u64 {
    let hour = u128::from(lines) * 3_600_000 / u128::from(uptime_ms.max(LEAST_UPTIME_MS));
    u64::try_from(hour).unwrap_or(u64::MAX)
}

/// Whether a measure differs from what was told by so much that it is worth telling: by a sixteenth.
#[must_use]
pub fn is_news(told: &Measure, now: &Measure) -> bool {
    let differs = |told: u64, now: u64, least: u64| {
        let by = told.abs_diff(now);
        by >= least && by > told / 16
    };
    differs(told.memory, now.memory, NEWS_BYTES) || differs(told.error_lines, now.error_lines, 1)
}

/// Those with the most, the biggest first, at most so many.
#[must_use]
pub fn biggest(all: impl IntoIterator<Item = (Uid, u64)>, most: usize) -> Vec<(Uid, u64)> {
    let mut all: Vec<(Uid, u64)> = all.into_iter().collect();
    all.sort_by_key(|(uid, amount)| (std::cmp::Reverse(*amount), *uid));
    all.truncate(most);
    all
}

fn millicores(us: u64, ms: u64) -> u64 {
    // A microsecond in a millisecond is a thousandth of a core.
    us.checked_div(ms).unwrap_or(0)
}

fn usage(now: Mono, counters: &Counters, old: Option<&Sample>) -> ProcessUsage {
    let rate = |field: fn(&Counters) -> Option<u64>| {
        let old = old.filter(|s| now.since_ms(s.at) >= LEAST_MS)?;
        // A counter that fell was that of another tree: what died with its parent is counted no more.
        let grown = field(counters)?.saturating_sub(field(&old.counters)?);
        Some((grown, now.since_ms(old.at)))
    };
    let per_second = |(bytes, ms): (u64, u64)| {
        let second = (u128::from(bytes) * 1000).checked_div(u128::from(ms)).unwrap_or(0);
        Size::from_bytes(u64::try_from(second).unwrap_or(u64::MAX))
    };
    let kept = old.map(|s| s.usage).unwrap_or_default();
    ProcessUsage {
        cpu: rate(|c| c.cpu_us).map(|(us, ms)| Cpu::from_millis(millicores(us, ms))).or(kept.cpu),
        memory: counters.memory.map(Size::from_bytes),
        tasks: counters.tasks,
        read_per_second: rate(|c| c.read).map(per_second).or(kept.read_per_second),
        write_per_second: rate(|c| c.write).map(per_second).or(kept.write_per_second),
    }
}

/// Work outside that grows is felt within this: placing on a host that is busy hurts at once.
const RISE_MS: u64 = 30_000;
/// And believed to be over only after this: a pause between two compilations is no room.
const FALL_MS: u64 = 300_000;
/// Told anew only when it differs by this part of the capacity from what was told: else every host would write a
/// report each few seconds.
const STEP: u64 = 16;
/// And not sooner than this after the last time.
const PAUSE_MS: u64 = 60_000;

/// What runs outside Ostler, smoothed.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    cpu: u64,
    memory: Option<u64>,
    at: Option<Mono>,
    told: Others,
    told_at: Option<Mono>,
}

impl Outside {
    /// Takes a measurement in; returns what is to be told, if that has changed.
    ///
    /// At most half of the cores are ever taken for others': processor time is shared by weight, not used up.
    pub fn measured(&mut self, now: Mono, others: Others, capacity: Others) -> Option<Others> {
        let passed = self.at.map_or(0, |at| now.since_ms(at));
        self.at = Some(now);
        self.cpu = approach(self.cpu, others.cpu.as_millis(), passed);
        let memory = others.memory.as_bytes();
        self.memory = Some(self.memory.map_or(memory, |old| approach(old, memory, passed)));
        let now_is = Others {
            cpu: Cpu::from_millis(self.cpu.min(capacity.cpu.as_millis() / 2)),
            memory: Size::from_bytes(self.memory.unwrap_or(0).min(capacity.memory.as_bytes())),
        };
        let far = |a: u64, b: u64, whole: u64| a.abs_diff(b) > whole / STEP;
        let moved = far(now_is.cpu.as_millis(), self.told.cpu.as_millis(), capacity.cpu.as_millis())
            || far(now_is.memory.as_bytes(), self.told.memory.as_bytes(), capacity.memory.as_bytes());
        let early = self.told_at.is_some_and(|at| now.since_ms(at) < PAUSE_MS);
        if !moved || early {
            return None;
        }
        // In whole MiB: a shorter number says as much.
        let told = Others { memory: Size::from_mib(now_is.memory.as_bytes() >> 20), ..now_is };
        self.told = told;
        self.told_at = Some(now);
        Some(told)
    }
}

/// One step from `old` towards `new`: fast up, slow down.
fn approach(old: u64, new: u64, passed_ms: u64) -> u64 {
    let time = if new > old { RISE_MS } else { FALL_MS };
    let step = u128::from(old.abs_diff(new)) * u128::from(passed_ms.min(time)) / u128::from(time);
    let step = u64::try_from(step).unwrap_or(u64::MAX);
    if new > old { old + step } else { old - step }
}

#[cfg(test)]
mod tests;
