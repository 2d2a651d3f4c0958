use ostler_schemas::Kind;
use ostler_schemas::key::DocumentKind;
use ostler_schemas::spec::Toleration;
use ostler_schemas::spec::{NodeSpec, Spec, TolerationOperator};
use ostler_schemas::time::Mono;
use ostler_schemas::v1::beat::{Beat, HeldDocument};
use ostler_schemas::v1::document::RunDocument;
use ostler_schemas::v1::epoch::Epoch;
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::report::{ProcessPhase, Report};

use super::*;
use crate::plan::Act;
use crate::status::rig::{self, NOW, Rig, node_name, process_report, uid};

fn now() -> Now {
    Now { mono: Mono(0), wall: NOW }
}

/// So many nodes `n1…`, all beating; a Deployment with one process on each.
fn fleet(nodes: u8) -> (Rig, Object) {
    let mut rig = Rig::new();
    let spec = Spec::Deployment(Box::new(rig::deployment_spec(u32::from(nodes), "x")));
    let web = rig.object(rig::object(Kind::Deployment, "web"), uid(100), spec);
    for n in 1..=nodes {
        let name = format!("n{n}");
        rig.node(&name, n);
        rig.process(&web, 10 + n, 1, Some(&name));
    }
    (rig, web)
}

fn look(rig: &Rig, node: &str) -> Plan {
    reconcile(&rig.fleet, &rig.signals, &node_name(node), now())
}

fn state(plan: &Plan) -> Option<NodeState> {
    plan.steps.iter().find_map(|s| match &s.act {
        Act::Put(Body::NodeState(state)) => Some(state.clone()),
        Act::Put(_) | Act::Delete => None,
    })
}

fn goals(plan: &Plan) -> Vec<(Goal, GoalReason)> {
    plan.steps
        .iter()
        .filter_map(|s| match &s.act {
            Act::Put(Body::Goal(goal)) => Some((goal.goal, goal.reason)),
            Act::Put(_) | Act::Delete => None,
        })
        .collect()
}

fn keep(rig: &mut Rig, node: &str, state: &NodeState) {
    let key = Key::State(ControllerName::Node, StateSubject::Node(node_name(node)));
    rig.put(&key, state);
}

#[test]
fn one_lost_node_of_three_is_judged_and_evicted_at_once() {
    let (mut rig, _) = fleet(3);
    rig.heard("n3", NodePhase::Suspect);
    assert!(look(&rig, "n3").is_idle(), "suspicion does nothing");
    rig.heard("n3", NodePhase::Lost);
    let plan = look(&rig, "n3");
    assert_eq!(state(&plan).and_then(|s| s.lost).map(|v| v.held), Some(false));
    assert_eq!(goals(&plan), [(Goal::Gone, GoalReason::Lost)]);
    assert_eq!(plan.tell[0].reason, Reason::Lost);
}

#[test]
fn many_losses_at_once_are_held_until_signals_say_otherwise() {
    let (mut rig, _) = fleet(10);
    for n in 1..=4 {
        rig.heard(&format!("n{n}"), if n == 1 { NodePhase::Lost } else { NodePhase::Suspect });
    }
    let plan = look(&rig, "n1");
    let verdict = state(&plan).and_then(|s| s.lost).expect("a verdict");
    assert!(verdict.held);
    assert!(goals(&plan).is_empty());
    assert!(plan.tell.iter().any(|t| t.reason == Reason::EvictionHeld));
    keep(&mut rig, "n1", &state(&plan).expect("a state"));
    // Much later they are still silent: still held.
    for n in 1..=4 {
        rig.heard(&format!("n{n}"), NodePhase::Lost);
    }
    assert!(goals(&look(&rig, "n1")).is_empty());
    // The others return: what is left is a small loss, and real.
    for n in 2..=4 {
        rig.heard(&format!("n{n}"), NodePhase::Ready);
    }
    let plan = look(&rig, "n1");
    assert_eq!(state(&plan).and_then(|s| s.lost).map(|v| v.held), Some(false));
    assert_eq!(goals(&plan), [(Goal::Gone, GoalReason::Lost)]);
}

#[test]
fn an_old_loss_does_not_count_against_a_new_one() {
    let (mut rig, _) = fleet(3);
    rig.heard("n3", NodePhase::Lost);
    let mut old = state(&look(&rig, "n3")).expect("a state");
    if let Some(verdict) = &mut old.lost {
        verdict.at = Timestamp(NOW.0 - BRAKE_WINDOW_MS - 1);
    }
    keep(&mut rig, "n3", &old);
    rig.heard("n2", NodePhase::Lost);
    assert_eq!(goals(&look(&rig, "n2")), [(Goal::Gone, GoalReason::Lost)]);
}

fn returned(rig: &mut Rig, incarnation: u64, revision: Revision, phase: ProcessPhase) {
    let beat = Some(std::sync::Arc::new(Beat { incarnation: 7, ..Beat::default() }));
    if let Some(signal) = rig.signals.nodes.get_mut(&node_name("n3")) {
        signal.phase = NodePhase::Ready;
        signal.beat = beat;
    }
    let report = Report {
        incarnation,
        run: HeldDocument { epoch: Epoch::default(), revision },
        processes: vec![process_report(uid(13), phase, false)],
        ..Report::default()
    };
    rig.put(&Key::Report(node_name("n3")), &report);
}

#[test]
fn a_node_returns_when_its_report_shows_that_it_knows() {
    let (mut rig, _) = fleet(3);
    rig.heard("n3", NodePhase::Lost);
    let plan = look(&rig, "n3");
    keep(&mut rig, "n3", &state(&plan).expect("a state"));
    let Act::Put(Body::Goal(goal)) = plan.steps[0].act.clone() else { panic!("a goal comes first") };
    rig.put(&Key::ProcessGoal(uid(13)), &goal);
    let document = rig.put(&Key::NodeDocument(node_name("n3"), DocumentKind::Run), &RunDocument::default());

    returned(&mut rig, 6, document, ProcessPhase::Stopped);
    assert!(look(&rig, "n3").is_idle(), "a report of the instance before");
    returned(&mut rig, 7, Revision(document.0 - 1), ProcessPhase::Stopped);
    assert!(look(&rig, "n3").is_idle(), "it has not read the tombstones");
    returned(&mut rig, 7, document, ProcessPhase::Stopping);
    assert!(look(&rig, "n3").is_idle(), "what was replaced still lives there");
    returned(&mut rig, 7, document, ProcessPhase::Stopped);
    let plan = look(&rig, "n3");
    assert_eq!(state(&plan).map(|s| s.lost), Some(None));
    assert_eq!(plan.tell[0].reason, Reason::Ready);
}

#[test]
fn tolerations_delay_or_prevent_eviction() {
    for (time, expect) in [(None, None), (Some("5m"), Some(300_000))] {
        let (mut rig, mut web) = fleet(3);
        if let Spec::Deployment(spec) = &mut web.spec {
            spec.template.spec.tolerations = vec![Toleration {
                key: Some(LOST_TAINT.to_owned()),
                operator: TolerationOperator::Exists,
                value: String::new(),
                effect: None,
                toleration_time: time.map(|t| t.parse().expect("a duration")),
            }];
        }
        rig.process(&web, 13, 1, Some("n3"));
        rig.heard("n3", NodePhase::Lost);
        let plan = look(&rig, "n3");
        assert!(goals(&plan).is_empty());
        assert_eq!(plan.wake_in_ms, expect);
    }
}

#[test]
fn a_no_execute_taint_stops_what_does_not_tolerate_it() {
    let (mut rig, _) = fleet(3);
    let taint = Taint { key: "k".into(), value: "v".into(), effect: TaintEffect::NoExecute };
    let spec = NodeSpec { taints: vec![taint], ..NodeSpec::default() };
    rig.object(rig::object(Kind::Node, "n2"), uid(2), Spec::Node(spec));
    let plan = look(&rig, "n2");
    assert_eq!(goals(&plan), [(Goal::Stop, GoalReason::Evicted)]);
    assert_eq!(state(&plan).map(|s| s.tainted_since.len()), Some(1));
}

#[test]
fn a_deleted_node_takes_its_processes_along() {
    let (mut rig, _) = fleet(3);
    rig.delete(&Key::Object(rig::object(Kind::Node, "n2")));
    assert_eq!(goals(&look(&rig, "n2")), [(Goal::Gone, GoalReason::Lost)]);
    assert!(all(&rig.fleet).contains(&node_name("n2")));
}

#[test]
fn a_store_older_than_the_agents_is_recognised() {
    let (mut rig, _) = fleet(2);
    let held = |incarnation, revision| HeldDocument {
        epoch: Epoch { incarnation, term: Revision(1), nonce: 0 },
        revision: Revision(revision),
    };
    let mut hear = |run| {
        if let Some(signal) = rig.signals.nodes.get_mut(&node_name("n1")) {
            signal.beat = Some(std::sync::Arc::new(Beat { run, ..Beat::default() }));
        }
        regression(&rig.fleet, &rig.signals, Revision(50))
    };
    assert_eq!(hear(held(1, 50)), None);
    assert_eq!(hear(held(1, 51)), Some(2), "a revision that the store never had");
    assert_eq!(hear(held(4, 3)), Some(5), "an incarnation that the store never had");
}
