//! The machine against a small model of a host: whatever is lost, repeated or late, the guarantees hold.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::Sha256;
use ostler_schemas::spec::ProcessType;
use proptest::prelude::*;

use super::*;
use crate::artifacts::{Preparing, set_id};
use crate::holds::Held;

mod acts;

use acts::{Act, Mood, act, form};
pub(super) use acts::{hook, probe};

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
    mood: Mood,
    held: Option<bool>,
    /// The set that is being made ready, and whether it is.
    asked: Option<(Sha256, bool)>,
    /// Incarnations that were given out when their set was there.
    fetched: BTreeSet<(u64, Sha256)>,
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
            mood: Mood::Willing,
            held: None,
            asked: None,
            fetched: BTreeSet::new(),
            last: None,
        };
        model.feed(Event::Gate(true));
        model.feed(Event::Needs(None));
        model
    }

    fn feed(&mut self, event: Event) {
        self.last = Some(event.clone());
        let before = self.unit.clone();
        let effects = self.unit.on(at(self.now), 7, event);
        assert!(starts(&effects) == 0 || self.tightest == Goal::Run, "started against its goal");
        if self.unit.record().incarnation > before.record().incarnation
            && let Some((set, true)) = self.asked
        {
            self.fetched.insert((self.unit.record().incarnation, set));
        }
        self.check_hold(&before, &effects);
        self.check_replacement(&before);
        for effect in effects {
            match effect {
                // Local, and at once: an answer for another set is of no interest from here on.
                Effect::Prepare(artifacts) => self.asked = Some((set_id(&artifacts), false)),
                other => self.queue.push(other),
            }
        }
        self.check();
    }

    /// What a person holds is left alone, but for what was under way and for goal `gone`.
    fn check_hold(&self, before: &Unit, effects: &[Effect]) {
        let Some(stop) = self.held.filter(|_| before.held.is_some() && self.unit.held.is_some()) else {
            return;
        };
        let (was, is) = (before.report().phase, self.unit.report().phase);
        let goal = self.unit.record().goal;
        assert!(starts(effects) == 0 || was == ProcessPhase::Starting, "started although it is held");
        let adjusts = effects.iter().any(|e| matches!(e, Effect::Adjust { .. } | Effect::Signal { .. }));
        assert!(!adjusts, "changed although it is held");
        let ran = matches!(was, ProcessPhase::Running | ProcessPhase::Starting);
        let began = ran && is == ProcessPhase::Stopping && self.alive.is_some();
        assert!(!began || stop || goal == Goal::Gone, "stopped although it is held: {before:?}");
    }

    /// What runs is not stopped for a version whose files are not there.
    fn check_replacement(&self, before: &Unit) {
        let stopped_for = |unit: &Unit| {
            let current = unit.record().current.as_ref()?;
            current.stop.as_ref().map(|stop| (current.incarnation, stop.why))
        };
        let is = stopped_for(&self.unit).filter(|(_, why)| *why == StopWhy::Replace);
        if is.is_none() || is == stopped_for(before) {
            return;
        }
        let template =
            self.unit.wanted().and_then(|w| w.template.clone()).expect("it is replaced by something");
        if !template.artifacts.is_empty() {
            let set = set_id(&template.artifacts);
            assert_eq!(self.asked, Some((set, true)), "stopped before its successor's files were there");
        }
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
                Effect::Signal { .. } | Effect::Adjust { .. } | Effect::Tell(..) | Effect::Prepare(_) => {}
            }
        }
    }

    fn start(&mut self, start: &Start) {
        let incarnation = start.incarnation;
        assert!(self.disk.incarnation >= incarnation, "started before its number was durable");
        if !start.template.artifacts.is_empty() {
            let set = set_id(&start.template.artifacts);
            assert!(self.fetched.contains(&(incarnation, set)), "started before its files were there");
        }
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
        match self.mood {
            Mood::Willing | Mood::Mute => {}
            Mood::Vetoes => {
                let failure = StartFailure::Failed(Reason::UserUnknown, "not allowed here".to_owned());
                return self.feed(Event::NotSpawned(incarnation, failure));
            }
            Mood::Refuses => {
                return self.feed(Event::NotSpawned(incarnation, StartFailure::Refused("short".to_owned())));
            }
        }
        assert_eq!(self.dirty, None, "started before it was cleaned up");
        assert!(self.ever_started.insert(incarnation), "an incarnation was used twice");
        self.made_of.insert(incarnation, Arc::clone(&start.template));
        let process = host_process(incarnation, at(self.now));
        self.alive = Some(process.clone());
        match self.mood {
            Mood::Mute => self.feed(Event::SpawnUnknown(incarnation)),
            Mood::Willing | Mood::Vetoes | Mood::Refuses => self.feed(Event::Spawned(process)),
        }
    }

    /// The host tells of a set: of the one that is asked for, or of one that nobody waits for any more.
    fn fetch(&mut self, set: u8, how: u8) {
        let of = set_id(&fetching::artifacts(set));
        let state = match how {
            0 => Preparing::Underway("1 of 2 MiB".to_owned()),
            1 => Preparing::Failed("status 503".to_owned()),
            _ => Preparing::Ready("/set".to_owned()),
        };
        match &mut self.asked {
            Some((asked, ready)) if *asked == of && !*ready => *ready = how > 1,
            // Each set is told of once it is asked for, and not again once it is there.
            Some(_) | None => return,
        }
        self.feed(Event::Artifacts { set: of, state });
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
        self.asked = None;
        // A goal that never reached the disk is told again by the document.
        self.tightest = self.disk.goal;
        self.unit = Unit::new(self.disk.clone());
        self.feed(Event::Gate(true));
        self.feed(Event::Needs(None));
        // Holds outlive agents.
        let held = self.held.map(|stop| Held { stop, message: "held".to_owned() });
        self.feed(Event::Hold(held));
    }

    fn reboot(&mut self) {
        // Of a start whose answer was lost the host, once rebooted, knows nothing any more.
        if let Some(process) = self.alive.take() {
            self.ended.insert(process.incarnation);
        }
        if let Some(current) = self.disk.current.as_ref().filter(|current| current.started_at.is_none()) {
            self.ended.remove(&current.incarnation);
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
            Act::Hold { stop } => {
                self.held = Some(stop);
                self.feed(Event::Hold(Some(Held { stop, message: "held".to_owned() })));
            }
            Act::Release => {
                self.held = None;
                self.feed(Event::Hold(None));
            }
            Act::Host(mood) => self.mood = mood,
            Act::Fetch { set, how } => self.fetch(set, how),
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
        self.mood = Mood::Willing;
        self.act(Act::Release);
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
        if let Some((set, ready @ false)) = &mut self.asked {
            *ready = true;
            let set = *set;
            self.feed(Event::Artifacts { set, state: Preparing::Ready("/set".to_owned()) });
        }
        self.carry_out();
        while !self.runs.is_empty() {
            self.end_run(7);
            self.carry_out();
        }
        self.say(false);
        for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
            self.answer(kind, 0);
        }
        self.carry_out();
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
        } else if model.unit.wanted().is_some() {
            let report = model.unit.report();
            let up = report.phase == ProcessPhase::Running && model.alive.is_some();
            prop_assert!(up || report.phase.has_ended(), "neither runs nor has it ended: {:?}", model.unit);
        }
    }
}
