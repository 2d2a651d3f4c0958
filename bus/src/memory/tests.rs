use futures::StreamExt;
use ostler_schemas::{Bucket, DocumentKind, Key, Revision, TxnId};
use tokio::time::{Duration, Instant, timeout};

use super::*;
use crate::memory::faults::Cut;
use crate::sim_clock::ResumeOrder;
use crate::store::{
    CommitError, Committed, Expect, Guard, Op, Read, ReadError, Txn, WatchEvent, WatchFrom, Write,
};
use crate::topic::{Outgoing, RequestError};

fn bus() -> MemoryBus {
    let clock = SimClock::new(Gate::new(), Timestamp(START_WALL_MS));
    MemoryBus::new(clock)
}

fn node(name: &str) -> NodeName {
    name.parse().expect("a node's name")
}

fn document(name: &str) -> Key {
    Key::NodeDocument(node(name), DocumentKind::Run)
}

fn put(key: Key, guard: Guard, body: &'static str) -> Write {
    Write { key, op: Op::Put(Bytes::from_static(body.as_bytes())), guard, headers: Headers::new() }
}

fn txn(n: u8, writes: Vec<Write>) -> Txn {
    Txn { id: TxnId::from_bytes([n; 16]), writes }
}

fn create(n: u8, key: Key) -> Txn {
    txn(n, vec![put(key, Guard::Own(Expect::Absent), "x")])
}

fn committed(last: u64, count: usize) -> Committed {
    Committed { last: Revision(last), count }
}

#[tokio::test(start_paused = true)]
async fn a_document_reaches_its_agent_by_hint_and_direct_get() {
    let bus = bus();
    let (store, _) = bus.cp(&Party::new("c1"));
    let agent = bus.agent(&Party::new("n1"), &node("n1"));
    let other = bus.agent(&Party::new("n2"), &node("n2"));
    let mut hints = agent.subscribe("push.n1.>", None).await.expect("subscribes");
    let mut spied = other.subscribe("push.n1.>", None).await.expect("looks as if it did");
    assert_eq!(store.commit(&create(1, document("n1"))).await, Ok(committed(1, 1)));
    let hint = hints.next().await.expect("a hint");
    assert_eq!(
        (hint.subject.as_str(), hint.headers.get("Nats-Sequence"), hint.body.len()),
        ("push.n1.run", Some("1"), 0)
    );
    let got = agent.request(Outgoing::new("get.doc.n1.run", ""), 1_000).await.expect("an answer");
    assert_eq!((got.headers.get("Nats-Sequence"), &got.body[..]), (Some("1"), &b"x"[..]));
    let denied = other.request(Outgoing::new("get.doc.n1.run", ""), 1_000).await;
    assert!(matches!(denied, Err(RequestError::Timeout { .. })), "{denied:?}");
    assert_eq!(other.link().borrow().errors, 2);
    assert!(timeout(Duration::from_secs(1), spied.next()).await.is_err());
    let absent = agent.request(Outgoing::new("get.doc.n1.files", ""), 1_000).await.expect("an answer");
    assert_eq!(absent.status, Some(404));
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_unknown_and_a_lost_request_too() {
    let bus = bus();
    let (store, _) = bus.cp(&Party::new("c1"));
    bus.faults().lose_replies("c1", 1);
    let started = Instant::now();
    let outcome = store.commit(&create(1, document("n1"))).await;
    assert!(matches!(outcome, Err(CommitError::Unknown { .. })), "{outcome:?}");
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    assert_eq!(store.commit(&create(1, document("n1"))).await, Err(CommitError::Conflict), "it was done");
    bus.faults().lose_requests("c1", 1);
    assert!(matches!(store.commit(&create(2, document("n2"))).await, Err(CommitError::Unknown { .. })));
    assert!(store.commit(&create(2, document("n2"))).await.is_ok(), "it was not done");
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_arrives_after_its_sender_is_gone() {
    let bus = bus();
    let party = Party::new("c1");
    let (store, _) = bus.cp(&party);
    let (reader, _) = bus.cp(&Party::new("c2"));
    bus.faults().noise_of("c1", Noise { delay_ms: (500, 500), ..Noise::default() });
    let task = tokio::spawn(async move { store.commit(&create(1, document("n1"))).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    party.gate.crash();
    task.abort();
    assert_eq!(reader.get(&document("n1"), Read::Leader).await, Ok(None));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(reader.get(&document("n1"), Read::Leader).await.expect("reads").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_chosen_reply_reaches_no_subject_of_the_control_plane() {
    let bus = bus();
    let (store, _) = bus.cp(&Party::new("c1"));
    store.commit(&create(1, document("n1"))).await.expect("commits");
    let victim = "$KV.ostler.n.n2.run";
    assert_eq!(bus.attack(&node("n1"), "get.doc.n1.run", Some(victim), Headers::new(), Bytes::new()), 1);
    assert_eq!(store.get(&document("n2"), Read::Leader).await, Ok(None));
    let chained = "put.report.n2";
    bus.attack(&node("n1"), "get.doc.n1.run", Some(chained), Headers::new(), Bytes::new());
    assert_eq!(store.get(&Key::Report(node("n2")), Read::Leader).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_paused_party_gets_its_backlog_afterwards() {
    let bus = bus();
    let clock = SimClock::new(Gate::new(), Timestamp(START_WALL_MS));
    let (store, _) = bus.cp(&Party::new("c1"));
    let agent = bus.agent(&Party::on("n1", &clock), &node("n1"));
    let mut hints = agent.subscribe("push.n1.>", None).await.expect("subscribes");
    clock.gate().pause();
    store.commit(&create(1, document("n1"))).await.expect("commits");
    assert!(timeout(Duration::from_secs(60), hints.next()).await.is_err());
    clock.gate().resume(ResumeOrder::TimersFirst);
    assert!(timeout(Duration::from_secs(1), hints.next()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_hung_watch_is_silent_and_an_ended_one_is_not() {
    let bus = bus();
    let (store, _) = bus.cp(&Party::new("c1"));
    let mut watch = store.watch(Bucket::Objects, WatchFrom::Everything);
    assert_eq!(watch.next().await, Some(Ok(WatchEvent::Synced)));
    assert_eq!(watch.next().await, Some(Ok(WatchEvent::Idle)));
    bus.faults().hang_watches("c1");
    store.commit(&create(1, document("n1"))).await.expect("commits");
    assert!(timeout(Duration::from_secs(3_600), watch.next()).await.is_err());
    let mut watch = store.watch(Bucket::Objects, WatchFrom::After(Revision(1)));
    assert_eq!(watch.next().await, Some(Ok(WatchEvent::Synced)));
    bus.faults().end_watches("c1");
    assert!(matches!(watch.next().await, Some(Err(_))));
    assert_eq!(watch.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_silent_first_and_seen_later() {
    let bus = bus();
    let (store, topic) = bus.cp(&Party::new("c1"));
    let mut watch = store.watch(Bucket::Objects, WatchFrom::Everything);
    assert_eq!(watch.next().await, Some(Ok(WatchEvent::Synced)));
    bus.faults().cut("c1", Cut::Both);
    let read = store.get(&document("n1"), Read::Leader).await;
    assert!(matches!(read, Err(ReadError::Unavailable { .. })), "{read:?}");
    assert!(topic.link().borrow().connected);
    assert!(matches!(watch.next().await, Some(Err(_))));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!topic.link().borrow().connected);
    bus.faults().heal("c1");
    assert_eq!((topic.link().borrow().connected, topic.link().borrow().connection), (true, 2));
    assert_eq!(store.get(&document("n1"), Read::Leader).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn the_store_can_go_back_in_time() {
    let bus = bus();
    let (store, _) = bus.cp(&Party::new("c1"));
    store.commit(&create(1, document("n1"))).await.expect("commits");
    let before = bus.faults().snapshot(Bucket::Objects).expect("is there");
    store.commit(&create(2, document("n2"))).await.expect("commits");
    bus.faults().roll_back(before);
    assert_eq!(store.info(Bucket::Objects).await.expect("reads").last, Revision(1));
    assert_eq!(store.get(&document("n2"), Read::Leader).await, Ok(None));
    let created = store.info(Bucket::Observed).await.expect("reads").created;
    bus.faults().empty_stream(Bucket::Observed);
    let info = store.info(Bucket::Observed).await.expect("reads");
    assert_eq!((info.created, info.last), (created, Revision(0)));
    bus.faults().lose_stream(Bucket::Observed);
    assert!(matches!(store.info(Bucket::Observed).await, Err(ReadError::Missing { .. })));
    bus.provision();
    assert!(store.info(Bucket::Observed).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn another_server_may_still_be_reached() {
    let clock = SimClock::new(Gate::new(), Timestamp(START_WALL_MS));
    let servers: Vec<Name> = ["s1", "s2"].into_iter().map(|s| s.parse().expect("a name")).collect();
    let bus = MemoryBus::with_options(
        clock,
        MemoryOptions { servers: servers.clone(), ..MemoryOptions::default() },
    );
    let (store, topic) = bus.cp(&Party::new("c1"));
    let first = topic.link().borrow().server.clone().expect("has a server");
    bus.faults().server_down(&first);
    assert!(!topic.link().borrow().connected);
    topic.reconnect().await;
    let link = topic.link().borrow().clone();
    assert!(link.connected && link.server != Some(first), "{link:?}");
    assert!(store.info(Bucket::Objects).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_partition_says_nothing_about_another() {
    let bus = bus();
    let (_, first) = bus.cp(&Party::new("c1"));
    let (_, second) = bus.cp(&Party::new("c2"));
    bus.faults().cut("c1", Cut::Both);
    tokio::time::sleep(Duration::from_secs(20)).await;
    bus.faults().cut("c2", Cut::Inbound);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((first.link().borrow().connected, second.link().borrow().connected), (false, true));
    bus.faults().heal("c2");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((first.link().borrow().connected, second.link().borrow().connected), (false, true));
    bus.faults().heal("c1");
    assert!(first.link().borrow().connected);
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_the_threshold_goes_nowhere() {
    let bus = bus();
    let (_, controller) = bus.cp(&Party::new("c1"));
    let agent = bus.agent(&Party::new("n1"), &node("n1"));
    let mut beats = controller.subscribe("beat.*", None).await.expect("subscribes");
    for (late_ms, answered) in [(1_900, true), (2_100, false)] {
        let asked = agent.request(Outgoing::new("beat.n1", ""), 10_000);
        let answer = async {
            let reply = beats.next().await.and_then(|m| m.reply).expect("a reply subject");
            tokio::time::sleep(Duration::from_millis(late_ms)).await;
            controller.publish(Outgoing::new(reply, "late")).await.expect("publishes");
        };
        assert_eq!(futures::join!(asked, answer).0.is_ok(), answered, "after {late_ms} ms");
    }
}

/// What a small busy world does with a seed, as text.
fn trace(seed: u64) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let clock = SimClock::new(Gate::new(), Timestamp(START_WALL_MS));
        let options = MemoryOptions { seed, ..MemoryOptions::default() };
        let bus = MemoryBus::with_options(clock, options);
        bus.keep_journal();
        bus.faults().noise(Noise::drawn(seed));
        let log = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..3u8 {
            let (store, topic) = bus.cp(&Party::new(format!("c{n}")));
            let log = Arc::clone(&log);
            tasks.push(tokio::spawn(async move {
                let mut beats = topic.subscribe("beat.*", Some("q")).await.expect("subscribes");
                for i in 0..30 {
                    let key = document(&format!("n{}", i % 5));
                    let last = store.get(&key, Read::Any).await.ok().flatten().map(|e| e.revision);
                    let write = put(key, Guard::Own(Expect::after(last)), "x");
                    let outcome = store.commit(&txn(n * 30 + i, vec![write])).await;
                    let beat = timeout(Duration::from_secs(1), beats.next()).await.ok().flatten();
                    let line = format!("{n} {i} {outcome:?} {:?}", beat.map(|b| b.subject));
                    log.lock().expect("not poisoned").push(line);
                }
            }));
        }
        for n in 0..5 {
            let name = format!("n{n}");
            let agent = bus.agent(&Party::new(name.as_str()), &node(&name));
            let log = Arc::clone(&log);
            tasks.push(tokio::spawn(async move {
                let mut hints = agent.subscribe(&format!("push.{name}.>"), None).await.expect("subscribes");
                for _ in 0..20 {
                    let beat = agent.request(Outgoing::new(format!("beat.{name}"), ""), 500).await;
                    let hint = timeout(Duration::from_secs(2), hints.next()).await.ok().flatten();
                    let hint = hint.and_then(|h| h.headers.get("Nats-Sequence").map(str::to_owned));
                    log.lock().expect("not poisoned").push(format!("{name} {} {hint:?}", beat.is_ok()));
                }
            }));
        }
        for task in tasks {
            task.await.expect("runs to its end");
        }
        let log = log.lock().expect("not poisoned");
        format!("{}\n{}", log.join("\n"), bus.journal().join("\n"))
    })
}

#[test]
fn one_seed_is_one_history() {
    for seed in 0..5 {
        let first = trace(seed);
        assert_eq!(trace(seed), first, "seed {seed}");
        let elsewhere = std::thread::spawn(move || trace(seed)).join().expect("runs");
        assert_eq!(elsewhere, first, "seed {seed} in another thread");
    }
    assert_ne!(trace(1), trace(2));
}
