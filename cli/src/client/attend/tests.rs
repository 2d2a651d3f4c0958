//! Attendance over the model of the bus: what a controller hears.

use futures::StreamExt;
use futures::stream::BoxStream;
use ostler_bus::entropy::SeededEntropy;
use ostler_bus::memory::{MemoryBus, Party};
use ostler_bus::topic::Message;
use ostler_schemas::v1::api::{ListRequest, WatchMessage};

use super::*;
use crate::client::{Client, Replies, tests};

/// A controller that hears everything, and a caller.
struct Rig {
    controller: TopicRef,
    requests: BoxStream<'static, Message>,
    relays: BoxStream<'static, Message>,
    attendance: Attendance,
    anna: Arc<Client>,
}

async fn rig() -> Rig {
    let (boss, caller) = (Party::new("controller"), Party::new("anna"));
    let bus = MemoryBus::new(boss.clock.clone());
    bus.provision();
    let (_, controller) = bus.cp(&boss);
    let requests = controller.subscribe("api.*.watch", None).await.expect("subscribes");
    let relays = controller.subscribe("api.*.relay.*", None).await.expect("subscribes");
    let name: Name = "anna".parse().expect("a name");
    let topic = bus.operator(&caller, &name);
    let attendance = Attendance::default();
    let entropy = Arc::new(SeededEntropy::from_number(1));
    let anna =
        Client::new(topic, name, "tls://x:4222".to_owned(), entropy).with_attendance(attendance.clone());
    Rig { controller, requests, relays, attendance, anna: Arc::new(anna) }
}

impl Rig {
    /// Opens a watch; its id, and what is read.
    async fn watch(&mut self) -> (String, Replies) {
        let kind = ostler_schemas::Kind::Node;
        let list = ListRequest { kind, namespace: None, labels: Vec::new(), names: Vec::new() };
        let anna = Arc::clone(&self.anna);
        let opening = tokio::spawn(async move { anna.watch(list).await.expect("opens") });
        let request = self.requests.next().await.expect("a request");
        let id = request.headers.get(headers::TXN).expect("an id").to_owned();
        let mark = WatchMessage { change: None, view: None };
        let part = tests::part(1, None, tests::bytes(&mark));
        let answer = Outgoing::new(request.reply.expect("a reply"), part.body).with_headers(part.headers);
        self.controller.publish(answer).await.expect("answers");
        (id, opening.await.expect("no panic"))
    }

    /// What is heard next of which answer, and whether it is the last.
    async fn heard(&mut self) -> (String, bool) {
        let message = self.relays.next().await.expect("a message");
        let id = message.subject.strip_prefix("api.anna.relay.").expect("its own subject").to_owned();
        assert!(message.body.is_empty());
        (id, message.headers.get(headers::END) == Some("ok"))
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_attended_while_it_is_read_and_left_when_it_is_not() {
    let mut rig = rig().await;
    let (id, replies) = rig.watch().await;
    let start = tokio::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(rig.heard().await, (id.clone(), false));
    }
    assert!(start.elapsed() <= RENEWAL * 3 + Duration::from_millis(500), "{:?}", start.elapsed());
    drop(replies);
    assert_eq!(rig.heard().await, (id, true));
}

#[tokio::test(start_paused = true)]
async fn each_answer_has_an_id_of_its_own() {
    let mut rig = rig().await;
    let (first, one) = rig.watch().await;
    let (second, _two) = rig.watch().await;
    assert_ne!(first, second);
    drop(one);
    assert_eq!(rig.heard().await, (first, true));
    assert_eq!(rig.heard().await, (second, false));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_program_takes_leave_of_what_is_still_read() {
    let mut rig = rig().await;
    let (first, _one) = rig.watch().await;
    let (second, _two) = rig.watch().await;
    rig.attendance.end().await;
    assert_eq!(*rig.attendance.0.open.borrow(), 0, "both farewells were sent before it returned");
    let mut left = [rig.heard().await, rig.heard().await];
    left.sort();
    let mut both = [(first, true), (second, true)];
    both.sort();
    assert_eq!(left, both);
}
