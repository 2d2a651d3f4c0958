use std::time::Duration;

use ostler_schemas::time::Timestamp;
use ostler_schemas::{TxnId, Uid};
use tokio::time::{Instant, timeout};

use super::*;
use crate::memory::{MemoryBus, Party, START_WALL_MS};
use crate::sim_clock::{Gate, SimClock};
use crate::store::{Expect, Guard, Op, Write};

fn world() -> (Plan, StoreRef, TopicRef) {
    let clock = SimClock::new(Gate::new(), Timestamp(START_WALL_MS));
    let bus = MemoryBus::new(clock.clone());
    let (store, topic) = bus.cp(&Party::new("c1"));
    let plan = Plan::new(1, clock, 200);
    (plan.clone(), FaultyStore::shared(store, plan.clone()), FaultyTopic::shared(topic, plan))
}

fn create(n: u8) -> Txn {
    let key = Key::ProcessGoal(Uid::from_bytes([n; 16]));
    let guard = Guard::Own(Expect::Absent);
    let write = Write { key, op: Op::Put(Bytes::new()), guard, headers: Headers::new() };
    Txn { id: TxnId::from_bytes([n; 16]), writes: vec![write] }
}

#[tokio::test(start_paused = true)]
async fn writes_follow_the_script() {
    let (plan, store, _) = world();
    plan.script(Call::Write, [Act::LoseRequest, Act::Fail, Act::LoseReply, Act::Pass, Act::Delay(700)]);
    let started = Instant::now();
    assert!(matches!(store.commit(&create(1)).await, Err(CommitError::Unknown { .. })));
    assert_eq!(started.elapsed(), Duration::from_millis(200));
    assert!(matches!(store.commit(&create(1)).await, Err(CommitError::Refused { retryable: true, .. })));
    assert!(matches!(store.commit(&create(1)).await, Err(CommitError::Unknown { .. })));
    assert_eq!(store.commit(&create(1)).await, Err(CommitError::Conflict), "the third was done");
    let started = Instant::now();
    assert!(store.commit(&create(2)).await.is_ok());
    assert_eq!(started.elapsed(), Duration::from_millis(700));
}

#[tokio::test(start_paused = true)]
async fn watches_hang_or_fail() {
    let (plan, store, _) = world();
    plan.script(Call::Watch, [Act::LoseReply, Act::Fail]);
    let mut hung = store.watch(Bucket::Objects, WatchFrom::Everything);
    assert!(timeout(Duration::from_secs(60), hung.next()).await.is_err());
    let mut failed = store.watch(Bucket::Objects, WatchFrom::Everything);
    assert!(matches!(failed.next().await, Some(Err(_))));
    assert!(failed.next().await.is_none());
    assert_eq!(
        store.watch(Bucket::Objects, WatchFrom::Everything).next().await,
        Some(Ok(WatchEvent::Synced))
    );
}

#[tokio::test(start_paused = true)]
async fn messages_are_lost_on_the_way() {
    let (plan, _, topic) = world();
    let mut beacons = topic.subscribe("beacon.*", None).await.expect("subscribes");
    plan.script(Call::Delivery, [Act::LoseReply]);
    plan.script(Call::Publish, [Act::Pass, Act::LoseRequest]);
    for n in 1..=3 {
        topic.publish(Outgoing::new(format!("beacon.b{n}"), Bytes::new())).await.expect("publishes");
    }
    assert_eq!(beacons.next().await.map(|m| m.subject), Some("beacon.b3".to_owned()));
    plan.script(Call::Request, [Act::LoseRequest]);
    let silent = topic.request(Outgoing::new("$JS.API.INFO", Bytes::new()), 100).await;
    assert!(matches!(silent, Err(RequestError::Timeout { .. })), "{silent:?}");
}

#[tokio::test(start_paused = true)]
async fn chances_are_kept() {
    let (plan, _, _) = world();
    plan.chances(Chances {
        lose_reply_ppm: 250_000,
        delay_ppm: 250_000,
        delay_max_ms: 9,
        ..Chances::default()
    });
    let acts: Vec<Act> = (0..4_000).map(|_| plan.act(Call::Read)).collect();
    let lost = acts.iter().filter(|a| **a == Act::LoseReply).count();
    let delayed = acts.iter().filter(|a| matches!(a, Act::Delay(0..=9))).count();
    assert!((800..1_200).contains(&lost) && (800..1_200).contains(&delayed), "{lost} {delayed}");
    plan.calm();
    assert_eq!(plan.act(Call::Read), Act::Pass);
}
