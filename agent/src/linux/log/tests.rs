use std::io::Write as _;

use ostler_agent_core::holder::lines::about::Beginning;
use ostler_schemas::Uid;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::api::LogFilter;
use ostler_schemas::v1::log_line::{LogStream, push, stamp};
use proptest::prelude::*;

use super::*;

struct Rig {
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("default/web")).expect("makes it");
        Self { dir }
    }

    fn log(&self) -> ProcessLog {
        ProcessLog::new(self.dir.path(), "default", "web")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("default/web").join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let mut options = fs::OpenOptions::new();
        let mut file = options.append(true).create(true).open(self.path(name)).expect("opens");
        file.write_all(bytes).expect("writes");
    }

    /// Rotates as the holder does, into at most so many files.
    fn rotate(&self, files: u32) {
        for n in (1..files - 1).rev() {
            fs::rename(self.path(&format!("current.log.{n}")), self.path(&format!("current.log.{}", n + 1)))
                .ok();
        }
        let next = {
            let bytes = fs::read(self.path("current.log")).expect("reads");
            let first = bytes.split(|b| *b == b'\n').next().expect("a line");
            match Note::parse(parse(first).expect("a line").text) {
                Note::Part { part, after } => {
                    Note::Part { part: part + 1, after: after + bytes.len() as u64 }
                }
                other => panic!("{other}"),
            }
        };
        fs::rename(self.path("current.log"), self.path("current.log.1")).expect("rotates");
        self.write("current.log", &next.line(0));
    }

    fn read(&self, query: &LogQuery) -> Vec<String> {
        rest(&mut self.log().open(query).expect("opens"))
    }
}

fn uid(digit: &str) -> Uid {
    digit.repeat(32).parse().expect("a uid")
}

fn line(at: u64, text: &str) -> Vec<u8> {
    of(at, LogStream::Stdout, (false, text))
}

fn of(at: u64, stream: LogStream, (partial, text): (bool, &str)) -> Vec<u8> {
    let mut out = Vec::new();
    push(&mut out, &stamp(at * 1_000), (Source::Process(stream), partial), &[text.as_bytes()]);
    out
}

/// The texts of all that is there, to its end for now.
fn rest(reader: &mut LogFollower) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let piece = reader.next_piece().expect("reads");
        if piece.at_end {
            break;
        }
        all.extend_from_slice(&piece.bytes);
    }
    all.split_inclusive(|b| *b == b'\n').map(text).collect()
}

fn text(line: &[u8]) -> String {
    let text = parse(line).map_or(line, |line| line.text);
    String::from_utf8_lossy(text).trim_end().to_owned()
}

fn tail(lines: u64) -> LogQuery {
    LogQuery { tail: Some(lines), ..LogQuery::default() }
}

fn filtered(filter: LogFilter) -> LogQuery {
    LogQuery { filter, ..LogQuery::default() }
}

#[test]
fn files_of_older_holders_are_read_and_followed_through_rotation() {
    let rig = Rig::new();
    rig.write(
        "current.log",
        b"2026-11-20T10:15:00.123Z stdout a\n2026-11-20T10:15:00.124Z stderr+ b\nplain\npart",
    );
    let mut reader = rig.log().open(&tail(1)).expect("opens");
    assert_eq!(rest(&mut reader), ["b", "plain"], "the part belongs to what follows it");
    rig.write("current.log", b"ial\n");
    assert_eq!(rest(&mut reader), ["partial"]);
    fs::rename(rig.path("current.log"), rig.path("current.log.1")).expect("rotates");
    rig.write("current.log", &line(5, "new"));
    assert_eq!(rest(&mut reader), ["new"]);
    assert!(rest(&mut reader).is_empty());
    assert_eq!(rig.read(&tail(2)), ["partial", "new"]);
}

#[test]
fn the_last_lines_come_with_their_parts_and_from_several_files() {
    let rig = Rig::new();
    rig.write("current.log", &Note::Part { part: 1, after: 0 }.line(0));
    let long = "x".repeat(16 << 10);
    for n in 0..20 {
        rig.write("current.log", &of(n, LogStream::Stdout, (true, &format!("{n} {long}"))));
        rig.write("current.log", &line(n, &format!("{n} end")));
        if n % 7 == 6 {
            rig.rotate(5);
        }
    }
    for wanted in 0..=20u64 {
        let read = rig.read(&tail(wanted));
        let ends: Vec<&String> = read.iter().filter(|text| text.ends_with("end")).collect();
        let expected: Vec<String> = (20 - wanted..20).map(|n| format!("{n} end")).collect();
        assert_eq!(ends, expected.iter().collect::<Vec<_>>(), "{wanted}");
        assert_eq!(read.len() as u64, 2 * wanted, "each with its part");
    }
    assert_eq!(rig.read(&LogQuery::default()).len(), 40);
    assert_eq!(rig.read(&tail(1_000)).len(), 40);
}

#[test]
fn a_reader_that_rotation_overtakes_says_what_it_missed() {
    let rig = Rig::new();
    rig.write("current.log", &Note::Part { part: 1, after: 0 }.line(0));
    rig.write("current.log", &line(1, "one"));
    let mut reader = rig.log().open(&LogQuery::default()).expect("opens");
    assert_eq!(rest(&mut reader), ["one"]);
    // Still to be had, because the reader has the file.
    rig.write("current.log", &line(2, "two"));
    rig.rotate(2);
    rig.write("current.log", &line(3, "three, which nobody reads"));
    let missed = fs::metadata(rig.path("current.log")).expect("is there").len();
    rig.rotate(2);
    rig.rotate(2);
    rig.write("current.log", &line(4, "four"));
    // Its header, and that of the file between.
    let note = format!("{missed} bytes lost: rotated away before they were read");
    assert_eq!(rest(&mut reader), ["two".to_owned(), note, "four".to_owned()]);
    rig.rotate(2);
    assert!(rest(&mut reader).is_empty());
    rig.write("current.log", &line(5, "five"));
    assert_eq!(rest(&mut reader), ["five"], "nothing was lost");
}

#[test]
fn times_and_streams_are_filtered() {
    let rig = Rig::new();
    for at in 1..=2_000 {
        let stream = if at % 2 == 0 { LogStream::Stderr } else { LogStream::Stdout };
        rig.write("current.log", &of(at, stream, (false, &format!("{at} {}", "y".repeat(90)))));
    }
    let number = |text: &String| text.split(' ').next().expect("a number").parse::<u64>().expect("a number");
    let read = |query: &LogQuery| rig.read(query).iter().map(number).collect::<Vec<_>>();
    let (since, until) = (Some(Timestamp(1_990)), Some(Timestamp(1_995)));
    assert_eq!(
        read(&filtered(LogFilter { since, until, ..LogFilter::default() })),
        [1990, 1991, 1992, 1993, 1994]
    );
    let stream = Some(LogStream::Stderr);
    assert_eq!(
        read(&filtered(LogFilter { since, stream, ..LogFilter::default() })),
        [1990, 1992, 1994, 1996, 1998, 2000]
    );
    let query = LogQuery { tail: Some(2), ..filtered(LogFilter { until, stream, ..LogFilter::default() }) };
    assert_eq!(read(&query), [1992, 1994]);
}

#[test]
fn incarnations_and_former_processes_are_told_apart() {
    let rig = Rig::new();
    let mut about = About::default();
    for (at, who, incarnation) in [(10, "a", 1), (20, "b", 1), (30, "b", 2)] {
        about.begin(Beginning { at_us: at * 1_000, uid: uid(who), incarnation });
        rig.write("current.log", &line(at + 1, &format!("{who}{incarnation}")));
    }
    fs::write(rig.path("about"), about.text()).expect("writes");
    let of = |who: &str| LogQuery { uid: Some(uid(who)), ..LogQuery::default() };
    assert_eq!(rig.read(&of("a")), ["a1"]);
    assert_eq!(rig.read(&of("b")), ["b1", "b2"]);
    assert_eq!(rig.read(&LogQuery::default()), ["b1", "b2"], "the last that had the name");
    let previous = LogFilter { previous: true, ..LogFilter::default() };
    assert_eq!(rig.read(&LogQuery { uid: Some(uid("b")), ..filtered(previous.clone()) }), ["b1"]);
    let error =
        rig.log().open(&LogQuery { uid: Some(uid("a")), ..filtered(previous) }).expect_err("has none");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_log_that_is_not_there_yet_is_waited_for() {
    let rig = Rig::new();
    let mut reader = rig.log().open(&tail(3)).expect("opens");
    assert!(reader.next_piece().expect("reads").at_end);
    rig.write("current.log", &line(1, "first"));
    assert_eq!(rest(&mut reader), ["first"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn garbage_is_read_back_safely(
        bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..3_000),
        times in 1usize..200,
        lines in 0u64..50,
    ) {
        let rig = Rig::new();
        let bytes: Vec<u8> = bytes.repeat(times);
        rig.write("current.log.1", &bytes);
        rig.write("current.log", &bytes);
        rig.write("about", &bytes);
        let whole: usize = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let mut reader = rig.log().open(&LogQuery::default()).expect("opens");
        let mut all = 0;
        loop {
            let piece = reader.next_piece().expect("reads");
            if piece.at_end {
                break;
            }
            all += piece.bytes.iter().filter(|b| **b == b'\n').count();
        }
        // Between two files of which nothing is known a note says so, at most.
        let expected = 2 * bytes.iter().take(whole).filter(|b| **b == b'\n').count();
        prop_assert!(all >= expected && all <= expected + 1, "{} of {}", all, expected);
        rest(&mut rig.log().open(&tail(lines)).expect("opens"));
    }
}
