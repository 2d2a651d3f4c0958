//! What a person on the host holds is left alone, and goes on from there when it is released.

use super::*;
use crate::holds::Held;

fn held(stop: bool) -> Event {
    Event::Hold(Some(Held { stop, message: "held by anna".to_owned() }))
}

fn other(goal: Goal) -> Event {
    Event::Want(wanted(2, goal, template("/bin/b", Restart::Always)))
}

#[test]
fn a_held_process_is_neither_replaced_nor_stopped_nor_started_again() {
    let mut unit = running(Restart::Always);
    assert_eq!(unit.on(at(1), 0, held(false)), vec![]);
    assert_eq!(unit.report().reason, Some(Reason::Held));
    assert_eq!(stops(&unit.on(at(2), 0, other(Goal::Run))), 0, "no other template");
    assert_eq!(stops(&unit.on(at(3), 0, Event::Ask(Ask::Restart))), 0, "no other hand");
    let effects = dies(&mut unit, at(4), 0, exit(1, HowEnded::Code(1), at(4)));
    assert!(effects.iter().any(|e| matches!(e, Effect::Acknowledge { .. })), "its end is recorded");
    assert_eq!(starts(&unit.on(at(100_000), 0, Event::Tick)), 0, "what ended stays so");
    let report = unit.report();
    assert_eq!((report.phase, report.reason), (ProcessPhase::Pending, Some(Reason::Held)));
    assert_eq!(starts(&unit.on(at(100_001), 0, Event::Hold(None))), 1, "and goes on when it is released");
}

#[test]
fn a_hold_wins_over_a_stop_while_it_lives_and_not_over_gone() {
    let mut unit = running(Restart::Always);
    unit.on(at(1), 0, held(false));
    assert_eq!(stops(&unit.on(at(2), 0, other(Goal::Stop))), 0);
    assert!(!unit.blocks_starts(), "nobody waits for it");
    let mut gone = unit.clone();
    assert_eq!(stops(&unit.on(at(3), 0, Event::Hold(None))), 1);
    assert_eq!(stops(&gone.on(at(3), 0, other(Goal::Gone))), 1);
}

#[test]
fn a_stop_on_the_host_ends_it_and_a_start_starts_it() {
    let mut unit = running(Restart::Always);
    assert_eq!(stops(&unit.on(at(1), 0, held(true))), 1);
    dies(&mut unit, at(2), 0, exit(1, HowEnded::Signal(15), at(2)));
    assert_eq!(starts(&unit.on(at(60_000), 0, Event::Tick)), 0);
    assert_eq!(unit.report().reason, Some(Reason::Held));
    assert_eq!(starts(&unit.on(at(60_001), 0, Event::Hold(None))), 1);
}

#[test]
fn what_was_stopped_on_the_host_ends_when_the_document_says_so_too() {
    let mut unit = running(Restart::Always);
    unit.on(at(1), 0, held(true));
    dies(&mut unit, at(2), 0, exit(1, HowEnded::Signal(15), at(2)));
    unit.on(at(3), 0, other(Goal::Stop));
    assert_eq!(unit.report().phase, ProcessPhase::Stopped);
}
