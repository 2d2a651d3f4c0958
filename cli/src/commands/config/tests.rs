//! The texts of CONTRACT.md section 7.

use jiff::tz::TimeZone;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Revision, Uid};

use super::*;

const NOW: u64 = 1_794_000_000_000;

fn row(node: &str, state: FileState, changed_ms: u64) -> ConfigFileNode {
    ConfigFileNode {
        node: node.parse().expect("a name"),
        uid: Uid::from_bytes([1; 16]),
        version: Version(8),
        sha256: Some(ostler_schemas::hash::sha256(b"x")),
        state,
        reason: None,
        message: None,
        changed_at: Some(Timestamp(NOW - changed_ms)),
        last_drift: None,
    }
}

#[test]
fn the_sum_names_every_state_that_occurs() {
    let mut rows: Vec<ConfigFileNode> =
        (0..78).map(|n| row(&format!("n{n}"), FileState::InSync, 0)).collect();
    rows.push(row("web-017", FileState::Contested, 0));
    rows.push(row("db-009", FileState::Offline, 0));
    assert_eq!(sum(&rows), "80 nodes: 78 in sync, 1 contested, 1 offline\n");
    assert_eq!(sum(&[]), "0 nodes\n");
}

#[test]
fn rows_say_state_and_why() {
    let mut failed = row("web-031", FileState::Failed, 12_000);
    failed.reason = Some(Reason::WriteFailed);
    let rows = [failed, row("web-001", FileState::InSync, 185_000)];
    let mut table = String::new();
    let moments = Moments { now: Timestamp(NOW), timestamps: false, zone: TimeZone::UTC };
    rows_text(&rows, &moments, true, false, &mut table);
    let expected = "\
NODE     VERSION  HASH      STATE   CHANGED  MESSAGE
web-031  8        2d711642  Failed  12s      WriteFailed
web-001  8        2d711642  InSync  3m       -
";
    assert_eq!(table, expected);
}

#[test]
fn a_push_says_what_it_did() {
    let object = file("app-conf", &Namespace::default_namespace()).expect("a name");
    let changed = |changed, created, before, lines| ConfigReply::Changed {
        version: Version(9),
        before: Version(before),
        changed,
        created,
        nodes: 80,
        waves: vec![1, 4, 20, 80],
        lines,
        revision: Revision(1),
    };
    let line = |reply: ConfigReply| changed_line(&object, &reply).expect("a line");
    assert_eq!(
        line(changed(true, false, 8, Some((2, 1)))),
        "configfile/app-conf version 9 (was 8): 2 lines changed, 80 nodes, 4 waves of 1, 4, 20, 80"
    );
    assert_eq!(
        line(changed(true, true, 0, None)),
        "configfile/app-conf version 9 (created): 80 nodes, 4 waves of 1, 4, 20, 80"
    );
    assert_eq!(line(changed(false, false, 9, None)), "configfile/app-conf unchanged, still version 9");
}

#[test]
fn only_files_are_pushed() {
    let namespace = Namespace::default_namespace();
    assert!(file("deployment/web", &namespace).is_err());
    assert_eq!(file("cf/app", &namespace).expect("a file").name.as_str(), "app");
}
