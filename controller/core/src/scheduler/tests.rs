use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::spec::{NodeSpec, Port, Spec, Taint, TaintEffect, Toleration, TolerationOperator};
use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::document::RunDocument;
use ostler_schemas::v1::epoch::Epoch;
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::process::{GoalReason, GoalRecord};
use ostler_schemas::v1::report::{ConditionStatus, Facts, ProcessPhase, Report};
use ostler_schemas::v1::status::NodePhase;
use ostler_schemas::{Actor, Revision};

use super::*;
use crate::plan::{Act, BatchContext};
use crate::status::rig::{self, NOW, Rig, node_name, process_report, uid};

fn now() -> Now {
    Now { mono: ostler_schemas::time::Mono(0), wall: NOW }
}

fn context() -> BatchContext {
    BatchContext { epoch: Epoch { incarnation: 1, term: Revision(9), nonce: 7 }, batch: 3 }
}

/// Applies a plan as a committed batch would.
fn land(rig: &mut Rig, plan: &Plan) {
    let mut revision = rig.fleet.revision.0;
    for step in &plan.steps {
        assert_eq!(step.expect, rig.fleet.revision_of(&step.key), "guard of {}", step.key);
        revision += 1;
        let value = match &step.act {
            Act::Put(body) => Some(body.render(&context()).expect("renders")),
            Act::Delete => None,
        };
        let change = crate::fleet::Change {
            key: &step.key,
            revision: Revision(revision),
            at: NOW,
            value: value.as_deref(),
        };
        rig.fleet.apply(&change);
    }
    rig.catch_up();
}

fn report_of(rig: &Rig, node: &str) -> Report {
    rig.fleet.reports.get(&node_name(node)).map(|r| (*r.value).clone()).unwrap_or_default()
}

fn save(rig: &mut Rig, node: &str, report: &Report) {
    rig.put(&Key::Report(node_name(node)), report);
}

/// A node with four cores and 8 GiB that has reported.
fn add_node(rig: &mut Rig, node: &str, n: u8) {
    rig.node(node, n);
    let facts = Facts {
        cpu: Cpu::from_millis(4100),
        memory: Size::from_mib(8192 + 256),
        ports: (20_000, 20_002),
        ..Facts::default()
    };
    save(rig, node, &Report { facts, seq: 1, incarnation: 1, ..Report::default() });
}

fn deployment(rig: &mut Rig, edit: impl FnOnce(&mut ostler_schemas::spec::DeploymentSpec)) -> Object {
    let mut spec = rig::deployment_spec(3, "x");
    edit(&mut spec);
    rig.object(rig::object(Kind::Deployment, "web"), uid(100), Spec::Deployment(Box::new(spec)))
}

fn node_of(rig: &Rig, n: u8) -> Option<String> {
    rig.fleet.processes.get(&uid(n)).and_then(|p| p.node()).map(ToString::to_string)
}

fn document(rig: &Rig, node: &str) -> RunDocument {
    rig.fleet.run_documents.get(&node_name(node)).map(|d| (*d.value).clone()).unwrap_or_default()
}

fn look(rig: &mut Rig) -> Plan {
    let plan = reconcile(&rig.fleet, &rig.signals, now());
    land(rig, &plan);
    plan
}

fn two_nodes() -> Rig {
    let mut rig = Rig::new();
    add_node(&mut rig, "a", 1);
    add_node(&mut rig, "b", 2);
    rig
}

#[test]
fn processes_go_to_the_least_loaded_and_ties_to_the_first_name() {
    let mut rig = two_nodes();
    let web = deployment(&mut rig, |_| {});
    for n in 10..13 {
        rig.process(&web, n, 1, None);
    }
    let plan = look(&mut rig);
    assert_eq!(
        [node_of(&rig, 10), node_of(&rig, 11), node_of(&rig, 12)].map(Option::unwrap),
        ["a", "b", "a"]
    );
    assert_eq!(plan.steps.len(), 5, "three bindings and one write per document: {:?}", plan.keys());
    assert_eq!(document(&rig, "a").entries.len(), 2);
    assert!(reconcile(&rig.fleet, &rig.signals, now()).is_idle(), "a second look has nothing to do");
}

#[test]
fn nothing_is_placed_on_a_node_that_users_see_as_not_ready() {
    let mut rig = two_nodes();
    rig.delete(&Key::Object(rig::object(Kind::Node, "b")));
    let web = deployment(&mut rig, |_| {});
    rig.process(&web, 10, 1, None);
    let holder = |rig: &mut Rig, is_there| {
        let signal = rig.signals.nodes.get_mut(&node_name("a")).expect("heard");
        signal.beat = Some(std::sync::Arc::new(ostler_schemas::v1::beat::Beat {
            holder: is_there,
            ..Default::default()
        }));
    };
    let shown =
        |rig: &Rig| crate::status::Lens::new(&rig.fleet, &rig.signals, NOW).node_phase(&node_name("a"));
    let said = |rig: &mut Rig, kind: &str| {
        let conditions = vec![ostler_schemas::v1::report::Condition {
            kind: kind.to_owned(),
            status: ConditionStatus::True,
            reason: kind.to_owned(),
            message: String::new(),
            last_transition_time: NOW,
            observed_generation: None,
        }];
        let report = Report { conditions, ..report_of(rig, "a") };
        save(rig, "a", &report);
    };
    holder(&mut rig, false);
    look(&mut rig);
    assert_eq!((node_of(&rig, 10), shown(&rig)), (None, NodePhase::NotReady));
    holder(&mut rig, true);
    for kind in ["AgentHung", "HolderLost", "DuplicateIdentity", "Frozen"] {
        said(&mut rig, kind);
        look(&mut rig);
        assert_eq!((node_of(&rig, 10), shown(&rig)), (None, NodePhase::NotReady), "{kind}");
        let why = &rig.fleet.pending[&uid(10)].filters;
        assert!(format!("{why:?}").contains(kind), "{why:?}");
    }
    said(&mut rig, "ClockSkewed");
    look(&mut rig);
    assert_eq!((node_of(&rig, 10).as_deref(), shown(&rig)), (Some("a"), NodePhase::Ready));
}

#[test]
fn nothing_new_comes_to_a_node_under_pressure_unless_it_tolerates_that() {
    let mut rig = two_nodes();
    rig.delete(&Key::Object(rig::object(Kind::Node, "b")));
    let web = deployment(&mut rig, |_| {});
    rig.process(&web, 10, 1, None);
    let mut report = report_of(&rig, "a");
    report.conditions = vec![ostler_schemas::v1::report::Condition {
        kind: "MemoryPressure".to_owned(),
        status: ConditionStatus::True,
        reason: "MemoryPressure".to_owned(),
        message: String::new(),
        last_transition_time: NOW,
        observed_generation: None,
    }];
    save(&mut rig, "a", &report);
    look(&mut rig);
    assert_eq!(node_of(&rig, 10), None);
    let why = format!("{:?}", rig.fleet.pending[&uid(10)].filters);
    assert!(why.contains("ostler/memory-pressure:NoSchedule on a"), "{why}");
    report.conditions[0].status = ConditionStatus::False;
    save(&mut rig, "a", &report);
    look(&mut rig);
    assert_eq!(node_of(&rig, 10).as_deref(), Some("a"));
}

#[test]
fn what_others_use_beyond_the_reserve_is_not_given_away() {
    use ostler_schemas::quantity::{Cpu, Size};
    use ostler_schemas::v1::usage::Others;
    let mut report = report_of(&two_nodes(), "a");
    let free = |report: &Report| {
        let free = crate::capacity::allocatable(Some(report), &NodeSpec::default());
        (
            report.facts.cpu.as_millis() - free.cpu.as_millis(),
            report.facts.memory.as_bytes() - free.memory.as_bytes(),
        )
    };
    assert_eq!(free(&report), (100, 256 << 20), "the reserve");
    report.others = Some(Others { cpu: Cpu::from_millis(50), memory: Size::from_mib(512) });
    assert_eq!(free(&report), (100, 512 << 20), "what is used of the reserve counts once");
    assert_eq!(crate::capacity::allocatable(None, &NodeSpec::default()).memory, Size::ZERO);
}

#[test]
fn a_document_carries_the_node_labels_that_its_templates_refer_to_and_no_others() {
    let mut rig = two_nodes();
    let set = |rig: &mut Rig, value: &str| {
        let name = rig::object(Kind::Node, "a");
        let mut object = Object::clone(&rig.fleet.objects[&name].value);
        object.metadata.labels =
            [("rack", value), ("role", "web")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        rig.put(&Key::Object(name), &object);
    };
    set(&mut rig, "r7");
    let field_path = "node.labels['rack']".parse().expect("a path");
    let field_ref = ostler_schemas::spec::FieldRef { field_path };
    let rack = ostler_schemas::spec::EnvVar {
        name: "RACK".to_owned(),
        value: None,
        value_from: Some(ostler_schemas::spec::EnvSource::FieldRef(field_ref)),
    };
    let web = deployment(&mut rig, |spec| spec.template.spec.env.push(rack));
    for n in 10..12 {
        rig.process(&web, n, 1, None);
    }
    look(&mut rig);
    let told = |rig: &Rig, node| document(rig, node).labels.into_iter().collect::<Vec<_>>();
    assert_eq!(told(&rig, "a"), [("rack".to_owned(), "r7".to_owned())]);
    assert_eq!(told(&rig, "b"), [], "it has no such label");
    set(&mut rig, "r8");
    let plan = look(&mut rig);
    assert_eq!(plan.keys().len(), 1, "one document is written anew: {:?}", plan.keys());
    assert_eq!(told(&rig, "a"), [("rack".to_owned(), "r8".to_owned())]);
    assert!(reconcile(&rig.fleet, &rig.signals, now()).is_idle());
}

#[test]
fn an_entry_carries_the_token_of_the_batch_that_bound_it() {
    let mut rig = two_nodes();
    let web = deployment(&mut rig, |_| {});
    rig.process(&web, 10, 1, None);
    look(&mut rig);
    let entry = document(&rig, "a").entries[0].clone();
    assert_eq!(entry.f, context().token());
    assert_eq!(rig.fleet.processes[&uid(10)].bind.as_ref().expect("bound").token, context().token());
    let name = document(&rig, "a").process_name(&entry).expect("a name");
    assert_eq!(name, rig.fleet.processes[&uid(10)].spec.as_ref().expect("a spec").name);
}

#[test]
fn a_full_fleet_says_what_is_missing_where() {
    let mut rig = two_nodes();
    let web = deployment(&mut rig, |d| {
        d.template.spec.resources.requests.memory = Some(Size::from_mib(9000));
    });
    rig.process(&web, 10, 1, None);
    let plan = look(&mut rig);
    let said = &plan.tell[0];
    assert_eq!(said.reason, Reason::Unschedulable);
    assert_eq!(said.message, "none of 2 nodes fits: 2 memory (needs 9000Mi; most free is 8Gi on a)");
    assert!(reconcile(&rig.fleet, &rig.signals, now()).is_idle(), "said once");
    rig.fleet.by_node.clear();
    add_node(&mut rig, "c", 3);
    let mut report = report_of(&rig, "c");
    report.facts.memory = Size::from_mib(20_000);
    save(&mut rig, "c", &report);
    look(&mut rig);
    assert_eq!(node_of(&rig, 10).as_deref(), Some("c"));
    assert!(rig.fleet.pending.is_empty(), "the reason is gone with the placement");
}

#[test]
fn closed_nodes_take_nothing() {
    let mut rig = two_nodes();
    let web = deployment(&mut rig, |_| {});
    rig.process(&web, 10, 1, None);
    rig.heard("a", NodePhase::Suspect);
    let cordoned = NodeSpec { unschedulable: true, ..NodeSpec::default() };
    rig.object(rig::object(Kind::Node, "b"), uid(2), Spec::Node(cordoned));
    let plan = look(&mut rig);
    assert_eq!(
        plan.tell[0].message,
        "none of 2 nodes fits: 1 ready (a is Suspect); 1 cordoned (b takes no new processes)"
    );
}

#[test]
fn taints_keep_away_and_tolerations_let_in() {
    let mut rig = two_nodes();
    let taint = Taint { key: "disk".into(), value: "swap".into(), effect: TaintEffect::NoSchedule };
    for (node, n) in [("a", 1), ("b", 2)] {
        let spec = NodeSpec { taints: vec![taint.clone()], ..NodeSpec::default() };
        rig.object(rig::object(Kind::Node, node), uid(n), Spec::Node(spec));
    }
    let web = deployment(&mut rig, |_| {});
    rig.process(&web, 10, 1, None);
    assert!(look(&mut rig).tell[0].message.contains("2 taint (disk=swap:NoSchedule on a)"));
    let tolerant = deployment(&mut rig, |d| {
        d.template.spec.tolerations = vec![Toleration {
            key: Some("disk".into()),
            operator: TolerationOperator::Exists,
            value: String::new(),
            effect: None,
            toleration_time: None,
        }];
    });
    rig.process(&tolerant, 11, 1, None);
    look(&mut rig);
    assert_eq!(node_of(&rig, 11).as_deref(), Some("a"));
}

#[test]
fn fixed_ports_collide_and_free_ones_are_given_from_the_range() {
    let mut rig = two_nodes();
    let port = |name: &str, port| Port {
        name: name.to_owned(),
        port,
        protocol: ostler_schemas::spec::Protocol::Tcp,
    };
    let web = deployment(&mut rig, |d| d.template.spec.ports = vec![port("http", 8080), port("admin", 0)]);
    for n in 10..13 {
        rig.process(&web, n, 1, None);
    }
    let plan = look(&mut rig);
    assert_eq!([node_of(&rig, 10), node_of(&rig, 11)].map(Option::unwrap), ["a", "b"]);
    assert_eq!(node_of(&rig, 12), None);
    let said = plan.tell.iter().find(|t| t.reason == Reason::Unschedulable).expect("said");
    assert!(said.message.contains("2 port (8080 is taken by "), "{}", said.message);
    let entry = document(&rig, "a").entries[0].clone();
    assert_eq!(entry.p, [("admin".to_owned(), 20_000), ("http".to_owned(), 8080)].into());
}

#[test]
fn limits_need_a_host_that_enforces_them() {
    let mut rig = two_nodes();
    for node in ["a", "b"] {
        let mut report = report_of(&rig, node);
        report.conditions.push(ostler_schemas::v1::report::Condition {
            kind: room::LIMITS_UNENFORCED.to_owned(),
            status: ConditionStatus::True,
            reason: "NoControllers".to_owned(),
            message: String::new(),
            last_transition_time: NOW,
            observed_generation: None,
        });
        save(&mut rig, node, &report);
    }
    let web = deployment(&mut rig, |d| d.template.spec.resources.limits.memory = Some(Size::from_mib(100)));
    rig.process(&web, 10, 1, None);
    let said = look(&mut rig).tell[0].message.clone();
    assert!(said.ends_with("2 limits (a cannot enforce limits of memory)"), "{said}");
}

#[test]
fn a_host_must_have_what_a_template_asks_for() {
    let mut rig = two_nodes();
    let say = |rig: &mut Rig, node: &str, features: &[&str]| {
        let features = features.iter().map(|f| (*f).to_owned()).collect();
        let report = Report { features, ..report_of(rig, node) };
        save(rig, node, &report);
    };
    let web = deployment(&mut rig, |d| {
        d.template.spec.user = Some("app".to_owned());
        d.template.spec.private_tmp = true;
        d.template.spec.tasks_max = 10;
    });
    rig.process(&web, 10, 1, None);
    let said = look(&mut rig).tell[0].message.clone();
    let old = "2 features (a cannot enforce tasksMax, cannot give processes mounts of their own, \
               has an agent that does not know all of its fields)";
    assert!(said.ends_with(old), "agents that say nothing are old ones: {said}");

    say(&mut rig, "a", &["runtime", "users", "clairvoyance"]);
    say(&mut rig, "b", &["runtime", "users", "mounts"]);
    let said = look(&mut rig).tell[0].message.clone();
    let apart = "1 features (a cannot enforce tasksMax, cannot give processes mounts of their own); \
                 1 limits (b cannot enforce tasksMax)";
    assert!(said.ends_with(apart), "{said}");

    say(&mut rig, "b", &["users", "mounts", "cgroup.pids"]);
    look(&mut rig);
    assert_eq!(node_of(&rig, 10).as_deref(), Some("b"), "whoever has a list knows the runtime");
}

#[test]
fn agents_without_a_list_do_what_they_always_did() {
    let mut rig = two_nodes();
    let web = deployment(&mut rig, |d| {
        d.template.spec.user = Some("app".to_owned());
        d.template.spec.resources.limits.cpu = Some(Cpu::from_millis(100));
    });
    rig.process(&web, 10, 1, None);
    look(&mut rig);
    assert_eq!(node_of(&rig, 10).as_deref(), Some("a"));
}

fn stop(rig: &mut Rig, n: u8, goal: Goal, reason: GoalReason) {
    let actor = Actor::Controller(ControllerName::Deployment);
    rig.put(&Key::ProcessGoal(uid(n)), &GoalRecord { goal, reason, actor, epoch: None, at: NOW });
}

/// The node says that it follows its document: these processes are in this phase.
fn follow(rig: &mut Rig, node: &str, phases: &[(u8, ProcessPhase)]) {
    let mut report = report_of(rig, node);
    report.seq += 1;
    let revision = rig.fleet.run_documents[&node_name(node)].revision;
    report.run = HeldDocument { epoch: context().epoch, revision };
    report.processes = phases.iter().map(|(n, phase)| process_report(uid(*n), *phase, false)).collect();
    save(rig, node, &report);
}

#[test]
fn an_entry_stays_until_the_node_says_that_nothing_is_left() {
    let mut rig = Rig::new();
    add_node(&mut rig, "a", 1);
    let web = deployment(&mut rig, |_| {});
    rig.process(&web, 10, 1, None);
    look(&mut rig);
    follow(&mut rig, "a", &[(10, ProcessPhase::Running)]);
    stop(&mut rig, 10, Goal::Stop, GoalReason::Scale);
    look(&mut rig);
    assert_eq!(document(&rig, "a").entries[0].g, Goal::Stop);
    follow(&mut rig, "a", &[(10, ProcessPhase::Stopped)]);
    assert!(look(&mut rig).is_idle(), "only the goal `gone` retires");
    stop(&mut rig, 10, Goal::Gone, GoalReason::Ended);
    look(&mut rig);
    assert_eq!(document(&rig, "a").entries[0].g, Goal::Gone, "the node must know first");
    follow(&mut rig, "a", &[(10, ProcessPhase::Running)]);
    assert!(look(&mut rig).is_idle(), "it lives");
    follow(&mut rig, "a", &[(10, ProcessPhase::Stopped)]);
    look(&mut rig);
    assert!(document(&rig, "a").entries.is_empty());
}

#[test]
fn a_lost_node_keeps_its_tombstones() {
    let mut rig = Rig::new();
    add_node(&mut rig, "a", 1);
    let web = deployment(&mut rig, |_| {});
    rig.process(&web, 10, 1, None);
    look(&mut rig);
    follow(&mut rig, "a", &[(10, ProcessPhase::Running)]);
    stop(&mut rig, 10, Goal::Gone, GoalReason::Lost);
    look(&mut rig);
    assert_eq!(document(&rig, "a").entries[0].g, Goal::Gone);
    assert!(look(&mut rig).is_idle(), "the last report is older than the tombstone");
}

#[test]
fn many_stops_are_marked_only_for_reasons_that_somebody_gave() {
    let mut rig = Rig::new();
    add_node(&mut rig, "a", 1);
    let web = deployment(&mut rig, |d| d.template.spec.resources.requests.cpu = Some(Cpu::from_millis(10)));
    for n in 10..20 {
        rig.process(&web, n, 1, None);
    }
    look(&mut rig);
    let running: Vec<(u8, ProcessPhase)> = (10..20).map(|n| (n, ProcessPhase::Running)).collect();
    follow(&mut rig, "a", &running);
    for n in 10..13 {
        stop(&mut rig, n, Goal::Stop, GoalReason::Scale);
    }
    look(&mut rig);
    assert_eq!(document(&rig, "a").bulk, None, "three are few");
    stop(&mut rig, 13, Goal::Stop, GoalReason::Rollout);
    look(&mut rig);
    assert_eq!(document(&rig, "a").bulk.as_deref(), Some("scale, rollout"));
    stop(&mut rig, 14, Goal::Stop, GoalReason::Evicted);
    look(&mut rig);
    assert_eq!(document(&rig, "a").bulk, None, "an eviction is nobody's wish");
}

#[test]
fn records_lost_by_the_store_lose_no_process() {
    let mut rig = Rig::new();
    add_node(&mut rig, "a", 1);
    let web = deployment(&mut rig, |_| {});
    rig.process(&web, 10, 1, None);
    look(&mut rig);
    for key in [
        Key::ProcessSpec(uid(10)),
        Key::ProcessTemplate(uid(10)),
        Key::ProcessBind(uid(10)),
        Key::ProcessGoal(uid(10)),
    ] {
        rig.fleet.forget(&key);
    }
    assert!(look(&mut rig).is_idle(), "the entry stays as it was");
    assert_eq!(document(&rig, "a").entries.len(), 1);
}

#[test]
fn a_new_store_incarnation_rewrites_every_document() {
    let mut rig = Rig::new();
    add_node(&mut rig, "a", 1);
    let web = deployment(&mut rig, |_| {});
    rig.process(&web, 10, 1, None);
    look(&mut rig);
    rig.put(&Key::MetaIncarnation, &ostler_schemas::v1::epoch::Incarnation { n: 2 });
    let plan = reconcile(&rig.fleet, &rig.signals, now());
    assert_eq!(plan.keys().len(), 1, "{:?}", plan.keys());
}

#[test]
fn an_entry_takes_64_bytes_in_the_usual_case() {
    let mut rig = Rig::new();
    add_node(&mut rig, "a", 1);
    let web = deployment(&mut rig, |d| d.template.spec.resources.requests.cpu = Some(Cpu::from_millis(1)));
    for n in 10..60 {
        rig.process(&web, n, 1, None);
    }
    look(&mut rig);
    let sized = |d: &RunDocument| ostler_schemas::codec::encode(d).expect("encodes").len();
    let full = document(&rig, "a");
    let mut half = full.clone();
    half.entries.truncate(25);
    // The rig's processes have a port in no template; real suffixes are 12 bytes.
    let bytes = (sized(&full) - sized(&half)) / 25;
    assert!(bytes <= 72, "{bytes} bytes an entry");
}
