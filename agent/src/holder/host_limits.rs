//! The limits that processes get where nothing is said: the host's, which are those of its first process.
//!
//! The holder itself is started with the highest limits there are, so that it can give them to who asks. Nobody is to
//! inherit them from it.

use std::fs;

use nix::libc;

/// Limits by the first words of their line in `/proc/PID/limits`. That of open files has a default of its own.
const LINES: [(&str, u32); 6] = [
    ("Max processes", libc::RLIMIT_NPROC),
    ("Max core file size", libc::RLIMIT_CORE),
    ("Max locked memory", libc::RLIMIT_MEMLOCK),
    ("Max stack size", libc::RLIMIT_STACK),
    ("Max file size", libc::RLIMIT_FSIZE),
    ("Max address space", libc::RLIMIT_AS),
];

/// The host's limits, as far as the holder may set them. None where the first process cannot be seen: then the
/// holder's own are inherited.
pub(super) fn find() -> Vec<(u32, libc::rlimit)> {
    let first = fs::read_to_string("/proc/1/limits").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    of(&first, &own)
}

fn of(first: &str, own: &str) -> Vec<(u32, libc::rlimit)> {
    let limit = |(name, number): (&str, u32)| {
        let (soft, hard) = read(first, name)?;
        let (_, most) = read(own, name)?;
        let hard = hard.min(most);
        Some((number, libc::rlimit { rlim_cur: soft.min(hard), rlim_max: hard }))
    };
    LINES.into_iter().filter_map(limit).collect()
}

fn read(limits: &str, name: &str) -> Option<(u64, u64)> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let mut values = line.split_whitespace();
    let mut next = || match values.next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_limits_are_taken_up_to_the_holders_own() {
        let first = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max core file size        0                    unlimited            bytes     \n\
                     Max processes             95000                95000                processes \n";
        let own = first.replace("95000                95000", "unlimited            500");
        let limits = of(first, &own);
        let found: Vec<_> = limits.iter().map(|(n, l)| (*n, l.rlim_cur, l.rlim_max)).collect();
        assert_eq!(found, [(libc::RLIMIT_NPROC, 500, 500), (libc::RLIMIT_CORE, 0, u64::MAX)]);
    }
}
