//! Several controllers: whoever leads is killed, and what is asked right after comes to be.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use harness::fleet::{Fleet, Size, alive, kill, term, until};

use crate::work::{deployment, settle};

/// How many controllers there are to lead (DESIGN.md 3.5): all kinds of decisions this version makes.
const LED: usize = 7;

/// A page of a controller's HTTP server; none while it does not answer.
fn page(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.1 200").then_some(text)
}

/// The metrics of all controllers that answer, by the controller's name.
pub(crate) fn metrics(fleet: &Fleet) -> BTreeMap<String, String> {
    let state = fleet.state();
    let all = state["http"].as_array().cloned().unwrap_or_default();
    all.iter()
        .filter_map(|entry| {
            let text = page(entry["http"].as_str()?, "/metrics")?;
            Some((entry["name"].as_str()?.to_owned(), text))
        })
        .collect()
}

/// What each replica leads.
fn leaders(fleet: &Fleet) -> BTreeMap<String, Vec<String>> {
    let lead = |line: &str| {
        let name = line.strip_prefix("ostler_leads{controller=\"")?.strip_suffix("\"} 1")?;
        Some(name.to_owned())
    };
    let all = metrics(fleet).into_iter();
    all.map(|(replica, text)| (replica, text.lines().filter_map(lead).collect())).collect()
}

/// Waits until everything is led by somebody, and says which replica leads most.
fn leader(fleet: &Fleet) -> String {
    until("every controller has a leader", || {
        let now = leaders(fleet);
        let led: usize = now.values().map(Vec::len).sum();
        let most = now.into_iter().max_by_key(|(_, leads)| leads.len())?;
        (led == LED).then_some(most.0)
    })
}

fn pid_of(fleet: &Fleet, replica: &str) -> Option<u32> {
    let state = fleet.state();
    let all = state["controllers"].as_array()?;
    let pid = all.iter().find(|entry| entry["name"] == replica)?["pid"].as_u64()?;
    u32::try_from(pid).ok()
}

/// Ends the leader so, applies right after, and waits for all replicas to be back.
fn succession(fleet: &Fleet, name: &str, end: fn(u32)) {
    let replica = leader(fleet);
    let pid = pid_of(fleet, &replica).expect("a leader has a pid");
    end(pid);
    // No pause: the command's own patience must be enough.
    fleet.converges(&deployment(name, 2));
    until(&format!("{replica} runs again"), || {
        pid_of(fleet, &replica).filter(|now| *now != pid && alive(*now))
    });
}

fn leaders_are_killed_and_asked_to_go(controllers: u16) {
    let fleet = Fleet::start(Size { controllers, ..Size::default() });
    let untouched = settle(&fleet);
    succession(&fleet, "after-a-kill", kill);
    succession(&fleet, "after-a-farewell", term);
    succession(&fleet, "after-another-kill", kill);
    untouched.holds(&fleet);
    // A replica that has just come back says `Unknown` until it has heard the nodes itself.
    until("every node is ready", || fleet.phases().values().all(|phase| phase == "Ready").then_some(()));
}

#[test]
fn of_two_controllers_the_leader_is_killed() {
    leaders_are_killed_and_asked_to_go(2);
}

#[test]
fn of_three_controllers_the_leader_is_killed() {
    leaders_are_killed_and_asked_to_go(3);
}
