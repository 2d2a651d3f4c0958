//! Garbage in the store, written with the controllers' own key: beside what is there, and over it.

use bytes::Bytes;
use harness::fleet::{Fleet, Size};
use ostler_bus::layout::Identity;
use ostler_bus::nats::Bus;
use ostler_bus::store::{CommitError, Expect, Guard, Headers, Op, Read, Txn, Write};
use ostler_schemas::key::{DocumentKind, StateSubject};
use ostler_schemas::{ControllerName, Generation, Key, Kind, NodeName, ObjectRef, Sha256, Uid};

use super::{Before, bodies};
use crate::work::settle;

/// A write that others overtake is tried again so often.
const ATTEMPTS: usize = 50;

fn name(kind: Kind, name: &str) -> ObjectRef {
    let namespace = (!kind.is_cluster_wide()).then(|| "default".parse().expect("a name"));
    ObjectRef { kind, namespace, name: name.parse().expect("a name") }
}

/// A key of every kind that nothing lies under.
fn beside() -> Vec<Key> {
    let uid: Uid = "00112233445566778899aabbccddeeff".parse().expect("a uid");
    let hash: Sha256 = "ab".repeat(32).parse().expect("a hash");
    let ghost: NodeName = "ghost".parse().expect("a name");
    let mut keys: Vec<Key> = Kind::ALL.into_iter().map(|kind| Key::Object(name(kind, "bad"))).collect();
    keys.extend([
        Key::SpecRevision(name(Kind::Deployment, "bad"), uid, Generation(1)),
        Key::Template(hash),
        Key::ProcessSpec(uid),
        Key::ProcessTemplate(uid),
        Key::ProcessBind(uid),
        Key::ProcessGoal(uid),
        Key::NodeDocument(ghost.clone(), DocumentKind::Run),
        Key::NodeDocument(ghost.clone(), DocumentKind::Files),
        Key::State(ControllerName::Node, StateSubject::Node(ghost.clone())),
        Key::MetaFormatFloor,
        Key::Report(ghost.clone()),
        Key::Status(name(Kind::Deployment, "bad")),
        Key::Grant(ghost),
        Key::BlobChunk(hash, 0),
    ]);
    keys.extend(ControllerName::ALL.map(|c| Key::State(c, StateSubject::Uid(uid))));
    keys
}

/// Keys that daemons live by, which they must be able to write anew.
fn over() -> Vec<Key> {
    let node: NodeName = "node-1".parse().expect("a name");
    let mut keys = vec![
        Key::Report(node.clone()),
        Key::Status(name(Kind::Deployment, "web")),
        Key::Status(name(Kind::ConfigFile, "app-conf")),
        Key::NodeDocument(node.clone(), DocumentKind::Run),
        Key::NodeDocument(node, DocumentKind::Files),
    ];
    keys.extend(ControllerName::ALL.map(Key::Lease));
    keys
}

/// Writes over whatever is there.
async fn write(bus: &Bus, key: &Key, body: &Bytes) {
    let store = bus.store.as_ref().expect("controllers have the store");
    for attempt in 0..ATTEMPTS {
        let last = store.get(key, Read::Leader).await.expect("readable").map(|entry| entry.revision);
        let id = format!("{attempt:032x}").parse().expect("an id");
        let guard = Guard::Own(Expect::after(last));
        let write = Write { key: key.clone(), op: Op::Put(body.clone()), guard, headers: Headers::new() };
        match store.commit(&Txn { id, writes: vec![write] }).await {
            Ok(_) => return,
            Err(CommitError::Conflict) => {}
            Err(error) => panic!("{key}: {error}"),
        }
    }
    panic!("{key}: others were faster {ATTEMPTS} times");
}

fn pelt(fleet: &Fleet, keys: &[Key], bodies: &[Bytes]) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bus = fleet.connect(Identity::Controller).await;
        for body in bodies {
            for key in keys {
                write(&bus, key, body).await;
            }
        }
    });
}

/// Few bodies: each is written under each key, and on one server every write waits for the disk.
fn some() -> Vec<Bytes> {
    let mut all =
        vec![Bytes::from_static(b"garbage"), Bytes::from(vec![0x91; 1_000]), Bytes::from_static(b"")];
    all.extend(
        ["Object", "ProcessSpecRecord", "GoalRecord", "Lease"].map(|kind| bodies::envelope(kind, 1, &[0x80])),
    );
    all.push(bodies::envelope("Object", 99, &[0x80]));
    all
}

#[test]
fn in_the_store_it_does_no_harm() {
    let fleet = Fleet::start(Size { controllers: 2, ..Size::default() });
    let before = Before::now(&fleet, settle(&fleet));
    pelt(&fleet, &beside(), &some());
    before.holds(&fleet, "beside");
    let before = Before::now(&fleet, before.untouched);
    pelt(&fleet, &over(), &some()[..2]);
    before.holds(&fleet, "over");
}
