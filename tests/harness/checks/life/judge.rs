//! Whether a start or a stop had every right to happen.

use ostler_agent::sim::SimRecord;
use ostler_agent_core::unit::HowEnded;
use ostler_schemas::quantity::Signal;
use ostler_schemas::spec::ProcessType;

use super::incarnation::{Asked, Hook, How, Incarnation};
use super::{LifeCheck, Look};
use crate::checks::Rule;
use crate::life::{Form, PROBE_MS, RESTART_MS, START_MS};

/// How much earlier than the checker thinks a probe may have seen the same.
const LOOSE_MS: u64 = 500;

impl LifeCheck {
    pub(super) fn started(&mut self, record: &SimRecord, words: &[String], look: &mut Look<'_>) {
        let after = |word: &str| words.iter().skip_while(|w| *w != word).nth(1);
        let rev = after("--rev").and_then(|rev| rev.parse().ok()).unwrap_or(0);
        let name = record.name.to_string();
        let one = self.known.entry(record.key).or_default();
        if one.started.is_some() {
            look.tell(Rule::IncarnationTwice, record, "its number was used before");
        }
        (one.name, one.rev, one.started) = (name.clone(), rev, Some(record.mono.0));
        let one = one.clone();
        let Some(form) = self.forms(&name, rev).last().cloned() else { return };
        for hook in (1..=form.pre).map(Hook::Pre) {
            if one.succeeded(&hook) != Some(true) {
                look.tell(Rule::HookSkipped, record, &format!("started without {hook}"));
            }
        }
        if let Some(folder) = after("--from") {
            let there = look.machine.artifacts.ever_ready();
            if !there.iter().any(|set| *folder == format!("/artifacts/{set}")) {
                look.tell(Rule::ArtifactMissing, record, "started before its artifacts were there");
            }
        }
        let before: Vec<(u64, Incarnation)> = self
            .known
            .iter()
            .filter(|(key, one)| key.uid == record.key.uid && **key != record.key && one.started.is_some())
            .map(|(key, one)| (key.incarnation, one.clone()))
            .collect();
        if let Some((number, last)) = before.last() {
            self.cleaned_up(record, (*number, last), look);
        }
        let done = |one: &Incarnation| {
            one.rev == rev && one.ended.as_ref().is_some_and(|(_, how)| *how == HowEnded::Code(0))
        };
        if form.kind == ProcessType::Oneshot && before.iter().any(|(_, one)| done(one)) {
            look.tell(Rule::OneshotTwice, record, "had done its work");
        }
        self.in_time(record, rev, look);
    }

    fn cleaned_up(&self, record: &SimRecord, (number, last): (u64, &Incarnation), look: &mut Look<'_>) {
        let due = self.forms(&last.name, last.rev).last().is_some_and(|form| form.post);
        let done = last.hooks.iter().any(|h| h.hook == Hook::Post && h.how.is_some());
        if due && !done && !last.power_lost {
            look.tell(Rule::HookSkipped, record, &format!("started, and {number} was not cleaned up after"));
        }
    }

    /// A tenth may be taken from each delay.
    fn in_time(&self, record: &SimRecord, rev: u64, look: &mut Look<'_>) {
        let Some(streak) = self.streaks.get(&record.key.uid).filter(|streak| streak.rev == rev) else {
            return;
        };
        let Some(failed_at) = streak.at else { return };
        let (first, longest) = RESTART_MS;
        let base = first.saturating_mul(1 << (streak.failures - 1).min(20)).min(longest);
        let due = failed_at + base - base / 10;
        if record.mono.0 < due {
            let failures = streak.failures;
            let early = due - record.mono.0;
            look.tell(
                Rule::HastyRestart,
                record,
                &format!("started {early} ms too early after {failures} failures"),
            );
        }
    }

    pub(super) fn asked(&mut self, record: &SimRecord, (signal, grace_ms): How, look: &mut Look<'_>) {
        let Some(one) = self.known.get(&record.key).cloned() else { return };
        let kill_at = record.mono.0 + grace_ms;
        if let Some(before) = &one.asked {
            let asked = Asked { kill_at: before.kill_at.min(kill_at), ..before.clone() };
            self.known.entry(record.key).or_default().asked = Some(asked);
            return;
        }
        let forms = self.forms(&one.name, one.rev).to_vec();
        let Some(form) = forms.last().cloned() else { return };
        let cause = self.cause(record, (&one, &forms), look);
        match &cause {
            None => look.tell(Rule::StoppedUnasked, record, &format!("asked to end: {form:?} {one:?}")),
            Some(Cause::Owner | Cause::Itself) => {}
        }
        if !forms.iter().any(|form| form.grace_ms == grace_ms) {
            look.tell(Rule::StopDisorder, record, &format!("gets {grace_ms} ms to end"));
        }
        let hook = one.succeeded(&Hook::Stop).filter(|_| form.stop);
        let expected = if hook == Some(true) { None } else { Some(Signal::TERM) };
        if signal != expected {
            look.tell(Rule::StopDisorder, record, &format!("is sent {signal:?} after {:?}", one.hooks));
        }
        // One that was up for so long that nobody can have missed it is asked by its hook first.
        let up = one.started.is_some_and(|at| record.mono.0 > at + START_MS + LOOSE_MS)
            && (form.kind != ProcessType::Notify || one.said_ready)
            && (!form.startup || one.answered_well.contains("start"));
        if form.stop && up && !one.hooks.iter().any(|h| h.hook == Hook::Stop) {
            look.tell(Rule::HookSkipped, record, "asked to end without its execStop");
        }
        let own_fault = matches!(cause, Some(Cause::Itself));
        self.known.entry(record.key).or_default().asked = Some(Asked { kill_at, own_fault });
    }

    /// Why it may be asked to end. What its owner wants goes first: then nothing can be said of failures.
    fn cause(
        &self,
        record: &SimRecord,
        (one, forms): (&Incarnation, &[Form]),
        look: &Look<'_>,
    ) -> Option<Cause> {
        if look.log.asked_to_end.contains_key(&record.key.uid) {
            return Some(Cause::Owner);
        }
        let newer = self.forms.iter().filter(|((name, rev), _)| *name == one.name && *rev > one.rev);
        let there = look.machine.artifacts.ever_ready();
        for ((_, rev), forms) in newer {
            let sets = forms.iter().filter_map(|form| form.set(*rev));
            if forms.iter().any(|form| !form.artifact) || sets.into_iter().any(|set| there.contains(&set)) {
                return Some(Cause::Owner);
            }
        }
        let now = record.mono.0;
        let period = PROBE_MS.0 * (PROBE_MS.1 - 1);
        let bad = |port: &str| {
            one.answers.get(port).is_some_and(|(good, since)| !good && now + LOOSE_MS >= since + period)
        };
        let started = one.started.unwrap_or(now);
        let late = |ms: u64| now + LOOSE_MS >= started + ms;
        let form = forms.last()?;
        let not_up = (form.kind == ProcessType::Notify && !one.said_ready && late(START_MS))
            || (form.startup && !one.answered_well.contains("start") && (bad("start") || late(START_MS)));
        ((forms.iter().any(|form| form.liveness) && bad("live")) || not_up).then_some(Cause::Itself)
    }
}

enum Cause {
    /// It is to be something else, or nothing.
    Owner,
    /// A probe of its own, or that it did not come up.
    Itself,
}
