//! The conformance suite on real servers, one and three.

#[expect(dead_code, reason = "other tests use the rest")]
mod nats_support;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use nats_support::{Rig, rig};
use ostler_bus::clock::SystemClock;
use ostler_bus::conformance::{self, Subject};
use ostler_bus::layout::Identity;
use ostler_bus::{ClockRef, EntropyRef, StoreRef, TopicRef};
use ostler_schemas::{Name, NodeName};

struct Real {
    rig: Rig,
    clock: ClockRef,
}

impl Subject for Real {
    fn controller(&self) -> BoxFuture<'_, (StoreRef, TopicRef)> {
        async move {
            let bus = self.rig.party(Identity::Controller).await;
            (bus.store.expect("a controller has a store"), bus.topic)
        }
        .boxed()
    }

    fn agent<'a>(&'a self, node: &'a NodeName) -> BoxFuture<'a, TopicRef> {
        async move { self.rig.party(Identity::Node(node.clone())).await.topic }.boxed()
    }

    fn operator<'a>(&'a self, user: &'a Name) -> BoxFuture<'a, TopicRef> {
        async move { self.rig.party(Identity::Operator(user.clone())).await.topic }.boxed()
    }

    fn clock(&self) -> ClockRef {
        self.clock.clone()
    }

    fn entropy(&self) -> EntropyRef {
        self.rig.entropy.clone()
    }
}

async fn suite(servers: usize) {
    let Some(rig) = rig(servers).await else { return };
    let report = conformance::run(&Real { rig, clock: SystemClock::shared() }).await;
    println!("{report}");
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.passed.len(), conformance::cases().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_one_server() {
    suite(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_three_servers() {
    suite(3).await;
}
