//! Trees of processes on hosts without cgroups, from one look at `/proc`.
//!
//! A process belongs to a tree when it is its main process, is in its session or process group, or descends from one
//! that belongs. One that leaves all three is missed: it shows among the work outside Ostler.

use std::collections::BTreeMap;

use super::Counters;

/// One `/proc/PID/stat`, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcLine {
    /// Its number.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its process group's.
    pub group: i32,
    /// Its session's.
    pub session: i32,
    /// Processor time, with that of children that were waited for, in clock ticks.
    pub ticks: u64,
    /// Threads.
    pub threads: u32,
    /// Pages in memory. Pages that several share count for each: without cgroups nobody knows better.
    pub pages: u64,
}

impl ProcLine {
    /// Reads one; none for what is no such line.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let pid = text.split(' ').next()?.parse().ok()?;
        // The name may hold spaces and parentheses: fields are counted from its last one.
        let rest = text.get(text.rfind(')')? + 1..)?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<i64>().ok();
        let times = [11, 12, 13, 14].into_iter().map(|i| u64::try_from(number(i)?).ok());
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            ticks: times.sum::<Option<u64>>()?,
            threads: u32::try_from(number(17)?).ok()?,
            pages: u64::try_from(number(21)?).unwrap_or(0),
        })
    }
}

/// Every process of the host, by the main process of its tree.
#[derive(Debug, Clone, Default)]
pub struct Trees {
    members: BTreeMap<i32, Vec<ProcLine>>,
}

impl Trees {
    /// Sorts `lines` into the trees of `roots`.
    #[must_use]
    pub fn sort(lines: impl IntoIterator<Item = ProcLine>, roots: impl IntoIterator<Item = i32>) -> Self {
        let all: BTreeMap<i32, ProcLine> = lines.into_iter().map(|line| (line.pid, line)).collect();
        let mut members: BTreeMap<i32, Vec<ProcLine>> = roots.into_iter().map(|r| (r, Vec::new())).collect();
        let mut known: BTreeMap<i32, Option<i32>> = members.keys().map(|r| (*r, Some(*r))).collect();
        for line in all.values() {
            let root = root_of(*line, &all, &mut known);
            if let Some(tree) = root.and_then(|root| members.get_mut(&root)) {
                tree.push(*line);
            }
        }
        Self { members }
    }

    /// The members of a tree.
    #[must_use]
    pub fn members(&self, root: i32) -> &[ProcLine] {
        self.members.get(&root).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The tree that a process is of. Remembers on the way: every process is looked at once.
fn root_of(
    line: ProcLine,
    all: &BTreeMap<i32, ProcLine>,
    known: &mut BTreeMap<i32, Option<i32>>,
) -> Option<i32> {
    let mut path = Vec::new();
    let mut at = Some(line);
    let mut root = None;
    while let Some(line) = at {
        let direct = [line.pid, line.group, line.session];
        let roots = direct.into_iter().find_map(|id| known.get(&id).copied().flatten().filter(|r| *r == id));
        if let Some(found) = roots.or_else(|| known.get(&line.pid).copied().flatten()) {
            root = Some(found);
            break;
        }
        // A picture taken while processes came and went could hold a circle.
        if known.contains_key(&line.pid) || path.contains(&line.pid) {
            break;
        }
        path.push(line.pid);
        at = all.get(&line.parent).copied();
    }
    for pid in path {
        known.insert(pid, root);
    }
    root
}

impl Counters {
    /// What processes take together, with `tick_us` microseconds in a clock tick and `page` bytes in a page.
    #[must_use]
    pub fn summed(members: &[ProcLine], tick_us: u64, page: u64) -> Self {
        let ticks = members.iter().map(|m| m.ticks).fold(0, u64::saturating_add);
        let pages = members.iter().map(|m| m.pages).fold(0, u64::saturating_add);
        Self {
            cpu_us: Some(ticks.saturating_mul(tick_us)),
            memory: Some(pages.saturating_mul(page)),
            tasks: Some(members.iter().map(|m| m.threads).fold(0, u32::saturating_add)),
            read: None,
            write: None,
        }
    }
}
