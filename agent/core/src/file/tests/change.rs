//! What follows a change is planned before it, once for each, whatever dies when.

use ostler_schemas::quantity::Dur;
use ostler_schemas::spec::{Action, Exec};

use super::*;

fn acting(content: &[u8]) -> FileSpec {
    let exec = Exec { command: vec!["/x".to_owned()], user: None, timeout: Dur::from_secs(1) };
    FileSpec { on_change: vec![Action { exec: Some(exec), ..Action::default() }], ..spec(content) }
}

fn hold(version: u64, spec: FileSpec) -> Event {
    Event::Want(wanted(version, spec, FileGoal::Hold))
}

fn planned(host: &Host) -> Option<(u64, Version, bool)> {
    host.file.change().map(|plan| (plan.n, plan.version, plan.is_placed))
}

#[test]
fn each_change_has_a_plan_and_drift_has_none() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    assert!(host.feed(hold(1, acting(b"one"))));
    assert_eq!(planned(&host), Some((1, Version(1), true)));
    host.spoil();
    assert!(host.feed(Event::Look));
    assert!(host.told.contains(&Reason::DriftRepaired));
    assert_eq!(planned(&host), Some((1, Version(1), true)), "nothing follows what is only put back");
    assert!(host.feed(hold(2, acting(b"two"))));
    assert_eq!(planned(&host), Some((2, Version(2), true)));
    assert!(host.feed(hold(1, acting(b"one"))));
    assert_eq!(planned(&host), Some((3, Version(1), true)), "back is a change as any");
    assert!(host.feed(hold(4, acting(b"one"))));
    assert_eq!(
        planned(&host),
        Some((3, Version(4), true)),
        "the same bytes under another number change nothing"
    );
    assert!(host.feed(hold(5, spec(b"two"))));
    assert_eq!(planned(&host), None, "nothing is asked for any more");
}

/// The agent dies after each number of steps of a change; the next one plans nothing twice and forgets nothing.
#[test]
fn no_death_loses_or_doubles_what_follows() {
    for steps in 0..12 {
        let mut host = Host::new(ModelFs::new(&["/etc/app"]));
        assert!(host.feed(hold(1, acting(b"one"))));
        host.steps_left = steps;
        let lived = host.feed(hold(2, acting(b"two")));
        host.restart(Crash::Agent);
        assert!(host.feed(hold(2, acting(b"two"))), "after {steps} steps");
        assert_eq!(planned(&host), Some((2, Version(2), true)), "after {steps} steps, lived: {lived}");
        // And where the version was taken back meanwhile, what is on disk is what something follows from.
        let mut host = Host::new(ModelFs::new(&["/etc/app"]));
        assert!(host.feed(hold(1, acting(b"one"))));
        host.steps_left = steps;
        host.feed(hold(2, acting(b"two")));
        let touched = host.fs.file(PATH).is_some_and(|file| file.bytes == b"two");
        host.restart(Crash::Agent);
        host.told.clear();
        assert!(host.feed(hold(1, acting(b"one"))), "after {steps} steps");
        assert!(!host.told.contains(&Reason::DriftFound) && !host.told.contains(&Reason::DriftRepaired));
        let plan = planned(&host);
        let is_there = |(n, version, placed): (u64, Version, bool), least: u64| {
            n >= least && version == Version(1) && placed
        };
        if touched {
            assert!(plan.is_some_and(|plan| is_there(plan, 2)), "{plan:?}");
        } else {
            assert!(plan.is_none_or(|plan| is_there(plan, 1)), "{plan:?}");
        }
    }
}
