//! Who goes, when, and when nobody does.

use std::sync::Arc;

use ostler_schemas::Version;
use ostler_schemas::spec::{Spec, Toleration, TolerationOperator};
use ostler_schemas::time::{Mono, Timestamp};
use ostler_schemas::v1::process::ProcessTemplateRecord;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{Condition, ConditionStatus, ProcessPhase, Report};
use ostler_schemas::{Key, Kind};

use super::*;
use crate::node::reconcile;
use crate::plan::{Act, Body};
use crate::status::rig::{self, NOW, Rig, node_name, process_report, uid};

const HOST_MIB: u64 = 8_192;

/// Nodes `n1` and `n2`; processes 11 to 13 of a Deployment that requests 256Mi each, all on `n1`.
fn world() -> Rig {
    let mut rig = Rig::new();
    let mut spec = rig::deployment_spec(3, "x");
    spec.template.spec.resources.requests.memory = Some(Size::from_mib(256));
    let web = rig.object(rig::object(Kind::Deployment, "web"), uid(100), Spec::Deployment(Box::new(spec)));
    rig.node("n1", 1);
    rig.node("n2", 2);
    for n in 11..=13 {
        rig.process(&web, n, 1, Some("n1"));
    }
    report(&mut rig, "n1", true);
    report(&mut rig, "n2", false);
    rig
}

fn report(rig: &mut Rig, node: &str, pressed: bool) {
    report_of(rig, node, pressed.then_some(MEMORY_PRESSURE));
}

fn report_of(rig: &mut Rig, node: &str, pressure: Option<Pressure>) {
    let condition = |pressure: Pressure| Condition {
        kind: pressure.condition.to_owned(),
        status: ConditionStatus::True,
        reason: pressure.condition.to_owned(),
        message: String::new(),
        last_transition_time: NOW,
        observed_generation: None,
    };
    let mut report = Report {
        conditions: pressure.map(condition).into_iter().collect(),
        processes: (11..=13).map(|n| process_report(uid(n), ProcessPhase::Running, true)).collect(),
        ..Report::default()
    };
    report.facts.memory = Size::from_mib(HOST_MIB);
    rig.put(&Key::Report(node_name(node)), &report);
}

/// `n1` beats, short of memory, with these processes (in MiB).
fn strained(rig: &mut Rig, since_ms: u64, processes: &[(u8, u64)]) {
    let processes = processes.iter().map(|(n, mib)| (uid(*n), Size::from_mib(*mib).as_bytes())).collect();
    let strain = Strain { since_ms, used: 923, processes, of: 7, total: HOST_MIB << 20 };
    let beat = Beat { holder: true, strain: Some(strain), ..Beat::default() };
    if let Some(signal) = rig.signals.nodes.get_mut(&node_name("n1")) {
        signal.beat = Some(Arc::new(beat));
    }
}

fn look(rig: &Rig, after_ms: u64) -> Plan {
    let now = Now { mono: Mono(0), wall: Timestamp(NOW.0 + after_ms) };
    reconcile(&rig.fleet, &rig.signals, &node_name("n1"), now)
}

fn victims(plan: &Plan) -> Vec<Uid> {
    let evicted = |act: &Act| matches!(act, Act::Put(Body::Goal(g)) if g.reason == GoalReason::Evicted && g.goal == Goal::Stop);
    plan.steps
        .iter()
        .filter(|s| evicted(&s.act))
        .filter_map(|s| match &s.key {
            Key::ProcessGoal(uid) => Some(*uid),
            _ => None,
        })
        .collect()
}

/// Writes what a plan says.
fn carry_out(rig: &mut Rig, plan: &Plan) {
    for step in &plan.steps {
        match &step.act {
            Act::Put(Body::Goal(goal)) => drop(rig.put(&step.key, goal)),
            Act::Put(Body::NodeState(state)) => drop(rig.put(&step.key, state)),
            Act::Put(_) | Act::Delete => {}
        }
    }
}

#[test]
fn the_greediest_goes_and_is_told_why() {
    let mut rig = world();
    strained(&mut rig, 12_000, &[(12, 812), (11, 3_000), (13, 200)]);
    let plan = look(&rig, 0);
    assert_eq!(victims(&plan), [uid(11)]);
    let told: Vec<_> = plan.tell.iter().map(|t| (t.reason, t.message.as_str())).collect();
    let message = "evicted: node memory pressure 92 %, used 3000Mi of 256Mi requested (1st of 7)";
    assert_eq!(told, [(Reason::Evicted, message)]);
}

#[test]
fn within_their_requests_the_biggest_goes() {
    let mut rig = world();
    strained(&mut rig, 12_000, &[(12, 200), (11, 190), (13, 100)]);
    assert_eq!(victims(&look(&rig, 0)), [uid(12)]);
    strained(&mut rig, 12_000, &[(12, 15), (11, 15), (13, 15)]);
    let plan = look(&rig, 0);
    assert!(victims(&plan).is_empty(), "their end would not help");
    assert!(plan.why.iter().any(|w| w.contains("big enough")), "{:?}", plan.why);
}

#[test]
fn a_peak_evicts_nobody_nor_does_a_condition_that_waits_for_its_end() {
    let mut rig = world();
    strained(&mut rig, PATIENCE_MS - 1, &[(11, 3_000)]);
    let plan = look(&rig, 0);
    assert!(victims(&plan).is_empty());
    assert_eq!(plan.wake_in_ms, Some(LOOK_MS));
    if let Some(signal) = rig.signals.nodes.get_mut(&node_name("n1")) {
        signal.beat = Some(Arc::new(Beat { holder: true, ..Beat::default() }));
    }
    assert!(victims(&look(&rig, 0)).is_empty());
}

#[test]
fn one_at_a_time_and_a_pause_between() {
    let mut rig = world();
    strained(&mut rig, 12_000, &[(11, 3_000), (12, 812)]);
    let plan = look(&rig, 0);
    carry_out(&mut rig, &plan);
    assert!(victims(&look(&rig, PAUSE_MS - 1)).is_empty(), "too early");
    let plan = look(&rig, PAUSE_MS);
    assert!(victims(&plan).is_empty(), "the first is still alive: {:?}", plan.why);
    let key = Key::Report(node_name("n1"));
    let mut ended = rig.fleet.reports[&node_name("n1")].value.as_ref().clone();
    ended.processes[0].phase = ProcessPhase::Stopped;
    rig.put(&key, &ended);
    assert_eq!(victims(&look(&rig, PAUSE_MS)), [uid(12)]);
}

#[test]
fn with_nowhere_to_go_nobody_goes() {
    let mut rig = world();
    strained(&mut rig, 12_000, &[(11, 3_000)]);
    report(&mut rig, "n2", true);
    let plan = look(&rig, 0);
    assert!(victims(&plan).is_empty(), "the other is short of memory too");
    assert!(plan.why.iter().any(|w| w.contains("no other node")), "{:?}", plan.why);
    report(&mut rig, "n2", false);
    rig.heard("n2", NodePhase::Lost);
    assert!(victims(&look(&rig, 0)).is_empty(), "the other is lost");
    rig.heard("n2", NodePhase::Ready);
    assert_eq!(victims(&look(&rig, 0)), [uid(11)]);
}

#[test]
fn a_node_that_is_not_heard_evicts_nobody() {
    let mut rig = world();
    strained(&mut rig, 12_000, &[(11, 3_000)]);
    if let Some(signal) = rig.signals.nodes.get_mut(&node_name("n1")) {
        signal.phase = NodePhase::Suspect;
    }
    assert!(victims(&look(&rig, 0)).is_empty());
}

#[test]
fn what_hangs_in_the_kernel_does_not_keep_the_host_short() {
    let mut rig = world();
    strained(&mut rig, 12_000, &[(11, 3_000), (12, 812)]);
    let plan = look(&rig, 0);
    carry_out(&mut rig, &plan);
    let records = &rig.fleet.processes[&uid(11)];
    let last = stop_ms(rig.fleet.process_template(records).expect("a template")) + SLACK_MS;
    let plan = look(&rig, last - 1);
    assert!(victims(&plan).is_empty(), "it may yet end: {:?} {:?}", plan.why, plan.tell);
    assert_eq!(victims(&look(&rig, last)), [uid(12)], "it will not end: the next one");
}

/// `n1` beats, short of something else.
fn strained_of(rig: &mut Rig, shortage: Shortage, total: u64, processes: &[(u8, u64)]) {
    report_of(rig, "n1", Some(shortage.pressure()));
    let processes = processes.iter().map(|(n, used)| (uid(*n), *used)).collect();
    let strain = Some(Strain { since_ms: 12_000, used: 970, processes, of: 3, total });
    let beat = match shortage {
        Shortage::Memory => Beat { strain, ..Beat::default() },
        Shortage::Disk => Beat { disk_strain: strain, ..Beat::default() },
        Shortage::Pids => Beat { pid_strain: strain, ..Beat::default() },
    };
    if let Some(signal) = rig.signals.nodes.get_mut(&node_name("n1")) {
        signal.beat = Some(Arc::new(Beat { holder: true, ..beat }));
    }
}

#[test]
fn disk_goes_by_what_an_end_gives_back() {
    let mut rig = world();
    let total = 512 << 30;
    strained_of(&mut rig, Shortage::Disk, total, &[(11, 1 << 30), (12, 3 << 30), (13, 0)]);
    let plan = look(&rig, 0);
    assert_eq!(victims(&plan), [uid(12)]);
    let message = "evicted: node disk pressure 97 %, 3Gi in its log and its own /tmp (1st of 3)";
    assert_eq!(plan.tell.first().map(|t| t.message.as_str()), Some(message));
    strained_of(&mut rig, Shortage::Disk, total, &[(11, (1 << 30) - 1), (12, 0)]);
    assert!(victims(&look(&rig, 0)).is_empty(), "their end would give nothing back");
    report_of(&mut rig, "n1", Some(DISK_PRESSURE));
    if let Some(signal) = rig.signals.nodes.get_mut(&node_name("n1")) {
        signal.beat = Some(Arc::new(Beat { holder: true, ..Beat::default() }));
    }
    let plan = look(&rig, 0);
    assert!(
        victims(&plan).is_empty() && plan.why.iter().any(|w| w.contains("agent removes")),
        "{:?}",
        plan.why
    );
}

#[test]
fn process_numbers_go_by_threads() {
    let mut rig = world();
    strained_of(&mut rig, Shortage::Pids, 32_768, &[(11, 63), (12, 30_000)]);
    let plan = look(&rig, 0);
    assert_eq!(victims(&plan), [uid(12)]);
    let message = "evicted: node pid pressure 97 %, has 30000 threads (1st of 3)";
    assert_eq!(plan.tell.first().map(|t| t.message.as_str()), Some(message));
    strained_of(&mut rig, Shortage::Pids, 32_768, &[(11, 63), (12, 8)]);
    assert!(victims(&look(&rig, 0)).is_empty(), "their end would not help");
}

#[test]
fn two_shortages_evict_one_process() {
    let mut rig = world();
    strained(&mut rig, 12_000, &[(11, 3_000)]);
    let key = Key::Report(node_name("n1"));
    let mut report = rig.fleet.reports[&node_name("n1")].value.as_ref().clone();
    let disk = Condition { kind: DISK_PRESSURE.condition.to_owned(), ..report.conditions[0].clone() };
    report.conditions.push(disk);
    rig.put(&key, &report);
    if let Some(signal) = rig.signals.nodes.get_mut(&node_name("n1"))
        && let Some(beat) = &signal.beat
    {
        let strain =
            Strain { processes: vec![(uid(12), 3 << 30)], ..beat.strain.clone().unwrap_or_default() };
        signal.beat = Some(Arc::new(Beat { disk_strain: Some(strain), ..(**beat).clone() }));
    }
    assert_eq!(victims(&look(&rig, 0)), [uid(11)]);
}

/// Gives a process another template.
fn change(rig: &mut Rig, n: u8, change: impl FnOnce(&mut ProcessTemplate)) {
    let records = &rig.fleet.processes[&uid(n)];
    let mut template = (**rig.fleet.process_template(records).expect("a template")).clone();
    change(&mut template);
    let hash = ostler_schemas::hash::sha256(&ostler_schemas::codec::encode(&template).expect("encodes"));
    rig.put(&Key::Template(hash), &template);
    rig.put(&Key::ProcessTemplate(uid(n)), &ProcessTemplateRecord { template: hash, version: Version(1) });
}

#[test]
fn what_would_come_back_stays_and_what_was_bound_by_hand_goes_last() {
    let everything = Toleration {
        key: None,
        operator: TolerationOperator::Exists,
        value: String::new(),
        effect: None,
        toleration_time: None,
    };
    let mut rig = world();
    change(&mut rig, 11, |template| template.tolerations = vec![everything]);
    change(&mut rig, 12, |template| template.node_name = Some(node_name("n1")));
    strained(&mut rig, 12_000, &[(11, 3_000), (12, 2_000), (13, 300)]);
    assert_eq!(victims(&look(&rig, 0)), [uid(13)]);
    strained(&mut rig, 12_000, &[(11, 3_000), (12, 2_000)]);
    assert_eq!(victims(&look(&rig, 0)), [uid(12)]);
    strained(&mut rig, 12_000, &[(11, 3_000)]);
    assert!(victims(&look(&rig, 0)).is_empty(), "it would be placed here again");
}

#[test]
fn places_read_as_people_say_them() {
    let words: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 112].into_iter().map(ordinal).collect();
    assert_eq!(words, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th"]);
}
