//! The adapter against real servers, beyond what the conformance suite asks of every implementation: provisioning,
//! outages, lost servers, new identities, the read-only account.

#[expect(dead_code, reason = "other tests use the rest")]
mod nats_support;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use nats_support::raw::{Raw, headers};
use nats_support::{NODES, PATIENCE, Rig, connect, entropy, rig, scale, servers, skipped};
use ostler_bus::layout::Identity;
use ostler_bus::nats::Bus;
use ostler_bus::nats::provision::{ProvisionError, Warning, provision};
use ostler_bus::store::{
    CommitError, Expect, Guard, Headers, Op, Read, ReadError, Txn, WatchEvent, WatchFrom, Write,
};
use ostler_bus::topic::{Outgoing, RequestError};
use ostler_bus::{StoreRef, setup};
use ostler_schemas::{Bucket, Key, Revision, Sha256};

const NONE: &[(&str, &str)] = &[];

fn store(bus: &Bus) -> StoreRef {
    bus.store.clone().expect("a controller has a store")
}

fn template(n: u8) -> Key {
    Key::Template(Sha256::from_bytes([n; 32]))
}

fn put(rig: &Rig, n: u8) -> Txn {
    let write = Write {
        key: template(n),
        op: Op::Put(Bytes::from_static(b"x")),
        guard: Guard::Own(Expect::Absent),
        headers: Headers::new(),
    };
    Txn { id: rig.entropy.txn(), writes: vec![write] }
}

/// Commits when the store takes it; a cluster that has lost a server needs some seconds.
async fn commit(rig: &Rig, store: &StoreRef, n: u8) -> Revision {
    let until_done = async {
        loop {
            match store.commit(&put(rig, n)).await {
                Ok(done) => return done.last,
                Err(CommitError::Conflict) => {
                    // An attempt without an answer has taken effect after all.
                    let entry = store.get(&template(n), Read::Leader).await.ok().flatten();
                    return entry.expect("what conflicts is there").revision;
                }
                Err(CommitError::Refused { .. } | CommitError::Unknown { .. }) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, until_done).await.expect("the store takes writes")
}

/// The revision of the first entry of `key` that a watcher sees who begins again after every end.
async fn sees(store: StoreRef, from: Revision, key: Key) -> Revision {
    let mut after = from;
    loop {
        let mut watch = store.watch(Bucket::Objects, WatchFrom::After(after));
        while let Some(Ok(event)) = watch.next().await {
            match event {
                WatchEvent::Entry(entry) if entry.key == key => return entry.revision,
                WatchEvent::Entry(entry) => after = entry.revision,
                WatchEvent::Foreign(revision) => after = revision,
                WatchEvent::Synced | WatchEvent::Idle => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_may_provision_at_once() {
    if skipped() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let entropy = entropy();
    let local = servers(&dir, 3, &entropy).await;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(connect(&local, Identity::Controller, &entropy).await);
    }
    let runs = all.iter().map(|bus| provision(bus, scale(3), PATIENCE));
    for run in futures::future::join_all(runs).await {
        assert_eq!(run.expect("streams").warnings, []);
    }
    let again = provision(&all[0], scale(3), PATIENCE).await.expect("still right");
    assert_eq!((again.created, again.repaired), (vec![], vec![]));
    // A replica that knows of fewer servers takes nothing away.
    let fewer = provision(&all[0], scale(1), PATIENCE).await.expect("still right");
    assert!(fewer.repaired.is_empty() && fewer.warnings.iter().any(|w| matches!(w, Warning::Larger { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_is_repaired_or_refused() {
    let Some(rig) = rig(1).await else { return };
    let raw = Raw::new(&rig, Identity::Controller).await;
    let info = raw.ask("$JS.API.STREAM.INFO.KV_ostler_observed", headers(NONE), "").await;
    let info: serde_json::Value = serde_json::from_slice(&info.payload).expect("JSON");
    let mut config = info["config"].clone();
    config["allow_rollup_hdrs"] = true.into();
    config["duplicate_window"] = 60_000_000_000_u64.into();
    let answer =
        raw.ask("$JS.API.STREAM.UPDATE.KV_ostler_observed", headers(NONE), &config.to_string()).await;
    assert!(!String::from_utf8_lossy(&answer.payload).contains("\"error\""), "{answer:?}");
    let done = provision(&rig.controller, scale(1), PATIENCE).await.expect("repaired");
    assert_eq!((done.repaired, done.warnings), (vec!["KV_ostler_observed"], vec![Warning::OneServer]));

    raw.ask("$JS.API.STREAM.DELETE.KV_ostler_grants", headers(NONE), "").await;
    let wrong = r#"{"name":"KV_ostler_grants","subjects":["$KV.ostler_grants.>"],"storage":"memory"}"#;
    raw.ask("$JS.API.STREAM.CREATE.KV_ostler_grants", headers(NONE), wrong).await;
    let refused = provision(&rig.controller, scale(1), PATIENCE).await;
    assert!(matches!(refused, Err(ProvisionError::Drift { stream: "KV_ostler_grants", .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_seen_and_survived() {
    let Some(mut rig) = rig(1).await else { return };
    let store = store(&rig.controller);
    let topic = rig.controller.topic.clone();
    commit(&rig, &store, 1).await;
    let before = topic.link().borrow().clone();
    assert_eq!(before.server.as_ref().map(|s| s.to_string()).as_deref(), Some("s1"));
    let mut watch = store.watch(Bucket::Objects, WatchFrom::Everything);
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Entry(_)))));

    rig.local.servers[0].kill().await;
    let mut link = topic.link();
    tokio::time::timeout(PATIENCE, link.wait_for(|l| !l.connected)).await.expect("noticed").expect("alive");
    let refused = store.commit(&put(&rig, 2)).await;
    assert!(matches!(refused, Err(CommitError::Refused { retryable: true, .. })), "{refused:?}");
    let unanswered = topic.request(Outgoing::new("beacon.x", Bytes::new()), 1_000).await;
    assert!(matches!(unanswered, Err(RequestError::Disconnected { .. })), "{unanswered:?}");
    assert!(topic.publish(Outgoing::new("beacon.x", Bytes::new())).await.is_err());
    let ended = async { while let Some(Ok(_)) = watch.next().await {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("a watch does not hang");

    rig.local.servers[0].start().expect("started");
    rig.local.servers[0].ready().await.expect("ready");
    tokio::time::timeout(PATIENCE, link.wait_for(|l| l.connected)).await.expect("again").expect("alive");
    assert!(link.borrow().connection > before.connection);
    // What is in memory is gone with the server; what is acknowledged elsewhere is not.
    let created_again = provision(&rig.controller, scale(1), PATIENCE).await.expect("streams").created;
    assert_eq!(created_again, ["KV_ostler_observed"]);
    assert!(store.get(&template(1), Read::Leader).await.expect("readable").is_some());
    commit(&rig, &store, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_answer_the_outcome_is_unknown() {
    let Some(rig) = rig(1).await else { return };
    let store = store(&rig.controller);
    commit(&rig, &store, 1).await;
    rig.local.servers[0].freeze();
    let (single, read) =
        futures::future::join(store.commit(&put(&rig, 2)), store.get(&template(1), Read::Leader)).await;
    assert!(matches!(single, Err(CommitError::Unknown { .. })), "{single:?}");
    assert!(matches!(read, Err(ReadError::Unavailable { .. })), "{read:?}");
    rig.local.servers[0].thaw();
    commit(&rig, &store, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_for_good() {
    let Some(rig) = rig(1).await else { return };
    let store = store(&rig.controller);
    let write = |n: u8, size: usize| Write {
        key: template(n),
        op: Op::Put(vec![0; size].into()),
        guard: Guard::Own(Expect::Absent),
        headers: Headers::new(),
    };
    let txn = |writes| Txn { id: rig.entropy.txn(), writes };
    let many = (0..=ostler_bus::store::TXN_WRITES_MAX).map(|_| write(1, 1)).collect();
    for transaction in [
        txn(vec![write(1, 2 << 20)]),
        txn(vec![write(1, 1), write(2, 2 << 20), write(3, 1)]),
        // Beyond the stream's own limit, but not the server's.
        txn(vec![write(1, (1 << 20) + (32 << 10))]),
        txn(many),
    ] {
        let refused = store.commit(&transaction).await;
        assert!(matches!(refused, Err(CommitError::Refused { retryable: false, .. })), "{refused:?}");
    }
    // The largest body of ours fits, and nothing of the refused ones is there.
    store.commit(&txn(vec![write(1, 1 << 20), write(2, 1 << 20)])).await.expect("stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_server_loses_no_watcher() {
    let Some(mut rig) = rig(3).await else { return };
    let store = store(&rig.controller);
    let first = commit(&rig, &store, 1).await;
    let watchers: Vec<_> = (0..30).map(|_| tokio::spawn(sees(store.clone(), first, template(3)))).collect();
    commit(&rig, &store, 2).await;
    let lost = rig.controller.topic.link().borrow().server.clone().expect("a server").to_string();
    for server in &mut rig.local.servers {
        if server.name() == lost {
            server.kill().await;
        }
    }
    let revision = commit(&rig, &store, 3).await;
    for watcher in watchers {
        let seen = tokio::time::timeout(2 * PATIENCE, watcher).await.expect("no watcher hangs");
        assert_eq!(seen.expect("no panic"), revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_a_server_leads_to_another() {
    let Some(rig) = rig(3).await else { return };
    let topic = rig.controller.topic.clone();
    let mut link = topic.link();
    for _ in 0..3 {
        let before = link.borrow().clone();
        topic.reconnect().await;
        let moved = link.wait_for(|l| l.connected && l.connection > before.connection);
        let after = tokio::time::timeout(PATIENCE, moved).await.expect("in time").expect("alive").clone();
        assert_ne!(after.server, before.server);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_is_known_after_a_reload() {
    let Some(rig) = rig(1).await else { return };
    let options =
        setup::Options { nodes: ["late".parse().expect("a name")].into(), ..setup::Options::default() };
    setup::run(&rig.local.setup_dir(), &options, &*rig.entropy).expect("written");
    let late = Identity::Node("late".parse().expect("a name"));
    let bus = Bus::connect(&rig.local.config(late), &rig.entropy).await.expect("usable settings");
    let mut link = bus.topic.link();
    let refused = link.wait_for(|l| l.last_error.is_some());
    tokio::time::timeout(PATIENCE, refused).await.expect("told").expect("alive");
    assert!(!link.borrow().connected);
    rig.local.servers[0].reload();
    assert!(bus.connected(PATIENCE).await, "{:?}", link.borrow());
    assert!(rig.controller.topic.link().borrow().connected, "a reload ends no other connection");
    rig.party(Identity::Node(NODES[0].parse().expect("a name"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_see_what_nodes_tell() {
    for count in [1, 3] {
        let Some(rig) = rig(count).await else { return };
        let view = rig.party(Identity::View).await;
        let mut live = view.topic.subscribe("ostler.v1.event.>", None).await.expect("subscribed");
        let node = Raw::new(&rig, Identity::Node(NODES[0].parse().expect("a name"))).await;
        // On three servers a subscription needs a moment to be known everywhere: the node tells it until it is heard.
        let heard = async {
            loop {
                let set = headers(&[("Ostler-Reason", "Started")]);
                node.ask("put.event.n1.process.default.web.Started", set, "body").await;
                if let Ok(message) = tokio::time::timeout(Duration::from_millis(200), live.next()).await {
                    return message.expect("a live subscription");
                }
            }
        };
        let message = tokio::time::timeout(PATIENCE, heard).await.expect("heard");
        assert_eq!(message.subject, "ostler.v1.event.node.n1.process.default.web.Started");
        assert_eq!(message.headers.get("Ostler-Reason"), Some("Started"));
        assert_eq!(&message.body[..], b"body");
        commit(&rig, &store(&rig.controller), 1).await;
        let raw = Raw::new(&rig, Identity::View).await;
        let get = format!("$JS.API.DIRECT.GET.KV_ostler.$KV.ostler.{}", template(1));
        let read = async {
            while raw.ask(&get, headers(NONE), "").await.payload != "x" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("readable");
    }
}
