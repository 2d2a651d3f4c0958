use std::io::Write as _;
use std::time::{Duration, SystemTime};

use ostler_agent_core::holder::lines::about::Beginning;
use ostler_schemas::v1::log_line::{LogStream, push, stamp};
use ostler_schemas::v1::stretch::{Follows, Seen};
use proptest::prelude::*;

use super::*;

/// A log as the holder writes it, into at most so many files.
struct Rig {
    dir: tempfile::TempDir,
    part: u64,
    after: u64,
    files: u32,
}

impl Rig {
    fn new(files: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("default/web")).expect("makes it");
        let mut rig = Self { dir, part: 0, after: 0, files };
        rig.begin_file();
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("default/web").join(name)
    }

    fn append(&self, bytes: &[u8]) {
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create(true).open(self.path("current.log")).expect("opens");
        file.write_all(bytes).expect("writes");
        // Here all parts are made within one tick of the kernel's clock, and on a host never.
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(self.part)).expect("is dated");
    }

    fn begin_file(&mut self) {
        self.part += 1;
        self.append(&Note::Part { part: self.part, after: self.after }.line(0));
    }

    fn say(&self, texts: impl IntoIterator<Item = u32>) {
        for n in texts {
            let mut line = Vec::new();
            let source = Source::Process(LogStream::Stdout);
            push(&mut line, &stamp(u64::from(n)), (source, false), &[n.to_string().as_bytes()]);
            self.append(&line);
        }
    }

    fn rotate(&mut self) {
        self.after += fs::metadata(self.path("current.log")).expect("is there").len();
        let numbered = |n: u32| self.path(&format!("current.log.{n}"));
        for n in (1..self.files - 1).rev() {
            fs::rename(numbered(n), numbered(n + 1)).ok();
        }
        fs::rename(self.path("current.log"), numbered(1)).expect("rotates");
        self.begin_file();
    }

    fn shipper(&self) -> Shipper {
        Shipper::open(ProcessLog::new(self.dir.path(), "default", "web"), uid('a'))
    }

    fn name() -> LogName {
        ("default".parse().expect("a name"), "web".parse().expect("a name"))
    }
}

fn uid(digit: char) -> Uid {
    digit.to_string().repeat(32).parse().expect("a uid")
}

/// What readers make of parcels: the numbers that were said, and how many bytes are missing.
#[derive(Default)]
struct Reader {
    seen: Seen,
    said: Vec<u32>,
    missed: Vec<u64>,
}

impl Reader {
    fn take(&mut self, parcel: &Parcel) {
        if self.seen.take(&parcel.stretch) == Follows::Again {
            return;
        }
        for line in parcel.bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let line = parse(line).expect("a line");
            match line.source {
                Source::Host => match Note::parse(line.text) {
                    Note::Overtaken { bytes } => self.missed.push(bytes.expect("is known")),
                    Note::Begins { .. } => {}
                    other => panic!("{other}"),
                },
                Source::Process(_) => {
                    let text = std::str::from_utf8(line.text).expect("text");
                    self.said.push(text.parse().expect("a number"));
                }
            }
        }
    }

    fn all(&mut self, shipper: &mut Shipper) {
        while let Some(parcel) = shipper.parcel().expect("reads") {
            self.take(&parcel);
            shipper.has_stored();
        }
    }
}

#[test]
fn it_goes_on_where_it_was_left_off_also_in_another_file() {
    let mut rig = Rig::new(3);
    let (mut reader, mut shipper) = (Reader::default(), rig.shipper());
    rig.say(1..=3);
    reader.all(&mut shipper);
    assert_eq!(reader.said, [1, 2, 3]);
    assert!(shipper.open.is_none(), "no file stays open while there is nothing to do");
    rig.say([4]);
    rig.rotate();
    rig.say([5]);
    drop(shipper);
    let mut shipper = rig.shipper();
    reader.all(&mut shipper);
    assert_eq!((reader.said.as_slice(), reader.missed.len()), (&[1, 2, 3, 4, 5][..], 0));
    assert_eq!(unfinished(rig.dir.path()), [(Rig::name(), uid('a'))]);
    shipper.has_finished().expect("is noted");
    assert_eq!(unfinished(rig.dir.path()), []);
}

#[test]
fn a_parcel_that_may_be_stored_comes_again_with_the_same_bounds() {
    let rig = Rig::new(3);
    rig.say(1..=2);
    let first = rig.shipper().parcel().expect("reads").expect("a parcel");
    rig.say([3]);
    let mut shipper = rig.shipper();
    assert_eq!(shipper.parcel().expect("reads").as_ref(), Some(&first), "after a restart");
    assert_eq!(shipper.parcel().expect("reads").as_ref(), Some(&first), "after a lost acknowledgement");
    shipper.has_stored();
    let second = shipper.parcel().expect("reads").expect("a parcel");
    assert_eq!(second.stretch.from, first.stretch.to);
}

#[test]
fn what_rotation_took_is_said() {
    let mut rig = Rig::new(2);
    let (mut reader, mut shipper) = (Reader::default(), rig.shipper());
    rig.say([1]);
    reader.all(&mut shipper);
    let stored = shipper.mark.stored;
    for n in 2..=5 {
        rig.say([n]);
        rig.rotate();
    }
    rig.say([6]);
    reader.all(&mut shipper);
    assert_eq!(reader.said, [1, 5, 6]);
    let oldest = fs::metadata(rig.path("current.log.1")).expect("is there").len();
    assert_eq!(reader.missed, [rig.after - oldest - stored]);
}

#[test]
fn files_that_were_taken_away_begin_another_era() {
    let mut rig = Rig::new(2);
    let (mut reader, mut shipper) = (Reader::default(), rig.shipper());
    rig.say(1..=9);
    reader.all(&mut shipper);
    fs::remove_file(rig.path("current.log")).expect("removes");
    (rig.part, rig.after) = (0, 0);
    rig.begin_file();
    rig.say([10]);
    reader.all(&mut shipper);
    assert_eq!(reader.said, (1..=10).collect::<Vec<_>>());
}

#[test]
fn processes_of_one_name_are_told_apart() {
    let rig = Rig::new(2);
    let mut about = About::default();
    about.begin(Beginning { at_us: 1, uid: uid('a'), incarnation: 1 });
    about.begin(Beginning { at_us: 3, uid: uid('b'), incarnation: 1 });
    fs::write(rig.path("about"), about.text()).expect("writes");
    rig.say(1..=4);
    let mut shipper = rig.shipper();
    let mut parcels = Vec::new();
    while let Some(parcel) = shipper.parcel().expect("reads") {
        parcels.push((parcel.stretch.uid, parcel.bytes.iter().filter(|b| **b == b'\n').count()));
        shipper.has_stored();
    }
    assert_eq!(parcels, [(uid('a'), 2), (uid('b'), 2)]);
}

/// What a reader has after all this, and how many numbers were said.
fn after(acts: impl IntoIterator<Item = u8>) -> (Reader, u32) {
    let mut rig = Rig::new(4);
    let (mut reader, mut shipper) = (Reader::default(), rig.shipper());
    let mut said = 0;
    for act in acts {
        match act {
            0 | 1 => {
                rig.say(said + 1..=said + 3);
                said += 3;
            }
            2 => rig.rotate(),
            3 => shipper = rig.shipper(),
            // It was stored, and the acknowledgement was lost.
            4 => {
                if let Some(parcel) = shipper.parcel().expect("reads") {
                    reader.take(&parcel);
                }
            }
            _ => {
                if let Some(parcel) = shipper.parcel().expect("reads") {
                    reader.take(&parcel);
                    shipper.has_stored();
                }
            }
        }
    }
    reader.all(&mut shipper);
    (reader, said)
}

#[test]
fn a_new_file_with_the_number_and_length_of_an_old_one_is_seen() {
    let (reader, said) = after([0, 0, 0, 0, 0, 0, 0, 0, 5, 2, 4, 2, 0, 2, 0, 2, 2]);
    assert_eq!(reader.said, (1..=said).collect::<Vec<_>>());
}

#[test]
fn what_rotation_took_of_a_parcel_that_may_be_stored_does_not_move_its_end() {
    let (reader, said) = after([2, 2, 0, 4, 0, 0, 2, 2, 3, 3]);
    assert_eq!(reader.said, (1..=said).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn readers_get_each_line_once_whatever_happens(acts in proptest::collection::vec(0u8..6, 1..60)) {
        let (reader, said) = after(acts);
        prop_assert!(reader.said.is_sorted_by(|a, b| a < b), "{:?}", reader.said);
        // What went before anything was ever shipped is nobody's loss; after that there is no hole without a word.
        let first = said + 1 - u32::try_from(reader.said.len()).expect("few");
        let is_whole = reader.said.iter().copied().eq(first..=said);
        prop_assert!(is_whole || !reader.missed.is_empty(), "{:?} of {said}", reader.said);
    }
}
