//! Pressure: when a host is short of memory, disk or process numbers, and when it no longer is.
//!
//! Guarantees: a condition begins only after its figure was past the limit for a while ([`ENTER_MS`]), and ends only
//! after the figure was well inside for [`Thresholds::hold_ms`] without a break. So a condition changes at most twice
//! in `hold + enter`, whatever the figures do: the control plane is never woken faster than that. What cannot be read
//! (no PSI, no `/proc`) is taken for well: pressure is claimed only where it was seen.
//!
//! Pure: readings and time are arguments. Where the readings come from is the business of the port.

use std::collections::BTreeMap;

use ostler_schemas::quantity::Size;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::reason::Reason;

/// How long a figure must be past its limit before it counts: one bad look may be a moment's peak, three in a row with
/// one look a second are not.
pub const ENTER_MS: u64 = 2_000;
/// Inside means this much more than the limit (a quarter): else a figure at the limit would be both.
const LEAVE_NUMERATOR: u64 = 5;
const LEAVE_DENOMINATOR: u64 = 4;
/// Stalls count only while less than this many times the memory limit is free: a process that thrashes inside its own
/// limit stalls too, and the host is not short of anything.
const STALL_BELOW: u64 = 4;

/// A smallest amount: a share of the whole, an absolute amount, or the smaller of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Thousandths of the whole.
    pub share: Option<u32>,
    /// So much.
    pub amount: Option<u64>,
}

impl Floor {
    /// How much of a whole of `total` it is. Without share and amount it is nothing: never reached.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        let share = self.share.map(|permille| permille_of(total, permille));
        match (share, self.amount) {
            (Some(share), Some(amount)) => share.min(amount),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => 0,
        }
    }
}

fn permille_of(total: u64, permille: u32) -> u64 {
    u64::try_from(u128::from(total) * u128::from(permille) / 1000).unwrap_or(u64::MAX)
}

/// From where on a host is short of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Less memory than this available is pressure.
    pub memory: Floor,
    /// So much of the time in which everything waited for memory (PSI `full avg10`, hundredths of a percent) is
    /// pressure, while memory is scarce.
    pub stall: u32,
    /// Less free space than this on a file system that Ostler writes is pressure.
    pub disk: Floor,
    /// Fewer free process numbers than this is pressure.
    pub pids: Floor,
    /// How long all must be well before pressure ends.
    pub hold_ms: u64,
}

impl Default for Thresholds {
    /// Five hundredths of the whole, but no more than what a big host needs to breathe; two minutes.
    fn default() -> Self {
        Self {
            memory: Floor { share: Some(50), amount: Some(512 << 20) },
            stall: 2_000,
            disk: Floor { share: Some(50), amount: Some(2 << 30) },
            pids: Floor { share: Some(50), amount: Some(1_000) },
            hold_ms: 120_000,
        }
    }
}

/// A whole and what is left of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// The whole.
    pub total: u64,
    /// What is left.
    pub free: u64,
}

impl Amount {
    /// How much is in use, in thousandths; of nothing, all is.
    #[must_use]
    pub fn used_permille(self) -> u32 {
        let used = self.total.saturating_sub(self.free);
        let permille = (u128::from(used) * 1000).checked_div(u128::from(self.total)).unwrap_or(1000);
        u32::try_from(permille).unwrap_or(1000)
    }
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What Ostler keeps on it, for people: `state`, `logs`.
    pub what: String,
    /// Its device number: what tells one file system from another.
    pub device: u64,
    /// Bytes.
    pub space: Amount,
    /// Files that can be made; none where the file system does not count them.
    pub files: Option<Amount>,
}

/// One look at a host. None is what cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readings {
    /// Main memory.
    pub memory: Option<Amount>,
    /// PSI `full avg10` of memory, in hundredths of a percent.
    pub stall: Option<u32>,
    /// File systems that Ostler writes.
    pub disks: Vec<Disk>,
    /// Process numbers.
    pub pids: Option<Amount>,
}

/// What a host can be short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Main memory.
    Memory,
    /// Disk space, or files.
    Disk,
    /// Process numbers.
    Pids,
}

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 3] = [Resource::Memory, Resource::Disk, Resource::Pids];

    /// The condition that says so.
    #[must_use]
    pub const fn condition(self) -> Reason {
        match self {
            Resource::Memory => Reason::MemoryPressure,
            Resource::Disk => Reason::DiskPressure,
            Resource::Pids => Reason::PidPressure,
        }
    }
}

/// How a figure stands to its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Past,
    Between,
    Inside,
}

/// A condition that begins (with why) or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of what.
    pub resource: Resource,
    /// Why it begins, with the figures of that moment; none when it ends.
    pub message: Option<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Gauge {
    pressed: bool,
    /// Since when the figure has been past the limit without a break.
    past_since: Option<Mono>,
    /// Since when it has been inside without a break.
    inside_since: Option<Mono>,
}

/// A file system that has less than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lack {
    /// Its device number.
    pub device: u64,
    /// Bytes missing until it is well.
    pub bytes: u64,
    /// Files that cannot be made until it is well.
    pub files: u64,
    /// How much of it is in use, in thousandths: of bytes or of files, whichever is more.
    pub used: u32,
    /// Its size in bytes.
    pub total: u64,
}

impl Thresholds {
    /// File systems that are not well inside their limit, each once: what must be freed for [`Resource::Disk`] to end.
    #[must_use]
    pub fn lacks(&self, disks: &[Disk]) -> Vec<Lack> {
        let mut found: BTreeMap<u64, Lack> = BTreeMap::new();
        let share = Floor { amount: None, ..self.disk };
        for disk in disks {
            let files = disk.files.filter(|files| files.total > 0);
            let lack = Lack {
                device: disk.device,
                bytes: inside(disk.space.total, self.disk).saturating_sub(disk.space.free),
                files: files.map_or(0, |f| inside(f.total, share).saturating_sub(f.free)),
                used: disk.space.used_permille().max(files.map_or(0, Amount::used_permille)),
                total: disk.space.total,
            };
            if lack.bytes > 0 || lack.files > 0 {
                found.insert(disk.device, lack);
            }
        }
        found.into_values().collect()
    }
}

/// Watches one host.
#[derive(Debug, Clone)]
pub struct Monitor {
    thresholds: Thresholds,
    gauges: BTreeMap<Resource, Gauge>,
}

impl Monitor {
    /// A host that is well.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self::resume(thresholds, |_| false)
    }

    /// A host of which some conditions have been told already: they hold until their figures have been inside for the
    /// whole hold again.
    #[must_use]
    pub fn resume(thresholds: Thresholds, told: impl Fn(Resource) -> bool) -> Self {
        let gauge = |r| (r, Gauge { pressed: told(r), ..Gauge::default() });
        Self { thresholds, gauges: Resource::ALL.into_iter().map(gauge).collect() }
    }

    /// Takes a look in; says which conditions begin and end.
    pub fn look(&mut self, now: Mono, readings: &Readings) -> Vec<Change> {
        let thresholds = self.thresholds;
        let mut changes = Vec::new();
        for (resource, gauge) in &mut self.gauges {
            let (level, why) = judge(*resource, &thresholds, readings);
            match gauge.take(now, level, thresholds.hold_ms) {
                Some(true) => changes.push(Change { resource: *resource, message: Some(why) }),
                Some(false) => changes.push(Change { resource: *resource, message: None }),
                None => {}
            }
        }
        changes
    }

    /// For how long a figure has been past its limit without a break, while its condition holds: the time in which
    /// something must be done. None when the condition does not hold, or only waits for its end.
    #[must_use]
    pub fn strained_ms(&self, resource: Resource, now: Mono) -> Option<u64> {
        let gauge = self.gauges.get(&resource).filter(|g| g.pressed)?;
        gauge.past_since.map(|since| now.since_ms(since))
    }

    /// Whether a condition holds.
    #[must_use]
    pub fn is_pressed(&self, resource: Resource) -> bool {
        self.gauges.get(&resource).is_some_and(|g| g.pressed)
    }
}

impl Gauge {
    /// Whether the condition begins (`true`) or ends (`false`).
    fn take(&mut self, now: Mono, level: Level, hold_ms: u64) -> Option<bool> {
        let keep = |since: Option<Mono>, is: bool| if is { since.or(Some(now)) } else { None };
        self.past_since = keep(self.past_since, level == Level::Past);
        self.inside_since = keep(self.inside_since, level == Level::Inside);
        let lasts = |since: Option<Mono>, ms: u64| since.is_some_and(|at| now.since_ms(at) >= ms);
        if !self.pressed && lasts(self.past_since, ENTER_MS) {
            self.pressed = true;
            return Some(true);
        }
        if self.pressed && lasts(self.inside_since, hold_ms) {
            self.pressed = false;
            return Some(false);
        }
        None
    }
}

/// From how much on a whole of `total` is well.
fn inside(total: u64, floor: Floor) -> u64 {
    let inside = u128::from(floor.of(total)) * u128::from(LEAVE_NUMERATOR) / u128::from(LEAVE_DENOMINATOR);
    u64::try_from(inside).unwrap_or(u64::MAX)
}

fn level(amount: Amount, floor: Floor) -> Level {
    if amount.free < floor.of(amount.total) {
        Level::Past
    } else if amount.free >= inside(amount.total, floor) {
        Level::Inside
    } else {
        Level::Between
    }
}

fn judge(resource: Resource, thresholds: &Thresholds, readings: &Readings) -> (Level, String) {
    match resource {
        Resource::Memory => judge_memory(thresholds, readings),
        Resource::Disk => judge_disks(thresholds, readings),
        Resource::Pids => {
            let Some(pids) = readings.pids else { return (Level::Inside, String::new()) };
            let why = format!("{} of {} process numbers are left", pids.free, pids.total);
            (level(pids, thresholds.pids), why)
        }
    }
}

fn judge_memory(thresholds: &Thresholds, readings: &Readings) -> (Level, String) {
    let Some(memory) = readings.memory else { return (Level::Inside, String::new()) };
    let left = format!("{} of {} memory is left", mib(memory.free), mib(memory.total));
    let by_amount = level(memory, thresholds.memory);
    let scarce = memory.free < thresholds.memory.of(memory.total).saturating_mul(STALL_BELOW);
    match readings.stall.filter(|_| scarce) {
        Some(stall) if stall >= thresholds.stall && by_amount != Level::Past => {
            (Level::Past, format!("everything waits for memory {} % of the time, and {left}", stall / 100))
        }
        // Half the stall that begins it keeps it from ending.
        Some(stall) if stall >= thresholds.stall / 2 && by_amount == Level::Inside => (Level::Between, left),
        Some(_) | None => (by_amount, left),
    }
}

/// The fullest file system decides.
fn judge_disks(thresholds: &Thresholds, readings: &Readings) -> (Level, String) {
    let mut worst = (Level::Inside, String::new());
    for disk in &readings.disks {
        let space = level(disk.space, thresholds.disk);
        let why = format!("{} of {} is left for {}", mib(disk.space.free), mib(disk.space.total), disk.what);
        let share = Floor { amount: None, ..thresholds.disk };
        let files = disk.files.filter(|f| f.total > 0).map(|files| {
            let why = format!("{} of {} files can still be made for {}", files.free, files.total, disk.what);
            (level(files, share), why)
        });
        for (found, why) in [Some((space, why)), files].into_iter().flatten() {
            if rank(found) > rank(worst.0) {
                worst = (found, why);
            }
        }
    }
    worst
}

const fn rank(level: Level) -> u8 {
    match level {
        Level::Inside => 0,
        Level::Between => 1,
        Level::Past => 2,
    }
}

/// In whole MiB: a figure like 324927488 helps nobody.
fn mib(bytes: u64) -> Size {
    Size::from_mib(bytes >> 20)
}

#[cfg(test)]
mod tests;
