//! Drift: its evidence, storms, and fights.

use super::*;
use crate::file::evidence::{Difference, Hand};
use ostler_schemas::v1::report::Writer;

fn writer() -> Writer {
    Writer {
        pid: 8123,
        uid: Some(1001),
        user: Some("deploy".to_owned()),
        name: Some("python3".to_owned()),
        exe: Some("/usr/bin/python3.11".to_owned()),
        unit: Some("session-812.scope".to_owned()),
    }
}

/// Looks once, with what a real host would tell besides.
fn look(host: &mut Host, hand: &Hand, diff: Option<&Difference>) -> Vec<Effect> {
    let mut effects = host.file.on(at(host.now), Event::Look);
    if !effects.contains(&Effect::Observe) {
        return effects;
    }
    let mut sight = host.sight();
    for seen in sight.parts.values_mut() {
        seen.hand = hand.clone();
        seen.diff = diff.cloned();
    }
    effects.extend(host.file.on(at(host.now), Event::Observed(Ok(sight))));
    effects
}

fn told(effects: &[Effect]) -> Vec<(Reason, String)> {
    let tell = |effect: &Effect| match effect {
        Effect::Tell(reason, text) => Some((*reason, text.clone())),
        Effect::Observe | Effect::Run(_) => None,
    };
    effects.iter().filter_map(tell).collect()
}

fn three_lines() -> Option<Difference> {
    Some(Difference { lines: Some((3, 1)), text: Ok("@@ -1 +1,3 @@\n-one\n+x\n+y\n+z\n".to_owned()) })
}

/// Carries out what was asked for, and what follows.
fn finish(host: &mut Host, effects: &[Effect]) -> Vec<(Reason, String)> {
    let run = effects.iter().find_map(|effect| match effect {
        Effect::Run(steps) => Some(steps.clone()),
        Effect::Observe | Effect::Tell(..) => None,
    });
    let ran = host.run(&run.expect("something is done")).expect("lives");
    let effects = host.file.on(at(host.now), ran);
    host.file.on(at(host.now), Event::Observed(Ok(host.sight())));
    told(&effects)
}

#[test]
fn a_repair_says_what_was_put_back_and_whose_hand_it_was() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.want(1, b"one");
    host.fs.put_file(PATH, b"spoiled", 0o644, ROOT);
    let effects = look(&mut host, &Hand::Known(writer()), three_lines().as_ref());
    let told = finish(&mut host, &effects);
    let text = "3 lines put back; written by python3.11 (pid 8123, uid 1001 deploy, session-812.scope)";
    assert_eq!(told, [(Reason::DriftRepaired, text.to_owned())]);
    let drift = host.file.report().last_drift.expect("evidence");
    assert_eq!(
        (drift.what.as_str(), drift.lines, drift.repairs, drift.seen),
        ("content", Some((3, 1)), 1, 1)
    );
    assert_eq!((drift.writer, drift.no_writer), (Some(writer()), None));
    assert!(drift.diff.expect("a diff").contains("+y"));
    assert_eq!(host.file.report().state, FileState::InSync);
}

#[test]
fn what_is_not_known_is_said_to_be_unknown() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.want(1, b"one");
    host.fs.take(PATH);
    let effects = look(&mut host, &Hand::Unknown("needs CAP_SYS_ADMIN".to_owned()), None);
    let told = finish(&mut host, &effects);
    assert_eq!(told[0].1, "the missing file put back; writer unknown (needs CAP_SYS_ADMIN)");
    let drift = host.file.report().last_drift.expect("evidence");
    assert_eq!((drift.what.as_str(), drift.writer), ("missing", None));
    assert_eq!(drift.no_writer.as_deref(), Some("needs CAP_SYS_ADMIN"));
}

#[test]
fn owner_mode_and_kind_are_told_apart() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.want(1, b"one");
    host.fs.put_file(PATH, b"one", 0o600, Owner { uid: 5, gid: 5 });
    let effects = look(&mut host, &Hand::Known(writer()), None);
    let told = finish(&mut host, &effects);
    assert!(told[0].1.starts_with("mode, owner put back; changed by python3.11"), "{told:?}");
    assert!(host.holds(b"one"));
    // A link in its place is left alone, and told with whose it is.
    host.fs.put(PATH, Node::Other("a symbolic link"));
    host.now += 1_000;
    look(&mut host, &Hand::Known(writer()), None);
    let report = host.file.report();
    assert_eq!((report.state, report.reason), (FileState::Failed, Some(Reason::NotRegular)));
    let message = report.message.expect("says why");
    assert!(message.contains("a symbolic link; written by python3.11"), "{message}");
    assert_eq!(report.last_drift.expect("evidence").what, "kind");
}

#[test]
fn of_a_secret_no_line_is_told() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    let secret = WantedFile { is_secret: true, ..wanted(1, spec(b"one"), FileGoal::Hold) };
    host.feed(Event::Want(secret));
    host.fs.put_file(PATH, b"spoiled", 0o644, ROOT);
    let effects = look(&mut host, &Hand::Known(writer()), three_lines().as_ref());
    finish(&mut host, &effects);
    let report = host.file.report();
    let drift = report.last_drift.expect("evidence");
    assert_eq!((drift.diff, report.sha256), (None, None));
    assert_eq!(drift.no_diff.as_deref(), Some("it has a secret in it"));
    assert_eq!(drift.writer, Some(writer()), "who it was is no secret");
}

/// A writer fifty times a second, for ten minutes.
#[test]
fn a_storm_is_put_back_three_times_and_then_once_a_minute_and_told_once() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.want(1, b"one");
    host.told.clear();
    let (mut reads, mut repairs, mut story) = (0, 0, Vec::new());
    for n in (0..600_000_u64).step_by(20) {
        host.now = n;
        host.fs.put_file(PATH, format!("spoiled {n}").as_bytes(), 0o644, ROOT);
        let mut effects = look(&mut host, &Hand::Known(writer()), None);
        if host.file.wake_at().is_some_and(|due| due.0 <= n) {
            let due = host.file.on(at(n), Event::Tick);
            if due.contains(&Effect::Observe) {
                effects.extend(due);
                effects.extend(host.file.on(at(n), Event::Observed(Ok(host.sight()))));
            }
        }
        reads += effects.iter().filter(|effect| **effect == Effect::Observe).count();
        story.extend(told(&effects));
        if effects.iter().any(|effect| matches!(effect, Effect::Run(_))) {
            repairs += 1;
            story.extend(finish(&mut host, &effects));
        }
    }
    assert_eq!(repairs, 3 + 9, "three, and then one a minute");
    assert!(reads < 700, "{reads} reads of 30,000 changes");
    let contested = story.iter().filter(|(reason, _)| *reason == Reason::Contested).count();
    assert_eq!((contested, story.len()), (1, 4), "{story:?}");
    let report = host.file.report();
    assert_eq!(report.state, FileState::Contested);
    let message = report.message.expect("says so");
    assert_eq!(message, "put back 12 times in 10m; other writer python3.11 (deploy), uid 1001");
    assert!(report.last_drift.expect("evidence").seen > 500, "counted, as far as it was seen");
}

#[test]
fn a_warning_is_told_at_once_and_then_once_a_minute_with_what_came_between() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    let mut warn = spec(b"one");
    warn.drift = Drift::Warn;
    host.feed(Event::Want(wanted(1, warn, FileGoal::Hold)));
    let mut story = Vec::new();
    for n in 0..130_u64 {
        host.now = 10_000 + n * 1_000;
        host.fs.put_file(PATH, format!("spoiled {n}").as_bytes(), 0o644, ROOT);
        story.extend(told(&look(&mut host, &Hand::Known(writer()), three_lines().as_ref())));
    }
    let reasons: Vec<Reason> = story.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(reasons, [Reason::DriftFound; 3]);
    assert!(story[0].1.starts_with("3 lines not as it should be; written by python3.11"), "{story:?}");
    assert!(story[1].1.ends_with("(60 changes since it was told last)"), "{story:?}");
    assert_eq!(host.file.report().state, FileState::Drifted);
}

#[test]
fn a_writer_that_never_pauses_is_met_all_the_same() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.want(1, b"one");
    host.fs.put_file(PATH, b"spoiled", 0o644, ROOT);
    assert_eq!(host.file.on(at(1), Event::Look), [Effect::Observe]);
    // It has written again before the file was read to its end.
    assert_eq!(host.file.on(at(2), Event::Look), []);
    let effects = host.file.on(at(3), Event::Observed(Ok(host.sight())));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Run(_))), "{effects:?}");
}

#[test]
fn a_clock_that_is_set_back_does_not_end_repairs() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.want(1, b"one");
    for _ in 0..3 {
        host.spoil();
    }
    assert_eq!(host.file.report().state, FileState::Contested);
    let day = 86_400_000;
    let later = |mono: u64| Now { mono: Mono(mono), wall: Timestamp(1_000_000_000 - day + mono) };
    host.fs.put_file(PATH, b"spoiled", 0o644, ROOT);
    host.file.on(later(2_000), Event::Look);
    host.file.on(later(2_000), Event::Observed(Ok(host.sight())));
    let due = host.file.wake_at().expect("it is put back later");
    assert!(due.0 <= 62_000, "within a minute, not in a day: {due:?}");
}
