//! What incarnations say of themselves, and what becomes of those that fall silent.
//!
//! Guarantees:
//! * What was said is told to clients after it was written, a status aside, which is told at most once a second.
//! * From coming up (from its start, if it says nothing of that) until a stop begins, an incarnation that was silent
//!   for its whole interval is ended with SIGABRT and, after its grace, SIGKILL, whatever becomes of the agent.
//! * Nobody is ended for time in which this holder, or its host, did not run.

use super::{Held, HolderCore, KillMode, Output, Phase, ProcKey};
use crate::holder::notify::{EXTEND_MAX_MS, Extend, Said, Word};
use crate::holder::protocol::{Event, SaidBy};

/// SIGABRT, the same number on every Linux architecture: it leaves a core that tells where the program hung.
const SIGABRT: i32 = 6;

/// A deadline that is looked at so much too late was missed by the holder, not by the process: it slept, or its host
/// was suspended. The process gets a whole interval more.
const LATE_MS: u64 = 2_000;

/// Least time between two words about a status: some programs change it with every request.
const STATUS_EVERY_MS: u64 = 1_000;

/// Least time between two words about more time: each is written down and told, which a process that asks for it
/// without end must not have done for it as fast as it can ask. What it gets, it gets at once.
const EXTEND_EVERY_MS: u64 = 100;

/// How an incarnation is listened to.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// By when it must say that it is alive.
    due: Option<u64>,
    /// When its status is told, or that it asked for more time.
    pub(super) tell_at: Option<u64>,
    /// What is told then has to be written first.
    write_first: bool,
    /// When something of it was told last.
    told_at: Option<u64>,
    /// How far a stop that is under way can be put off.
    stop_limit: Option<u64>,
}

impl Held {
    /// The watchdog's deadline, where it counts.
    pub(super) fn watch_due(&self) -> Option<u64> {
        self.watch.due.filter(|_| self.main_alive() && self.record.kill_at.is_none())
    }

    fn interval(&self) -> Option<u64> {
        let listen = self.record.listen.as_ref()?;
        let up = !listen.ready || self.record.said.ready;
        (up && listen.watchdog_ms > 0).then_some(listen.watchdog_ms)
    }

    /// Alive at this moment.
    fn is_well(&mut self, now: u64) {
        self.watch.due = self.interval().map(|ms| now.saturating_add(ms));
    }
}

impl HolderCore {
    /// The first input after a takeover: what is watched has a whole interval from now on.
    pub(super) fn wake_up(&mut self, now: u64) {
        if std::mem::replace(&mut self.awake, true) {
            return;
        }
        let keys: Vec<ProcKey> = self.held.keys().copied().collect();
        for key in keys {
            self.watch_from(now, key);
        }
    }

    /// The program runs: if it is to be watched from its start on, that begins now.
    pub(super) fn watch_from(&mut self, now: u64, key: ProcKey) {
        let Some(held) = self.held.get_mut(&key) else { return };
        if held.watch.due.is_none() {
            held.is_well(now);
            self.reschedule(key);
        }
    }

    pub(super) fn said(
        &mut self,
        (now, at): (u64, u64),
        key: ProcKey,
        words: Vec<Word>,
        out: &mut Vec<Output>,
    ) {
        let Some(held) = self.held.get_mut(&key).filter(|held| held.main_alive()) else { return };
        let Some(listen) = &mut held.record.listen else { return };
        let before = held.record.said.clone();
        let (mut alive, mut unwell) = (false, false);
        for word in words {
            let said = &mut held.record.said;
            match word {
                Word::Ready => {
                    alive |= !said.ready;
                    said.ready = true;
                }
                Word::Stopping => said.stopping = true,
                Word::Status(text) => said.status = text,
                Word::Alive => alive = true,
                Word::Unwell => unwell = true,
                Word::Interval(ms) => {
                    listen.watchdog_ms = ms;
                    alive = true;
                }
                Word::Extend(ms) => said.extend = Some(Extend { at, ms }),
                // The main process is the one that was started; the shell says so to whoever looks.
                Word::MainPid => {}
            }
        }
        if alive {
            held.is_well(now);
        }
        if held.record.said.extend != before.extend {
            held.put_off(now);
        }
        let kind = |said: &Said| (said.ready, said.stopping);
        let extends = held.record.said.extend != before.extend;
        let next = |told: Option<u64>, pace: u64| told.map_or(now, |told| told.saturating_add(pace).max(now));
        let extended = extends && next(held.watch.told_at, EXTEND_EVERY_MS) <= now;
        if extended || kind(&held.record.said) != kind(&before) {
            held.watch.tell_at = None;
            held.watch.write_first = false;
            held.watch.told_at = Some(now);
            let said = held.record.said.clone();
            self.unwritten.touch(key);
            self.after_write.push(Output::Publish(Event::Said(SaidBy { key, said })));
        } else if held.record.said != before {
            let next = next(held.watch.told_at, if extends { EXTEND_EVERY_MS } else { STATUS_EVERY_MS });
            held.watch.tell_at = Some(held.watch.tell_at.map_or(next, |at| at.min(next)));
            held.watch.write_first |= extends;
        }
        if unwell && held.interval().is_some() {
            self.end_unwell(now, key, out);
        }
        self.reschedule(key);
    }

    pub(super) fn watch_expires(&mut self, now: u64, key: ProcKey, out: &mut Vec<Output>) {
        let Some(held) = self.held.get_mut(&key) else { return };
        if held.watch.tell_at.is_some_and(|at| at <= now) {
            held.watch.tell_at = None;
            held.watch.told_at = Some(now);
            let said = Output::Publish(Event::Said(SaidBy { key, said: held.record.said.clone() }));
            if std::mem::take(&mut held.watch.write_first) {
                self.unwritten.touch(key);
                self.after_write.push(said);
            } else {
                out.push(said);
            }
        }
        match held.watch_due() {
            Some(due) if now >= due.saturating_add(LATE_MS) => held.is_well(now),
            Some(due) if now >= due => self.end_unwell(now, key, out),
            Some(_) | None => {}
        }
    }

    /// It has been silent for too long, or says itself that it is not well.
    fn end_unwell(&mut self, now: u64, key: ProcKey, out: &mut Vec<Output>) {
        let Some(held) = self.held.get_mut(&key).filter(|held| held.record.kill_at.is_none()) else { return };
        let record = &mut held.record;
        record.unwell = true;
        record.phase = Phase::Stopping;
        record.stop_sent = Some(SIGABRT);
        record.kill_at = Some(now.saturating_add(record.grace_ms));
        let whole_tree = record.kill_mode == KillMode::ControlGroup;
        out.push(Output::Signal { key, signal: SIGABRT, whole_tree, caller: None });
        self.unwritten.touch(key);
    }
}

impl Held {
    /// More time for a stop that is under way, up to a limit of all such time together.
    fn put_off(&mut self, now: u64) {
        let (Some(kill_at), Some(extend)) = (self.record.kill_at, self.record.said.extend) else { return };
        if self.killed || self.record.unwell {
            return;
        }
        let limit = *self.watch.stop_limit.get_or_insert(kill_at.saturating_add(EXTEND_MAX_MS));
        self.record.kill_at = Some(kill_at.max(now.saturating_add(extend.ms)).min(limit));
    }
}

#[cfg(test)]
mod tests {
    use ostler_schemas::Uid;

    use super::super::tests::spawn;
    use super::super::{Caller, Forked, Input};
    use super::*;
    use crate::holder::notify::Listen;
    use crate::holder::protocol::{Exit, Request, Spawn, Stop};
    use crate::holder::state::HolderState;

    const KEY: ProcKey = ProcKey { uid: Uid::from_bytes([1; 16]), incarnation: 1 };
    const ME: Caller = Caller { client: 1, call: 1 };

    /// A core in which the process runs since moment 0.
    fn running(listen: Listen) -> HolderCore {
        let mut core = HolderCore::restore(HolderState::empty("b"), "b", 0);
        let asked = Spawn { listen: Some(listen), ..*spawn(KEY, KillMode::Mixed) };
        core.on(0, Input::Request { caller: ME, request: Request::Spawn(Box::new(asked)) });
        let forked = Forked {
            key: KEY,
            pid: 7,
            start_time: 1,
            started_at: 0,
            cgroup: None,
            stdout: String::new(),
            stderr: String::new(),
            unenforced: Vec::new(),
        };
        core.on(0, Input::Forked(Box::new(forked)));
        written(&mut core, 0);
        core.on(0, Input::ProgramRuns(KEY));
        core
    }

    fn written(core: &mut HolderCore, now: u64) -> Vec<Output> {
        assert!(core.to_write(now).is_some(), "nothing to write");
        core.on(now, Input::StateWritten)
    }

    fn says(core: &mut HolderCore, now: u64, words: &[Word]) -> Vec<Output> {
        core.on(now, Input::Said { key: KEY, at: now, words: words.to_vec() })
    }

    fn aborts(outputs: &[Output]) -> bool {
        outputs.iter().any(|o| matches!(o, Output::Signal { signal: SIGABRT, .. }))
    }

    fn told(outputs: &[Output]) -> Option<Said> {
        outputs.iter().find_map(|o| match o {
            Output::Publish(Event::Said(by)) => Some(by.said.clone()),
            _ => None,
        })
    }

    #[test]
    fn silence_is_ended_and_the_exit_says_why() {
        let mut core = running(Listen { ready: false, watchdog_ms: 1_000 });
        assert_eq!(core.next_wake(), Some(1_000));
        assert!(!aborts(&says(&mut core, 900, &[Word::Alive])));
        assert_eq!(core.next_wake(), Some(1_900));
        assert!(aborts(&core.on(1_900, Input::Tick)));
        assert_eq!(core.next_wake(), Some(2_900), "then SIGKILL");
        core.on(1_950, Input::MainEnded { key: KEY, exit: Exit::Signal(SIGABRT), oom: false, at: 0 });
        assert!(core.state().exits.iter().all(|exit| exit.watchdog), "{:?}", core.state().exits);
    }

    #[test]
    fn nobody_is_watched_before_it_is_up_nor_once_it_is_being_stopped() {
        let mut core = running(Listen { ready: true, watchdog_ms: 1_000 });
        assert_eq!(core.next_wake(), None);
        says(&mut core, 5_000, &[Word::Ready]);
        assert_eq!(core.next_wake(), Some(6_000));
        let stop = Stop { key: KEY, signal: None, grace_ms: Some(9_000) };
        core.on(5_500, Input::Request { caller: ME, request: Request::Stop(stop) });
        assert_eq!(core.next_wake(), Some(14_500));
        says(&mut core, 6_000, &[Word::Extend(60_000)]);
        assert_eq!(core.next_wake(), Some(66_000), "it asked for more time");
    }

    #[test]
    fn a_holder_that_slept_blames_nobody() {
        let mut core = running(Listen { ready: false, watchdog_ms: 1_000 });
        assert!(!aborts(&core.on(60_000, Input::Tick)));
        assert!(aborts(&core.on(61_000, Input::Tick)));
        let mut next =
            HolderCore::restore(running(Listen { ready: false, watchdog_ms: 1_000 }).state(), "b", 0);
        assert!(!aborts(&next.on(500_000, Input::Tick)));
        assert_eq!(next.next_wake(), Some(501_000), "watched by the next holder, too");
    }

    #[test]
    fn readiness_is_written_before_it_is_told_and_a_status_is_told_at_its_own_pace() {
        let mut core = running(Listen { ready: true, watchdog_ms: 0 });
        assert_eq!(told(&says(&mut core, 10, &[Word::Ready])), None);
        assert!(told(&written(&mut core, 10)).is_some_and(|said| said.ready));
        for n in 0..50 {
            assert_eq!(told(&says(&mut core, 20 + n, &[Word::Status(n.to_string())])), None);
        }
        assert_eq!(core.next_wake(), Some(1_010));
        assert!(told(&core.on(1_010, Input::Tick)).is_some_and(|said| said.status == "49"));
        assert_eq!(core.next_wake(), None);
        assert!(core.state().processes[0].said.ready, "for the next holder");
    }

    #[test]
    fn who_asks_for_time_without_end_costs_a_write_now_and_then() {
        let mut core = running(Listen { ready: true, watchdog_ms: 0 });
        let (mut writes, mut tellings, mut last) = (0, 0, None);
        for now in 0..1_000 {
            let mut outputs = says(&mut core, now, &[Word::Extend(10_000 + now)]);
            outputs.extend(core.on(now, Input::Tick));
            while core.to_write(now).is_some() {
                writes += 1;
                outputs.extend(core.on(now, Input::StateWritten));
            }
            if let Some(said) = told(&outputs) {
                tellings += 1;
                last = said.extend.map(|extend| extend.ms);
            }
        }
        assert!((2..=11).contains(&writes) && writes == tellings, "{writes} writes, {tellings} tellings");
        assert!(last.is_some_and(|ms| ms >= 10_900), "{last:?}");
    }

    #[test]
    fn what_knows_itself_that_it_is_not_well_is_ended_at_once() {
        let mut core = running(Listen { ready: false, watchdog_ms: 10_000 });
        assert!(aborts(&says(&mut core, 5, &[Word::Unwell])));
        assert!(!aborts(&says(&mut core, 6, &[Word::Unwell])), "once");
    }
}
