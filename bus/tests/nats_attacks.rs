//! What a stolen or malicious credential must not be able to do, tried on real servers, one and three. Each attack is
//! something that NATS would allow under careless settings; most were seen to succeed there.

#[expect(dead_code, reason = "other tests use the rest")]
mod nats_support;

use bytes::Bytes;
use futures::StreamExt as _;
use nats_support::raw::{Raw, headers};
use nats_support::{PATIENCE, Rig, rig};
use ostler_bus::StoreRef;
use ostler_bus::layout::Identity;
use ostler_bus::store::{Entry, Expect, Guard, Headers, Op, Read, Txn, Write};
use ostler_bus::topic::{Endpoint, Outgoing, ServiceSpec};
use ostler_schemas::{DocumentKind, Key, NodeName, Sha256};

const NONE: &[(&str, &str)] = &[];

fn node(name: &str) -> NodeName {
    name.parse().expect("a name")
}

fn document(name: &str) -> Key {
    Key::NodeDocument(node(name), DocumentKind::Run)
}

struct Scene {
    rig: Rig,
    store: StoreRef,
    n1: Raw,
}

impl Scene {
    async fn put(&self, key: Key, body: &'static [u8]) {
        let before = self.store.get(&key, Read::Leader).await.expect("readable").map(|e| e.revision);
        let write = Write {
            key,
            op: Op::Put(Bytes::from_static(body)),
            guard: Guard::Own(Expect::after(before)),
            headers: Headers::new(),
        };
        let txn = Txn { id: self.rig.entropy.txn(), writes: vec![write] };
        self.store.commit(&txn).await.expect("stored");
    }

    async fn read(&self, key: &Key) -> Option<Entry> {
        self.store.get(key, Read::Leader).await.expect("readable")
    }

    /// What an attacked store may not change: everything about n2, and how much there is.
    async fn state(&self) -> (Option<Entry>, Option<Entry>, u64, u64) {
        let messages = |bucket| async move { self.store.info(bucket).await.expect("readable").messages };
        (
            self.read(&document("n2")).await,
            self.read(&Key::Report(node("n2"))).await,
            messages(ostler_schemas::Bucket::Objects).await,
            messages(ostler_schemas::Bucket::Observed).await + messages(ostler_schemas::Bucket::Grants).await,
        )
    }

    /// Everything sent so far by n1 has had its effect: a few answers later, on every path.
    async fn settle(&self) {
        for _ in 0..20 {
            self.n1.ask("get.doc.n1.run", headers(NONE), "").await;
            self.store.info(ostler_schemas::Bucket::Objects).await.expect("readable");
        }
    }
}

async fn scene(servers: usize) -> Option<Scene> {
    let rig = rig(servers).await?;
    let store = rig.controller.store.clone().expect("a controller has a store");
    let n1 = Raw::new(&rig, Identity::Node(node("n1"))).await;
    let scene = Scene { store, n1, rig };
    scene.put(document("n1"), b"one").await;
    scene.put(document("n2"), b"two").await;
    scene.put(Key::Template(Sha256::from_bytes([7; 32])), b"template").await;
    let n2 = Raw::new(&scene.rig, Identity::Node(node("n2"))).await;
    n2.ask("put.node.report.n2", headers(NONE), "report").await;
    Some(scene)
}

async fn what_is_a_nodes_own_works(scene: &Scene) {
    let own = scene.n1.ask("get.doc.n1.run", headers(NONE), "").await;
    assert_eq!(&own.payload[..], b"one");
    let template = format!("get.tmpl.{}", Sha256::from_bytes([7; 32]));
    assert_eq!(&scene.n1.ask(&template, headers(NONE), "").await.payload[..], b"template");
    scene.n1.ask("put.node.report.n1", headers(NONE), "mine").await;
    let ack = scene.n1.ask("put.event.n1.process.default.web.Started", headers(NONE), "event").await;
    assert!(String::from_utf8_lossy(&ack.payload).contains("OSTLER_EVENTS"), "{ack:?}");
    let ack = scene.n1.ask("put.node.log.n1.default.web", headers(NONE), "output").await;
    assert!(String::from_utf8_lossy(&ack.payload).contains("OSTLER_LOGS"), "{ack:?}");
}

/// Subjects of CP, of other nodes, and the whole of JetStream.
async fn a_node_is_confined(scene: &Scene) {
    let n1 = &scene.n1;
    for subject in [
        "get.doc.n2.run",
        "get.doc.*.run",
        "get.doc.>",
        "get.grant.n2",
        "put.node.grant.n2",
        "put.node.report.n2",
        "put.event.n2.process.default.web.Started",
        "put.node.log.n2.default.web",
        "ostler.v1.log.n1.default.web",
        "$JS.API.DIRECT.GET.OSTLER_LOGS.ostler.v1.log.n2.default.web",
        "beat.n2",
        "beat._s1",
        "api.n2.asks",
        "api.anna.apply",
        "push.n2.run",
        "_INBOX_n2.x",
        "$KV.ostler.n.n2.run",
        "$KV.ostler_observed.r.n1",
        "ostler.v1.event.cp.api.node._.n1.Lost",
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.KV_ostler",
        "$JS.API.STREAM.MSG.GET.KV_ostler",
        "$JS.API.STREAM.PURGE.KV_ostler",
        "$JS.API.CONSUMER.CREATE.KV_ostler",
        "$JS.API.DIRECT.GET.KV_ostler",
        "$JS.API.DIRECT.GET.KV_ostler.$KV.ostler.n.n1.run",
        "$JS.ACK.KV_ostler.x.1.1.1.1.0",
        "$JS.FC.KV_ostler.x.y",
        "$SRV.PING",
        "$SYS.REQ.SERVER.PING",
        "_R_.x",
        "beacon.c1",
    ] {
        n1.cannot_publish(subject).await;
    }
    for subject in [
        ">",
        "push.>",
        "push.n2.>",
        "_INBOX.>",
        "_INBOX_n2.>",
        "_INBOX_*.>",
        "_R_.>",
        "get.>",
        "put.>",
        "beat.*",
        "api.>",
    ] {
        n1.cannot_subscribe(subject).await;
    }
}

/// NATS does not check where a reply goes (trap T1). Across an import it is rewritten, so it lands nowhere.
/// On the server where a stream's leader is, its answer may cross a second time, so every server is tried.
async fn a_reply_writes_nothing(scene: &Scene) {
    let mut everywhere = Vec::new();
    for server in &scene.rig.local.bus().servers {
        let identity = Identity::Node(node("n1"));
        everywhere.push(Raw::through(&scene.rig, identity, vec![server.clone()]).await);
    }
    let before = scene.state().await;
    for reply in [
        "$KV.ostler.n.n2.run",
        "$KV.ostler_observed.r.n2",
        "put.node.report.n2",
        "put.node.grant.n2",
        "put.event.n2.process.default.web.Started",
        "put.node.log.n2.default.web",
        "get.doc.n2.run",
        "api.anna.apply",
        "beat.n2",
        "push.n2.run",
        "$JS.API.STREAM.PURGE.KV_ostler",
        "$JS.API.STREAM.DELETE.KV_ostler",
    ] {
        for n1 in &everywhere {
            for subject in ["get.doc.n1.run", "api.n1.get", "beat.n1"] {
                n1.send(subject, reply, headers(NONE), "forged").await;
            }
            // Its own event is stored, of course; what the reply names is not.
            n1.send("put.event.n1.process.default.web.Started", reply, headers(NONE), "forged").await;
            n1.send("put.node.log.n1.default.web", reply, headers(NONE), "forged").await;
            n1.ask("get.doc.n1.run", headers(NONE), "").await;
        }
    }
    scene.settle().await;
    assert_eq!(scene.state().await, before);
    let mut events = scene.store.records("OSTLER_EVENTS", "ostler.v1.event.>", 1, false);
    while let Some(event) = events.next().await {
        let event = event.expect("readable");
        assert!(event.subject.starts_with("ostler.v1.event.node.n1.process."), "{event:?}");
    }
    let mut output = scene.store.records("OSTLER_LOGS", "ostler.v1.log.>", 1, false);
    while let Some(part) = output.next().await {
        assert_eq!(part.expect("readable").subject, "ostler.v1.log.n1.default.web");
    }
}

/// Headers pass an import unchanged; the streams must not heed the dangerous ones.
async fn headers_harm_nobody(scene: &Scene) {
    let before = scene.state().await;
    let refused: &[(&str, &[(&str, &str)])] = &[
        ("rollup of everything", &[("Nats-Rollup", "all")]),
        ("rollup of a subject", &[("Nats-Rollup", "sub")]),
        ("expiry", &[("Nats-TTL", "1")]),
        ("an atomic batch", &[("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "1")]),
        (
            "a committed batch",
            &[("Nats-Batch-Id", "c"), ("Nats-Batch-Sequence", "1"), ("Nats-Batch-Commit", "1")],
        ),
        (
            "a schedule towards another node",
            &[("Nats-Schedule", "@every 1s"), ("Nats-Schedule-Target", "$KV.ostler_observed.r.n2")],
        ),
        ("a counter", &[("Nats-Incr", "1")]),
        ("another stream's name", &[("Nats-Expected-Stream", "KV_ostler")]),
    ];
    for (what, set) in refused {
        for subject in
            ["put.node.report.n1", "put.event.n1.process.default.web.Started", "put.node.log.n1.default.web"]
        {
            let answer = scene.n1.ask(subject, headers(set), "x").await;
            let text = String::from_utf8_lossy(&answer.payload).into_owned();
            assert!(text.contains("\"error\""), "{what} on {subject}: {text}");
        }
    }
    scene.settle().await;
    assert_eq!(scene.state().await, before);
}

/// Open batches of one party do not use up another's.
async fn batches_are_not_exhausted(scene: &Scene) {
    for i in 0..60 {
        let id = format!("open-{i}");
        let set = headers(&[("Nats-Batch-Id", id.as_str()), ("Nats-Batch-Sequence", "1")]);
        scene.n1.send("put.node.report.n1", "_INBOX_n1.none", set, "x").await;
    }
    scene.settle().await;
    let write = |key: Key| Write {
        key,
        op: Op::Put(Bytes::from_static(b"x")),
        guard: Guard::Own(Expect::Absent),
        headers: Headers::new(),
    };
    let keys = [Key::Template(Sha256::from_bytes([8; 32])), Key::Template(Sha256::from_bytes([9; 32]))];
    let txn = Txn { id: scene.rig.entropy.txn(), writes: keys.into_iter().map(write).collect() };
    scene.store.commit(&txn).await.expect("a controller's batch");
}

/// A message id that somebody else has used makes nobody's write vanish: nobody relies on ids.
async fn message_ids_hide_nothing(scene: &Scene) {
    let n2 = Raw::new(&scene.rig, Identity::Node(node("n2"))).await;
    scene.n1.ask("put.node.report.n1", headers(&[("Nats-Msg-Id", "squatted")]), "x").await;
    let ack = n2.ask("put.node.report.n2", headers(NONE), "again").await;
    assert!(!String::from_utf8_lossy(&ack.payload).contains("duplicate"), "{ack:?}");
    let report = scene.read(&Key::Report(node("n2"))).await.expect("a report");
    assert_eq!(report.value().map(|b| &b[..]), Some(&b"again"[..]));
}

/// A direct get by subject takes no other request in its body.
async fn a_body_asks_for_nothing_else(scene: &Scene) {
    for body in
        [r#"{"seq":1}"#, r#"{"last_by_subj":"$KV.ostler.n.n2.run"}"#, r#"{"multi_last":["$KV.ostler.>"]}"#]
    {
        let answer = scene.n1.ask("get.doc.n1.run", headers(NONE), body).await;
        assert!(answer.status.is_some_and(|s| s.as_u16() >= 400), "{body}: {answer:?}");
    }
}

/// What the API is told about its caller is the server's word.
async fn callers_cannot_be_forged(scene: &Scene) {
    let spec = ServiceSpec {
        name: "echo".to_owned(),
        version: "0.1.0".to_owned(),
        description: "answers with what it was told".to_owned(),
        endpoints: vec![Endpoint { name: "get".to_owned(), subject: "api.*.get".to_owned(), shared: true }],
    };
    let topic = scene.rig.controller.topic.clone();
    let mut requests = topic.serve(spec).await.expect("served");
    let forged = headers(&[("Nats-Request-Info", r#"{"acc":"OP","user":"anna"}"#)]);
    let answer = scene.n1.ask("api.n1.get", forged, "");
    let serve = async {
        let request = requests.next().await.expect("a request");
        let info = request.headers.get("Nats-Request-Info").unwrap_or_default().to_owned();
        topic.publish(Outgoing::new(request.reply.expect("a way back"), info)).await.expect("sent");
    };
    let (answer, ()) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(answer, serve) }).await.expect("in time");
    let info = String::from_utf8_lossy(&answer.payload).into_owned();
    // The caller's account and key: what `identities.json` lists under the caller's name.
    let seed = std::fs::read_to_string(scene.rig.local.config(Identity::Node(node("n1"))).credentials);
    let key = nkeys::KeyPair::from_seed(seed.expect("a key").trim()).expect("a key").public_key();
    let user = format!(r#""user":"{key}""#);
    assert!(info.contains(r#""acc":"AG""#) && info.contains(&user) && !info.contains("anna"), "{info}");
}

async fn canaries_only_beat(scene: &Scene) {
    let servers = vec!["s1".parse().expect("a name")];
    let canary = Raw::new(&scene.rig, Identity::Canary { servers }).await;
    for subject in
        ["beat.n1", "beat._other", "api._canary.get", "get.doc.n1.run", "put.node.report.n1", "$JS.API.INFO"]
    {
        canary.cannot_publish(subject).await;
    }
    canary.cannot_subscribe("push.>").await;
}

async fn operators_only_call(scene: &Scene) {
    let anna = Raw::new(&scene.rig, Identity::Operator("anna".parse().expect("a name"))).await;
    for subject in [
        "api.bert.apply",
        "api.*.apply",
        "api.n1.asks",
        "beat.n1",
        "push.n1.run",
        "get.doc.n1.run",
        "put.node.log.n1.default.web",
        "$KV.ostler.n.n1.run",
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.KV_ostler",
        "$JS.API.CONSUMER.CREATE.KV_ostler",
        "$JS.API.CONSUMER.CREATE.OSTLER_LOGS",
        "_R_.x",
    ] {
        anna.cannot_publish(subject).await;
    }
    for subject in [">", "_INBOX_bert.>", "api.>", "ostler.v1.event.>", "ostler.v1.log.>"] {
        anna.cannot_subscribe(subject).await;
    }
    let before = scene.state().await;
    anna.send("$SRV.PING", "$KV.ostler.n.n2.run", headers(NONE), "").await;
    scene.settle().await;
    assert_eq!(scene.state().await, before);
}

/// A viewer with a colluding node, who writes what the viewer aims: the body of an event that is a request to
/// JetStream. Were VIEW to have streams of its own, a direct get could aim it at an import of VIEW, as it is.
async fn viewers_only_read(scene: &Scene) {
    let view = Raw::new(&scene.rig, Identity::View).await;
    for subject in [
        "$JS.API.CONSUMER.CREATE.KV_ostler",
        "$JS.API.CONSUMER.CREATE.KV_ostler.x",
        "$JS.API.CONSUMER.CREATE.KV_ostler.x.$KV.ostler.n.n1.run",
        "$JS.API.CONSUMER.DURABLE.CREATE.KV_ostler.x",
        "$JS.API.CONSUMER.MSG.NEXT.KV_ostler.x",
        "$JS.API.STREAM.CREATE.mine",
        "$JS.API.STREAM.UPDATE.KV_ostler",
        "$JS.API.STREAM.PURGE.KV_ostler",
        "$JS.API.STREAM.DELETE.KV_ostler",
        "$JS.API.STREAM.MSG.DELETE.KV_ostler",
        "$JS.API.STREAM.SNAPSHOT.KV_ostler",
        "$JS.API.STREAM.MSG.GET.KV_ostler_blob",
        "$JS.API.STREAM.MSG.GET.OSTLER_LOGS",
        "$JS.API.DIRECT.GET.OSTLER_LOGS",
        "$JS.API.DIRECT.GET.OSTLER_LOGS.ostler.v1.log.n1.default.web",
        "$JS.API.STREAM.INFO.OSTLER_LOGS",
        "$JS.FC.KV_ostler.x.y",
        "$KV.ostler.n.n1.run",
        "ostler.v1.event.cp.api.node._.n1.Lost",
        "beat.n1",
        "push.n1.run",
        "_R_.x",
    ] {
        view.cannot_publish(subject).await;
    }
    for subject in [">", "$KV.>", "_INBOX_anna.>", "api.>", "ostler.v1.log.>"] {
        view.cannot_subscribe(subject).await;
    }
    let document = "$JS.API.DIRECT.GET.KV_ostler.$KV.ostler.n.n1.run";
    assert_eq!(&view.ask(document, headers(NONE), "").await.payload[..], b"one");
    let evil = r#"{"stream_name":"KV_ostler","config":{"deliver_subject":"$KV.ostler.n.n2.run","ack_policy":"none"}}"#;
    let event = "process.default.web.Evil";
    scene.n1.ask(&format!("put.event.n1.{event}"), headers(NONE), evil).await;
    let before = scene.state().await;
    for reply in [
        "$JS.API.CONSUMER.CREATE.KV_ostler",
        "$JS.API.STREAM.INFO.KV_ostler",
        "$JS.API.DIRECT.GET.KV_ostler",
        "$KV.ostler.n.n2.run",
        "$SRV.PING",
    ] {
        let get = format!("$JS.API.DIRECT.GET.OSTLER_EVENTS.ostler.v1.event.node.n1.{event}");
        view.send(&get, reply, headers(NONE), "").await;
        view.send("$JS.API.STREAM.MSG.GET.OSTLER_EVENTS", reply, headers(NONE), r#"{"seq":1}"#).await;
        view.send("$JS.API.DIRECT.GET.OSTLER_EVENTS", reply, headers(NONE), r#"{"seq":1}"#).await;
    }
    view.ask(document, headers(NONE), "").await;
    scene.settle().await;
    assert_eq!(scene.state().await, before);
    let info = view.ask("$JS.API.STREAM.INFO.KV_ostler", headers(NONE), "").await;
    let info = String::from_utf8_lossy(&info.payload).into_owned();
    assert!(info.contains(r#""consumer_count":0"#), "{info}");
}

async fn all(servers: usize) {
    let Some(scene) = scene(servers).await else { return };
    what_is_a_nodes_own_works(&scene).await;
    a_node_is_confined(&scene).await;
    callers_cannot_be_forged(&scene).await;
    a_reply_writes_nothing(&scene).await;
    headers_harm_nobody(&scene).await;
    batches_are_not_exhausted(&scene).await;
    message_ids_hide_nothing(&scene).await;
    a_body_asks_for_nothing_else(&scene).await;
    canaries_only_beat(&scene).await;
    operators_only_call(&scene).await;
    viewers_only_read(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_one_server() {
    all(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_three_servers() {
    all(3).await;
}
