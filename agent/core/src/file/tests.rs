//! The machine against the model of a file system: every step is a place to crash, in both ways.

use std::collections::BTreeMap;

use ostler_schemas::hash::sha256;
use ostler_schemas::spec::{ContentRef, Drift, OnExisting, OnRemove, Unlisted};

use super::model::{ModelFs, Node};
use super::*;

mod change;
mod drift;
mod folder;
mod validate;

const PATH: &str = "/etc/app/app.conf";
const ROOT: Owner = Owner { uid: 0, gid: 0 };

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Timestamp(1_000_000_000 + ms) }
}

/// A host with one managed file.
struct Host {
    fs: ModelFs,
    blobs: BTreeMap<Sha256, Vec<u8>>,
    file: ManagedFile,
    disk: FileRecord,
    told: Vec<Reason>,
    now: u64,
    /// Steps that may still be carried out before the agent dies.
    steps_left: usize,
    /// How often the validator was asked.
    asked: usize,
    /// Whether nobody is there to ask it.
    is_deaf: bool,
    /// What may lie at the path.
    whole: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    Agent,
    Power,
}

fn rules() -> Rules {
    Rules {
        root: String::new(),
        own: vec!["/var/lib/ostler".to_owned()],
        originals: "/var/lib/ostler/originals".to_owned(),
        ..Rules::default()
    }
}

fn spec(content: &[u8]) -> FileSpec {
    FileSpec {
        name: "app-conf".parse().expect("a name"),
        namespace: Namespace::default_namespace(),
        path: PATH.to_owned(),
        owner: "root".to_owned(),
        group: None,
        mode: Mode::from_bits(0o644),
        content: Some(ContentRef { sha256: sha256(content), size: content.len() as u64 }),
        template: None,
        files: Vec::new(),
        unlisted: Unlisted::Keep,
        create_directories: true,
        validator: None,
        drift: Drift::Enforce,
        on_existing: OnExisting::Replace,
        on_remove: OnRemove::Restore,
        on_change: Vec::new(),
        probe: None,
        watch: ostler_schemas::quantity::Dur::ZERO,
    }
}

fn wanted(version: u64, spec: FileSpec, goal: FileGoal) -> WantedFile {
    let part = |part: ostler_schemas::spec::Part<'_>| Part {
        name: part.name.to_owned(),
        sha256: part.source.reference().sha256,
        mode: part.mode,
    };
    WantedFile {
        version: Version(version),
        goal,
        parts: Some(Ok(spec.parts().map(part).collect())),
        is_secret: false,
        hash: sha256(format!("{spec:?}").as_bytes()),
        spec: Some(Arc::new(spec)),
        owner: Some(Ok(ROOT)),
        content: true,
        conflict: None,
    }
}

impl Host {
    fn new(fs: ModelFs) -> Self {
        let record = FileRecord::new(Uid::from_bytes([7; 16]));
        let mut blobs = BTreeMap::new();
        for content in [b"one".as_slice(), b"two", b"bad"] {
            blobs.insert(sha256(content), content.to_vec());
        }
        Self {
            fs,
            blobs,
            file: ManagedFile::new(record.clone(), rules()),
            disk: record,
            told: Vec::new(),
            now: 0,
            steps_left: usize::MAX,
            asked: 0,
            is_deaf: false,
            whole: [b"one".as_slice(), b"two", b"original", b"spoiled"].map(<[u8]>::to_vec).into(),
        }
    }

    /// Feeds an event and carries out what follows, until nothing does; `false` if the agent died on the way.
    fn feed(&mut self, event: Event) -> bool {
        let mut queue = vec![event];
        let mut turns = 0;
        while !queue.is_empty() {
            turns += 1;
            assert!(turns < 100, "the machine goes in circles: {:?}", self.file);
            let effects = self.file.on(at(self.now), queue.remove(0));
            for effect in effects {
                match effect {
                    Effect::Observe => queue.push(Event::Observed(Ok(self.sight()))),
                    Effect::Tell(reason, _) => self.told.push(reason),
                    Effect::Run(steps) => match self.run(&steps) {
                        Some(ran) => queue.push(ran),
                        None => return false,
                    },
                }
            }
            self.check();
        }
        true
    }

    /// What the shell would see: every file that is to be looked at, and what nobody named.
    fn sight(&self) -> Sight {
        let path = self.file.path().expect("something is asked");
        let candidate = self
            .file
            .has_candidates()
            .then(|| Box::new(self.fs.observe(&part_path(&path, CANDIDATE_FOLDER))));
        let (names, unlisted) = self.file.to_look_at();
        let see = |name: &String| (name.clone(), self.fs.observe(&part_path(&path, name)));
        let others = self.fs.list(&path);
        let others =
            others.iter().filter(|name| unlisted && !names.contains(*name) && !name.ends_with(".ostler"));
        Sight { parts: names.iter().map(see).collect(), unlisted: others.map(see).collect(), candidate }
    }

    fn run(&mut self, steps: &[Step]) -> Option<Event> {
        for (done, step) in steps.iter().enumerate() {
            if self.steps_left == 0 {
                return None;
            }
            self.steps_left -= 1;
            if let Step::Record(record) = step {
                self.disk = (**record).clone();
            }
            let said = if let Step::Validate(candidate) = step { self.look_at(candidate) } else { Ok(()) };
            if let Err(error) = said.and_then(|()| self.fs.apply(step, &self.blobs)) {
                return Some(Event::Ran { done, error: Some(error) });
            }
            self.check();
        }
        Some(Event::Ran { done: steps.len(), error: None })
    }

    /// The path never holds anything but a whole version.
    fn check(&self) {
        if let Some(file) = self.fs.file(PATH) {
            let is_theirs = file.bytes.starts_with(b"spoiled");
            assert!(is_theirs || self.whole.contains(&file.bytes), "torn, or bad: {:?}", file.bytes);
        }
    }

    fn restart(&mut self, crash: Crash) {
        if crash == Crash::Power {
            self.fs.power_loss();
            self.check();
        }
        self.steps_left = usize::MAX;
        self.file = ManagedFile::new(self.disk.clone(), rules());
    }

    fn want(&mut self, version: u64, content: &[u8]) -> bool {
        self.feed(Event::Want(wanted(version, spec(content), FileGoal::Hold)))
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.feed(Event::Tick);
    }

    fn spoil(&mut self) {
        self.fs.put_file(PATH, b"spoiled", 0o644, ROOT);
        self.feed(Event::Look);
    }

    fn holds(&self, content: &[u8]) -> bool {
        self.fs.file(PATH).is_some_and(|f| f.bytes == content && f.mode == Mode::from_bits(0o644))
    }
}

fn with_original() -> ModelFs {
    let mut fs = ModelFs::new(&["/etc/app", "/var/lib/ostler/originals"]);
    fs.put_file(PATH, b"original", 0o600, Owner { uid: 5, gid: 5 });
    fs
}

#[test]
fn a_file_is_written_with_its_directories() {
    let mut host = Host::new(ModelFs::new(&["/etc"]));
    assert!(host.want(1, b"one"));
    assert!(host.holds(b"one"));
    assert_eq!(host.file.report().state, FileState::InSync);
    assert_eq!(host.told, [Reason::FileWritten]);
    assert!(host.want(2, b"two"));
    assert!(host.holds(b"two"));
    assert_eq!(host.file.report().v, Version(2));
}

#[test]
fn what_was_there_is_kept_and_given_back() {
    let mut host = Host::new(with_original());
    host.want(1, b"one");
    assert!(host.told.contains(&Reason::FileTakenOver));
    host.want(2, b"two");
    host.feed(Event::Want(wanted(2, spec(b"two"), FileGoal::Release)));
    let file = host.fs.file(PATH).expect("given back");
    assert_eq!((file.bytes.as_slice(), file.mode.bits(), file.owner.uid), (b"original".as_slice(), 0o600, 5));
    assert_eq!(host.file.report().state, FileState::Released);
    host.feed(Event::Unwanted);
    assert!(host.file.is_retired());
}

#[test]
fn on_remove_keep_and_delete_do_what_they_say() {
    for (on_remove, stays) in [(OnRemove::Keep, true), (OnRemove::Delete, false), (OnRemove::Unknown, true)] {
        let mut host = Host::new(with_original());
        let mut spec = spec(b"one");
        spec.on_remove = on_remove;
        host.feed(Event::Want(wanted(1, spec.clone(), FileGoal::Hold)));
        host.feed(Event::Want(wanted(1, spec, FileGoal::Release)));
        assert_eq!(host.fs.file(PATH).is_some(), stays, "{on_remove:?}");
        assert_eq!(host.file.report().state, FileState::Released);
    }
}

#[test]
fn drift_is_put_back_and_reported() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.want(1, b"one");
    host.spoil();
    assert!(host.holds(b"one"));
    assert_eq!(host.told, [Reason::FileWritten, Reason::DriftRepaired]);
    host.fs.take(PATH);
    host.feed(Event::Look);
    assert!(host.holds(b"one"));
    assert_eq!(host.file.report().last_drift.expect("a drift").what, "missing");
}

#[test]
fn a_fight_slows_down_and_ends() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.want(1, b"one");
    for _ in 0..3 {
        host.spoil();
        assert!(host.holds(b"one"));
        host.now += 1000;
    }
    assert_eq!(host.file.report().state, FileState::Contested);
    host.spoil();
    assert!(host.holds(b"spoiled"), "not more than once a minute");
    host.pass(60_000);
    assert!(host.holds(b"one"), "but once a minute");
    let mut repairs = 0;
    for _ in 0..120 {
        host.spoil();
        host.pass(60_000);
        repairs += u32::from(host.holds(b"one"));
    }
    assert!((50..=60).contains(&repairs), "{repairs} repairs in two hours of fight");
    host.want(2, b"two");
    assert!(host.holds(b"two"), "a push ends every truce");
    assert_eq!(host.file.report().state, FileState::InSync);
}

#[test]
fn a_contest_that_stops_is_forgotten() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.want(1, b"one");
    for _ in 0..3 {
        host.spoil();
    }
    assert_eq!(host.file.report().state, FileState::Contested);
    host.pass(CONTEST_WINDOW_MS + 1);
    assert_eq!(host.file.report().state, FileState::InSync);
}

#[test]
fn warn_reports_and_ignore_does_not_look() {
    for (drift, state) in [(Drift::Warn, FileState::Drifted), (Drift::Ignore, FileState::InSync)] {
        let mut host = Host::new(ModelFs::new(&["/etc/app"]));
        let mut one = spec(b"one");
        one.drift = drift;
        host.feed(Event::Want(wanted(1, one, FileGoal::Hold)));
        host.spoil();
        assert!(host.holds(b"spoiled"));
        assert_eq!(host.file.report().state, state);
        let mut two = spec(b"two");
        two.drift = drift;
        host.feed(Event::Want(wanted(2, two, FileGoal::Hold)));
        assert!(host.holds(b"two"), "a push writes in all three");
    }
}

#[test]
fn what_may_not_be_written_is_left_alone() {
    for (path, reason) in [
        ("/proc/app.conf", Reason::PathRefused),
        ("/var/lib/ostler/app.conf", Reason::PathRefused),
        ("/etc/../app.conf", Reason::PathRefused),
    ] {
        let mut host = Host::new(ModelFs::new(&["/etc/app"]));
        let mut one = spec(b"one");
        one.path = path.to_owned();
        host.feed(Event::Want(wanted(1, one, FileGoal::Hold)));
        assert_eq!(host.file.report().reason, Some(reason), "{path}");
    }
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.fs.put(PATH, Node::Other("a symbolic link"));
    host.want(1, b"one");
    assert_eq!(host.file.report().reason, Some(Reason::NotRegular));
    let mut host = Host::new(with_original());
    let mut one = spec(b"one");
    one.on_existing = OnExisting::Refuse;
    host.feed(Event::Want(wanted(1, one, FileGoal::Hold)));
    assert_eq!(host.file.report().state, FileState::Failed);
    assert_eq!(host.fs.file(PATH).expect("left alone").bytes, b"original");
}

#[test]
fn a_link_in_the_way_does_not_lead_into_forbidden_places() {
    let rules = rules();
    assert!(rules.refusal("/etc/x/app.conf", Some("/var/lib/ostler/ledger")).is_some());
    assert!(rules.refusal("/etc/x/app.conf", Some("/etc/y")).is_none());
    let boxed = Rules { root: "/tmp/box".to_owned(), ..Rules::default() };
    assert!(boxed.refusal("/etc/app.conf", Some("/etc")).is_some());
    assert!(boxed.refusal("/etc/app.conf", Some("/tmp/box/etc")).is_none());
}

#[test]
fn a_full_disk_leaves_the_old_version_and_is_tried_again() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.want(1, b"one");
    host.fs.room = Some(0);
    host.want(2, b"two");
    assert!(host.holds(b"one"));
    assert_eq!(host.file.report().reason, Some(Reason::DiskFull));
    host.fs.room = None;
    host.pass(RETRY_FIRST_MS);
    assert!(host.holds(b"two"));
    assert_eq!(host.file.report().state, FileState::InSync);
    assert_eq!(host.told.iter().filter(|r| **r == Reason::DiskFull).count(), 1);
}

#[test]
fn an_owner_that_cannot_be_set_is_said() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.fs.may_own = false;
    host.fs.self_owner = Some(Owner { uid: 1000, gid: 1000 });
    host.want(1, b"one");
    assert_eq!(host.file.report().reason, Some(Reason::OwnerRefused));
    assert!(host.fs.file(PATH).is_none());
}

/// Crashes after every number of steps, in both ways, at every change of a file's life; then lets it finish.
#[test]
fn a_crash_at_any_step_is_finished_later() {
    for crash in [Crash::Agent, Crash::Power] {
        for steps in 0..200 {
            let mut host = Host::new(with_original());
            host.steps_left = steps;
            let finished = host.want(1, b"one")
                && host.want(2, b"two")
                && {
                    host.fs.put_file(PATH, b"spoiled", 0o644, ROOT);
                    host.feed(Event::Look)
                }
                && host.feed(Event::Want(wanted(2, spec(b"two"), FileGoal::Release)));
            if finished {
                assert!(steps > 25, "every step was a place to crash: {steps}");
                break;
            }
            host.restart(crash);
            assert!(host.want(2, b"two"));
            assert!(host.holds(b"two"), "{crash:?} after {steps} steps: {:?}", host.file);
            assert!(!host.fs.exists(&temp_path(PATH)), "an unfinished file is left after {steps} steps");
            host.feed(Event::Want(wanted(2, spec(b"two"), FileGoal::Release)));
            let file = host.fs.file(PATH).expect("the original");
            let original = file.bytes == b"original" && file.owner.uid == 5;
            assert!(original, "{crash:?} after {steps} steps: {:?}", file.bytes);
        }
    }
}

#[test]
fn a_new_version_never_stands_as_the_failure_of_the_one_before() {
    let mut host = Host::new(ModelFs::default());
    let mut bad = wanted(1, spec(b"one"), FileGoal::Hold);
    bad.owner = Some(Err("no such user".to_owned()));
    host.feed(Event::Want(bad));
    let shown = |file: &ManagedFile| (file.report().wanted.0, file.report().state);
    assert_eq!(shown(&host.file), (1, FileState::Failed));
    let effects = host.file.on(at(1), Event::Want(wanted(2, spec(b"two"), FileGoal::Hold)));
    assert_eq!(shown(&host.file), (2, FileState::Pending));
    assert_eq!(host.file.version_in_sync(), None);
    assert!(effects.contains(&Effect::Observe));
    // A write of the second version is under way when a third is asked for, and fails then.
    let effects = host.file.on(at(2), Event::Observed(Ok(Sight::alone(host.fs.observe(PATH)))));
    assert!(effects.iter().any(|e| matches!(e, Effect::Run(_))), "{effects:?}");
    host.file.on(at(3), Event::Want(wanted(3, spec(b"one"), FileGoal::Hold)));
    let error = StepError { kind: StepErrorKind::DiskFull, message: "no space".to_owned() };
    let effects = host.file.on(at(4), Event::Ran { done: 0, error: Some(error.clone()) });
    assert_eq!((shown(&host.file), effects), ((3, FileState::Pending), vec![Effect::Observe]));
    // Its own failure is one.
    host.file.on(at(5), Event::Observed(Ok(Sight::alone(host.fs.observe(PATH)))));
    host.file.on(at(6), Event::Ran { done: 0, error: Some(error) });
    assert_eq!(shown(&host.file), (3, FileState::Failed));
}

#[test]
fn what_was_read_before_a_new_version_came_is_read_again() {
    let mut host = Host::new(ModelFs::default());
    let effects = host.file.on(at(0), Event::Want(wanted(1, spec(b"one"), FileGoal::Hold)));
    assert_eq!(effects, [Effect::Observe]);
    host.file.on(at(1), Event::Want(wanted(2, spec(b"two"), FileGoal::Hold)));
    let effects = host.file.on(at(2), Event::Observed(Err("input/output error".to_owned())));
    assert_eq!((effects, host.file.report().state), (vec![Effect::Observe], FileState::Pending));
}

#[test]
fn a_file_that_never_was_here_is_released_whatever_is_known_of_it() {
    let release = |spec| WantedFile { spec, ..wanted(1, self::spec(b"one"), FileGoal::Release) };
    for spec in [None, Some(Arc::new(spec(b"one")))] {
        let mut host = Host::new(ModelFs::default());
        host.feed(Event::Want(release(spec)));
        assert_eq!((host.file.report().state, host.told.len()), (FileState::Released, 0));
        host.file.on(at(1), Event::Look);
        host.file.on(at(2), Event::Observed(Err("permission denied".to_owned())));
        assert_eq!(host.file.report().state, FileState::Released);
        host.feed(Event::Unwanted);
        assert!(host.file.is_retired());
    }
}

#[test]
fn a_held_file_is_left_as_it_is_and_put_right_afterwards() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.feed(Event::Want(wanted(1, spec(b"one"), FileGoal::Hold)));
    assert_eq!(host.file.report().state, FileState::InSync);
    let held = Held { stop: false, message: "held by anna".to_owned() };
    host.feed(Event::Hold(Some(held)));
    host.fs.put_file(PATH, b"spoiled", 0o600, ROOT);
    host.feed(Event::Look);
    host.feed(Event::Want(wanted(2, spec(b"two"), FileGoal::Hold)));
    assert_eq!(host.fs.file(PATH).map(|f| f.bytes.clone()), Some(b"spoiled".to_vec()));
    let report = host.file.report();
    assert_eq!((report.state, report.message.as_deref()), (FileState::Held, Some("held by anna")));
    assert_eq!(host.file.version_in_sync(), Some(Version(1)), "who needs it gets what is here");
    host.feed(Event::Hold(None));
    assert_eq!(host.fs.file(PATH).map(|f| f.bytes.clone()), Some(b"two".to_vec()));
    assert_eq!(host.file.report().state, FileState::InSync);
}

#[test]
fn a_release_is_no_way_around_the_rules() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.want(1, b"one");
    host.fs.put_file("/etc/shadow", b"secret", 0o600, ROOT);
    let elsewhere = FileSpec { path: "/etc/shadow".to_owned(), on_remove: OnRemove::Delete, ..spec(b"one") };
    host.feed(Event::Want(wanted(2, elsewhere, FileGoal::Release)));
    assert!(host.fs.exists("/etc/shadow") && host.fs.exists(PATH));
    assert_eq!(host.file.report().state, FileState::Released);
}
