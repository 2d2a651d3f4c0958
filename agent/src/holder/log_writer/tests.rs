use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use ostler_agent_core::holder::lines::about::About;
use ostler_agent_core::holder::protocol::ProcKey;
use ostler_schemas::v1::log_line::{LogStream, Source, parse, push, stamp};

use super::*;

struct Rig {
    dir: tempfile::TempDir,
    spec: LogSpec,
}

impl Rig {
    fn new(file_max: u64, files: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = LogSpec { file_max, files, ..LogSpec::below(dir.path().display().to_string()) };
        Self { dir, spec }
    }

    fn target(&self) -> Arc<LogTarget> {
        let key = ProcKey { uid: "1".repeat(32).parse().unwrap(), incarnation: 3 };
        LogTarget::new(&self.spec, ("default", "web"), key)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("default/web").join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path().join("default/web"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let bytes = fs::read(self.path(name)).unwrap();
        let lines = bytes.split_inclusive(|b| *b == b'\n');
        lines.map(|line| String::from_utf8(parse(line).unwrap().text.to_vec()).unwrap()).collect()
    }
}

fn line(text: &str) -> Vec<u8> {
    of(LogStream::Stdout, text)
}

fn of(stream: LogStream, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push(&mut out, &stamp(7), (Source::Process(stream), false), &[text.as_bytes()]);
    out
}

/// A disk that takes nothing, and processes that would rather wait than lose lines, again and again.
#[test]
fn what_those_leave_that_wait_is_bounded_and_counted() {
    let rig = Rig::new(4_096, 3);
    let key = ProcKey { uid: "1".repeat(32).parse().unwrap(), incarnation: 3 };
    let target = LogTarget::new(&LogSpec { block: true, ..rig.spec }, ("default", "web"), key);
    let logs = LogWriter::idle().unwrap();
    let lines = line(&"x".repeat(1_000)).repeat(1_000);
    let mut lost = 0;
    for id in 1..=100 {
        assert_eq!(
            logs.append(id, &target, &lines, 1_000),
            if id > 16 { Room::Full } else { Room::Free },
            "{id}"
        );
        logs.finish(id, &target);
        lost += logs.lost(id);
    }
    assert!(logs.lock().bytes <= PENDING_HARD);
    let each = line(&"x".repeat(1_000)).len();
    let kept: usize = logs.lock().pending.values().map(|pending| pending.bytes.len() / each).sum();
    assert_eq!(kept as u64 + lost, 100_000);
}

#[test]
fn no_file_and_no_number_of_files_is_ever_exceeded() {
    let rig = Rig::new(4_096, 3);
    let target = rig.target();
    for n in 0..400 {
        // A batch that is longer than a file.
        let batch: Vec<u8> =
            (0..5).flat_map(|part| line(&format!("{n}.{part} {}", "x".repeat(991)))).collect();
        target.write(&batch).unwrap();
        for name in rig.names() {
            assert!(fs::metadata(rig.path(&name)).unwrap().len() <= 4_096, "{name}");
        }
    }
    assert_eq!(rig.names(), ["current.log", "current.log.1", "current.log.2"]);
    let last = rig.texts("current.log").pop().unwrap();
    assert!(last.starts_with("399.4 "), "{last}");
    // Files know what was before them.
    let read = |name: &str| match Note::parse(rig.texts(name)[0].as_bytes()) {
        Note::Part { part, after } => (part, after),
        other => panic!("{other}"),
    };
    let (older, newer) = (read("current.log.1"), read("current.log"));
    assert_eq!(newer.0, older.0 + 1);
    assert_eq!(newer.1, older.1 + fs::metadata(rig.path("current.log.1")).unwrap().len());
}

#[test]
fn a_line_longer_than_a_file_is_written_whole_and_one_file_is_enough() {
    let rig = Rig::new(100, 1);
    let target = rig.target();
    for n in 0..3 {
        target.write(&line(&format!("{n} {}", "y".repeat(500)))).unwrap();
    }
    assert_eq!(rig.names(), ["current.log"]);
    let texts = rig.texts("current.log");
    assert_eq!(texts.len(), 2);
    assert!(texts[0].starts_with("log format=2 part=3 after="), "{}", texts[0]);
}

#[test]
fn a_change_of_the_sizes_holds_for_what_is_there() {
    let mut rig = Rig::new(4_096, 5);
    let writer = LogWriter::idle().unwrap();
    writer.run(Journal::at(Path::new("/nowhere"))).unwrap();
    let batch: Vec<u8> = (0..60).flat_map(|n| line(&format!("{n} {}", "x".repeat(391)))).collect();
    writer.append(1, &rig.target(), &batch, 60);
    writer.flush();
    assert_eq!(rig.names().len(), 6 - 1);
    rig.spec.files = 2;
    rig.spec.keep_s = 11;
    writer.change(1, &rig.target());
    writer.flush();
    assert_eq!(rig.names(), ["about", "current.log", "current.log.1"]);
    assert_eq!(About::parse(&fs::read(rig.path("about")).unwrap()).keep_s, Some(11));
}

#[test]
fn what_does_not_fit_is_counted_and_confessed_in_its_place() {
    let rig = Rig::new(64 << 20, 2);
    let writer = LogWriter::idle().unwrap();
    // No thread yet: a disk that takes nothing.
    let whole = line(&"x".repeat(1_024 - 38));
    assert_eq!(whole.len(), 1_024);
    for _ in 0..2_000 {
        assert_eq!(writer.append(7, &rig.target(), &whole, 1), Room::Free);
    }
    assert_eq!(writer.lost(7), 2_000 - 1_024);
    writer.run(Journal::at(Path::new("/nowhere"))).unwrap();
    writer.flush();
    writer.append(7, &rig.target(), &line("after"), 1);
    writer.flush();
    let texts = rig.texts("current.log");
    assert_eq!(texts.len(), 1 + 1_024 + 2);
    assert_eq!(texts[1_025], "976 lines lost: they came faster than the disk takes them");
    assert_eq!(texts[1_026], "after");
}

#[test]
fn a_process_that_asked_for_it_waits_and_loses_nothing() {
    let mut rig = Rig::new(64 << 20, 2);
    rig.spec.block = true;
    let writer = LogWriter::idle().unwrap();
    let whole = line(&"x".repeat(1_024 - 38));
    let mut handed = 0;
    while writer.append(7, &rig.target(), &whole, 1) == Room::Free {
        handed += 1;
    }
    assert_eq!(handed, 1_024);
    assert!(writer.with_room().is_empty());
    // A folder that is in the way: a disk that refuses everything, until it is gone.
    fs::create_dir_all(rig.path("current.log")).unwrap();
    writer.run(Journal::at(Path::new("/nowhere"))).unwrap();
    fs::remove_dir(rig.path("current.log")).unwrap();
    wait_for(|| !writer.with_room().is_empty());
    writer.flush();
    assert_eq!((writer.lost(7), rig.texts("current.log").len()), (0, 1 + 1_025));
}

#[test]
fn beginnings_are_written_down() {
    let rig = Rig::new(64 << 20, 2);
    let writer = LogWriter::idle().unwrap();
    writer.run(Journal::at(Path::new("/nowhere"))).unwrap();
    writer.begin(1, &rig.target());
    writer.append(1, &rig.target(), &line("hello"), 1);
    writer.flush();
    let about = About::parse(&fs::read(rig.path("about")).unwrap());
    assert_eq!((about.keep_s, about.beginnings.len()), (Some(604_800), 1));
    let texts = rig.texts("current.log");
    assert_eq!(texts[1], format!("incarnation 3 of {} begins", "1".repeat(32)));
    assert_eq!(texts[2], "hello");
}

#[test]
fn the_journal_gets_lines_as_entries_and_the_files_the_rest() {
    let mut rig = Rig::new(64 << 20, 2);
    rig.spec.stderr = LogTo::Journal;
    let socket = rig.dir.path().join("journal");
    let journal = UnixDatagram::bind(&socket).unwrap();
    let writer = LogWriter::idle().unwrap();
    writer.run(Journal::at(&socket)).unwrap();
    writer.append(1, &rig.target(), &[line("out"), of(LogStream::Stderr, "err")].concat(), 2);
    writer.flush();
    let mut entry = [0; 4_096];
    let n = journal.recv(&mut entry).unwrap();
    let entry = String::from_utf8_lossy(&entry[..n]).into_owned();
    assert!(entry.starts_with("MESSAGE=err\nPRIORITY=6\nSYSLOG_IDENTIFIER=web\n"), "{entry}");
    assert!(entry.contains("OSTLER_PROCESS=web\n") && entry.contains("OSTLER_STREAM=stderr\n"), "{entry}");
    assert_eq!(rig.texts("current.log")[1..], ["out"]);
    // Gone: counted, and the files go on.
    drop(journal);
    fs::remove_file(&socket).unwrap();
    writer.append(1, &rig.target(), &of(LogStream::Stderr, "lost"), 1);
    wait_for(|| writer.lost(1) == 1);
    writer.append(1, &rig.target(), &line("on"), 1);
    writer.flush();
    let texts = rig.texts("current.log");
    assert!(texts[2].starts_with("1 lines lost: "), "{}", texts[2]);
    assert_eq!(texts[3], "on");
}

fn wait_for(mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(30), "it never came so");
        std::thread::sleep(Duration::from_millis(5));
    }
}
