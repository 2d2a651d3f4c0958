//! What templates promise: that stops, hooks, probes, delays and artifacts come in their order, and only when there is
//! a reason for them. Judged by what happened on the hosts and by what was ever asked for.

mod incarnation;
mod judge;

use std::collections::{BTreeMap, BTreeSet};

use ostler_agent::sim::{SimEvent, SimRecord};
use ostler_agent_core::holder::protocol::ProcKey;
use ostler_agent_core::unit::HowEnded;
use ostler_schemas::spec::ProcessType;
use ostler_schemas::{NodeName, Uid};

use incarnation::{Hook, Incarnation};

use super::log::LogCheck;
use super::{Found, Rule};
use crate::life::Form;
use crate::machine::Machine;

/// What the checkers know of the life of processes.
#[derive(Default)]
pub struct LifeCheck {
    /// Every form that was ever asked for, by name and number; more than one where it was changed in place.
    forms: BTreeMap<(String, u64), Vec<Form>>,
    seen: BTreeMap<NodeName, usize>,
    known: BTreeMap<ProcKey, Incarnation>,
    /// Failures in a row, as far as they can be seen from outside: at most as many as the agent has counted.
    streaks: BTreeMap<Uid, Streak>,
    /// Ends of each process, and whether some of them need not be known to anybody.
    ends: BTreeMap<Uid, (u64, bool)>,
    /// Hooks under way.
    running: BTreeMap<(NodeName, u64), (ProcKey, String)>,
}

/// Failures in a row of one version.
#[derive(Debug, Clone, Copy, Default)]
struct Streak {
    rev: u64,
    failures: u32,
    /// When the last one happened, by its host's clock; none if what follows may come at once.
    at: Option<u64>,
}

/// One look at one host.
struct Look<'a> {
    machine: &'a Machine,
    log: &'a LogCheck,
    at_ms: u64,
    found: &'a mut Vec<Found>,
}

impl Look<'_> {
    fn tell(&mut self, rule: Rule, record: &SimRecord, what: &str) {
        let detail = format!("{}: {} ({}): {what}", self.machine.node, record.name, record.key);
        self.found.push(Found { at_ms: self.at_ms, rule, detail });
    }

    /// Lives of the agent and of the holder: what happens twice must not happen within one.
    fn lives(&self) -> (u64, u64) {
        (self.machine.lives, self.machine.holders_lost)
    }
}

impl LifeCheck {
    /// This form was asked for.
    pub fn know(&mut self, name: &str, rev: u64, form: &Form) {
        self.forms.entry((name.to_owned(), rev)).or_default().push(form.clone());
    }

    fn forms(&self, name: &str, rev: u64) -> &[Form] {
        self.forms.get(&(name.to_owned(), rev)).map_or(&[], Vec::as_slice)
    }

    /// Takes in what happened on a host.
    pub fn take(&mut self, machine: &Machine, log: &LogCheck, now: u64, found: &mut Vec<Found>) {
        if self.forms.is_empty() {
            return;
        }
        let seen = self.seen.entry(machine.node.clone()).or_default();
        let news = machine.host.history_since(*seen);
        *seen += news.len();
        let mut look = Look { machine, log, at_ms: now, found };
        for record in &news {
            self.happened(record, &mut look);
        }
        self.still(&mut look);
    }

    fn happened(&mut self, record: &SimRecord, look: &mut Look<'_>) {
        match &record.event {
            SimEvent::Started(words) => self.started(record, words, look),
            SimEvent::Asked(signal, grace_ms) => self.asked(record, (*signal, *grace_ms), look),
            SimEvent::Ended(how) => self.ended(record, how, look),
            SimEvent::RunBegan(run, words) => self.hook_began(record, (*run, words), look),
            SimEvent::RunEnded(run, how) => self.hook_ended(record, (*run, how), look),
            SimEvent::SaidReady => self.known.entry(record.key).or_default().said_ready = true,
            SimEvent::Answers(port, good) => {
                let one = self.known.entry(record.key).or_default();
                one.answers.insert(port.clone(), (*good, record.mono.0));
                if *good {
                    one.answered_well.insert(port.clone());
                }
            }
            SimEvent::Signalled(_) => {}
            SimEvent::PowerLost => {
                let one = self.known.entry(record.key).or_default();
                one.power_lost = true;
                let ends = self.ends.entry(record.key.uid).or_default();
                *ends = (ends.0 + 1, true);
            }
        }
    }

    fn ended(&mut self, record: &SimRecord, how: &HowEnded, look: &mut Look<'_>) {
        let one = self.known.entry(record.key).or_default();
        one.ended = Some((record.mono.0, how.clone()));
        let asked = one.asked.clone();
        let rev = one.rev;
        self.ends.entry(record.key.uid).or_default().0 += 1;
        if let Some(asked) = &asked
            && *how == HowEnded::Signal(9)
            && record.mono.0 < asked.kill_at
        {
            look.tell(Rule::StopDisorder, record, "was killed before its time to end was over");
        }
        if asked.is_none() && *how == HowEnded::Signal(9) {
            look.tell(Rule::StopDisorder, record, "was killed and never asked");
        }
        let Some(form) = self.forms(record.name.as_str(), rev).last().cloned() else { return };
        let done = form.kind == ProcessType::Oneshot && *how == HowEnded::Code(0);
        let failed = match &asked {
            None => !done,
            Some(asked) => asked.own_fault,
        };
        let streak = self.streaks.entry(record.key.uid).or_default();
        if streak.rev != rev {
            *streak = Streak { rev, ..Streak::default() };
        }
        streak.at = None;
        if failed {
            streak.failures += 1;
            streak.at = Some(record.mono.0);
        }
    }

    fn hook_began(&mut self, record: &SimRecord, (run, words): (u64, &[String]), look: &mut Look<'_>) {
        let Some(hook) = Hook::of(words) else { return };
        let others = self.running.iter().filter(|((node, _), _)| *node == look.machine.node);
        let beside: Vec<String> = others
            .filter(|(_, (key, _))| key.uid == record.key.uid)
            .map(|(_, (key, other))| format!("{other} of {key} runs"))
            .collect();
        if !beside.is_empty() {
            look.tell(Rule::HookDisorder, record, &format!("{hook} runs while {}", beside.join(" and ")));
        }
        let lives = self.known.iter().any(|(key, one)| key.uid == record.key.uid && one.is_alive());
        let one = self.known.entry(record.key).or_default();
        if hook.needs_life().is_some_and(|needs| needs != lives) {
            let how = if lives { "lives" } else { "does not live" };
            look.tell(Rule::HookDisorder, record, &format!("{hook} runs while it {how}"));
        }
        if one.hooks.iter().any(|h| h.hook == hook && h.is_over() && h.lives == look.lives()) {
            look.tell(Rule::HookDisorder, record, &format!("{hook} runs again"));
        }
        one.hooks.push(incarnation::HookRun { run, hook: hook.clone(), how: None, lives: look.lives() });
        self.running.insert((look.machine.node.clone(), run), (record.key, hook.to_string()));
    }

    fn hook_ended(&mut self, record: &SimRecord, (run, how): (u64, &HowEnded), look: &mut Look<'_>) {
        self.running.remove(&(look.machine.node.clone(), run));
        let one = self.known.entry(record.key).or_default();
        if let Some(hook) = one.hooks.iter_mut().find(|hook| hook.run == run) {
            hook.how = Some(how.clone());
            hook.lives = look.lives();
        }
    }

    /// What must hold at every moment.
    fn still(&self, look: &mut Look<'_>) {
        let there: BTreeSet<String> =
            look.machine.artifacts.ready().iter().map(|set| format!("/artifacts/{set}")).collect();
        for (key, name, words) in look.machine.host.living() {
            let from = words.iter().skip_while(|word| *word != "--from").nth(1);
            if from.is_some_and(|folder| !there.contains(folder)) {
                let detail = format!("{}: {name} ({key}) lost its artifacts", look.machine.node);
                look.found.push(Found { at_ms: look.at_ms, rule: Rule::ArtifactMissing, detail });
            }
        }
        let Some(report) = look.log.fleet.reports.get(&look.machine.node) else { return };
        for process in report.processes.iter().filter(|process| process.ready) {
            let key = ProcKey { uid: process.u, incarnation: process.i };
            let Some(one) = self.known.get(&key) else { continue };
            let name = one.name.clone();
            let forms = self.forms(&name, one.rev);
            let early = |form: &Form| {
                (form.kind == ProcessType::Notify && !one.said_ready)
                    || (form.startup && !one.answered_well.contains("start"))
                    || (form.readiness
                        && form.kind != ProcessType::Oneshot
                        && !one.answered_well.contains("http"))
            };
            if !forms.is_empty() && forms.iter().all(early) {
                let detail = format!("{}: {name} ({key}) is told to be ready", look.machine.node);
                look.found.push(Found { at_ms: look.at_ms, rule: Rule::ReadyTooEarly, detail });
            }
        }
    }

    /// Processes whose exits were not all counted, or more than once.
    #[must_use]
    pub fn miscounted(&self, log: &LogCheck) -> Vec<String> {
        let mut out = Vec::new();
        for (uid, (ends, some_unknown)) in &self.ends {
            let Some(report) = log.fleet.process_report(uid) else { continue };
            let alright = report.exits == *ends || (*some_unknown && report.exits < *ends);
            if !alright {
                out.push(format!("{} ended {ends} times, and {} are told", uid.short(), report.exits));
            }
        }
        out
    }
}
