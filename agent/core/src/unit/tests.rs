//! The machine against a small model of a host: whatever is lost, repeated or late, the guarantees hold.

use std::collections::BTreeSet;

use ostler_schemas::spec::ProcessTemplate;
use proptest::prelude::*;

use super::*;

pub(crate) fn template(command: &str, restart: Restart) -> ProcessTemplate {
    ProcessTemplate { restart, ..ProcessTemplate::of(vec![command.to_owned()]) }
}

fn wanted(version: u64, goal: Goal, template: ProcessTemplate) -> Wanted {
    let hash = ostler_schemas::hash::sha256(format!("{version} {template:?}").as_bytes());
    Wanted {
        version: Version(version),
        goal,
        token: Token::default(),
        ports: BTreeMap::new(),
        hash,
        restart_hash: Some(template.restart_hash()),
        template: Some(Arc::new(template)),
    }
}

fn unit() -> Unit {
    Unit::new(record())
}

fn record() -> UnitRecord {
    UnitRecord::new(
        Uid::from_bytes([1; 16]),
        Namespace::default_namespace(),
        "web-1".parse().expect("a name"),
    )
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Timestamp(1_000_000 + ms) }
}

fn host_process(incarnation: u64, now: Now) -> HostProcess {
    let pid = 100 + u32::try_from(incarnation).unwrap_or(0);
    HostProcess { incarnation, pid, started_at: now.wall, cgroup: None, log_path: None }
}

fn listed(alive: Vec<HostProcess>, exits: Vec<HostExit>) -> Event {
    Event::Listed { alive, exits, boot: "b1".to_owned() }
}

fn exit(incarnation: u64, how: HowEnded, now: Now) -> HostExit {
    HostExit { incarnation, seq: incarnation, how, oom: false, at: now.wall }
}

/// Brings a unit to Running at `at(0)` and returns it.
fn running(restart: Restart) -> Unit {
    let mut unit = unit();
    unit.on(at(0), 0, Event::Gate(true));
    unit.on(at(0), 0, Event::Needs(None));
    unit.on(at(0), 0, Event::Want(wanted(1, Goal::Run, template("/bin/a", restart))));
    let effects = unit.on(at(0), 0, listed(vec![], vec![]));
    assert!(matches!(effects.as_slice(), [Effect::Persist, Effect::Start(_)]), "{effects:?}");
    unit.on(at(0), 0, Event::Spawned(host_process(1, at(0))));
    assert_eq!(unit.report().phase, ProcessPhase::Running);
    assert!(unit.report().ready);
    unit
}

fn starts(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Start(_))).count()
}

fn stops(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Stop { .. })).count()
}

#[test]
fn nothing_starts_before_the_host_has_told_what_lives() {
    let mut unit = unit();
    unit.on(at(0), 0, Event::Gate(true));
    unit.on(at(0), 0, Event::Needs(None));
    let effects = unit.on(at(0), 0, Event::Want(wanted(1, Goal::Run, template("/bin/a", Restart::Always))));
    assert_eq!(starts(&effects), 0);
}

#[test]
fn needs_and_gate_hold_a_start_back_and_say_so() {
    let mut unit = unit();
    let mut needy = template("/bin/a", Restart::Always);
    needy.needs = vec!["configfile/app-conf".parse().expect("a need")];
    unit.on(at(0), 0, listed(vec![], vec![]));
    unit.on(at(0), 0, Event::Want(wanted(1, Goal::Run, needy)));
    unit.on(at(0), 0, Event::Gate(true));
    let missing = Event::Needs(Some("needs configfile/app-conf".to_owned()));
    let told = unit.on(at(0), 0, missing.clone());
    assert!(matches!(told.as_slice(), [Effect::Tell(Reason::NeedsNotMet, _)]), "{told:?}");
    assert_eq!(unit.on(at(0), 0, missing), [], "said once");
    assert_eq!(unit.report().reason, Some(Reason::NeedsNotMet));
    assert_eq!(starts(&unit.on(at(1), 0, Event::Needs(None))), 1);
}

#[test]
fn restarts_back_off_and_end_in_a_crash_loop() {
    let mut unit = running(Restart::Always);
    let mut now = 0;
    for (n, expected_ms) in [(1u64, 1000u64), (2, 2000), (3, 4000), (4, 8000)] {
        let died = at(now + 10);
        let effects = unit.on(died, 100, Event::Exited(exit(n, HowEnded::Code(1), died)));
        assert!(effects.contains(&Effect::Acknowledge { incarnation: n, seq: n }));
        let due = unit.wake_at().expect("a delay").0 - died.mono.0;
        assert!(due.abs_diff(expected_ms) <= expected_ms / 10, "{due} after {n} failures");
        now = died.mono.0 + due;
        assert_eq!(starts(&unit.on(at(now), 0, Event::Tick)), 1);
        unit.on(at(now), 0, Event::Spawned(host_process(n + 1, at(now))));
    }
    unit.on(at(now + 10), 0, Event::Exited(exit(5, HowEnded::Code(1), at(now + 10))));
    let report = unit.report();
    assert_eq!((report.phase, report.reason), (ProcessPhase::Failed, Some(Reason::CrashLoop)));
    assert_eq!((report.restarts, report.exits), (4, 5));
    let other = wanted(2, Goal::Run, template("/bin/b", Restart::Always));
    assert_eq!(starts(&unit.on(at(now + 20), 0, Event::Want(other))), 1, "another template is tried at once");
}

#[test]
fn a_long_run_forgives() {
    let mut unit = running(Restart::Always);
    for n in 1..=20u64 {
        let died = at(n * 700_000);
        unit.on(died, 100, Event::Exited(exit(n, HowEnded::Code(1), died)));
        let due = unit.wake_at().expect("a delay");
        assert!(due.0 - died.mono.0 <= 1100, "the first delay again");
        let now = at(due.0);
        unit.on(now, 0, Event::Tick);
        unit.on(now, 0, Event::Spawned(host_process(n + 1, now)));
    }
    assert_eq!(unit.exits().len(), EXITS_KEPT);
    assert_eq!(unit.report().exits, 20);
}

#[test]
fn policies_end_as_they_say() {
    for (restart, code, phase) in [
        (Restart::Never, 0, ProcessPhase::Succeeded),
        (Restart::Never, 3, ProcessPhase::Failed),
        (Restart::OnFailure, 0, ProcessPhase::Succeeded),
        (Restart::OnFailure, 3, ProcessPhase::Pending),
        (Restart::Always, 0, ProcessPhase::Pending),
    ] {
        let mut unit = running(restart);
        unit.on(at(5), 0, Event::Exited(exit(1, HowEnded::Code(code), at(5))));
        assert_eq!(unit.report().phase, phase, "{restart:?} after code {code}");
    }
}

#[test]
fn a_stop_ends_it_and_a_lower_goal_does_not_bring_it_back() {
    let mut unit = running(Restart::Always);
    let stop = unit.on(at(1), 0, Event::Want(wanted(1, Goal::Stop, template("/bin/a", Restart::Always))));
    assert_eq!(stops(&stop), 1);
    assert_eq!(unit.report().phase, ProcessPhase::Stopping);
    let again = unit.on(at(2), 0, Event::Want(wanted(1, Goal::Run, template("/bin/a", Restart::Always))));
    assert_eq!((stops(&again), starts(&again)), (0, 0));
    unit.on(at(3), 0, Event::Exited(exit(1, HowEnded::Signal(15), at(3))));
    assert_eq!(unit.report().phase, ProcessPhase::Stopped);
    unit.on(at(4), 0, Event::Unwanted);
    assert!(unit.is_retired());
}

#[test]
fn sigkill_after_the_grace_is_told_as_such() {
    let mut unit = running(Restart::Always);
    unit.on(at(1), 0, Event::Want(wanted(1, Goal::Gone, template("/bin/a", Restart::Always))));
    unit.on(at(30_000), 0, Event::Exited(exit(1, HowEnded::Signal(9), at(30_000))));
    assert_eq!(unit.exits()[0].reason, ExitReason::StopTimeout);
    assert_eq!(unit.exits()[0].signal.as_deref(), Some("SIGKILL"));
}

#[test]
fn an_in_place_change_keeps_the_process() {
    let mut unit = running(Restart::Always);
    let mut next = template("/bin/a", Restart::Always);
    next.limit_nofile = ostler_schemas::quantity::Rlimit::new(10, 20).expect("a limit");
    let effects = unit.on(at(1), 0, Event::Want(wanted(2, Goal::Run, next)));
    assert_eq!(stops(&effects), 0);
    assert!(effects.iter().any(|e| matches!(e, Effect::Adjust { incarnation: 1, .. })));
    assert_eq!((unit.report().v, unit.report().i), (Version(2), 1));
}

#[test]
fn another_command_is_an_ordered_stop_and_the_next_incarnation() {
    let mut unit = running(Restart::Always);
    let effects = unit.on(at(1), 0, Event::Want(wanted(2, Goal::Run, template("/bin/b", Restart::Always))));
    assert_eq!((stops(&effects), starts(&effects)), (1, 0));
    let effects = unit.on(at(2), 0, Event::Exited(exit(1, HowEnded::Signal(15), at(2))));
    assert_eq!(starts(&effects), 1);
    assert_eq!(unit.record().incarnation, 2);
    assert_eq!(unit.record().streak, 0);
}

#[test]
fn what_ran_is_adopted_by_the_next_agent() {
    let before = running(Restart::Always);
    let mut after = Unit::new(before.record().clone());
    after.on(at(0), 0, Event::Gate(true));
    after.on(at(0), 0, Event::Needs(None));
    after.on(at(0), 0, Event::Want(wanted(1, Goal::Run, template("/bin/a", Restart::Always))));
    let effects = after.on(at(0), 0, listed(vec![host_process(1, at(0))], vec![]));
    assert_eq!((starts(&effects), stops(&effects)), (0, 0), "{effects:?}");
    assert_eq!((after.report().phase, after.report().restarts), (ProcessPhase::Running, 0));
}

#[test]
fn an_agent_without_memory_keeps_what_it_finds() {
    let mut unit = unit();
    unit.on(at(0), 0, Event::Gate(true));
    unit.on(at(0), 0, Event::Needs(None));
    let effects = unit.on(at(0), 0, listed(vec![host_process(7, at(0))], vec![]));
    assert_eq!(stops(&effects), 0);
    assert_eq!(unit.report().phase, ProcessPhase::Orphan);
    assert!(unit.orphan().is_some());
    let want = Event::Want(wanted(3, Goal::Run, template("/bin/a", Restart::Always)));
    assert_eq!(stops(&unit.on(at(1), 0, want)), 0);
    assert_eq!(unit.report().phase, ProcessPhase::Running);
    assert_eq!(unit.report().i, 7);
}

#[test]
fn an_exit_that_nobody_saw_is_unknown_and_says_why() {
    let before = running(Restart::Always);
    let mut after = Unit::new(before.record().clone());
    after.on(at(0), 0, Event::Gate(true));
    after.on(at(0), 0, Event::Needs(None));
    after.on(at(0), 0, Event::Want(wanted(1, Goal::Run, template("/bin/a", Restart::Always))));
    let rebooted = Event::Listed { alive: vec![], exits: vec![], boot: "b2".to_owned() };
    let effects = after.on(at(0), 0, rebooted);
    assert_eq!(starts(&effects), 1, "a reboot is no failure of the process");
    assert_eq!(after.exits()[0].reason, ExitReason::Unknown);
    assert_eq!(after.exits()[0].why.as_deref(), Some("the host was restarted"));
    assert!(after.record().failures.is_empty());
}

#[test]
fn an_orphan_that_ends_is_not_started_again() {
    let mut unit = running(Restart::Always);
    unit.on(at(1), 0, Event::Unwanted);
    assert_eq!(unit.report().phase, ProcessPhase::Orphan);
    let effects = unit.on(at(2), 0, Event::Exited(exit(1, HowEnded::Code(0), at(2))));
    assert_eq!(starts(&effects), 0);
    assert!(unit.is_retired());
}

/// What a run of the model may do next.
#[derive(Debug, Clone, Copy)]
enum Act {
    Want { version: u8, goal: Goal, hard: bool },
    Unwant,
    Die { code: i32 },
    HostAnswers,
    HostLost,
    Relist,
    AgentCrash,
    Reboot,
    Pass { ms: u64 },
    LoseEffects,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0u8..4, prop_oneof![6 => Just(Goal::Run), 1 => Just(Goal::Stop), 1 => Just(Goal::Gone)], any::<bool>())
            .prop_map(|(version, goal, hard)| Act::Want { version, goal, hard }),
        1 => Just(Act::Unwant),
        4 => (0i32..3).prop_map(|code| Act::Die { code }),
        8 => Just(Act::HostAnswers),
        1 => Just(Act::HostLost),
        3 => Just(Act::Relist),
        2 => Just(Act::AgentCrash),
        1 => Just(Act::Reboot),
        6 => (1u64..90_000).prop_map(|ms| Act::Pass { ms }),
        1 => Just(Act::LoseEffects),
    ]
}

/// A host that does what it is told, loses what it is told to lose, and remembers everything that ever ran.
struct Model {
    unit: Unit,
    disk: UnitRecord,
    alive: Option<HostProcess>,
    exits: Vec<HostExit>,
    queue: Vec<Effect>,
    ever_started: BTreeSet<u64>,
    ended: BTreeSet<u64>,
    seq: u64,
    now: u64,
    boot: u32,
    connected: bool,
    tightest: Goal,
}

impl Model {
    fn feed(&mut self, event: Event) {
        let effects = self.unit.on(at(self.now), 7, event);
        assert!(starts(&effects) == 0 || self.tightest == Goal::Run, "started against its goal");
        self.queue.extend(effects);
    }

    fn list(&mut self) {
        self.connected = true;
        let event = Event::Listed {
            alive: self.alive.iter().cloned().collect(),
            exits: self.exits.clone(),
            boot: self.boot.to_string(),
        };
        self.feed(event);
    }

    /// Carries out what was asked, in order.
    fn carry_out(&mut self) {
        let mut steps = 0;
        while !self.queue.is_empty() {
            let effect = self.queue.remove(0);
            steps += 1;
            assert!(steps < 100, "the machine goes in circles: {:?}", self.unit);
            match effect {
                Effect::Persist => self.disk = self.unit.record().clone(),
                Effect::Start(start) => self.start(&start),
                Effect::Stop { incarnation, .. } => self.stop(incarnation),
                Effect::Acknowledge { incarnation, seq } => {
                    if self.connected {
                        assert!(
                            self.disk.exited_through >= incarnation,
                            "acknowledged before it was durable"
                        );
                        self.exits.retain(|e| e.seq != seq);
                    }
                }
                Effect::Adjust { .. } | Effect::Tell(..) => {}
            }
        }
    }

    fn start(&mut self, start: &Start) {
        assert!(self.disk.incarnation >= start.incarnation, "started before its number was durable");
        if !self.connected {
            self.feed(Event::SpawnUnknown(start.incarnation));
            return;
        }
        assert!(self.alive.is_none(), "two live copies");
        assert!(self.ever_started.insert(start.incarnation), "an incarnation was used twice");
        let process = host_process(start.incarnation, at(self.now));
        self.alive = Some(process.clone());
        self.feed(Event::Spawned(process));
    }

    fn stop(&mut self, incarnation: u64) {
        if self.connected && self.alive.as_ref().is_some_and(|p| p.incarnation == incarnation) {
            self.die(HowEnded::Signal(15));
        }
    }

    fn die(&mut self, how: HowEnded) {
        let Some(process) = self.alive.take() else { return };
        self.seq += 1;
        self.ended.insert(process.incarnation);
        let exit = HostExit {
            incarnation: process.incarnation,
            seq: self.seq,
            how,
            oom: false,
            at: at(self.now).wall,
        };
        self.exits.push(exit.clone());
        if self.connected {
            self.feed(Event::Exited(exit));
        }
    }

    fn want(&mut self, version: u8, goal: Goal, hard: bool) {
        let command = if hard { "/bin/b" } else { "/bin/a" };
        self.tightest = self.tightest.max(goal);
        self.feed(Event::Want(wanted(u64::from(version), goal, template(command, Restart::Always))));
    }

    fn agent_starts(&mut self) {
        self.queue.clear();
        self.connected = false;
        // A goal that never reached the disk is told again by the document.
        self.unit = Unit::new(self.disk.clone());
        self.feed(Event::Gate(true));
        self.feed(Event::Needs(None));
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Want { version, goal, hard } => self.want(version, goal, hard),
            Act::Unwant => self.feed(Event::Unwanted),
            Act::Die { code } => self.die(HowEnded::Code(code)),
            Act::HostAnswers => self.carry_out(),
            Act::HostLost => {
                self.connected = false;
                self.feed(Event::HostLost);
            }
            Act::Relist => self.list(),
            Act::AgentCrash => {
                self.tightest = self.disk.goal;
                self.agent_starts();
            }
            Act::Reboot => {
                self.tightest = self.disk.goal;
                if let Some(process) = self.alive.take() {
                    self.ended.insert(process.incarnation);
                }
                self.exits.clear();
                self.boot += 1;
                self.agent_starts();
            }
            Act::Pass { ms } => {
                self.now += ms;
                if self.unit.wake_at().is_some_and(|due| due.0 <= self.now) {
                    self.feed(Event::Tick);
                }
            }
            // The connection breaks under what was asked: nothing of it happens, but what is local does.
            Act::LoseEffects => {
                self.queue.retain(|e| matches!(e, Effect::Persist | Effect::Start(_)));
                self.connected = false;
                self.carry_out();
                self.feed(Event::HostLost);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_guarantees_hold_whatever_happens(acts in proptest::collection::vec(act(), 1..120)) {
        let mut model = Model {
            unit: unit(),
            disk: record(),
            alive: None,
            exits: Vec::new(),
            queue: Vec::new(),
            ever_started: BTreeSet::new(),
            ended: BTreeSet::new(),
            seq: 0,
            now: 0,
            boot: 1,
            connected: false,
            tightest: Goal::Run,
        };
        model.feed(Event::Gate(true));
        model.feed(Event::Needs(None));
        for act in acts {
            model.act(act);
        }
        // Quiet returns: everything is carried out and the host tells again.
        for _ in 0..4 {
            model.carry_out();
            model.list();
            model.carry_out();
            model.now += 100_000;
            model.feed(Event::Tick);
        }
        model.carry_out();
        prop_assert!(model.exits.is_empty(), "an exit was never acknowledged");
        let recorded = model.unit.record();
        prop_assert!(recorded.exits_total >= model.ended.len() as u64, "an exit was not accounted for");
        prop_assert!(recorded.exits_total <= model.ever_started.len() as u64, "an exit was accounted for twice");
        if recorded.goal != Goal::Run {
            prop_assert!(model.alive.is_none(), "lives against its goal");
        }
    }
}
