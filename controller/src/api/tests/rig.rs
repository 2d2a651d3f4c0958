//! One or more replicas of the API over one bus, and callers of it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use ostler_bus::entropy::SeededEntropy;
use ostler_bus::fault::{FaultyStore, Plan};
use ostler_bus::informer::{self, InformerEvent};
use ostler_bus::memory::{MemoryBus, Party};
use ostler_bus::store::{Expect, Guard, Headers, Op, Txn, Write};
use ostler_bus::topic::{Message, Outgoing};
use ostler_bus::{EntropyRef, StoreRef, TopicRef};
use ostler_controller_core::fleet::Change;
use ostler_controller_core::liveness::Signals;
use ostler_schemas::codec::{self, Wire};
use ostler_schemas::manifest::{self, read_documents};
use ostler_schemas::subject::{ApiSubject, Verb};
use ostler_schemas::v1::api::{ApiError, ApplyReply, ApplyRequest, ManifestDocument};
use ostler_schemas::{Bucket, Key, Kind, Name, Namespace, NodeName, ObjectRef, TxnId, headers};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use serde_bytes::ByteBuf;
use tokio::sync::watch;

use crate::actors::leader::Lanes;
use crate::actors::{Task, task};
use crate::api::{ApiDeps, ApiLimits, ApiMetrics, Identities, chores, server, spawn};
use crate::events::Teller;
use crate::snapshot::{SnapshotWriter, snapshot};

/// Operators and nodes that the rig knows.
pub(super) const OPERATORS: [&str; 2] = ["anna", "ben"];
pub(super) const NODES: [&str; 2] = ["n1", "n2"];

/// Stands above the API as the root does.
struct Top;

impl Actor for Top {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

pub(super) struct Replica {
    pub(super) deps: ApiDeps,
    /// Keeps the channel open: without it every watch would end.
    _signals: watch::Sender<Arc<Signals>>,
    pub(super) actor: ActorRef<crate::api::Msg>,
    _tasks: Vec<Task>,
}

pub(super) struct Rig {
    pub(super) bus: MemoryBus,
    pub(super) replicas: Vec<Replica>,
    /// What happens to what the replicas' APIs ask of the store; their snapshots are filled beside it.
    pub(super) plan: Plan,
}

pub(super) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub(super) fn node_name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

pub(super) fn object(kind: Kind, text: &str) -> ObjectRef {
    let namespace = (!kind.is_cluster_wide()).then(Namespace::default_namespace);
    ObjectRef { kind, namespace, name: name(text) }
}

/// Fills a snapshot from the bus, as the observer does.
fn feed(deps: &ApiDeps) -> Vec<Task> {
    let writer = Arc::new(Mutex::new(SnapshotWriter::again(&deps.snapshot)));
    let feed = |bucket: Bucket| {
        let writer = Arc::clone(&writer);
        let mut events =
            informer::spawn(deps.store.clone(), deps.clock.clone(), deps.entropy.clone(), bucket);
        task(async move {
            while let Some(event) = events.recv().await {
                let mut writer = writer.lock().expect("no panic before");
                match event {
                    InformerEvent::Changes { entries, revision } => {
                        let changes: Vec<Change<'_>> = entries
                            .iter()
                            .map(|e| Change {
                                key: &e.key,
                                revision: e.revision,
                                at: e.at,
                                value: e.value().map(AsRef::as_ref),
                            })
                            .collect();
                        writer.apply(bucket, &changes, revision);
                    }
                    InformerEvent::Synced => writer.synced(bucket),
                    InformerEvent::Reset { .. } => writer.reset(bucket),
                    InformerEvent::Vanished { keys } => writer.forget(&keys),
                    InformerEvent::Lost { reason } => writer.stale(Some(reason)),
                }
            }
        })
    };
    vec![feed(Bucket::Objects), feed(Bucket::Observed)]
}

/// Every replica has the same keys.
fn vault(seed: u64) -> crate::vault::VaultRef {
    let keys = SeededEntropy::from_number(7);
    let ring = ostler_bus::sealing::KeyRing::new(vec![ostler_bus::sealing::KeyPair::generate(&keys)]);
    Arc::new(crate::vault::Vault::new(ring, Arc::new(SeededEntropy::from_number(seed)) as EntropyRef))
}

async fn replica(bus: &MemoryBus, party: &Party, (limits, plan): (ApiLimits, &Plan), seed: u64) -> Replica {
    let (store, topic) = bus.cp(party);
    let known = OPERATORS.map(|n| (name(n), "OP".to_owned(), n.to_owned())).into_iter();
    let known = known.chain(NODES.map(|n| (name(n), "AG".to_owned(), n.to_owned())));
    let (signals, heard) = watch::channel(Arc::new(Signals::default()));
    let mut deps = ApiDeps {
        store,
        topic: topic.clone(),
        clock: party.clock.clone(),
        entropy: Arc::new(SeededEntropy::from_number(seed)) as EntropyRef,
        snapshot: snapshot(party.clock.clone()),
        signals: heard,
        vault: vault(seed),
        identities: Arc::new(known.collect::<Identities>()),
        lanes: Lanes::default(),
        teller: Teller::new(topic, party.clock.clone()),
        metrics: Arc::new(ApiMetrics::default()),
        limits,
    };
    let tasks = feed(&deps);
    deps.store = FaultyStore::shared(deps.store, plan.clone());
    let (top, _) = Actor::spawn(None, Top, ()).await.expect("starts");
    let actor = spawn(deps.clone(), &top).await.expect("starts");
    deps.snapshot.at_least(ostler_schemas::Revision(0), 5_000).await.expect("synced");
    Replica { deps, _signals: signals, actor, _tasks: tasks }
}

impl Rig {
    pub(super) async fn new(replicas: usize) -> Self {
        Self::with_limits(replicas, ApiLimits::default()).await
    }

    /// With namespace `default`, as the leader of `garbage` makes it.
    pub(super) async fn with_limits(count: usize, limits: ApiLimits) -> Self {
        let bus = MemoryBus::new(Party::new("bus").clock);
        bus.provision();
        let mut replicas = Vec::new();
        let plan = Plan::new(7, Party::new("plan").clock, 1_000);
        for i in 0..count {
            let party = Party::new(format!("c{i}"));
            replicas.push(replica(&bus, &party, (limits, &plan), 7 + i as u64).await);
        }
        let rig = Self { bus, replicas, plan };
        rig.chores().await;
        rig
    }

    /// One round of what the leader of `garbage` does.
    pub(super) async fn chores(&self) {
        chores::round(&server::Shared::new(self.replicas[0].deps.clone())).await;
    }

    pub(super) fn store(&self) -> &StoreRef {
        &self.replicas[0].deps.store
    }

    pub(super) fn operator(&self, text: &str) -> Caller {
        let user = name(text);
        Caller { topic: self.bus.operator(&Party::new(text), &user), name: user }
    }

    pub(super) fn agent(&self, text: &str) -> Caller {
        let topic = self.bus.agent(&Party::new(text), &node_name(text));
        Caller { topic, name: name(text) }
    }

    /// Writes a record as a controller or agent does.
    pub(super) async fn put<T: Wire>(&self, key: Key, value: &T) {
        let store = self.store();
        let last = store.get(&key, ostler_bus::store::Read::Leader).await.expect("reads").map(|e| e.revision);
        let write = Write {
            key: key.clone(),
            op: Op::Put(Bytes::from(codec::encode(value).expect("encodes"))),
            guard: Guard::Own(Expect::after(last)),
            headers: Headers::new(),
        };
        let id = self.replicas[0].deps.entropy.txn();
        let done = store.commit(&Txn { id, writes: vec![write] }).await.expect("stores");
        for replica in &self.replicas {
            let mut views = replica.deps.snapshot.subscribe();
            let seen = |v: &crate::snapshot::View| v.fleet.revision_of(&key).is_some_and(|r| r >= done.last);
            views.wait_for(seen).await.expect("the snapshot lives");
        }
    }
}

/// A caller, and how it reads answers.
pub(super) struct Caller {
    pub(super) topic: TopicRef,
    pub(super) name: Name,
}

/// The answer as it comes.
pub(super) struct Answer(pub(super) BoxStream<'static, Message>, pub(super) u64);

impl Answer {
    /// The next body that is no keep-alive; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            if self.1 == u64::MAX {
                return Ok(None);
            }
            let message = self.0.next().await.expect("the stream never ends by itself");
            assert_eq!(message.status, None, "somebody serves this");
            self.1 += 1;
            assert_eq!(message.headers.get(headers::SEQ), Some(self.1.to_string().as_str()), "numbered");
            match message.headers.get(headers::END) {
                Some("error") => return Err(codec::decode(&message.body).expect("an error")),
                Some(_) => self.1 = u64::MAX,
                None => {}
            }
            if !message.body.is_empty() {
                return Ok(Some(message.body));
            }
        }
    }

    /// The last body.
    pub(super) async fn last<R: Wire>(mut self) -> Result<R, ApiError> {
        let mut last = None;
        while let Some(body) = self.next().await? {
            last = Some(body);
        }
        Ok(codec::decode(&last.expect("a body")).expect("decodes"))
    }

    pub(super) async fn read<T: Wire>(&mut self) -> T {
        let body = self.next().await.expect("no error").expect("not the end");
        codec::decode(&body).expect("decodes")
    }
}

impl Caller {
    pub(super) async fn open(&self, verb: Verb, body: Bytes) -> Answer {
        let subject = ApiSubject { caller: self.name.clone(), verb, rest: None }.subject();
        Answer(self.topic.request_many(Outgoing::new(subject, body)).await.expect("sends"), 0)
    }

    /// One copy of a request whose id its caller has drawn; the first one, or one that is sent again.
    pub(super) async fn copy<T: Wire, R: Wire>(
        &self,
        verb: Verb,
        request: &T,
        (txn, again): (TxnId, bool),
    ) -> Result<R, ApiError> {
        let subject = ApiSubject { caller: self.name.clone(), verb, rest: None }.subject();
        let mut head = Headers::new().with(headers::TXN, txn.to_string());
        if again {
            head.set(headers::RESEND, "1");
        }
        let body = Bytes::from(codec::encode(request).expect("encodes"));
        let message = Outgoing::new(subject, body).with_headers(head);
        Answer(self.topic.request_many(message).await.expect("sends"), 0).last().await
    }

    pub(super) async fn ask<T: Wire>(&self, verb: Verb, request: &T) -> Answer {
        self.open(verb, Bytes::from(codec::encode(request).expect("encodes"))).await
    }

    /// The last body of an answer.
    pub(super) async fn call<T: Wire, R: Wire>(&self, verb: Verb, request: &T) -> Result<R, ApiError> {
        self.ask(verb, request).await.last().await
    }

    pub(super) async fn try_apply(&self, yaml: &str) -> Result<ApplyReply, ApiError> {
        self.call(Verb::Apply, &apply_of(yaml)).await
    }

    pub(super) async fn apply(&self, yaml: &str) -> ApplyReply {
        self.try_apply(yaml).await.expect("admitted")
    }
}

pub(super) fn apply_of(yaml: &str) -> ApplyRequest {
    let documents = read_documents(Some("m.yaml"), yaml.as_bytes());
    let document = |d: &manifest::Document| ManifestDocument {
        file: d.file.clone(),
        tree: ByteBuf::from(manifest::encode_tree(d)),
        content: None,
    };
    let documents = documents.iter().map(document).collect();
    ApplyRequest { documents, content: None, force: false, retry: false, dry_run: false, reason: None }
}
