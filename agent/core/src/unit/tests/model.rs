//! The machine against a small model of a host: whatever is lost, repeated or late, the guarantees hold.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::quantity::Dur;
use ostler_schemas::spec::{Exec, Probe, ProcessType, TcpSocket};
use proptest::prelude::*;

use super::*;

/// Forms of a template: what of it has a step of its own in the machine.
const FORMS: u8 = 6;

pub(super) fn hook(command: &str) -> Exec {
    Exec { command: vec![command.to_owned()], user: None, timeout: Dur::from_secs(30) }
}

pub(super) fn probe() -> Probe {
    Probe {
        http_get: None,
        tcp_socket: Some(TcpSocket { port: ostler_schemas::spec::PortRef::Number(80), host: None }),
        exec: None,
        initial_delay: Dur::ZERO,
        period: Dur::from_secs(10),
        timeout: Dur::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
    }
}

fn form(number: u8) -> ProcessTemplate {
    let mut t = template(&format!("/bin/{number}"), Restart::Always);
    match number {
        1 => {
            t.exec_start_pre = vec![hook("/bin/pre1"), hook("/bin/pre2")];
            t.exec_stop_post = Some(hook("/bin/post"));
        }
        2 => {
            t.kind = ProcessType::Notify;
            t.readiness_probe = Some(probe());
            t.exec_stop = Some(hook("/bin/stop"));
        }
        3 => {
            t.startup_probe = Some(probe());
            t.liveness_probe = Some(probe());
            t.pre_stop_delay = Dur::from_secs(5);
            t.artifacts = fetching::artifacts(3);
            t.exec_stop_post = Some(hook("/bin/post"));
        }
        4 => {
            t.kind = ProcessType::Oneshot;
            t.restart = Restart::OnFailure;
        }
        5 => {
            t.artifacts = fetching::artifacts(5);
            t.exec_start_pre = vec![hook("/bin/pre1")];
            t.exec_stop = Some(hook("/bin/stop"));
            t.exec_stop_post = Some(hook("/bin/post"));
            t.pre_stop_delay = Dur::from_secs(1);
            t.startup_probe = Some(probe());
            t.kind = ProcessType::Notify;
        }
        _ => {}
    }
    t
}

/// What a run of the model may do next.
#[derive(Debug, Clone, Copy)]
enum Act {
    Want { version: u8, goal: Goal, form: u8 },
    Unwant,
    Die { code: i32, leaves: bool },
    TreeEmpties,
    HostAnswers,
    HostLost,
    Relist,
    AgentCrash,
    Reboot,
    Pass { ms: u64 },
    LoseEffects,
    RunEnds { how: u8 },
    Say { stopping: bool },
    Answer { kind: ProbeKind, good: u8 },
    Ask(bool),
    Repeat,
}

fn act() -> impl Strategy<Value = Act> {
    let goal = prop_oneof![8 => Just(Goal::Run), 1 => Just(Goal::Stop), 1 => Just(Goal::Gone)];
    let kind = prop_oneof![Just(ProbeKind::Startup), Just(ProbeKind::Liveness), Just(ProbeKind::Readiness)];
    prop_oneof![
        4 => (0u8..4, goal, 0..FORMS).prop_map(|(version, goal, form)| Act::Want { version, goal, form }),
        1 => Just(Act::Unwant),
        4 => (0i32..3, any::<bool>()).prop_map(|(code, leaves)| Act::Die { code, leaves }),
        4 => Just(Act::TreeEmpties),
        12 => Just(Act::HostAnswers),
        1 => Just(Act::HostLost),
        3 => Just(Act::Relist),
        2 => Just(Act::AgentCrash),
        1 => Just(Act::Reboot),
        6 => (1u64..90_000).prop_map(|ms| Act::Pass { ms }),
        1 => Just(Act::LoseEffects),
        8 => (0u8..8).prop_map(|how| Act::RunEnds { how }),
        3 => any::<bool>().prop_map(|stopping| Act::Say { stopping }),
        5 => (kind, 0u8..3).prop_map(|(kind, good)| Act::Answer { kind, good }),
        1 => any::<bool>().prop_map(Act::Ask),
        2 => Just(Act::Repeat),
    ]
}

/// A host that does what it is told, loses what it is told to lose, and remembers everything that ever ran.
struct Model {
    unit: Unit,
    disk: UnitRecord,
    alive: Option<HostProcess>,
    /// Its main process has ended, something else of it has not.
    leftover: Option<u64>,
    exits: Vec<HostExit>,
    queue: Vec<Effect>,
    runs: BTreeMap<u64, Run>,
    ever_started: BTreeSet<u64>,
    ended: BTreeSet<u64>,
    /// Hooks before the start that have succeeded, by incarnation.
    prepared: BTreeMap<u64, usize>,
    /// The template of each start.
    made_of: BTreeMap<u64, Arc<ProcessTemplate>>,
    /// An incarnation whose `execStopPost` was not run yet.
    dirty: Option<u64>,
    /// Incarnations whose startup probe was answered well.
    started_well: BTreeSet<u64>,
    seq: u64,
    now: u64,
    boot: u32,
    connected: bool,
    tightest: Goal,
    last: Option<Event>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self {
            unit: unit(),
            disk: record(),
            alive: None,
            leftover: None,
            exits: Vec::new(),
            queue: Vec::new(),
            runs: BTreeMap::new(),
            ever_started: BTreeSet::new(),
            ended: BTreeSet::new(),
            prepared: BTreeMap::new(),
            made_of: BTreeMap::new(),
            dirty: None,
            started_well: BTreeSet::new(),
            seq: 0,
            now: 0,
            boot: 1,
            connected: false,
            tightest: Goal::Run,
            last: None,
        };
        model.feed(Event::Gate(true));
        model.feed(Event::Needs(None));
        model
    }

    fn feed(&mut self, event: Event) {
        self.last = Some(event.clone());
        let effects = self.unit.on(at(self.now), 7, event);
        assert!(starts(&effects) == 0 || self.tightest == Goal::Run, "started against its goal");
        self.queue.extend(effects);
        self.check();
    }

    /// What must hold at every moment.
    fn check(&self) {
        let report = self.unit.report();
        let due = self.unit.wake_at();
        if report.phase == ProcessPhase::Stopping {
            assert!(due.is_some(), "a stop without a deadline: {:?}", self.unit);
            assert!(self.unit.probing().is_empty(), "asked while it is being stopped");
        }
        if report.phase == ProcessPhase::Pending
            && let Some(due) = due
        {
            assert!(due.0.saturating_sub(self.now) <= 66_000, "waits for longer than the longest delay");
        }
        for asking in self.unit.probing() {
            let well = self.started_well.contains(&asking.incarnation);
            let template = self.made_of.get(&asking.incarnation);
            let said = self.alive.as_ref().is_none_or(|p| p.said.ready);
            let notify = template.is_some_and(|t| t.kind == ProcessType::Notify);
            let probed = template.is_some_and(|t| t.startup_probe.is_some());
            assert!(
                asking.kind == ProbeKind::Startup || ((said || !notify) && (well || !probed)),
                "{:?} asked before it was up",
                asking.kind
            );
        }
        assert!(self.unit.record().goal >= self.disk.goal, "a goal was loosened");
    }

    fn list(&mut self) {
        self.connected = true;
        let event = Event::Listed {
            alive: self.alive.iter().cloned().collect(),
            leftovers: self.leftover.into_iter().collect(),
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
            assert!(steps < 200, "the machine goes in circles: {:?}", self.unit);
            match effect {
                Effect::Persist => self.disk = self.unit.record().clone(),
                // A real host takes its time; what the machine makes of that is among the named rows.
                Effect::Prepare(artifacts) => {
                    let set = crate::artifacts::set_id(&artifacts);
                    let state = match self.now % 3 {
                        0 => crate::artifacts::Preparing::Failed("status 503".to_owned()),
                        _ => crate::artifacts::Preparing::Ready("/set".to_owned()),
                    };
                    self.feed(Event::Artifacts { set, state });
                }
                Effect::Start(start) => self.start(&start),
                Effect::Run(run) => self.begin_run(*run),
                Effect::Cancel(run) => {
                    self.runs.remove(&run);
                }
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
                Effect::Signal { .. } | Effect::Adjust { .. } | Effect::Tell(..) => {}
            }
        }
    }

    fn start(&mut self, start: &Start) {
        let incarnation = start.incarnation;
        assert!(self.disk.incarnation >= incarnation, "started before its number was durable");
        let prepared = self.prepared.get(&incarnation).copied().unwrap_or_default();
        assert!(prepared >= start.template.exec_start_pre.len(), "started before its hooks");
        if !self.connected {
            self.feed(Event::SpawnUnknown(incarnation));
            return;
        }
        assert!(self.alive.is_none(), "two live copies");
        if self.leftover.is_some() {
            self.feed(Event::NotSpawned(incarnation, StartFailure::Busy));
            return;
        }
        assert_eq!(self.dirty, None, "started before it was cleaned up");
        assert!(self.ever_started.insert(incarnation), "an incarnation was used twice");
        self.made_of.insert(incarnation, Arc::clone(&start.template));
        let process = host_process(incarnation, at(self.now));
        self.alive = Some(process.clone());
        self.feed(Event::Spawned(process));
    }

    fn begin_run(&mut self, run: Run) {
        let alive = self.alive.as_ref().map(|p| p.incarnation);
        match run.hook {
            Hook::StartPre => {
                assert!(alive.is_none(), "prepared while something runs");
                assert!(self.disk.incarnation >= run.incarnation, "prepared before its number was durable");
                let done = self.prepared.get(&run.incarnation).copied().unwrap_or_default();
                let expected = format!("/bin/pre{}", done + 1);
                assert_eq!(run.exec.command.first(), Some(&expected), "hooks out of order");
            }
            Hook::StopPost => {
                assert!(alive.is_none(), "cleaned up while it runs");
                assert_eq!(self.leftover, None, "cleaned up while something of it is left");
                if self.connected && self.dirty == Some(run.incarnation) {
                    self.dirty = None;
                }
            }
            Hook::Stop | Hook::Reload => {}
        }
        if self.connected {
            self.runs.insert(run.run, run);
        } else {
            self.feed(Event::Ran { run: run.run, end: HookEnd::Lost("gone".to_owned()) });
        }
    }

    fn end_run(&mut self, how: u8) {
        let Some((number, run)) = self.runs.pop_first() else { return };
        let end = match how {
            0 => HookEnd::Failed("exited with code 1".to_owned()),
            1 => HookEnd::Lost("the holder went away".to_owned()),
            _ => HookEnd::Success,
        };
        if run.hook == Hook::StartPre && end == HookEnd::Success {
            *self.prepared.entry(run.incarnation).or_default() += 1;
        }
        self.feed(Event::Ran { run: number, end });
    }

    fn stop(&mut self, incarnation: u64) {
        if !self.connected {
            return;
        }
        if self.alive.as_ref().is_some_and(|p| p.incarnation == incarnation) {
            self.die(HowEnded::Signal(15), false);
        } else if self.leftover == Some(incarnation) {
            self.tree_empties();
        } else {
            // The holder does not know it; the shell looks again.
            self.list();
        }
    }

    fn die(&mut self, how: HowEnded, leaves: bool) {
        let Some(process) = self.alive.take() else { return };
        let incarnation = process.incarnation;
        self.seq += 1;
        self.ended.insert(incarnation);
        if self.made_of.get(&incarnation).is_some_and(|t| t.exec_stop_post.is_some()) {
            self.dirty = Some(incarnation);
        }
        let seq = self.seq;
        let exit = HostExit { incarnation, seq, how, oom: false, watchdog: false, at: at(self.now).wall };
        self.exits.push(exit.clone());
        self.leftover = Some(incarnation);
        if self.connected {
            self.feed(Event::Exited(exit));
        }
        if !leaves {
            self.tree_empties();
        }
    }

    fn tree_empties(&mut self) {
        if let Some(incarnation) = self.leftover.take()
            && self.connected
        {
            self.feed(Event::TreeEmpty(incarnation));
        }
    }

    fn want(&mut self, version: u8, goal: Goal, number: u8) {
        self.tightest = self.tightest.max(goal);
        self.feed(Event::Want(wanted(u64::from(version), goal, form(number))));
    }

    fn agent_starts(&mut self) {
        self.queue.clear();
        self.runs.clear();
        self.connected = false;
        self.last = None;
        // A goal that never reached the disk is told again by the document.
        self.tightest = self.disk.goal;
        self.unit = Unit::new(self.disk.clone());
        self.feed(Event::Gate(true));
        self.feed(Event::Needs(None));
    }

    fn reboot(&mut self) {
        if let Some(process) = self.alive.take() {
            self.ended.insert(process.incarnation);
        }
        self.leftover = None;
        self.dirty = None;
        self.exits.clear();
        self.boot += 1;
        self.agent_starts();
    }

    fn say(&mut self, stopping: bool) {
        let Some(process) = &mut self.alive else { return };
        process.said.ready |= !stopping;
        process.said.stopping |= stopping;
        let (incarnation, said) = (process.incarnation, process.said.clone());
        if self.connected {
            self.feed(Event::Notified { incarnation, said });
        }
    }

    fn answer(&mut self, kind: ProbeKind, good: u8) {
        let asked = self.unit.probing().iter().any(|a| a.kind == kind);
        let incarnation = self.unit.record().incarnation;
        let verdict = match good {
            0 => Verdict::Good,
            1 => Verdict::NotYet("not yet".to_owned()),
            _ => Verdict::Bad("no".to_owned()),
        };
        if asked && kind == ProbeKind::Startup && verdict == Verdict::Good {
            self.started_well.insert(incarnation);
        }
        // An answer of an earlier incarnation may be on its way, too.
        let incarnation = if asked { incarnation } else { incarnation.saturating_sub(1) };
        self.feed(Event::Probed { incarnation, kind, verdict });
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Want { version, goal, form } => self.want(version, goal, form),
            Act::Unwant => self.feed(Event::Unwanted),
            Act::Die { code, leaves } => self.die(HowEnded::Code(code), leaves),
            Act::TreeEmpties => self.tree_empties(),
            Act::HostAnswers => self.carry_out(),
            Act::HostLost => {
                self.connected = false;
                self.feed(Event::HostLost);
            }
            Act::Relist => self.list(),
            Act::AgentCrash => self.agent_starts(),
            Act::Reboot => self.reboot(),
            Act::Pass { ms } => self.pass(ms),
            // The connection breaks under what was asked: nothing of it happens, but what is local does.
            Act::LoseEffects => {
                self.queue.retain(|e| matches!(e, Effect::Persist | Effect::Start(_) | Effect::Run(_)));
                self.connected = false;
                self.carry_out();
                self.feed(Event::HostLost);
            }
            Act::RunEnds { how } => self.end_run(how),
            Act::Say { stopping } => self.say(stopping),
            Act::Answer { kind, good } => self.answer(kind, good),
            Act::Ask(restart) => self.feed(Event::Ask(if restart { Ask::Restart } else { Ask::Reload })),
            Act::Repeat => self.repeat(),
        }
    }

    /// What comes over the connection may come twice; what a document says does anyway.
    fn repeat(&mut self) {
        if let Some(event @ (Event::Exited(_) | Event::TreeEmpty(_) | Event::Ran { .. } | Event::Want(_))) =
            self.last.clone()
        {
            self.feed(event);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        if self.unit.wake_at().is_some_and(|due| due.0 <= self.now) {
            self.feed(Event::Tick);
        }
    }

    /// Quiet returns: everything is carried out, every run ends well, and the host tells again.
    fn calm_down(&mut self) {
        for _ in 0..12 {
            self.finish();
            self.pass(100_000);
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.carry_out();
        self.list();
        self.carry_out();
        self.tree_empties();
        self.carry_out();
        while !self.runs.is_empty() {
            self.end_run(7);
            self.carry_out();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn the_guarantees_hold_whatever_happens(acts in proptest::collection::vec(act(), 1..160)) {
        let mut model = Model::new();
        for act in acts {
            model.act(act);
        }
        model.calm_down();
        prop_assert!(model.exits.is_empty(), "an exit was never acknowledged");
        let recorded = model.unit.record();
        prop_assert!(recorded.exits_total >= model.ended.len() as u64, "an exit was not accounted for");
        prop_assert!(recorded.exits_total <= model.ever_started.len() as u64, "an exit was accounted for twice");
        prop_assert!(recorded.ending.is_none(), "an ending never ended: {:?}", model.unit);
        if recorded.goal != Goal::Run {
            prop_assert!(model.alive.is_none(), "lives against its goal");
            prop_assert!(model.unit.report().phase.has_ended(), "has not ended: {:?}", model.unit);
        }
    }
}
