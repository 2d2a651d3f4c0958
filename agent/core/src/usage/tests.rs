//! Odd files, rates, trees and smoothing.

use proptest::prelude::*;

use super::parse::*;
use super::*;
use crate::pressure::Amount;

const MIB: u64 = 1 << 20;

fn uid(n: u8) -> Uid {
    Uid::from_bytes([n; 16])
}

#[test]
fn files_of_a_cgroup() {
    let stat = "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\nnr_periods 0\n";
    assert_eq!(cpu_stat(stat), Some(1_234_567));
    assert_eq!(cpu_stat("nr_periods 0\n"), None, "the root's, or version 1");
    assert_eq!(cpu_stat("usage_usecs 5\nusage_usec x\n"), None);
    assert_eq!(number("42\n"), Some(42));
    assert_eq!(number("max\n"), None);
    let memory = "anon 100\nfile 900\ninactive_file 300\nactive_file 600\n";
    assert_eq!(working_set("1000\n", Some(memory)), Some(700));
    assert_eq!(working_set("1000\n", None), Some(1000));
    assert_eq!(working_set("200\n", Some(memory)), Some(0), "read at different moments");
    assert_eq!(working_set("", Some(memory)), None);
    let io = "8:0 rbytes=100 wbytes=200 rios=1 wios=2 dbytes=0 dios=0\n253:0 \n259:1 rbytes=1 wbytes=x\n";
    assert_eq!(io_stat(io), (101, 200));
    assert_eq!(io_stat(""), (0, 0));
}

#[test]
fn files_of_proc() {
    let text = "MemTotal:       24683988 kB\nMemFree:  100 kB\nMemAvailable:   23239000 kB\nCached: 9 kB\n";
    assert_eq!(meminfo(text), Some(Amount { total: 24_683_988 << 10, free: 23_239_000 << 10 }));
    let old = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 10 kB\nCached: 20 kB\n";
    assert_eq!(meminfo(old), Some(Amount { total: 1000 << 10, free: 130 << 10 }));
    assert_eq!(meminfo("MemTotal: 1000 kB\nMemAvailable: 2000 kB\n").map(|m| m.free), Some(1000 << 10));
    assert_eq!(meminfo("MemFree: 1 kB\n"), None);
    let pressure = "some avg10=1.50 avg60=0.08 avg300=0.11 total=1\nfull avg10=12.3 avg60=0.04 total=7\n";
    assert_eq!((psi(pressure, "some"), psi(pressure, "full")), (Some(150), Some(1230)));
    assert_eq!(psi("some avg10=100.00 total=1\n", "full"), None, "cpu has no full before 5.13");
    assert_eq!(psi("full avg10=7\n", "full"), Some(700));
    assert_eq!(psi("full avg10=999999999999.00\n", "full"), None);
    assert_eq!(busy_ticks("cpu  10 20 30 1000 50 6 7 8 9 10\ncpu0 1 1 1 1\n"), Some(73));
    assert_eq!(busy_ticks("cpu  10 20 30 1000\n"), Some(60));
    assert_eq!(busy_ticks("cpu0 1 2 3 4\nintr 5\n"), None);
    let io = "rchar: 9\nwchar: 8\nread_bytes: 4096\nwrite_bytes: 0\ncancelled_write_bytes: 0\n";
    assert_eq!(proc_io(io), Some((4096, 0)));
    assert_eq!(proc_io("rchar: 9\n"), None);
    assert_eq!(tasks("0.00 0.01 0.05 2/345 6789\n"), Some(345));
    assert_eq!(tasks("0.00 0.01"), None);
}

fn line(pid: i32, parent: i32, group: i32, session: i32) -> ProcLine {
    ProcLine { pid, parent, group, session, ticks: 10, threads: 2, pages: 3 }
}

#[test]
fn a_line_of_proc_is_read_whatever_the_name() {
    let text =
        "42 (a) b (c) S 1 40 39 0 -1 4194560 1 2 3 4 50 60 7 8 20 0 9 0 777 9999 123 18446744073709551615";
    let read = ProcLine::parse(text).expect("a line");
    assert_eq!((read.pid, read.parent, read.group, read.session), (42, 1, 40, 39));
    assert_eq!((read.ticks, read.threads, read.pages), (125, 9, 123));
    for broken in ["", "42 (x", "42 (x) S 1 2", "x (y) S 1 2 3"] {
        assert_eq!(ProcLine::parse(broken), None, "{broken:?}");
    }
}

#[test]
fn trees_are_told_apart() {
    let lines = [
        line(10, 1, 10, 10),
        line(11, 10, 10, 10),
        // Left the group and the session, is still a child.
        line(12, 11, 12, 12),
        // Its parent ended: the session tells.
        line(13, 1, 13, 10),
        line(20, 1, 20, 20),
        line(30, 1, 30, 30),
        // A circle, as a picture taken over some time may show.
        line(40, 41, 40, 40),
        line(41, 40, 41, 41),
    ];
    let trees = Trees::sort(lines, [10, 20, 99]);
    let pids = |root| trees.members(root).iter().map(|m| m.pid).collect::<Vec<_>>();
    assert_eq!(pids(10), [10, 11, 12, 13]);
    assert_eq!(pids(20), [20]);
    assert!(trees.members(99).is_empty(), "gone");
    let all = Counters::summed(trees.members(10), 10_000, 4096);
    assert_eq!((all.cpu_us, all.memory, all.tasks), (Some(400_000), Some(4 * 3 * 4096), Some(8)));
}

fn look(n: u8, incarnation: u64, cpu_us: u64) -> Look {
    let counters =
        Counters { cpu_us: Some(cpu_us), memory: Some(MIB), tasks: Some(1), read: Some(cpu_us), write: None };
    Look { uid: uid(n), incarnation, counters }
}

fn host(busy_us: u64, processes: Vec<Look>) -> HostLook {
    HostLook { cpu_us: Some(busy_us), memory: Some(100 * MIB), processes }
}

#[test]
fn rates_come_from_two_looks_at_one_incarnation() {
    let mut meter = Meter::default();
    assert_eq!(meter.look(Mono(0), &host(0, vec![look(1, 1, 0)])).others, None);
    assert_eq!((meter.age(Mono(0)), meter.usage()[0].usage.cpu), (None, None), "one look is no rate");
    let shares = meter.look(Mono(1000), &host(900_000, vec![look(1, 1, 500_000)]));
    let usage = meter.usage()[0].usage;
    assert_eq!(usage.cpu, Some(Cpu::from_millis(500)));
    assert_eq!(usage.read_per_second, Some(Size::from_bytes(500_000)));
    assert_eq!(usage.write_per_second, None, "not told is not zero");
    assert_eq!(shares.others, Some(Others { cpu: Cpu::from_millis(400), memory: Size::from_mib(99) }));
    // Too soon: the rate stays, and the next look goes by the old counters.
    meter.look(Mono(1100), &host(900_000, vec![look(1, 1, 500_000)]));
    assert_eq!(meter.usage()[0].usage.cpu, Some(Cpu::from_millis(500)));
    meter.look(Mono(3000), &host(900_000, vec![look(1, 1, 900_000)]));
    assert_eq!(meter.usage()[0].usage.cpu, Some(Cpu::from_millis(200)));
    assert_eq!(meter.age(Mono(3500)), Some((500, 2000)));
    // A restart counts anew.
    meter.look(Mono(4000), &host(900_000, vec![look(1, 2, 5)]));
    assert_eq!(meter.usage()[0].usage.cpu, None);
    meter.look(Mono(5000), &host(900_000, Vec::new()));
    assert!(meter.usage().is_empty());
}

#[test]
fn the_biggest_come_first_and_not_too_many() {
    let mut meter = Meter::default();
    let sized = |n: u8| {
        let one = look(n, 1, 0);
        Look { counters: Counters { memory: Some(u64::from(n) * MIB), ..one.counters }, ..one }
    };
    meter.look(Mono(0), &host(0, (0..200).map(sized).collect()));
    let most = biggest(meter.memory(), 64);
    assert_eq!(most.len(), 64);
    assert_eq!(most[0], (uid(199), 199 * MIB));
}

fn others(cpu: u64, memory: u64) -> Others {
    Others { cpu: Cpu::from_millis(cpu), memory: Size::from_mib(memory) }
}

#[test]
fn work_outside_is_felt_fast_and_forgotten_slowly() {
    let capacity = others(8_000, 16_384);
    let mut outside = Outside::default();
    let first = outside.measured(Mono(0), others(3_000, 4_096), capacity);
    assert_eq!(first, Some(others(0, 4_096)), "memory at once, processor time when it lasts");
    let mut told = Vec::new();
    for step in 1..=20u64 {
        told.extend(outside.measured(Mono(step * 15_000), others(3_000, 4_096), capacity));
    }
    assert_eq!(told.len(), 1);
    assert!(told[0].cpu.as_millis() > 2_500, "{told:?}");
    let mut gone = Vec::new();
    for step in 21..=24u64 {
        gone.extend(outside.measured(Mono(step * 15_000), others(0, 4_096), capacity));
    }
    assert!(gone.iter().all(|o| o.cpu.as_millis() > 2_000), "a minute's pause is no room: {gone:?}");
}

#[test]
fn others_never_take_more_than_half_of_the_cores() {
    let mut outside = Outside::default();
    let capacity = others(2_000, 1_000);
    let told: Vec<Others> =
        (0..100).filter_map(|s| outside.measured(Mono(s * 15_000), others(2_000, 5_000), capacity)).collect();
    assert!(
        told.iter().all(|o| o.cpu.as_millis() <= 1_000 && o.memory.as_bytes() <= 1_000 * MIB),
        "{told:?}"
    );
}

proptest! {
    /// Nothing that is measured makes a host tell more often than once a minute.
    #[test]
    fn telling_is_rare(steps in proptest::collection::vec((0u64..20_000, 0u64..16_000, 0u64..40_000), 1..300)) {
        let mut outside = Outside::default();
        let mut now = 0;
        let mut last: Option<u64> = None;
        for (pass, cpu, memory) in steps {
            now += pass;
            if outside.measured(Mono(now), others(cpu, memory), others(8_000, 16_384)).is_some() {
                prop_assert!(last.is_none_or(|at| now - at >= PAUSE_MS));
                last = Some(now);
            }
        }
    }

    /// No text makes a parser fail.
    #[test]
    fn any_text_is_read(text in "\\PC{0,80}|([a-z0-9 =:.\n_/]{0,200})") {
        let _ = (cpu_stat(&text), number(&text), working_set(&text, Some(&text)), io_stat(&text), meminfo(&text));
        let _ = (psi(&text, "some"), busy_ticks(&text), proc_io(&text), tasks(&text), ProcLine::parse(&text));
    }
}

#[test]
fn small_changes_are_no_news() {
    let measure = |mib: u64, error_lines| Measure { memory: mib << 20, error_lines };
    assert!(!is_news(&measure(100, 0), &measure(106, 0)), "a sixteenth is noise");
    assert!(is_news(&measure(100, 0), &measure(107, 0)));
    assert!(is_news(&measure(100, 0), &measure(93, 0)));
    assert!(is_news(&measure(100, 0), &measure(100, 1)), "the first error line");
    assert!(!is_news(&measure(1, 100), &measure(1, 105)));
}

#[test]
fn a_start_is_no_flood_of_errors() {
    assert_eq!(error_rate(1, 1_000), 60, "as if it had run for a minute");
    assert_eq!(error_rate(10, 3_600_000), 10);
    assert_eq!(error_rate(u64::MAX, 1), u64::MAX);
}
