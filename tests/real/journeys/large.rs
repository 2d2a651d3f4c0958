//! Manifests that are larger than a message of the bus.

use harness::fleet::{Fleet, Size};

/// Deployments of nothing, with long notes.
fn many(count: usize, note: &str) -> String {
    let padding = note.repeat(20_000 / note.len());
    let one = |i: usize| {
        format!(
            "apiVersion: ostler/v1\nkind: Deployment\nmetadata: {{name: big{i}, annotations: {{note: {padding}}}}}\n\
             spec: {{replicas: 0, template: {{spec: {{command: [/bin/sleep, infinity]}}}}}}\n"
        )
    };
    (0..count).map(one).collect::<Vec<_>>().join("---\n")
}

#[test]
fn what_is_larger_than_a_message_is_compared_and_applied_all_the_same() {
    let fleet = Fleet::start(Size { agents: 1, ..Size::default() });
    let manifest = many(80, "abcd");
    assert!(manifest.len() > 1 << 20);
    let diff = fleet.run_with(&["diff", "-f", "-"], &manifest);
    assert_eq!(diff.code, 1, "there are changes: {}", diff.err);
    assert_eq!(diff.out.matches("+kind: Deployment").count(), 80);
    let said = fleet.run_with(&["apply", "-f", "-", "--dry-run"], &manifest).ok();
    assert_eq!(said.matches(" created (server dry run)").count(), 80, "{said}");
    assert!(fleet.get(&["deployments"]).is_empty(), "a dry run stores nothing");
    let said = fleet.run_with(&["apply", "-f", "-"], &manifest).ok();
    assert_eq!(said.matches(" created\n").count(), 80, "{said}");
    let said = fleet.run_with(&["apply", "-f", "-"], &manifest).ok();
    assert_eq!(said.matches(" unchanged\n").count(), 80, "{said}");
    assert_eq!(fleet.run_with(&["diff", "-f", "-"], &manifest).code, 0);
    let said = fleet.run_with(&["apply", "-f", "-"], &many(80, "wxyz")).ok();
    assert_eq!(said.matches(" configured\n").count(), 80, "{said}");
}
