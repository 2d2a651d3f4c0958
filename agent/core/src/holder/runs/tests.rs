use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::Uid;
use proptest::prelude::*;

use super::*;
use crate::holder::frame;
use crate::holder::protocol::{Call, Message, Request, Spawn};

const KEY: ProcKey = ProcKey { uid: Uid::from_bytes([7; 16]), incarnation: 3 };

fn run(timeout_ms: Option<u64>) -> Box<Run> {
    let spawn: Spawn = rmp_serde::from_slice(
        &rmp_serde::to_vec_named(&Least {
            key: KEY,
            name: "web",
            namespace: "default",
            argv: ["/bin/true"],
            log: Dir { dir: "" },
        })
        .unwrap(),
    )
    .unwrap();
    Box::new(Run { spawn: Box::new(spawn), beside: true, timeout_ms, terminal: false })
}

/// The least that a start says; the rest is the wire's own defaults.
#[derive(serde::Serialize)]
struct Least {
    key: ProcKey,
    name: &'static str,
    namespace: &'static str,
    argv: [&'static str; 1],
    log: Dir,
}

#[derive(serde::Serialize)]
struct Dir {
    dir: &'static str,
}

fn caller(client: u64) -> Caller {
    Caller { client, call: 2 }
}

fn started(runs: &mut Runs, timeout_ms: Option<u64>) {
    let acts = runs.on(0, Happened::Asked(caller(1), run(timeout_ms)));
    assert!(matches!(acts.as_slice(), [Act::Fork(1, _, _)]), "{acts:?}");
    assert_eq!(runs.on(0, Happened::Forked(1)), []);
}

fn ran(exit: Exit, timed_out: bool, because: Option<&str>) -> Act {
    let ran = Ran { exit, timed_out, ended_because: because.map(str::to_owned) };
    Act::Answer(caller(1), Reply::Ran(ran))
}

#[test]
fn an_end_is_told_when_nothing_is_left() {
    let mut runs = Runs::default();
    started(&mut runs, Some(100));
    assert_eq!(runs.on(1, Happened::Ended(1, Exit::Code(3))), [Act::Look(1)]);
    assert_eq!(runs.on(1, Happened::Looked(1, false)), [Act::Kill(1)]);
    assert_eq!(runs.on(6, Happened::Tick), [Act::Look(1)]);
    assert_eq!(runs.on(7, Happened::Looked(1, true)), [ran(Exit::Code(3), false, None), Act::Forget(1)]);
    assert!(runs.is_empty());
    assert_eq!(runs.next_wake(), None);
}

#[test]
fn the_deadline_kills_the_tree_and_says_so() {
    let mut runs = Runs::default();
    started(&mut runs, Some(100));
    assert_eq!(runs.next_wake(), Some(100));
    assert_eq!(runs.on(99, Happened::Tick), []);
    assert_eq!(runs.on(100, Happened::Tick), [Act::Kill(1)]);
    assert_eq!(runs.on(1_100, Happened::Tick), [Act::Kill(1)], "again, until it goes");
    runs.on(1_101, Happened::Ended(1, Exit::Signal(9)));
    let acts = runs.on(1_101, Happened::Looked(1, true));
    assert_eq!(acts, [ran(Exit::Signal(9), true, None), Act::Forget(1)]);
}

#[test]
fn what_cannot_be_killed_does_not_hold_up_the_answer() {
    let mut runs = Runs::default();
    started(&mut runs, Some(100));
    runs.on(100, Happened::Tick);
    let acts = runs.on(100 + STUCK_MS, Happened::Tick);
    let unknown = Exit::Unknown("it was killed and has not ended yet".to_owned());
    assert_eq!(acts.last(), Some(&ran(unknown, true, None)));
    assert!(!runs.is_empty(), "it is still killed and awaited");
    runs.on(99_000, Happened::Ended(1, Exit::Signal(9)));
    assert_eq!(runs.on(99_000, Happened::Looked(1, true)), [Act::Forget(1)], "one answer is enough");
}

#[test]
fn it_ends_with_its_connection_and_with_its_process() {
    let mut runs = Runs::default();
    started(&mut runs, None);
    assert_eq!(runs.on(5, Happened::ClientGone(2)), []);
    assert_eq!(runs.on(5, Happened::ClientGone(1)), [Act::Kill(1)]);
    runs.on(6, Happened::Ended(1, Exit::Signal(9)));
    assert_eq!(runs.on(6, Happened::Looked(1, true)), [Act::Forget(1)]);

    let mut runs = Runs::default();
    started(&mut runs, None);
    let other = ProcKey { incarnation: 4, ..KEY };
    assert_eq!(runs.on(5, Happened::IncarnationEnded(other)), []);
    assert_eq!(runs.on(5, Happened::IncarnationEnded(KEY)), [Act::Kill(1)]);
    runs.on(6, Happened::Ended(1, Exit::Signal(9)));
    let acts = runs.on(6, Happened::Looked(1, true));
    assert_eq!(acts, [ran(Exit::Signal(9), false, Some("its process ended")), Act::Forget(1)]);
}

#[test]
fn a_start_that_failed_is_refused_with_its_reason() {
    let mut runs = Runs::default();
    started(&mut runs, None);
    runs.on(1, Happened::NotStarted(1, "exec /nope: No such file or directory".to_owned()));
    runs.on(1, Happened::Ended(1, Exit::Code(127)));
    let acts = runs.on(1, Happened::Looked(1, true));
    let why = "exec /nope: No such file or directory";
    assert_eq!(acts, [refuse(caller(1), RefusalCode::StartFailed, why), Act::Forget(1)]);
    runs.on(2, Happened::Asked(caller(1), run(None)));
    let acts = runs.on(2, Happened::NotForked(2, "fork: no room".to_owned()));
    assert_eq!(acts, [refuse(caller(1), RefusalCode::StartFailed, "fork: no room")]);
}

#[test]
fn only_its_own_connection_signals_it() {
    let mut runs = Runs::default();
    started(&mut runs, None);
    let signal = |client, number| {
        Happened::Signalled(Caller { client, call: 9 }, SignalRun { call: 2, signal: number })
    };
    assert_eq!(runs.on(1, signal(1, 2)).first(), Some(&Act::Signal(1, 2)));
    for refused in [signal(2, 2), signal(1, 0), signal(1, 65)] {
        let acts = runs.on(1, refused);
        assert!(matches!(acts.as_slice(), [Act::Answer(_, Reply::Refused(_))]), "{acts:?}");
    }
}

#[test]
fn there_is_a_bound_and_an_end() {
    let mut runs = Runs::default();
    for client in 0..RUNS_MAX as u64 {
        runs.on(0, Happened::Asked(caller(client), run(None)));
    }
    let acts = runs.on(0, Happened::Asked(caller(9_999), run(None)));
    assert!(matches!(acts.as_slice(), [Act::Answer(_, Reply::Refused(_))]), "{acts:?}");
    let kills = runs.on(0, Happened::Closing);
    assert_eq!(kills.iter().filter(|act| matches!(act, Act::Kill(_))).count(), RUNS_MAX);
}

#[test]
fn the_words_survive_the_wire() {
    let call = Call { id: 2, request: Request::Run(run(Some(5))) };
    let bytes = frame::encode(&call).unwrap();
    assert_eq!(frame::decode::<Call>(&bytes[4..]).unwrap(), call);
    let reply = Reply::Ran(Ran { exit: Exit::Code(0), timed_out: true, ended_because: None });
    let message = Message::Answer(crate::holder::protocol::Answer { id: 2, reply });
    let bytes = frame::encode(&message).unwrap();
    assert_eq!(frame::decode::<Message>(&bytes[4..]).unwrap(), message);
}

/// What a shell with real children would do, at random.
#[derive(Debug, Clone)]
enum Event {
    Ask { client: u64, timeout: Option<u64>, starts: bool },
    Pass(u64),
    End(usize, i32),
    Gone(u64),
    Incarnation,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let ask = (0..4u64, proptest::option::of(1..3_000u64), any::<bool>())
        .prop_map(|(client, timeout, starts)| Event::Ask { client, timeout, starts });
    let event = prop_oneof![
        3 => ask,
        4 => (1..4_000u64).prop_map(Event::Pass),
        2 => (0..8usize, 0..4i32).prop_map(|(which, code)| Event::End(which, code)),
        1 => (0..4u64).prop_map(Event::Gone),
        1 => Just(Event::Incarnation),
    ];
    proptest::collection::vec(event, 0..60)
}

#[derive(Default)]
struct World {
    runs: Runs,
    now: u64,
    calls: u64,
    /// Children that live; whether they die when killed is up to the kernel, here always.
    alive: BTreeMap<RunId, bool>,
    waiting: BTreeSet<(u64, u64)>,
    gone: BTreeSet<u64>,
}

impl World {
    fn tell(&mut self, happened: Happened) {
        let mut queue = vec![happened];
        while let Some(happened) = queue.pop() {
            for act in self.runs.on(self.now, happened) {
                match act {
                    Act::Fork(id, _, run) => {
                        if run.terminal {
                            queue.push(Happened::NotForked(id, "no".to_owned()));
                        } else {
                            self.alive.insert(id, true);
                            queue.push(Happened::Forked(id));
                        }
                    }
                    Act::Kill(id) => {
                        if self.alive.remove(&id) == Some(true) {
                            queue.push(Happened::Ended(id, Exit::Signal(9)));
                        }
                    }
                    Act::Look(id) => queue.push(Happened::Looked(id, !self.alive.contains_key(&id))),
                    Act::Answer(Caller { client, call }, _) => {
                        assert!(self.waiting.remove(&(client, call)), "one answer to each call");
                    }
                    Act::Forget(id) => assert!(!self.alive.contains_key(&id), "nothing living is forgotten"),
                    Act::Signal(..) => {}
                }
            }
        }
    }

    fn step(&mut self, event: &Event) {
        match event {
            Event::Ask { client, timeout, starts } if !self.gone.contains(client) => {
                self.calls += 1;
                let caller = Caller { client: *client, call: self.calls };
                self.waiting.insert((*client, self.calls));
                let mut run = run(*timeout);
                run.terminal = !starts;
                self.tell(Happened::Asked(caller, run));
            }
            Event::Ask { .. } => {}
            Event::Pass(ms) => {
                self.now += ms;
                self.tell(Happened::Tick);
            }
            Event::End(which, code) => {
                let Some(id) = self.alive.keys().nth(*which).copied() else { return };
                // The first process ends; what it left lives until it is killed.
                if *code == 0 {
                    self.alive.remove(&id);
                } else {
                    self.alive.insert(id, false);
                }
                self.tell(Happened::Ended(id, Exit::Code(*code)));
            }
            Event::Gone(client) => {
                self.gone.insert(*client);
                self.waiting.retain(|(other, _)| other != client);
                self.tell(Happened::ClientGone(*client));
            }
            Event::Incarnation => self.tell(Happened::IncarnationEnded(KEY)),
        }
    }
}

proptest! {
    #[test]
    fn every_call_is_answered_once_and_nothing_stays(events in events()) {
        let mut world = World::default();
        for event in &events {
            world.step(event);
        }
        world.tell(Happened::Closing);
        for _ in 0..20 {
            world.now += KILL_AGAIN_MS;
            world.tell(Happened::Tick);
        }
        prop_assert!(world.waiting.is_empty(), "{:?}", world.waiting);
        prop_assert!(world.runs.is_empty());
        prop_assert!(world.alive.is_empty());
    }
}
