//! The tables of CONTRACT.md 5.1, cell by cell.

use crate::render::object::Contents;
use jiff::tz::TimeZone;
use ostler_schemas::manifest::{Options, read_manifests};
use ostler_schemas::quantity::Cpu;
use ostler_schemas::spec::ContentRef;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::beat::Usage;
use ostler_schemas::v1::object::{Applied, Metadata};
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::report::ExitReason;
use ostler_schemas::v1::status::{
    Addresses, FileCounts, FileNodeCounts, NodeAmounts, NodeVersions, ProcessCounts,
};
use ostler_schemas::{Actor, Generation, NodeName, Revision, TxnId, Uid, Version};

use super::*;

const NOW: u64 = 1_794_000_000_000;
const DAY: u64 = 86_400_000;

fn style(wide: bool) -> Style {
    let moments = Moments { now: Timestamp(NOW), timestamps: false, zone: TimeZone::UTC };
    Style { wide, namespaces: false, kinds: false, moments }
}

fn ago(ms: u64) -> Timestamp {
    Timestamp(NOW - ms)
}

/// An object of a manifest, of this age and with this status.
fn view(yaml: &str, age_ms: u64, status: Status) -> View {
    let mut manifests = read_manifests(None, yaml.as_bytes(), &Options::default()).expect("a manifest");
    let manifest = manifests.remove(0);
    let (name, namespace) = (manifest.name.clone(), manifest.namespace.clone());
    let applied = Applied {
        actor: Actor::User("anna".parse().expect("a name")),
        verb: "apply".to_owned(),
        at: ago(age_ms),
        reason: None,
        txn: TxnId::from_bytes([1; 16]),
    };
    let metadata = Metadata {
        name,
        namespace,
        uid: Uid::from_bytes([0xab; 16]),
        labels: Labels::new(),
        annotations: Labels::new(),
        generation: Generation(1),
        version: Version(1),
        creation_timestamp: ago(age_ms),
        deletion_timestamp: None,
        finalizers: Vec::new(),
        owner_references: Vec::new(),
        applied,
        touched: std::collections::BTreeMap::new(),
        order: None,
    };
    View { metadata, spec: manifest.complete(None), status, revision: Revision(7) }
}

fn gib(tenths: u64) -> Size {
    Size::from_bytes(tenths * (1 << 30) / 10)
}

#[derive(Clone, Copy)]
struct NodeRow {
    phase: NodePhase,
    procs: (Option<u32>, u32),
    files: (Option<u32>, u32),
    usage: Option<(u64, u64)>,
    of: (u64, u64),
    beat_ms: u64,
}

fn node(name: &str, cordoned: bool, row: NodeRow) -> View {
    let yaml = format!(
        "{{apiVersion: ostler/v1, kind: Node, metadata: {{name: {name}}}, spec: {{unschedulable: {cordoned}}}}}"
    );
    let NodeRow { phase, procs, files, usage, of, beat_ms } = row;
    let amounts = NodeAmounts { cpu: Cpu::from_millis(of.0), memory: gib(of.1), disk: None };
    let status = NodeStatus {
        phase,
        hostname: name.to_owned(),
        machine_id: "m".to_owned(),
        boot_id: "b".to_owned(),
        addresses: Addresses { internal: "10.0.0.1".to_owned() },
        last_beat: Some(ago(beat_ms)),
        clock_offset: Some(-12),
        capacity: amounts,
        allocatable: amounts,
        requested: amounts,
        usage: usage.map(|(cpu, memory)| Usage {
            cpu: Cpu::from_millis(cpu),
            memory: gib(memory),
            ..Usage::default()
        }),
        processes: ProcessCounts { assigned: procs.1, running: procs.0, ready: procs.0 },
        files: FileCounts { managed: files.1, in_sync: files.0, drifted: Some(0), failed: Some(0) },
        versions: NodeVersions { agent: "1.0.0".to_owned(), ..NodeVersions::default() },
        epoch: ostler_schemas::v1::epoch::Epoch::default(),
        labels: std::collections::BTreeMap::new(),
        conditions: Vec::new(),
    };
    view(&yaml, 41 * DAY, Status::Node(Box::new(status)))
}

#[test]
fn nodes_are_shown_as_in_the_contract() {
    let rows = [
        node(
            "web-001",
            false,
            NodeRow {
                phase: NodePhase::Ready,
                procs: (Some(12), 12),
                files: (Some(4), 4),
                usage: Some((1_900, 62)),
                of: (15_900, 620),
                beat_ms: 300,
            },
        ),
        node(
            "web-017",
            true,
            NodeRow {
                phase: NodePhase::Ready,
                procs: (Some(3), 3),
                files: (Some(3), 4),
                usage: Some((200, 11)),
                of: (15_000, 580),
                beat_ms: 1_200,
            },
        ),
        node(
            "db-002",
            false,
            NodeRow {
                phase: NodePhase::Lost,
                procs: (None, 2),
                files: (None, 3),
                usage: None,
                of: (31_900, 2_500),
                beat_ms: 48_000,
            },
        ),
    ];
    let expected = "\
NAME     STATUS          PROCS  FILES  CPU       MEMORY      BEAT  AGENT  AGE
web-001  Ready           12/12  4/4    1.9/15.9  6.2Gi/62Gi  0s    1.0.0  41d
web-017  Ready,Cordoned  3/3    3/4    0.2/15.0  1.1Gi/58Gi  1s    1.0.0  41d
db-002   Lost            ?/2    ?/3    ?/31.9    ?/250Gi     48s   1.0.0  41d
";
    assert_eq!(table(Kind::Node, &rows, &style(false)).text(true, false), expected);
    let wide = table(Kind::Node, &rows[..1], &style(true)).text(true, false);
    assert!(wide.starts_with("NAME     STATUS  PROCS"), "{wide}");
    assert!(wide.contains("ADDRESS   HOSTNAME  OS  KERNEL  HOLDER  CLOCK  TAINTS  CONDITIONS"), "{wide}");
}

fn process(name: &str, age_ms: u64, status: ProcessStatus) -> View {
    let yaml = format!(
        "{{apiVersion: ostler/v1, kind: Process, metadata: {{name: {name}}}, spec: {{command: [/bin/true]}}}}"
    );
    view(&yaml, age_ms, Status::Process(Box::new(status)))
}

fn process_status(phase: ProcessPhase, ready: bool, node: Option<&str>) -> ProcessStatus {
    ProcessStatus {
        phase,
        goal: Goal::Run,
        ready: Some(ready),
        reason: None,
        message: None,
        node: node.map(|n| n.parse::<NodeName>().expect("a name")),
        pid: None,
        incarnation: 1,
        version: Version(1),
        started_at: None,
        ready_at: None,
        restarts: Some(0),
        ports: std::collections::BTreeMap::new(),
        last_exit: None,
        cgroup: None,
        log_path: None,
        usage: None,
        conditions: Vec::new(),
    }
}

#[test]
fn processes_are_shown_as_in_the_contract() {
    let running =
        ProcessStatus { pid: Some(41), ..process_status(ProcessPhase::Running, true, Some("web-001")) };
    let exit = ExitReport {
        u: Uid::from_bytes([1; 16]),
        i: 4,
        seq: 4,
        code: Some(1),
        signal: None,
        reason: ExitReason::Exited,
        why: None,
        at: ago(12_000),
    };
    let crashing = ProcessStatus {
        reason: Some(Reason::CrashLoop),
        restarts: Some(4),
        started_at: Some(ago(13_000)),
        last_exit: Some(exit),
        ..process_status(ProcessPhase::Pending, false, Some("web-003"))
    };
    let rows = [
        process("web-5c8f7-x2k4v", 185_000, running),
        process("web-5c8f7-q9d2m", 185_000, crashing),
        process("db-2", 48_000, process_status(ProcessPhase::Pending, false, None)),
    ];
    let expected = "\
NAME             READY  STATUS     RESTARTS     AGE  NODE
web-5c8f7-x2k4v  yes    Running    0            3m   web-001
web-5c8f7-q9d2m  no     CrashLoop  4 (12s ago)  3m   web-003
db-2             -      Pending    0            48s  -
";
    assert_eq!(table(Kind::Process, &rows, &style(false)).text(true, false), expected);
}

fn rollout(state: RolloutPhase, wave: u32, waves: u32) -> RolloutStatus {
    RolloutStatus {
        state,
        from_version: Version(6),
        to_version: Version(7),
        wave,
        waves,
        bake: None,
        bake_ends_at: None,
        total: 6,
        updated: 3,
        healthy: 3,
        failed: 0,
        offline: 0,
        started_at: None,
        finished_at: None,
        actor: None,
        reason: None,
        message: String::new(),
        present: None,
        past: Vec::new(),
        hold: None,
        waits_for: Vec::new(),
        failures: Vec::new(),
    }
}

#[test]
fn deployments_are_shown_as_in_the_contract() {
    let yaml = "{apiVersion: ostler/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 6, template: \
                {spec: {command: [/bin/true]}}}}";
    let status = DeploymentStatus {
        version: Version(7),
        last_good_version: Version(6),
        failed_version: Version(0),
        replicas: 6,
        updated: 3,
        ready: 5,
        unavailable: 1,
        rollout: Some(rollout(RolloutPhase::Baking, 2, 3)),
        observed_generation: 1,
        conditions: Vec::new(),
        epoch: ostler_schemas::v1::epoch::Epoch::default(),
    };
    let rows = [view(yaml, 12 * DAY, Status::Deployment(Box::new(status)))];
    let expected = "\
NAME  READY  UP-TO-DATE  VERSION  ROLLOUT           AGE
web   5/6    3           7        Wave 2/3, baking  12d
";
    assert_eq!(table(Kind::Deployment, &rows, &style(false)).text(true, false), expected);
    let mut all = style(true);
    all.namespaces = true;
    let wide = table(Kind::Deployment, &rows, &all).text(true, false);
    assert!(wide.starts_with("NAMESPACE  NAME  READY"), "{wide}");
    assert!(
        wide.lines().last().is_some_and(|l| l.ends_with("25%              12d          user/anna  -")),
        "{wide}"
    );
}

#[test]
fn configfiles_are_shown_as_in_the_contract() {
    let yaml = "{apiVersion: ostler/v1, kind: ConfigFile, metadata: {name: app-conf}, spec: {path: /etc/app.conf, \
                nodeSelector: {}}}";
    let nodes =
        FileNodeCounts { total: 80, in_sync: 78, contested: 1, offline: 1, ..FileNodeCounts::default() };
    let status = ConfigFileStatus {
        version: Version(8),
        last_good_version: Version(8),
        failed_version: Version(9),
        nodes,
        rollout: Some(rollout(RolloutPhase::RolledBack, 2, 4)),
        observed_generation: 1,
        conditions: Vec::new(),
        epoch: ostler_schemas::v1::epoch::Epoch::default(),
    };
    let rows = [view(yaml, 90 * DAY, Status::ConfigFile(Box::new(status)))];
    let expected = "\
NAME      PATH           VERSION  NODES  IN-SYNC  DRIFTED  FAILED  OFFLINE  ROLLOUT     AGE
app-conf  /etc/app.conf  8        80     78       1        0       1        RolledBack  90d
";
    assert_eq!(table(Kind::ConfigFile, &rows, &style(false)).text(true, false), expected);
}

#[test]
fn what_get_prints_can_be_applied_again() {
    let yaml = "{apiVersion: ostler/v1, kind: Deployment, metadata: {name: web, labels: {app: web}}, spec: {replicas: 6, \
                template: {spec: {command: [/bin/true], env: [{name: A, value: \"yes\"}]}}}}";
    let status = DeploymentStatus {
        version: Version(1),
        last_good_version: Version(0),
        failed_version: Version(0),
        replicas: 0,
        updated: 0,
        ready: 0,
        unavailable: 0,
        rollout: Some(rollout(RolloutPhase::Progressing, 1, 1)),
        observed_generation: 1,
        conditions: Vec::new(),
        epoch: ostler_schemas::v1::epoch::Epoch::default(),
    };
    let shown = view(yaml, DAY, Status::Deployment(Box::new(status)));
    let text = ostler_schemas::manifest::to_yaml(&crate::render::object::view(&shown, &Contents::new()));
    let again =
        read_manifests(None, text.as_bytes(), &Options::default()).unwrap_or_else(|r| panic!("{r}\n{text}"));
    let manifest = again.into_iter().next().expect("a manifest");
    assert_eq!(manifest.revision_guard, Some(Revision(7)));
    assert_eq!(manifest.complete(None), shown.spec);
}

#[test]
fn files_keep_their_content_through_yaml() {
    let yaml = "{apiVersion: ostler/v1, kind: ConfigFile, metadata: {name: c}, spec: {path: /etc/c, nodeSelector: {}, \
                content: \"a: 1\\n# x \\n\"}}";
    let nodes = FileNodeCounts::default();
    let status = ConfigFileStatus {
        version: Version(1),
        last_good_version: Version(1),
        failed_version: Version(0),
        nodes,
        rollout: None,
        observed_generation: 1,
        conditions: Vec::new(),
        epoch: ostler_schemas::v1::epoch::Epoch::default(),
    };
    let mut shown = view(yaml, DAY, Status::ConfigFile(Box::new(status)));
    for content in [&b"a: 1\n# x \n"[..], &b"\xff\x00"[..], b"tab\tand\r\ncr", b""] {
        let Spec::ConfigFile(spec) = &mut shown.spec else { panic!("a file") };
        let reference =
            ContentRef { sha256: ostler_schemas::hash::sha256(content), size: content.len() as u64 };
        spec.content = Some(reference);
        let text = ostler_schemas::manifest::to_yaml(&crate::render::object::view(
            &shown,
            &Contents::from([(ostler_schemas::hash::sha256(content), content.to_vec())]),
        ));
        let again = read_manifests(None, text.as_bytes(), &Options::default())
            .unwrap_or_else(|r| panic!("{r}\n{text}"));
        let ostler_schemas::manifest::ManifestBody::ConfigFile(body) = &again[0].body else {
            panic!("a file")
        };
        let Some(ostler_schemas::manifest::Content::Inline(bytes)) = &body.content else { panic!("{text}") };
        assert_eq!(bytes, content, "{text}");
    }
}

#[test]
fn what_processes_take_is_shown_as_far_as_it_is_known() {
    use ostler_schemas::v1::usage::ProcessUsage;
    let usage = ProcessUsage {
        cpu: Some(Cpu::from_millis(120)),
        memory: Some(Size::from_mib(812)),
        tasks: Some(7),
        read_per_second: Some(Size::from_bytes(0)),
        write_per_second: None,
    };
    let running = |usage| ProcessStatus {
        pid: Some(41),
        usage,
        ..process_status(ProcessPhase::Running, true, Some("web-001"))
    };
    let rows = [
        process("busy", 1_000, running(Some(usage))),
        process("silent", 1_000, running(None)),
        process("db-2", 1_000, process_status(ProcessPhase::Pending, false, None)),
    ];
    let wide = table(Kind::Process, &rows, &style(true)).text(true, false);
    let line = |n: usize| wide.lines().nth(n).unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    assert_eq!(line(0)[6..9], ["PID", "CPU", "MEMORY"]);
    assert_eq!(line(1)[6..9], ["41", "120m", "812Mi"]);
    assert_eq!(line(2)[6..9], ["41", "?", "?"]);
    assert_eq!(line(3)[6..9], ["-", "-", "-"]);
    use crate::args::top::SortBy;
    use crate::render::top;
    let rows = top::processes(vec![rows[1].clone(), rows[0].clone()], SortBy::Memory).expect("a column");
    let expected = "\
NAME    NODE     CPU   MEMORY  LIMIT  TASKS  READ/s  WRITE/s  RESTARTS
busy    web-001  120m  812Mi   -      7      0       ?        0
silent  web-001  ?     ?       -      ?      ?       ?        0
";
    assert_eq!(top::process_table(&rows, false).text(true, false), expected);
    assert!(top::processes(rows, SortBy::Load).is_err());
}

#[test]
fn what_nodes_take_is_shown_the_busiest_first() {
    use crate::args::top::SortBy;
    use crate::render::top;
    let row = |phase, usage: Option<(u64, u64)>| NodeRow {
        phase,
        procs: (usage.map(|_| 3), 3),
        files: (Some(0), 0),
        usage,
        of: (16_000, 620),
        beat_ms: 300,
    };
    let mut pressed = node("web-017", false, row(NodePhase::Ready, Some((1_900, 62))));
    if let Status::Node(node) = &mut pressed.status {
        node.conditions.push(Condition {
            kind: "PidPressure".to_owned(),
            status: ConditionStatus::True,
            reason: "PidPressure".to_owned(),
            message: String::new(),
            last_transition_time: ago(0),
            observed_generation: None,
        });
    }
    let Status::Node(status) = &pressed.status else { panic!("a node") };
    assert_eq!(node_word(&pressed, status), "Ready,Pressure");
    let rows = vec![
        node("db-002", false, row(NodePhase::Lost, None)),
        node("web-001", false, row(NodePhase::Ready, Some((200, 310)))),
        pressed,
    ];
    let expected = "\
NAME     CPU  CPU%  MEMORY  MEM%  DISK%  LOAD  PRESSURE  PROCS
web-017  1.9  12%   6.2Gi   10%   ?      0.00  -         3/3
web-001  0.2  1%    31Gi    50%   ?      0.00  -         3/3
db-002   ?    ?     ?       ?     ?      ?     ?         ?/3
";
    let rows = top::nodes(rows, SortBy::Cpu).expect("a column");
    assert_eq!(top::node_table(&rows).text(true, false), expected);
    assert_eq!(top::nodes(rows, SortBy::Memory).expect("a column")[0].metadata.name.as_str(), "web-001");
}
