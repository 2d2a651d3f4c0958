//! A control plane that does as the test says: writes documents, answers beats and registrations, reads reports.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use ostler_agent::ports::{ArtifactsRef, FilesRef, HostRef, LedgerRef};
use ostler_agent::sim::{SimArtifacts, SimFacts, SimFiles, SimHost, SimLedger};
use ostler_agent::{Deps, Handle, NodeConfig, Viewer};
use ostler_bus::clock::ClockRef;
use ostler_bus::entropy::{EntropyRef, SeededEntropy};
use ostler_bus::memory::{MemoryBus, Party, START_WALL_MS};
use ostler_bus::node_link::NodeLink;
use ostler_bus::sealing::{KeyPair, KeyRing};
use ostler_bus::sim_clock::{Gate, SimClock};
use ostler_bus::store::{Expect, Guard, Headers, Op, Read, Txn, Write};
use ostler_bus::topic::{Endpoint, Outgoing, ServiceSpec};
use ostler_bus::{StoreRef, TopicRef};
use ostler_schemas::codec::{self, Wire};
use ostler_schemas::hash::sha256;
use ostler_schemas::key::DocumentKind;
use ostler_schemas::quantity::{Cpu, Dur, Mode, Size};
use ostler_schemas::spec::{
    ContentRef, Drift, OnExisting, OnRemove, Port, PortRef, Probe, ProcessTemplate, Protocol, Restart,
    TcpSocket, Unlisted, Validator,
};
use ostler_schemas::subject::{ALL_BEATS, Verb};
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::api::RegisterReply;
use ostler_schemas::v1::beat::BeatReply;
use ostler_schemas::v1::document::{
    DocumentOwner, FileEntry, FileGoal, FileSpec, FilesDocument, RunDocument, RunEntry,
};
use ostler_schemas::v1::epoch::{Epoch, Token};
use ostler_schemas::v1::object::OwnerReference;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::report::Report;
use ostler_schemas::{Key, Kind, Namespace, NodeName, Revision, Sha256, Uid, Version, headers};

pub(crate) fn uid(n: u8) -> Uid {
    Uid::from_bytes([n; 16])
}

pub(crate) fn epoch(term: u64) -> Epoch {
    Epoch { incarnation: 1, term: Revision(term), nonce: 7 }
}

pub(crate) fn template(command: &str, restart: Restart) -> ProcessTemplate {
    ProcessTemplate { restart, start_limit_burst: 50, ..ProcessTemplate::of(vec![command.to_owned()]) }
}

pub(crate) fn probed(port: u16) -> ProcessTemplate {
    let mut template = template("/bin/app", Restart::Always);
    template.ports = vec![Port { name: "http".to_owned(), port, protocol: Protocol::Tcp }];
    template.readiness_probe = Some(Probe {
        http_get: None,
        tcp_socket: Some(TcpSocket { port: PortRef::Name("http".to_owned()), host: None }),
        exec: None,
        initial_delay: Dur::ZERO,
        period: Dur::from_secs(2),
        timeout: Dur::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
    });
    template
}

pub(crate) fn file_spec(content: &[u8], drift: Drift) -> FileSpec {
    FileSpec {
        name: "app-conf".parse().expect("a name"),
        namespace: Namespace::default_namespace(),
        path: "/etc/app.conf".to_owned(),
        owner: "root".to_owned(),
        group: None,
        mode: Mode::from_bits(0o644),
        content: Some(ContentRef { sha256: sha256(content), size: content.len() as u64 }),
        template: None,
        files: Vec::new(),
        unlisted: Unlisted::Keep,
        create_directories: true,
        validator: None,
        drift,
        on_existing: OnExisting::Replace,
        on_remove: OnRemove::Keep,
        on_change: Vec::new(),
        probe: None,
        watch: Dur::ZERO,
    }
}

/// The same, looked at by a command.
pub(crate) fn checked(content: &[u8], command: &str) -> FileSpec {
    let validator = Validator {
        command: vec![command.to_owned(), "$(FILE)".to_owned()],
        user: None,
        timeout: Dur::from_secs(10),
        syntax: None,
    };
    FileSpec { validator: Some(validator), ..file_spec(content, Drift::Enforce) }
}

pub(crate) fn entry(n: u8, template: u32, goal: Goal) -> RunEntry {
    RunEntry {
        u: uid(n),
        o: 0,
        s: format!("-{n}"),
        t: template,
        v: Version(1),
        g: goal,
        f: Token::default(),
        p: BTreeMap::new(),
    }
}

pub(crate) fn file_entry(n: u8, version: u64, spec: Sha256) -> FileEntry {
    FileEntry { u: uid(n), v: Version(version), d: spec, w: None, g: FileGoal::Hold }
}

/// What an agent stands on besides the bus.
pub(crate) struct Parts {
    pub(crate) host: HostRef,
    pub(crate) files: FilesRef,
    pub(crate) artifacts: ArtifactsRef,
    pub(crate) ledger: LedgerRef,
    pub(crate) config: NodeConfig,
}

pub(crate) struct Plane {
    pub(crate) bus: MemoryBus,
    pub(crate) host: Arc<SimHost>,
    pub(crate) files: Arc<SimFiles>,
    pub(crate) ledger: Arc<SimLedger>,
    pub(crate) started_at: Timestamp,
    pub(crate) term: u64,
    /// Labels of the node that run documents carry.
    pub(crate) labels: BTreeMap<String, String>,
    /// Namespaces whose output is shipped.
    pub(crate) ships: std::collections::BTreeSet<Namespace>,
    clock: Arc<SimClock>,
    facts: Arc<SimFacts>,
    entropy: EntropyRef,
    store: StoreRef,
    node: NodeName,
    registered: Arc<AtomicU64>,
    refused: Arc<Mutex<Option<String>>>,
    agent: Option<(Handle, Gate)>,
}

impl Plane {
    pub(crate) async fn new() -> Self {
        let clock = SimClock::new(Gate::new(), Timestamp(START_WALL_MS));
        let bus = MemoryBus::new(Arc::clone(&clock) as ClockRef);
        bus.provision();
        let (store, topic) = bus.cp(&Party::new("controller"));
        let host = SimHost::new(Arc::clone(&clock) as ClockRef);
        let registered = Arc::new(AtomicU64::new(0));
        let started_at = (Arc::clone(&clock) as ClockRef).wall();
        let plane = Self {
            facts: SimFacts::new(Arc::clone(&host), "n1", Cpu::from_millis(4000), Size::from_mib(8192)),
            files: SimFiles::new(),
            ledger: SimLedger::new(Arc::clone(&clock) as ClockRef),
            entropy: Arc::new(SeededEntropy::from_number(11)),
            node: "n1".parse().expect("a name"),
            agent: None,
            term: 1,
            labels: BTreeMap::new(),
            ships: Default::default(),
            started_at,
            bus,
            host,
            clock,
            store,
            registered,
            refused: Arc::default(),
        };
        plane.serve(topic).await;
        plane
    }

    /// Answers beats with the revisions that are stored, and registrations with a yes.
    async fn serve(&self, topic: TopicRef) {
        let mut beats = topic.subscribe(ALL_BEATS, Some("q")).await.expect("subscribes");
        let refused = self.refused.clone();
        let (store, node, registered) = (self.store.clone(), self.node.clone(), self.registered.clone());
        let answers = topic.clone();
        tokio::spawn(async move {
            while let Some(beat) = beats.next().await {
                let mut reply = BeatReply {
                    unregistered: registered.load(Ordering::SeqCst) == 0,
                    ..BeatReply::default()
                };
                reply.refused = refused.lock().expect("not poisoned").clone();
                for kind in DocumentKind::ALL {
                    let key = Key::NodeDocument(node.clone(), kind);
                    let revision = store.get(&key, Read::Leader).await.ok().flatten().map(|e| e.revision);
                    match kind {
                        DocumentKind::Run => reply.run = revision.unwrap_or_default(),
                        DocumentKind::Files => reply.files = revision.unwrap_or_default(),
                        DocumentKind::Secrets => reply.secrets = revision.unwrap_or_default(),
                    }
                }
                let body = codec::encode(&reply).expect("encodes");
                if let Some(to) = beat.reply {
                    answers.publish(Outgoing::new(to, body)).await.expect("publishes");
                }
            }
        });
        let endpoint =
            Endpoint { name: "register".to_owned(), subject: Verb::Register.endpoint(), shared: true };
        let service = ServiceSpec {
            name: "ostler-api".to_owned(),
            version: "1.0.0".to_owned(),
            description: "test".to_owned(),
            endpoints: vec![endpoint],
        };
        let mut requests = topic.serve(service).await.expect("serves");
        let registered = self.registered.clone();
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                registered.fetch_add(1, Ordering::SeqCst);
                let body = codec::encode(&RegisterReply { uid: uid(255), created: true }).expect("encodes");
                let end = Headers::new().with(headers::SEQ, "1").with(headers::END, "ok");
                if let Some(to) = request.reply {
                    topic.publish(Outgoing::new(to, body).with_headers(end)).await.expect("publishes");
                }
            }
        });
    }

    pub(crate) fn registered(&self) -> u64 {
        self.registered.load(Ordering::SeqCst)
    }

    /// From now on beats are answered with this refusal, or with none.
    pub(crate) fn refuse(&self, why: Option<&str>) {
        *self.refused.lock().expect("not poisoned") = why.map(str::to_owned);
    }

    /// Stores bytes as the run document, whatever they are.
    pub(crate) async fn put_garbage(&self, kind: DocumentKind, bytes: &[u8]) {
        self.put(Key::NodeDocument(self.node.clone(), kind), bytes.to_vec()).await;
    }

    pub(crate) async fn start_agent(&mut self) {
        let config = NodeConfig {
            own: vec!["/var/lib/ostler".to_owned()],
            originals: "/var/lib/ostler/originals".to_owned(),
            privileged: true,
            allow_root: true,
            ..NodeConfig::default()
        };
        let parts = self.parts(config);
        self.start_agent_on(parts).await;
    }

    /// The simulated host, with these settings.
    pub(crate) fn parts(&self, config: NodeConfig) -> Parts {
        Parts {
            host: Arc::clone(&self.host) as _,
            files: Arc::clone(&self.files) as _,
            artifacts: SimArtifacts::new(Arc::clone(&self.clock) as ClockRef),
            ledger: Arc::clone(&self.ledger) as _,
            config,
        }
    }

    /// What answers on the host.
    pub(crate) fn viewer(&self) -> Viewer {
        self.agent.as_ref().expect("an agent runs").0.viewer()
    }

    /// Starts the agent on another host than the simulated one.
    pub(crate) async fn start_agent_on(&mut self, parts: Parts) {
        let gate = Gate::new();
        let clock: ClockRef = self.clock.with_gate(gate.clone());
        let party = Party { name: self.node.to_string(), clock: Arc::clone(&clock), gate: gate.clone() };
        let topic = self.bus.agent(&party, &self.node);
        let deps = Deps {
            link: NodeLink::new(topic, self.node.clone(), Arc::clone(&clock)),
            clock,
            entropy: Arc::clone(&self.entropy),
            host: parts.host,
            files: parts.files,
            artifacts: parts.artifacts,
            ledger: parts.ledger,
            facts: Arc::clone(&self.facts) as _,
            keys: KeyRing::new(vec![KeyPair::generate(&*self.entropy)]),
            config: parts.config,
        };
        let handle = ostler_agent::run::run(deps).await.expect("starts");
        self.agent = Some((handle, gate));
    }

    pub(crate) async fn kill_agent(&mut self) {
        if let Some((handle, gate)) = self.agent.take() {
            gate.crash();
            handle.kill();
        }
        self.pass(1).await;
    }

    async fn put(&self, key: Key, bytes: Vec<u8>) -> Revision {
        let last = self.store.get(&key, Read::Leader).await.expect("reads").map(|e| e.revision);
        let write = Write {
            key,
            op: Op::Put(Bytes::from(bytes)),
            guard: Guard::Own(Expect::after(last)),
            headers: Headers::new(),
        };
        let txn = Txn { id: self.entropy.txn(), writes: vec![write] };
        self.store.commit(&txn).await.expect("commits").last
    }

    async fn put_immutable(&self, bytes: Vec<u8>) -> Sha256 {
        let hash = sha256(&bytes);
        self.put(Key::Template(hash), bytes).await;
        hash
    }

    pub(crate) async fn put_template(&self, template: &ProcessTemplate) -> Sha256 {
        self.put_immutable(codec::encode(template).expect("encodes")).await
    }

    pub(crate) async fn put_blob(&self, content: &[u8]) {
        self.put(Key::BlobChunk(sha256(content), 0), content.to_vec()).await;
    }

    pub(crate) async fn put_file_spec(&self, spec: &FileSpec, content: &[u8]) -> Sha256 {
        self.put_blob(content).await;
        self.put_immutable(codec::encode(spec).expect("encodes")).await
    }

    pub(crate) async fn put_run(&self, entries: Vec<RunEntry>, templates: &[Sha256], bulk: Option<&str>) {
        let owner =
            OwnerReference { kind: Kind::Deployment, name: "web".parse().expect("a name"), uid: uid(200) };
        let document = RunDocument {
            epoch: epoch(self.term),
            bulk: bulk.map(str::to_owned),
            labels: self.labels.clone(),
            ships: self.ships.clone(),
            owners: vec![DocumentOwner { ns: Namespace::default_namespace(), owner }],
            templates: templates.to_vec(),
            entries,
        };
        let key = Key::NodeDocument(self.node.clone(), DocumentKind::Run);
        self.put(key, codec::encode(&document).expect("encodes")).await;
    }

    pub(crate) async fn put_files(&self, entries: Vec<FileEntry>) {
        let document = FilesDocument { epoch: epoch(self.term), entries, node: None };
        let key = Key::NodeDocument(self.node.clone(), DocumentKind::Files);
        self.put(key, codec::encode(&document).expect("encodes")).await;
    }

    pub(crate) async fn report(&self) -> Option<Report> {
        let key = Key::Report(self.node.clone());
        let entry = self.store.get(&key, Read::Leader).await.ok()??;
        let bytes = entry.value()?.clone();
        assert!(bytes.len() <= Report::LIMIT);
        codec::decode(&bytes).ok()
    }

    /// What a stream holds by now.
    pub(crate) fn records(
        &self,
        stream: &'static str,
        filter: &str,
    ) -> futures::stream::BoxStream<'static, Result<ostler_bus::store::Record, ostler_bus::store::ReadError>>
    {
        self.store.records(stream, filter, 1, false)
    }

    pub(crate) async fn pass(&self, ms: u64) {
        (Arc::clone(&self.clock) as ClockRef).sleep_ms(ms).await;
    }

    /// Waits for a state, at most five simulated minutes.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..30_000 {
            if holds(self) {
                return;
            }
            self.pass(10).await;
        }
        panic!("never: {what}; {:?}", self.agent.as_ref().map(|(h, _)| h.status()));
    }

    pub(crate) async fn until_report(&self, what: &str, holds: impl Fn(&Report) -> bool) {
        for _ in 0..30_000 {
            if self.report().await.is_some_and(|r| holds(&r)) {
                return;
            }
            self.pass(10).await;
        }
        panic!("never: {what}; {:#?}", self.report().await);
    }
}
