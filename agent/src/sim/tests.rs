//! That the simulated host does as a real one: commands beside processes, what is taken of it, what can be removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use ostler_agent_core::holder::protocol::{Isolation, Limits, LogSpec, ProcKey};
use ostler_agent_core::unit::HowEnded;
use ostler_agent_core::usage::Watched;
use ostler_bus::clock::ClockRef;
use ostler_bus::sim_clock::{Gate, SimClock};
use ostler_schemas::Uid;
use ostler_schemas::quantity::{Cpu, Signal, Size};
use ostler_schemas::time::Timestamp;

use super::{Program, SimFacts, SimHost};
use crate::ports::{FactsSource as _, Host as _, HostRun, HostSpawn, Screen, SessionInput, SessionOutput};

fn host() -> Arc<SimHost> {
    let clock: ClockRef = SimClock::new(Gate::new(), Timestamp(1_000_000));
    SimHost::new(clock)
}

fn uid(n: u8) -> Uid {
    Uid::from_bytes([n; 16])
}

fn spawn(n: u8, command: &str) -> HostSpawn {
    HostSpawn {
        key: ProcKey { uid: uid(n), incarnation: 1 },
        namespace: "default".parse().expect("a name"),
        name: format!("web-{n}").parse().expect("a name"),
        argv: vec![command.to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: None,
        umask: 0o022,
        rlimits: Vec::new(),
        limits: Limits::default(),
        oom_score_adjust: 0,
        allow_new_privileges: false,
        isolation: Isolation::default(),
        log: LogSpec::below(""),
        listen: None,
        kill_mode: ostler_schemas::spec::KillMode::Mixed,
        stop_signal: Signal::TERM,
        grace_ms: 1_000,
    }
}

async fn session(inputs: Vec<SessionInput>, screen: Option<Screen>) -> (String, HowEnded) {
    let host = host();
    let run = HostRun::like(&spawn(1, "/bin/serve"), vec!["/bin/sh".to_owned()]);
    let mut session = host.attend(run, screen).await.expect("starts");
    for input in inputs {
        session.input.send(input).await.expect("is heard");
    }
    let mut said = String::new();
    loop {
        match session.output.recv().await.expect("an end") {
            SessionOutput::Stdout(bytes) | SessionOutput::Stderr(bytes) => {
                said.push_str(&String::from_utf8_lossy(&bytes));
            }
            SessionOutput::Ended(outcome) => return (said, outcome.how),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_gives_back_what_it_is_given_and_its_end_is_exact() {
    let said = |text: &'static str| SessionInput::Bytes(text.into());
    let (text, how) = session(vec![said("hello\n"), said("exit 7\n")], None).await;
    assert_eq!((text.as_str(), how), ("hello\n", HowEnded::Code(7)));
    let resize = SessionInput::Resize(Screen { rows: 50, columns: 132 });
    let screen = Some(Screen { rows: 24, columns: 80 });
    let (text, how) = session(vec![resize, SessionInput::Signal(Signal::TERM)], screen).await;
    assert_eq!((text.as_str(), how), ("24x80\n50x132\n", HowEnded::Signal(15)));
    let (_, how) = session(vec![SessionInput::End], None).await;
    assert_eq!(how, HowEnded::Code(0));
}

#[tokio::test(start_paused = true)]
async fn what_programs_take_is_seen_by_process_and_on_the_whole_host() {
    let host = host();
    let facts = SimFacts::new(Arc::clone(&host), "n1", Cpu::from_millis(4_000), Size::from_mib(1_024));
    let takes = Program { memory: 64 << 20, disk: 10 << 20, tasks: 12, ..Program::default() };
    host.program("/bin/busy", takes);
    host.spawn(spawn(1, "/bin/busy")).await.expect("starts");
    host.spawn(spawn(2, "/bin/plain")).await.expect("starts");
    let watched = |n| Watched { uid: uid(n), incarnation: 1, pid: 1, cgroup: None };
    let look = facts.look(vec![watched(1), watched(2), watched(3)]).await;
    let seen: Vec<_> = look.processes.iter().map(|p| (p.uid, p.counters.memory, p.counters.tasks)).collect();
    assert_eq!(seen, [(uid(1), Some(64 << 20), Some(12)), (uid(2), Some(0), Some(1))]);
    assert_eq!(look.memory, Some(64 << 20));
    let readings = facts.readings();
    assert_eq!(readings.memory.map(|m| m.total - m.free), Some(64 << 20));
    assert_eq!(readings.pids.map(|p| p.total - p.free), Some(13));
    assert_eq!(readings.disks.first().map(|d| d.space.total - d.space.free), Some(10 << 20));
}

#[tokio::test(start_paused = true)]
async fn logs_stay_when_processes_go_until_they_are_removed() {
    let host = host();
    host.program("/bin/busy", Program { disk: 10 << 20, ..Program::default() });
    let process = spawn(1, "/bin/busy");
    let (key, of) = (process.key, (uid(1), process.namespace.clone(), process.name.clone()));
    host.spawn(process).await.expect("starts");
    assert_eq!(host.disk_used(), 10 << 20);
    let held = host.held(vec![of]).await;
    assert_eq!(held.iter().map(|h| (h.uid, h.bytes)).collect::<Vec<_>>(), [(uid(1), 10 << 20)]);
    assert_eq!(host.old_logs(BTreeSet::new()).await, [], "it lives");
    host.end(key, HowEnded::Code(0));
    assert_eq!(host.old_logs([uid(1)].into()).await, [], "it may say something yet");
    let old = host.old_logs(BTreeSet::new()).await;
    assert_eq!(old.iter().map(|spare| spare.bytes).collect::<Vec<_>>(), [10 << 20]);
    assert_eq!(host.remove_logs([uid(1)].into(), old.clone()).await, [], "it has come back meanwhile");
    assert_eq!(host.remove_logs(BTreeSet::new(), old).await.len(), 1);
    assert_eq!(host.disk_used(), 0);
}
