//! Three servers of the bus: the one that leads the streams is killed.

use harness::fleet::{Fleet, Size, kill, until};

use crate::work::{deployment, settle};

#[test]
fn each_server_in_turn_is_killed() {
    let fleet = Fleet::start(Size { servers: 3, ..Size::default() });
    let untouched = settle(&fleet);
    // Whoever leads a stream now is among them, and so is whoever leads it after the first kill.
    let count = fleet.state()["servers"].as_array().expect("servers").len();
    assert_eq!(count, 3);
    for index in 0..count {
        let pid = fleet.state()["servers"][index]["pid"].as_u64().expect("a pid");
        kill(u32::try_from(pid).expect("a pid"));
        untouched.holds_on_the_hosts();
        // Streams that this server led elect another leader first, which takes servers up to ten seconds: longer than
        // a command goes on asking by itself.
        let apply = ["--request-timeout", "40s", "apply", "-f", "-", "--wait", "--timeout", "60s"];
        fleet.run_with(&apply, &deployment(&format!("without-{index}"), 2)).ok();
        until("the server is back", || {
            fleet.state()["servers"][index]["pid"].as_u64().filter(|now| *now != pid)
        });
        fleet.nodes_become(&["Ready"]);
        untouched.holds(&fleet);
    }
}
