//! Output that a namespace ships: what is stored on the bus, over restarts of the agent and changes of mind.

use futures::StreamExt as _;
use ostler_schemas::Namespace;
use ostler_schemas::spec::Restart;
use ostler_schemas::subject::LOGS_STREAM;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::stretch::{Follows, Seen};

use crate::plane::{Plane, entry, template};

/// What readers make of what is stored of `web-1` by now.
async fn stored(plane: &Plane) -> String {
    let mut records = plane.records(LOGS_STREAM, "ostler.v1.log.n1.default.web-1");
    let (mut seen, mut text) = (Seen::default(), String::new());
    while let Some(record) = records.next().await {
        let record = record.expect("readable");
        let stretch = record.headers.get("Ostler-Stretch").expect("a stretch").parse().expect("a stretch");
        match seen.take(&stretch) {
            Follows::Next => text.push_str(std::str::from_utf8(&record.body).expect("text")),
            Follows::Again => {}
            Follows::After(bytes) => panic!("{bytes} bytes are missing"),
        }
    }
    text
}

async fn until_stored(plane: &Plane, wanted: &str) {
    for _ in 0..300 {
        if stored(plane).await == wanted {
            return;
        }
        plane.pass(1_000).await;
    }
    panic!("{:?} is stored, not {wanted:?}", stored(plane).await);
}

fn say(plane: &Plane, text: &str) {
    plane.host.log(&Namespace::default_namespace(), &"web-1".parse().expect("a name"), text);
}

#[tokio::test(start_paused = true)]
async fn output_is_stored_while_its_namespace_ships_it_over_restarts_of_the_agent() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    let hash = plane.put_template(&template("/bin/app", Restart::Always)).await;
    let run = |goal| vec![entry(1, 0, goal)];
    say(&plane, "one\n");
    plane.put_run(run(Goal::Run), &[hash], None).await;
    plane.until_report("it runs", |r| r.processes.len() == 1).await;
    plane.pass(5_000).await;
    assert_eq!(stored(&plane).await, "", "nobody asked for it");

    plane.ships.insert(Namespace::default_namespace());
    plane.put_run(run(Goal::Run), &[hash], None).await;
    until_stored(&plane, "one\n").await;
    plane.kill_agent().await;
    say(&plane, "two\n");
    plane.start_agent().await;
    until_stored(&plane, "one\ntwo\n").await;

    plane.ships.clear();
    plane.put_run(run(Goal::Run), &[hash], None).await;
    plane.pass(5_000).await;
    say(&plane, "three\n");
    plane.pass(5_000).await;
    assert_eq!(stored(&plane).await, "one\ntwo\n", "nobody asks for it any more");

    plane.ships.insert(Namespace::default_namespace());
    plane.put_run(run(Goal::Run), &[hash], None).await;
    until_stored(&plane, "one\ntwo\nthree\n").await;
    // Its last words, although its entry has gone from the document.
    plane.put_run(run(Goal::Gone), &[hash], None).await;
    say(&plane, "four\n");
    plane.ships.clear();
    plane.put_run(Vec::new(), &[hash], None).await;
    until_stored(&plane, "one\ntwo\nthree\nfour\n").await;
}
