//! Hysteresis at its boundaries, and that nothing makes a condition flap.

use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

fn thresholds() -> Thresholds {
    Thresholds { hold_ms: 60_000, ..Thresholds::default() }
}

fn memory(free: u64) -> Readings {
    Readings { memory: Some(Amount { total: 8 * GIB, free }), ..Readings::default() }
}

/// Looks once a second for `seconds`, from `from`; returns changes with the second they came in.
fn looks(monitor: &mut Monitor, from: u64, seconds: u64, readings: &Readings) -> Vec<(u64, bool)> {
    let mut found = Vec::new();
    for second in from..from + seconds {
        for change in monitor.look(Mono(second * 1000), readings) {
            found.push((second, change.message.is_some()));
        }
    }
    found
}

#[test]
fn memory_pressure_begins_after_a_while_and_ends_after_the_hold() {
    // Five hundredths of 8 GiB are less than 512 MiB: the share is the limit.
    let limit = permille_of(8 * GIB, 50);
    let mut monitor = Monitor::new(thresholds());
    assert_eq!(looks(&mut monitor, 0, 10, &memory(limit)), [], "at the limit is not past it");
    assert_eq!(looks(&mut monitor, 10, 5, &memory(limit - 1)), [(12, true)]);
    assert_eq!(monitor.strained_ms(Resource::Memory, Mono(14_000)), Some(4_000));
    let between = limit * 5 / 4 - 1;
    assert_eq!(looks(&mut monitor, 15, 300, &memory(between)), [], "not well enough to end");
    assert_eq!(monitor.strained_ms(Resource::Memory, Mono(315_000)), None, "but nothing must be done");
    assert!(monitor.is_pressed(Resource::Memory));
    assert_eq!(looks(&mut monitor, 315, 100, &memory(between + 1)), [(375, false)]);
}

#[test]
fn a_break_starts_the_hold_anew() {
    let mut monitor = Monitor::new(thresholds());
    looks(&mut monitor, 0, 5, &memory(0));
    assert_eq!(looks(&mut monitor, 5, 59, &memory(8 * GIB)), []);
    assert_eq!(looks(&mut monitor, 64, 1, &memory(0)), []);
    assert_eq!(looks(&mut monitor, 65, 61, &memory(8 * GIB)), [(125, false)]);
}

#[test]
fn a_moments_peak_is_no_pressure() {
    let mut monitor = Monitor::new(thresholds());
    for second in 0..100u64 {
        let free = if second % 3 == 2 { 8 * GIB } else { 0 };
        assert_eq!(monitor.look(Mono(second * 1000), &memory(free)), []);
    }
}

#[test]
fn stalls_count_only_while_memory_is_scarce() {
    let stalled = |free| Readings { stall: Some(9_000), ..memory(free) };
    let mut monitor = Monitor::new(thresholds());
    assert_eq!(looks(&mut monitor, 0, 10, &stalled(4 * GIB)), [], "a process at its own limit");
    let changes = (10..14).flat_map(|s| monitor.look(Mono(s * 1000), &stalled(GIB))).collect::<Vec<_>>();
    assert_eq!(changes.len(), 1);
    let message = changes[0].message.clone().unwrap_or_default();
    assert_eq!(message, "everything waits for memory 90 % of the time, and 1Gi of 8Gi memory is left");
}

#[test]
fn the_fullest_disk_decides_and_files_count() {
    let disk = |what: &str, free, files| Disk {
        what: what.to_owned(),
        device: 1,
        space: Amount { total: 100 * GIB, free },
        files,
    };
    let full = Amount { total: 1_000_000, free: 10 };
    let mut monitor = Monitor::new(thresholds());
    let readings = Readings {
        disks: vec![disk("state", 50 * GIB, None), disk("logs", GIB, Some(Amount::default()))],
        ..Readings::default()
    };
    let changes: Vec<Change> = (0..4).flat_map(|s| monitor.look(Mono(s * 1000), &readings)).collect();
    assert_eq!(changes[0].message.as_deref(), Some("1Gi of 100Gi is left for logs"));
    let mut monitor = Monitor::new(thresholds());
    let readings = Readings { disks: vec![disk("state", 50 * GIB, Some(full))], ..Readings::default() };
    let changes: Vec<Change> = (0..4).flat_map(|s| monitor.look(Mono(s * 1000), &readings)).collect();
    assert_eq!(changes[0].message.as_deref(), Some("10 of 1000000 files can still be made for state"));
}

#[test]
fn what_cannot_be_read_is_no_pressure() {
    let mut monitor = Monitor::new(thresholds());
    assert_eq!(looks(&mut monitor, 0, 100, &Readings::default()), []);
    let nothing =
        Readings { memory: Some(Amount::default()), pids: Some(Amount::default()), ..Readings::default() };
    assert_eq!(looks(&mut monitor, 0, 100, &nothing), [], "a whole of nothing has no limit");
}

#[test]
fn a_floor_is_the_smaller_of_share_and_amount() {
    assert_eq!(Floor { share: Some(50), amount: Some(10) }.of(1000), 10);
    assert_eq!(Floor { share: Some(50), amount: Some(100) }.of(1000), 50);
    assert_eq!(Floor { share: None, amount: Some(100) }.of(1000), 100);
    assert_eq!(Floor { share: None, amount: None }.of(1000), 0);
    assert_eq!(Floor { share: Some(1000), amount: None }.of(u64::MAX), u64::MAX);
    assert_eq!(Amount { total: 0, free: 0 }.used_permille(), 1000);
    assert_eq!(Amount { total: 10, free: 1 }.used_permille(), 900);
}

proptest! {
    /// Whatever the figures do and however irregular the looks are: after a condition began it holds for the hold at
    /// least, and it never begins without having been past the limit all through the entry time.
    #[test]
    fn no_figures_make_it_flap(steps in proptest::collection::vec((0u64..9_000, 0u64..=8, 0u32..10_000), 1..400)) {
        let thresholds = thresholds();
        let mut monitor = Monitor::new(thresholds);
        let mut now = 0;
        let mut last: Option<(u64, bool)> = None;
        for (pass, eighths, stall) in steps {
            now += pass;
            let free = eighths * permille_of(8 * GIB, 50) / 4;
            let readings = Readings { stall: Some(stall), ..memory(free) };
            for change in monitor.look(Mono(now), &readings) {
                let begins = change.message.is_some();
                if let Some((at, began)) = last {
                    prop_assert_ne!(began, begins, "begins and ends take turns");
                    let least = if begins { ENTER_MS } else { thresholds.hold_ms };
                    prop_assert!(now - at >= least, "changed after {} ms", now - at);
                }
                last = Some((now, begins));
            }
            let strained = monitor.strained_ms(Resource::Memory, Mono(now));
            prop_assert!(strained.is_none() || monitor.is_pressed(Resource::Memory));
        }
    }
}

#[test]
fn what_is_missing_is_told_once_for_each_file_system() {
    let thresholds = thresholds();
    let disk = |what: &str, device, free| Disk {
        what: what.to_owned(),
        device,
        space: Amount { total: 10 * GIB, free },
        files: Some(Amount { total: 1000, free: 1000 }),
    };
    let limit = permille_of(10 * GIB, 50);
    assert_eq!(thresholds.lacks(&[disk("state", 1, limit * 5 / 4)]), []);
    let lacks =
        thresholds.lacks(&[disk("state", 1, limit), disk("logs", 1, limit), disk("artifacts", 2, 9 * GIB)]);
    let [lack] = lacks.as_slice() else { panic!("one file system is short: {lacks:?}") };
    assert_eq!((lack.device, lack.bytes, lack.files, lack.total), (1, limit * 5 / 4 - limit, 0, 10 * GIB));
    assert_eq!(lack.used, 950);
    let full = Disk { files: Some(Amount { total: 1000, free: 10 }), ..disk("state", 1, 9 * GIB) };
    let lacks = thresholds.lacks(&[full]);
    assert_eq!(
        lacks.iter().map(|lack| (lack.bytes, lack.files, lack.used)).collect::<Vec<_>>(),
        [(0, 52, 990)]
    );
}
