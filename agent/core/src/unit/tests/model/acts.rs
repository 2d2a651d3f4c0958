//! What may happen to a process, its host and its agent in a run of the model, and the templates that it has.

use ostler_schemas::quantity::Dur;
use ostler_schemas::spec::{Exec, Probe, ProcessTemplate, ProcessType, Restart, TcpSocket};
use ostler_schemas::v1::process::Goal;
use proptest::prelude::*;

use crate::unit::ProbeKind;
use crate::unit::tests::{fetching, template};

/// Forms of a template: what of it has a step of its own in the machine.
const FORMS: u8 = 7;

pub(in crate::unit::tests) fn hook(command: &str) -> Exec {
    Exec { command: vec![command.to_owned()], user: None, timeout: Dur::from_secs(30) }
}

pub(in crate::unit::tests) fn probe() -> Probe {
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

pub(super) fn form(number: u8) -> ProcessTemplate {
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
        6 => {
            t.artifacts = fetching::artifacts(6);
            t.exec_reload = Some(hook("/bin/reload"));
            t.liveness_probe = Some(probe());
        }
        _ => {}
    }
    t
}

/// What a run of the model may do next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
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
    Hold { stop: bool },
    Release,
    Host(Mood),
    Fetch { set: u8, how: u8 },
    Repeat,
}

/// What a host makes of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Willing,
    /// `agent.toml` forbids it.
    Vetoes,
    /// It is short of something.
    Refuses,
    /// It does it, and its answer is lost.
    Mute,
}

pub(super) fn act() -> impl Strategy<Value = Act> {
    let goal = prop_oneof![8 => Just(Goal::Run), 1 => Just(Goal::Stop), 1 => Just(Goal::Gone)];
    let kind = prop_oneof![Just(ProbeKind::Startup), Just(ProbeKind::Liveness), Just(ProbeKind::Readiness)];
    let mood = prop_oneof![
        3 => Just(Mood::Willing), 1 => Just(Mood::Vetoes), 1 => Just(Mood::Refuses), 1 => Just(Mood::Mute)
    ];
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
        3 => any::<bool>().prop_map(Act::Ask),
        2 => any::<bool>().prop_map(|stop| Act::Hold { stop }),
        3 => Just(Act::Release),
        2 => mood.prop_map(Act::Host),
        8 => (0..FORMS, 0u8..4).prop_map(|(set, how)| Act::Fetch { set, how }),
        2 => Just(Act::Repeat),
    ]
}
