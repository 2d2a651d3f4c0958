//! What clients ask of the machine, one function per request.

use super::{Caller, HolderCore, Output, SIGKILL, done, refuse};
use crate::holder::notify::Said;
use crate::holder::protocol::{
    AckExit, KillMode, LIST_PAGE, List, Listing, LogCounters, Phase, ProcKey, ProcessInfo, RefusalCode,
    Reply, Request, Signal, Spawn, Stop, StopAll,
};
use crate::holder::state::ProcessRecord;

/// The highest signal number of Linux on the architectures Ostler runs on.
const SIGNAL_MAX: i32 = 64;

impl HolderCore {
    pub(super) fn request(&mut self, now: u64, caller: Caller, request: Request, out: &mut Vec<Output>) {
        match request {
            Request::Spawn(spawn) => self.spawn(caller, spawn, out),
            Request::Signal(signal) => self.signal(caller, &signal, out),
            Request::KillTree(key) => self.kill_tree(now, caller, key, out),
            Request::Stop(stop) => self.stop(now, caller, &stop, out),
            Request::SetRlimit(set) => match self.held.get(&set.key).filter(|held| held.main_alive()) {
                Some(_) => out.push(Output::SetRlimit { key: set.key, limits: set.limits, caller }),
                None => out.push(not_found(caller, set.key)),
            },
            Request::SetLimits(set) => match self.held.get_mut(&set.key).filter(|held| held.main_alive()) {
                Some(held) => {
                    if let Some(log) = &set.log {
                        // The next holder goes on with these sizes; where the output goes stays.
                        held.record.log.file_max = log.file_max;
                        held.record.log.files = log.files;
                        held.record.log.keep_s = log.keep_s;
                        self.unwritten.touch(set.key);
                    }
                    out.push(Output::SetLimits { set, caller });
                }
                None => out.push(not_found(caller, set.key)),
            },
            Request::List(list) => out.push(Output::Answer(caller, Reply::Listing(self.list(&list)))),
            Request::AckExit(ack) => self.ack(caller, &ack, out),
            Request::StopAll(stop) => self.stop_all(now, caller, &stop, out),
            Request::Hello(_) => out.push(refuse(caller, RefusalCode::Invalid, "hello was said already")),
            // Runs have a machine of their own, which the shell asks; upgrades are its own affair.
            Request::Run(_) | Request::SignalRun(_) | Request::Upgrade(_) | Request::Unrecognised => {
                out.push(refuse(caller, RefusalCode::Unsupported, "this holder does not know that request"));
            }
        }
    }

    fn spawn(&mut self, caller: Caller, spawn: Box<Spawn>, out: &mut Vec<Output>) {
        let key = spawn.key;
        if let Err(message) = check(&spawn) {
            return out.push(refuse(caller, RefusalCode::Invalid, message));
        }
        if self.closing {
            return out.push(refuse(caller, RefusalCode::Closing, "the holder is stopping everything"));
        }
        let exit_waits = self.exits.values().any(|exit| exit.key == key);
        if exit_waits || self.held.contains_key(&key) || self.forking.contains_key(&key) {
            let message = format!("incarnation {} of {} was started already", key.incarnation, spawn.name);
            return out.push(refuse(caller, RefusalCode::AlreadyExists, message));
        }
        let (first, last) = (ProcKey { incarnation: 0, ..key }, ProcKey { incarnation: u64::MAX, ..key });
        // What `killMode: process` left behind is meant to stay, and holds nothing up.
        let in_the_way = |held: &super::Held| held.main_alive() || held.record.kill_mode != KillMode::Process;
        let other =
            self.held.range(first..=last).filter(|(_, held)| in_the_way(held)).map(|(key, _)| key).next();
        if let Some(other) = other.or_else(|| self.forking.range(first..=last).map(|(key, _)| key).next()) {
            let message =
                format!("incarnation {} of {} has not ended entirely", other.incarnation, spawn.name);
            return out.push(refuse(caller, RefusalCode::Busy, message));
        }
        let record = ProcessRecord {
            key,
            name: spawn.name.clone(),
            namespace: spawn.namespace.clone(),
            pid: 0,
            start_time: 0,
            started_at: 0,
            cgroup: None,
            stdout: String::new(),
            stderr: String::new(),
            log: spawn.log.clone(),
            kill_mode: spawn.kill_mode,
            stop_signal: spawn.stop_signal,
            grace_ms: spawn.grace_ms,
            phase: Phase::Starting,
            stop_sent: None,
            kill_at: None,
            listen: spawn.listen,
            said: Said::default(),
            unwell: false,
        };
        self.forking.insert(key, (caller, record));
        out.push(Output::Fork(spawn));
    }

    fn signal(&self, caller: Caller, signal: &Signal, out: &mut Vec<Output>) {
        let Signal { key, signal, whole_tree } = *signal;
        if !(1..=SIGNAL_MAX).contains(&signal) {
            return out.push(refuse(caller, RefusalCode::Invalid, format!("{signal} is not a signal")));
        }
        match self.held.get(&key).filter(|held| whole_tree || held.main_alive()) {
            Some(_) => out.push(Output::Signal { key, signal, whole_tree, caller: Some(caller) }),
            None => out.push(not_found(caller, key)),
        }
    }

    fn kill_tree(&mut self, now: u64, caller: Caller, key: ProcKey, out: &mut Vec<Output>) {
        let Some(held) = self.held.get_mut(&key) else { return out.push(not_found(caller, key)) };
        // Whatever was to stay is no longer to stay, for the next holder too.
        held.record.kill_mode = KillMode::Mixed;
        held.record.kill_at = Some(now);
        held.killed = false;
        if held.main_alive() {
            held.record.stop_sent = Some(SIGKILL);
            held.record.phase = Phase::Stopping;
        }
        self.unwritten.touch(key);
        self.reschedule(key);
        self.after_write.push(done(caller));
    }

    fn stop(&mut self, now: u64, caller: Caller, stop: &Stop, out: &mut Vec<Output>) {
        // 0 is no signal: only the deadline.
        if let Some(signal) = stop.signal.filter(|signal| !(0..=SIGNAL_MAX).contains(signal)) {
            return out.push(refuse(caller, RefusalCode::Invalid, format!("{signal} is not a signal")));
        }
        if !self.held.contains_key(&stop.key) {
            return out.push(not_found(caller, stop.key));
        }
        self.begin_stop(now, stop, out);
        self.after_write.push(done(caller));
    }

    /// The signal now, the kill at the deadline. The same signal is not sent twice: to many programs a second
    /// SIGTERM means "at once".
    fn begin_stop(&mut self, now: u64, stop: &Stop, out: &mut Vec<Output>) {
        let Some(held) = self.held.get_mut(&stop.key) else { return };
        let main_alive = held.main_alive();
        let record = &mut held.record;
        let signal = stop.signal.unwrap_or(record.stop_signal);
        let kill_at = now.saturating_add(stop.grace_ms.unwrap_or(record.grace_ms));
        record.kill_at = Some(record.kill_at.map_or(kill_at, |old| old.min(kill_at)));
        if main_alive {
            record.phase = Phase::Stopping;
            if signal != 0 && record.stop_sent != Some(signal) {
                record.stop_sent = Some(signal);
                let whole_tree = record.kill_mode == KillMode::ControlGroup;
                out.push(Output::Signal { key: stop.key, signal, whole_tree, caller: None });
            }
        }
        self.unwritten.touch(stop.key);
        self.reschedule(stop.key);
    }

    fn stop_all(&mut self, now: u64, caller: Caller, stop: &StopAll, out: &mut Vec<Output>) {
        self.closing = true;
        self.closers.push(caller);
        let keys: Vec<ProcKey> = self.held.keys().copied().collect();
        for key in keys {
            let Some(held) = self.held.get_mut(&key) else { continue };
            // At the end of the host nothing stays behind.
            if held.record.kill_mode == KillMode::Process {
                held.record.kill_mode = KillMode::Mixed;
            }
            let grace_ms = stop.grace_ms.unwrap_or(u64::MAX).min(held.record.grace_ms);
            self.begin_stop(now, &Stop { key, signal: None, grace_ms: Some(grace_ms) }, out);
        }
        self.answer_closers(out);
    }

    fn ack(&mut self, caller: Caller, ack: &AckExit, out: &mut Vec<Output>) {
        match self.exits.get(&ack.seq) {
            Some(exit) if exit.key != ack.key => {
                let message = format!("exit {} is of {}, not of {}", ack.seq, exit.key, ack.key);
                out.push(refuse(caller, RefusalCode::Invalid, message));
            }
            Some(_) => {
                self.exits.remove(&ack.seq);
                self.unwritten.touch_exit(ack.seq);
                self.after_write.push(done(caller));
            }
            None => out.push(done(caller)),
        }
    }

    fn list(&self, list: &List) -> Listing {
        let all = self.held.values().filter(|held| list.after.is_none_or(|after| held.record.key > after));
        let mut processes: Vec<ProcessInfo> = all.take(LIST_PAGE + 1).map(info).collect();
        let exits = self.exits.range(list.after_exit.saturating_add(1)..).map(|(_, exit)| exit.clone());
        let mut exits: Vec<_> = exits.take(LIST_PAGE + 1).collect();
        let more = processes.len() > LIST_PAGE || exits.len() > LIST_PAGE;
        processes.truncate(LIST_PAGE);
        exits.truncate(LIST_PAGE);
        Listing { processes, exits, more }
    }
}

fn info(held: &super::Held) -> ProcessInfo {
    let record = &held.record;
    ProcessInfo {
        key: record.key,
        name: record.name.clone(),
        namespace: record.namespace.clone(),
        pid: record.pid,
        start_time: record.start_time,
        started_at: record.started_at,
        phase: record.phase,
        adopted: held.adopted,
        cgroup: record.cgroup.clone(),
        log_path: record.log.current(&record.namespace, &record.name),
        log: LogCounters::default(),
        said: record.said.clone(),
    }
}

fn not_found(caller: Caller, key: ProcKey) -> Output {
    refuse(caller, RefusalCode::NotFound, format!("no process {key} runs here"))
}

/// Names become parts of paths, and texts become C strings: refuse here what could be misread there.
fn check(spawn: &Spawn) -> Result<(), String> {
    for (what, part) in [("name", &spawn.name), ("namespace", &spawn.namespace)] {
        let odd = part.is_empty() || part == "." || part == ".." || part.len() > 128;
        if odd || part.contains(['/', '\0', '\n']) {
            return Err(format!("{part:?} cannot be a {what}"));
        }
    }
    if spawn.argv.first().is_none_or(String::is_empty) {
        return Err("there is no command".to_owned());
    }
    for (what, path) in [("log folder", &spawn.log.dir), ("working directory", &spawn.cwd)] {
        if !path.starts_with('/') {
            return Err(format!("the {what} {path:?} is not an absolute path"));
        }
    }
    if !(1..=SIGNAL_MAX).contains(&spawn.stop_signal) {
        return Err(format!("{} is not a signal", spawn.stop_signal));
    }
    let texts = spawn.argv.iter().chain([&spawn.log.dir, &spawn.cwd]);
    if texts.chain(spawn.env.iter().flat_map(|(name, value)| [name, value])).any(|text| text.contains('\0')) {
        return Err("a text of the command or its environment has a zero byte in it".to_owned());
    }
    if let Some((name, _)) = spawn.env.iter().find(|(name, _)| name.is_empty() || name.contains('=')) {
        return Err(format!("{name:?} cannot name a variable"));
    }
    Ok(())
}
