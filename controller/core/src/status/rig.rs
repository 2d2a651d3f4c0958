//! A fleet for tests, filled the way the informers fill it: write by write, through the codec.

use std::collections::BTreeMap;

use ostler_schemas::codec::{Wire, encode};
use ostler_schemas::quantity::{CountOrPercent, Cpu, Mode, Size};
use ostler_schemas::spec::{
    Amounts, ConfigFileSpec, ContentRef, DeploymentSpec, Drift, NamespaceSpec, NodeSpec, OnExisting,
    OnRemove, ProcessTemplate, Resources, RollingUpdate, Rollout, Spec, Strategy, StrategyType, Template,
    TemplateMeta, Unlisted, Vars,
};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::beat::Beat;
use ostler_schemas::v1::epoch::Token;
use ostler_schemas::v1::object::{Applied, Metadata, Object, OwnerReference};
use ostler_schemas::v1::process::{BindRecord, ProcessSpecRecord, ProcessTemplateRecord};
use ostler_schemas::v1::report::{ProcessPhase, ProcessReport};
use ostler_schemas::v1::status::NodePhase;
use ostler_schemas::{
    Actor, Generation, Key, Kind, Name, Namespace, NodeName, ObjectRef, Revision, TxnId, Uid, Version,
};

use crate::fleet::{Change, Fleet};
use crate::liveness::{Signal, Signals};

/// When everything in these tests happens.
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);

#[derive(Debug, Clone, Default)]
pub(crate) struct Rig {
    pub(crate) fleet: Fleet,
    pub(crate) signals: Signals,
    revision: u64,
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub(crate) fn node_name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

pub(crate) fn uid(n: u8) -> Uid {
    Uid::from_bytes([n; 16])
}

pub(crate) fn object(kind: Kind, text: &str) -> ObjectRef {
    let namespace = (!kind.is_cluster_wide()).then(Namespace::default_namespace);
    ObjectRef { kind, namespace, name: name(text) }
}

pub(crate) fn user() -> Actor {
    Actor::User(name("anna"))
}

pub(crate) fn applied(verb: &str) -> Applied {
    let txn = TxnId::from_bytes([9; 16]);
    Applied { actor: user(), verb: verb.to_owned(), at: Timestamp(NOW.0 - 60_000), reason: None, txn }
}

pub(crate) fn template(word: &str) -> ProcessTemplate {
    ProcessTemplate {
        resources: Resources {
            requests: Amounts { cpu: Some(Cpu::from_millis(500)), memory: Some(Size::from_mib(64)) },
            limits: Amounts::default(),
        },
        restart_max_delay_sec: "5m".parse().expect("a duration"),
        start_limit_interval_sec: "10s".parse().expect("a duration"),
        limit_nofile: "65536".parse().expect("a limit"),
        ..ProcessTemplate::of(vec!["/usr/bin/app".to_owned(), word.to_owned()])
    }
}

pub(crate) fn rollout() -> Rollout {
    Rollout::default()
}

pub(crate) fn deployment_spec(replicas: u32, word: &str) -> DeploymentSpec {
    let quarter: CountOrPercent = "25%".parse().expect("a share");
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    DeploymentSpec {
        replicas,
        strategy: Strategy {
            kind: StrategyType::RollingUpdate,
            rolling_update: Some(RollingUpdate { max_surge: quarter, max_unavailable: quarter }),
        },
        paused: false,
        rollout: rollout(),
        template: Template {
            metadata: TemplateMeta { labels, annotations: BTreeMap::new() },
            spec: template(word),
        },
    }
}

pub(crate) fn file_spec(path: &str, content: Option<ContentRef>) -> ConfigFileSpec {
    ConfigFileSpec {
        path: path.to_owned(),
        node_selector: BTreeMap::new(),
        content,
        template: None,
        files: Vec::new(),
        unlisted: Unlisted::Keep,
        vars: Vars::new(),
        overrides: Vec::new(),
        owner: "root".to_owned(),
        group: None,
        mode: Mode::from_bits(0o644),
        create_directories: true,
        validator: None,
        drift: Drift::Enforce,
        on_existing: OnExisting::Replace,
        on_remove: OnRemove::Keep,
        on_change: Vec::new(),
        probe: None,
        paused: false,
        rollout: rollout(),
    }
}

pub(crate) fn process_report(u: Uid, phase: ProcessPhase, ready: bool) -> ProcessReport {
    ProcessReport {
        u,
        i: 1,
        phase,
        ready,
        pid: Some(4711),
        t: None,
        v: Version(1),
        started_at: Some(Timestamp(NOW.0 - 20_000)),
        ready_at: ready.then_some(Timestamp(NOW.0 - 19_000)),
        restarts: 3,
        measure: None,
        reason: None,
        message: None,
        exits: 0,
        cgroup: None,
        log_path: None,
    }
}

impl Rig {
    /// With namespace `default`.
    pub(crate) fn new() -> Self {
        let mut rig = Self::default();
        rig.object(object(Kind::Namespace, "default"), uid(200), Spec::Namespace(NamespaceSpec::default()));
        rig
    }

    pub(crate) fn put<T: Wire>(&mut self, key: &Key, value: &T) -> Revision {
        self.revision += 1;
        let bytes = encode(value).expect("encodes");
        let at = Timestamp(NOW.0 - 10_000);
        let revision = Revision(self.revision);
        self.fleet.apply(&Change { key, revision, at, value: Some(&bytes) });
        revision
    }

    pub(crate) fn delete(&mut self, key: &Key) {
        self.revision += 1;
        self.fleet.apply(&Change { key, revision: Revision(self.revision), at: NOW, value: None });
    }

    pub(crate) fn object(&mut self, name: ObjectRef, uid: Uid, spec: Spec) -> Object {
        let version = u64::from(matches!(spec, Spec::Deployment(_) | Spec::ConfigFile(_) | Spec::Secret(_)));
        let object = Object {
            metadata: Metadata {
                name: name.name.clone(),
                namespace: name.namespace.clone(),
                uid,
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                generation: Generation(1),
                version: Version(version),
                creation_timestamp: Timestamp(NOW.0 - 60_000),
                deletion_timestamp: None,
                finalizers: Vec::new(),
                owner_references: Vec::new(),
                applied: applied("apply"),
                touched: BTreeMap::new(),
                order: None,
            },
            spec,
        };
        self.put(&Key::Object(name), &object);
        object
    }

    /// Continues after writes that did not go through this rig.
    pub(crate) fn catch_up(&mut self) {
        self.revision = self.revision.max(self.fleet.revision.0);
    }

    /// A registered node that beats.
    pub(crate) fn node(&mut self, text: &str, n: u8) {
        self.object(object(Kind::Node, text), uid(n), Spec::Node(NodeSpec::default()));
        self.heard(text, NodePhase::Ready);
    }

    pub(crate) fn heard(&mut self, text: &str, phase: NodePhase) {
        let heard = Some(Timestamp(NOW.0 - 1_000));
        let beat = Some(std::sync::Arc::new(Beat { holder: true, ..Beat::default() }));
        let signal = Signal { phase, heard, beat, clock_offset: Some(5), duplicate: false, silent_ms: 0 };
        self.signals.nodes.insert(node_name(text), signal);
    }

    /// A process of a Deployment, at a version, on a node if one is named.
    pub(crate) fn process(&mut self, owner: &Object, n: u8, version: u64, node: Option<&str>) -> ObjectRef {
        let process = uid(n);
        let text = format!("{}-bcdfg-{}", owner.metadata.name, "bcdfghjkm".get(..5).unwrap_or_default());
        let text = format!("{}{}", &text[..text.len() - 1], char::from(b'a' + n % 26));
        let reference = OwnerReference {
            kind: owner.spec.kind(),
            name: owner.metadata.name.clone(),
            uid: owner.metadata.uid,
        };
        let namespace = Namespace::default_namespace();
        let at = Timestamp(NOW.0 - 30_000);
        let spec = ProcessSpecRecord { owner: reference, namespace, name: name(&text), ordinal: None, at };
        self.put(&Key::ProcessSpec(process), &spec);
        let template = owner.spec.process_template().expect("a template").clone();
        let hash = ostler_schemas::hash::sha256(&encode(&template).expect("encodes"));
        self.put(&Key::Template(hash), &template);
        let record = ProcessTemplateRecord { template: hash, version: Version(version) };
        self.put(&Key::ProcessTemplate(process), &record);
        if let Some(node) = node {
            let ports = BTreeMap::from([("http".to_owned(), 8080)]);
            let bind = BindRecord { node: node_name(node), token: Token::default(), ports, at };
            self.put(&Key::ProcessBind(process), &bind);
        }
        object(Kind::Process, &text)
    }
}
