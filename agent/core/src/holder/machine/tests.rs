//! The machine against a small model of a host: processes that run, ignore signals, leave others behind and end;
//! a state file that sometimes cannot be written; holders that die and are replaced.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::Uid;

use super::*;
use crate::holder::journal;
use crate::holder::protocol::{AckExit, LogSpec, RunAs, Signal, Stop, StopAll};

mod random;

const BOOT: &str = "boot-1";

fn key(n: u8, incarnation: u64) -> ProcKey {
    ProcKey { uid: Uid::from_bytes([n; 16]), incarnation }
}

pub(super) fn spawn(key: ProcKey, kill_mode: KillMode) -> Box<Spawn> {
    Box::new(Spawn {
        key,
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        argv: vec!["/bin/true".to_owned()],
        env: Vec::new(),
        user: None::<RunAs>,
        cwd: "/".to_owned(),
        umask: 0o022,
        rlimits: Vec::new(),
        oom_score_adjust: 0,
        allow_new_privileges: false,
        limits: crate::holder::protocol::Limits::default(),
        isolation: crate::holder::protocol::Isolation::default(),
        own_cgroup: true,
        log: LogSpec::below("/log"),
        kill_mode,
        listen: None,
        stop_signal: 15,
        grace_ms: 1_000,
    })
}

/// One incarnation in the model.
#[derive(Debug, Clone, Default)]
struct Tree {
    main: bool,
    others: u32,
    released: bool,
    runs: bool,
    ignores_term: bool,
    pid: i32,
}

/// That a program runs is not written down on its own.
fn as_written(state: &HolderState) -> HolderState {
    let mut state = state.clone();
    for record in state.processes.iter_mut().filter(|record| record.phase == Phase::Running) {
        record.phase = Phase::Starting;
    }
    state
}

/// The host: what the shell would see and do.
struct Host {
    core: HolderCore,
    now: u64,
    call: u64,
    pids: i32,
    trees: BTreeMap<ProcKey, Tree>,
    /// The last state that was written.
    disk: HolderState,
    /// The bytes of it.
    journal: Vec<u8>,
    /// Whether each write is also tried cut after each of its bytes.
    cuts: bool,
    disk_works: bool,
    forgotten: BTreeSet<ProcKey>,
    /// Exits as subscribers saw them, by key.
    seen: BTreeMap<ProcKey, ExitRecord>,
    acked: BTreeSet<u64>,
    answers: BTreeMap<u64, Reply>,
    started: BTreeSet<ProcKey>,
    /// Accepted stops: when the tree must be dead.
    kill_by: BTreeMap<ProcKey, u64>,
    ignores_term: bool,
    others: u32,
}

impl Host {
    fn new() -> Self {
        let disk = HolderState::empty(BOOT);
        Self {
            core: HolderCore::restore(disk.clone(), BOOT, 0),
            now: 1_000,
            call: 0,
            pids: 100,
            trees: BTreeMap::new(),
            disk,
            journal: Vec::new(),
            cuts: false,
            disk_works: true,
            forgotten: BTreeSet::new(),
            seen: BTreeMap::new(),
            acked: BTreeSet::new(),
            answers: BTreeMap::new(),
            started: BTreeSet::new(),
            kill_by: BTreeMap::new(),
            ignores_term: false,
            others: 0,
        }
    }

    fn input(&mut self, input: Input) {
        let mut queue = self.core.on(self.now, input);
        while !queue.is_empty() {
            let mut next = Vec::new();
            for output in queue {
                next.extend(self.perform(output));
            }
            queue = next;
        }
    }

    /// One turn of the shell's loop: write what is to be written.
    fn turn(&mut self) {
        while let Some(entry) = self.core.to_write(self.now) {
            if self.disk_works {
                self.write(&entry);
                self.input(Input::StateWritten);
            } else {
                self.input(Input::StateNotWritten { reason: "no space".to_owned() });
                break;
            }
        }
    }

    /// As the shell does it: a snapshot is a new file, a turn is appended.
    fn write(&mut self, entry: &Entry) {
        let before = match entry {
            Entry::Snapshot(_) => journal::head(),
            Entry::Turn(_) | Entry::Unrecognised => self.journal.clone(),
        };
        let mut after = before.clone();
        journal::append(entry, &mut after).unwrap();
        let state = self.core.state();
        if self.cuts {
            for cut in before.len()..after.len() {
                let read = journal::replay(&after[..cut]).unwrap();
                if before.len() > journal::HEAD {
                    assert_eq!(read.state, self.disk, "cut at {cut} it is neither before nor after");
                }
            }
        }
        let read = journal::replay(&after).unwrap();
        assert_eq!(
            (as_written(&read.state), read.harm),
            (as_written(&state), None),
            "what was written is what is"
        );
        (self.journal, self.disk) = (after, read.state);
    }

    fn request(&mut self, request: Request) -> u64 {
        self.call += 1;
        let call = self.call;
        self.input(Input::Request { caller: Caller { client: 1, call }, request });
        call
    }

    fn perform(&mut self, output: Output) -> Vec<Output> {
        match output {
            Output::Fork(spawn) => {
                self.pids += 1;
                let tree = Tree {
                    main: true,
                    others: self.others,
                    ignores_term: self.ignores_term,
                    pid: self.pids,
                    ..Tree::default()
                };
                self.trees.insert(spawn.key, tree);
                let forked = Forked {
                    key: spawn.key,
                    pid: self.pids,
                    start_time: self.now,
                    started_at: self.now,
                    cgroup: None,
                    stdout: "o".to_owned(),
                    stderr: "e".to_owned(),
                    unenforced: Vec::new(),
                };
                self.core.on(self.now, Input::Forked(Box::new(forked)))
            }
            Output::Release(key) => {
                let pid = self.trees[&key].pid;
                assert!(
                    self.disk.processes.iter().any(|p| p.key == key && p.pid == pid),
                    "released unrecorded"
                );
                let tree = self.trees.get_mut(&key).unwrap();
                tree.released = true;
                if !tree.main {
                    return Vec::new();
                }
                tree.runs = true;
                self.started.insert(key);
                self.core.on(self.now, Input::ProgramRuns(key))
            }
            Output::Abort(key) => {
                assert!(!self.trees[&key].runs);
                self.trees.remove(&key);
                Vec::new()
            }
            Output::Signal { key, signal, whole_tree, .. } => self.signalled(key, signal, whole_tree),
            Output::KillTree(key) => self.killed(key),
            Output::CheckTree(key) => {
                let empty = self.trees.get(&key).is_none_or(|tree| !tree.main && tree.others == 0);
                self.core.on(self.now, Input::TreeChecked { key, empty })
            }
            Output::SetRlimit { .. } | Output::SetLimits { .. } => Vec::new(),
            Output::Forget(key) => {
                assert!(self.forgotten.insert(key), "forgotten twice");
                self.trees.remove(&key);
                self.kill_by.remove(&key);
                Vec::new()
            }
            Output::Answer(caller, reply) => {
                assert!(self.answers.insert(caller.call, reply).is_none(), "answered twice");
                Vec::new()
            }
            Output::Publish(event) => {
                self.published(event);
                Vec::new()
            }
        }
    }

    fn published(&mut self, event: Event) {
        match event {
            Event::Exited(exit) => {
                if self.disk_works {
                    assert!(self.disk.exits.contains(&exit), "told before it was written");
                }
                if let Some(before) = self.seen.insert(exit.key, exit.clone()) {
                    panic!("two exits of one incarnation: {before:?} and {exit:?}");
                }
            }
            Event::TreeEmpty(key) => assert!(self.forgotten.contains(&key)),
            Event::Started(started) => assert!(self.trees[&started.key].released),
            Event::Said(by) => assert!(!self.forgotten.contains(&by.key)),
            Event::Unrecognised => panic!("sent"),
        }
    }

    fn signalled(&mut self, key: ProcKey, signal: i32, whole_tree: bool) -> Vec<Output> {
        assert!(!self.forgotten.contains(&key), "signalled after it was forgotten");
        let tree = self.trees.get_mut(&key).unwrap();
        // With no grace both signals go out in one turn: the main process may end by the first before the core is told.
        let told = self.seen.contains_key(&key);
        assert!(whole_tree || tree.main || !told, "the main process was signalled after its end was told");
        if !whole_tree && !tree.main {
            return Vec::new();
        }
        if signal != SIGKILL && tree.ignores_term {
            return Vec::new();
        }
        if whole_tree {
            tree.others = 0;
        }
        self.end_main(key, Exit::Signal(signal))
    }

    fn killed(&mut self, key: ProcKey) -> Vec<Output> {
        assert!(!self.forgotten.contains(&key), "killed after it was forgotten");
        self.trees.get_mut(&key).unwrap().others = 0;
        self.end_main(key, Exit::Signal(SIGKILL))
    }

    fn end_main(&mut self, key: ProcKey, exit: Exit) -> Vec<Output> {
        let Some(tree) = self.trees.get_mut(&key).filter(|tree| tree.main) else { return Vec::new() };
        tree.main = false;
        self.core.on(self.now, Input::MainEnded { key, exit, oom: false, at: self.now })
    }

    fn ends_itself(&mut self, key: ProcKey) {
        let outputs = self.end_main(key, Exit::Code(3));
        let mut queue = outputs;
        while !queue.is_empty() {
            queue = queue.into_iter().flat_map(|output| self.perform(output)).collect();
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(at) = self.core.next_wake().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Tick);
            self.turn();
            assert!(self.core.next_wake().is_none_or(|at| at > self.now), "a timer that does not move");
        }
        self.now = end;
    }

    /// SIGKILL of the holder between two turns, then a new one.
    fn replace_holder(&mut self) {
        for tree in self.trees.values_mut().filter(|tree| !tree.released) {
            // A child that waits ends when its holder does.
            tree.main = false;
            tree.others = 0;
        }
        self.core = HolderCore::restore(self.disk.clone(), BOOT, self.now);
        let recorded: BTreeSet<ProcKey> = self.core.adopted().map(|record| record.key).collect();
        for (key, tree) in &self.trees {
            assert!(
                recorded.contains(key) || !tree.runs || self.forgotten.contains(key),
                "{key} was orphaned"
            );
        }
        self.trees.retain(|key, _| recorded.contains(key));
        // Exits may be told again by a new holder: only unwritten ones may differ.
        let kept: BTreeSet<ProcKey> = self.disk.exits.iter().map(|exit| exit.key).collect();
        self.seen.retain(|key, exit| kept.contains(key) || self.acked.contains(&exit.seq));
        self.forgotten.retain(|key| !recorded.contains(key));
        for key in recorded {
            if self.trees.get(&key).is_none_or(|tree| !tree.main) {
                let exit = Exit::Unknown("ended while no holder was there to see it".to_owned());
                let at = self.now;
                self.input(Input::MainEnded { key, exit, oom: false, at });
            }
        }
        self.turn();
    }

    fn ack_all(&mut self) {
        // A client knows of an exit only once it was told, which is after it was written.
        self.turn();
        let exits: Vec<ExitRecord> = self.core.exits.values().cloned().collect();
        for exit in exits {
            self.acked.insert(exit.seq);
            self.request(Request::AckExit(AckExit { key: exit.key, seq: exit.seq }));
        }
        self.turn();
    }
}

#[test]
fn a_start_is_answered_once_the_program_runs_and_its_exit_is_kept_until_acknowledged() {
    let mut host = Host::new();
    let call = host.request(Request::Spawn(spawn(key(1, 1), KillMode::Mixed)));
    assert!(!host.answers.contains_key(&call), "nothing runs before the state is written");
    host.turn();
    assert!(matches!(host.answers[&call], Reply::Spawned(_)));
    host.ends_itself(key(1, 1));
    assert!(host.seen.is_empty());
    host.turn();
    assert_eq!(host.seen[&key(1, 1)].exit, Exit::Code(3));
    host.replace_holder();
    let again = host.request(Request::Spawn(spawn(key(1, 1), KillMode::Mixed)));
    assert!(matches!(&host.answers[&again], Reply::Refused(r) if r.code == RefusalCode::AlreadyExists));
    host.ack_all();
    assert!(host.core.state().exits.is_empty());
}

#[test]
fn one_process_has_one_incarnation_at_a_time() {
    let mut host = Host::new();
    host.request(Request::Spawn(spawn(key(1, 1), KillMode::Mixed)));
    host.turn();
    let second = host.request(Request::Spawn(spawn(key(1, 2), KillMode::Mixed)));
    assert!(matches!(&host.answers[&second], Reply::Refused(r) if r.code == RefusalCode::Busy));
}

#[test]
fn a_process_that_ignores_its_stop_is_killed_with_its_tree_at_the_deadline() {
    let mut host = Host::new();
    (host.ignores_term, host.others) = (true, 3);
    host.request(Request::Spawn(spawn(key(1, 1), KillMode::Mixed)));
    host.turn();
    host.request(Request::Stop(Stop { key: key(1, 1), signal: None, grace_ms: Some(500) }));
    host.turn();
    host.pass(499);
    assert!(host.trees[&key(1, 1)].main);
    host.pass(1);
    assert_eq!(host.seen[&key(1, 1)].exit, Exit::Signal(SIGKILL));
    assert!(host.forgotten.contains(&key(1, 1)));
}

#[test]
fn a_stop_goes_on_under_the_next_holder() {
    let mut host = Host::new();
    host.ignores_term = true;
    host.request(Request::Spawn(spawn(key(1, 1), KillMode::Mixed)));
    host.turn();
    host.request(Request::Stop(Stop { key: key(1, 1), signal: None, grace_ms: Some(500) }));
    host.turn();
    host.pass(100);
    host.replace_holder();
    host.pass(400);
    assert_eq!(host.seen[&key(1, 1)].exit, Exit::Signal(SIGKILL));
}

#[test]
fn kill_modes_differ_in_what_happens_to_those_left_behind() {
    for (mode, left_at_once, left_later) in
        [(KillMode::Mixed, 0, 0), (KillMode::ControlGroup, 2, 0), (KillMode::Process, 2, 2)]
    {
        let mut host = Host::new();
        (host.ignores_term, host.others) = (true, 2);
        host.request(Request::Spawn(spawn(key(1, 1), mode)));
        host.turn();
        host.ends_itself(key(1, 1));
        host.turn();
        let left = |host: &Host| host.trees.get(&key(1, 1)).map_or(0, |tree| tree.others);
        assert_eq!(left(&host), left_at_once, "{mode:?}");
        host.pass(2_000);
        assert_eq!(left(&host), left_later, "{mode:?}");
    }
}

#[test]
fn without_a_state_nothing_starts_and_exits_go_on() {
    let mut host = Host::new();
    host.request(Request::Spawn(spawn(key(1, 1), KillMode::Mixed)));
    host.turn();
    host.disk_works = false;
    let refused = host.request(Request::Spawn(spawn(key(2, 1), KillMode::Mixed)));
    host.turn();
    assert!(matches!(&host.answers[&refused], Reply::Refused(r) if r.code == RefusalCode::StartFailed));
    host.ends_itself(key(1, 1));
    host.turn();
    assert_eq!(host.seen[&key(1, 1)].exit, Exit::Code(3));
    host.disk_works = true;
    host.pass(WRITE_RETRY_MS);
    assert_eq!(host.disk.exits.len(), 1);
}

#[test]
fn another_boot_ends_everything_with_the_reason() {
    let mut host = Host::new();
    host.request(Request::Spawn(spawn(key(1, 1), KillMode::Mixed)));
    host.turn();
    let core = HolderCore::restore(host.disk.clone(), "boot-2", 7);
    let state = core.state();
    assert!(state.processes.is_empty());
    assert_eq!(state.exits[0].exit, Exit::Unknown("the host was restarted".to_owned()));
}

#[test]
fn stop_all_is_answered_when_nothing_is_left_and_refuses_new_starts() {
    let mut host = Host::new();
    host.ignores_term = true;
    for n in 1..4 {
        host.request(Request::Spawn(spawn(key(n, 1), KillMode::Process)));
    }
    host.turn();
    let call = host.request(Request::StopAll(StopAll { grace_ms: Some(200) }));
    let late = host.request(Request::Spawn(spawn(key(9, 1), KillMode::Mixed)));
    assert!(matches!(&host.answers[&late], Reply::Refused(r) if r.code == RefusalCode::Closing));
    host.pass(199);
    assert!(!host.answers.contains_key(&call));
    host.pass(1);
    host.turn();
    assert!(matches!(host.answers[&call], Reply::Done(_)));
}

#[test]
fn a_listing_comes_in_pages_and_is_complete() {
    let mut host = Host::new();
    for n in 0..255 {
        host.request(Request::Spawn(spawn(key(n, 1), KillMode::Mixed)));
        host.request(Request::Spawn(spawn(
            ProcKey {
                uid: Uid::from_bytes([n, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]),
                incarnation: 1,
            },
            KillMode::Mixed,
        )));
    }
    host.turn();
    let mut list = crate::holder::protocol::List::default();
    let mut keys = Vec::new();
    loop {
        let call = host.request(Request::List(list.clone()));
        let Reply::Listing(page) = host.answers[&call].clone() else { panic!("not a listing") };
        keys.extend(page.processes.iter().map(|process| process.key));
        list.after = keys.last().copied();
        if !page.more {
            break;
        }
    }
    assert_eq!(keys, host.core.state().processes.iter().map(|p| p.key).collect::<Vec<_>>());
    assert_eq!(keys.len(), 510);
}
