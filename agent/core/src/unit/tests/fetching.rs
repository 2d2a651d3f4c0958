//! Starts and replacements that wait for artifacts.

use ostler_schemas::Sha256;
use ostler_schemas::quantity::Mode;
use ostler_schemas::spec::{Artifact, Unpack};

use super::*;
use crate::artifacts::{Preparing, set_id};

pub(super) fn artifacts(n: u8) -> Vec<Artifact> {
    vec![Artifact {
        source: format!("https://repo.example.net/{n}/app"),
        sha256: Sha256::from_bytes([n; 32]),
        path: "bin/app".to_owned(),
        mode: Mode::from_bits(0o755),
        unpack: Unpack::None,
    }]
}

fn fetched(n: u8) -> ProcessTemplate {
    ProcessTemplate { artifacts: artifacts(n), ..template("$(OSTLER_ARTIFACTS)/bin/app", Restart::Always) }
}

fn tell(unit: &mut Unit, ms: u64, n: u8, state: Preparing) -> Vec<Effect> {
    unit.on(at(ms), 0, Event::Artifacts { set: set_id(&artifacts(n)), state })
}

fn ready() -> Preparing {
    Preparing::Ready("/sets/x".to_owned())
}

fn failed() -> Preparing {
    Preparing::Failed("https://repo.example.net/1/app: status 404".to_owned())
}

fn asks(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Prepare(_))).count()
}

fn told(effects: &[Effect]) -> bool {
    effects.iter().any(|e| matches!(e, Effect::Tell(Reason::ArtifactFailed, _)))
}

/// A unit whose start waits for artifacts.
fn waiting() -> Unit {
    let mut unit = unit();
    unit.on(at(0), 0, Event::Gate(true));
    unit.on(at(0), 0, Event::Needs(None));
    unit.on(at(0), 0, Event::Want(wanted(1, Goal::Run, fetched(1))));
    let effects = unit.on(at(0), 0, listed(vec![], vec![]));
    assert_eq!((asks(&effects), starts(&effects)), (1, 0), "{effects:?}");
    unit
}

#[test]
fn a_start_waits_until_they_are_there() {
    let mut unit = waiting();
    tell(&mut unit, 1, 1, Preparing::Underway("fetching app: 1 of 2 MiB".to_owned()));
    let report = unit.report();
    assert_eq!(
        (report.phase, report.message.as_deref()),
        (ProcessPhase::Pending, Some("fetching app: 1 of 2 MiB"))
    );
    assert_eq!(tell(&mut unit, 2, 9, ready()), [], "another set is nobody's business");
    assert_eq!(starts(&tell(&mut unit, 3, 1, ready())), 1);
}

#[test]
fn what_cannot_be_fetched_is_a_failed_start() {
    let mut unit = waiting();
    let effects = tell(&mut unit, 1, 1, failed());
    assert!(told(&effects) && starts(&effects) == 0, "{effects:?}");
    let report = unit.report();
    assert_eq!((report.phase, report.reason), (ProcessPhase::Pending, Some(Reason::ArtifactFailed)));
    let again = unit.wake_at().expect("it is tried again");
    assert_eq!(asks(&unit.on(at(again.0), 0, Event::Tick)), 1);
    assert_eq!(starts(&tell(&mut unit, again.0, 1, ready())), 1);
}

#[test]
fn what_runs_goes_on_until_its_replacement_is_there() {
    let mut unit = running(Restart::Always);
    let effects = unit.on(at(1), 0, Event::Want(wanted(2, Goal::Run, fetched(1))));
    assert_eq!((asks(&effects), stops(&effects)), (1, 0), "{effects:?}");
    let effects = tell(&mut unit, 2, 1, failed());
    assert!(told(&effects) && stops(&effects) == 0, "{effects:?}");
    assert!(unit.is_ready());
    assert_eq!(unit.on(at(3), 0, Event::Tick), [], "told once");
    let again = unit.wake_at().expect("it is asked for again");
    assert_eq!(asks(&unit.on(at(again.0), 0, Event::Tick)), 1);
    assert_eq!(stops(&tell(&mut unit, again.0, 1, ready())), 1);
    // It is there, so the new start does not ask for it.
    let effects = dies(&mut unit, at(again.0 + 1), 0, exit(1, HowEnded::Signal(15), at(again.0 + 1)));
    assert_eq!((asks(&effects), starts(&effects)), (0, 1), "{effects:?}");
}

#[test]
fn each_later_start_looks_again() {
    let mut unit = waiting();
    tell(&mut unit, 1, 1, ready());
    unit.on(at(2), 0, Event::Spawned(host_process(1, at(2))));
    dies(&mut unit, at(3), 0, exit(1, HowEnded::Code(1), at(3)));
    let again = unit.wake_at().expect("it is started again");
    assert_eq!(asks(&unit.on(at(again.0), 0, Event::Tick)), 1, "it may have been removed meanwhile");
}

/// Found by seed 12 of `tests/sim/life.rs`: the version before was stopped for a probe of the one to come.
#[test]
fn what_runs_is_asked_what_its_own_template_says_until_its_replacement_is_there() {
    let before = running(Restart::Always);
    let probed = ProcessTemplate {
        liveness_probe: Some(model::probe()),
        readiness_probe: Some(model::probe()),
        exec_reload: Some(model::hook("/bin/reload")),
        ..fetched(1)
    };
    let want = || Event::Want(wanted(2, Goal::Run, probed.clone()));
    let mut unit = before.clone();
    unit.on(at(1), 0, want());
    assert_eq!((unit.probing(), unit.is_ready(), unit.lacks()), (vec![], true, None));
    let reload = unit.on(at(2), 0, Event::Ask(Ask::Reload));
    assert!(matches!(reload.as_slice(), [Effect::Signal { .. }, Effect::Tell(..)]), "{reload:?}");

    let mut after = Unit::new(before.record().clone());
    after.on(at(1), 0, want());
    after.on(at(1), 0, listed(vec![host_process(1, at(0))], vec![]));
    assert_eq!(
        (after.probing(), after.is_ready()),
        (vec![], true),
        "also by an agent that has not started it"
    );
    let hash = after.lacks().expect("it needs the template of what runs");
    let own = ProcessTemplate { liveness_probe: Some(model::probe()), ..template("/bin/a", Restart::Always) };
    after.on(at(2), 0, Event::Kept(hash, Arc::new(own)));
    assert_eq!(after.probing().len(), 1);
    assert_eq!(after.started_as().map(|start| start.version), Some(Version(1)));
}
