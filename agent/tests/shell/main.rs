//! Whole agents under a scripted control plane over the memory bus: on simulated hosts in virtual time, and (`real`)
//! on this host with the real holder.

mod commands;
mod disks;
mod drift;
mod life;
mod local;
mod plane;
mod real;
mod shipping;
mod survival;
mod validators;

use std::sync::Arc;

use ostler_agent::sim::{Program, SimEvent};
use ostler_schemas::key::DocumentKind;
use ostler_schemas::spec::{Drift, Restart};
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{ExitReason, FileReport, FileState, ProcessPhase, Report};
use plane::{Plane, checked, entry, epoch, file_entry, file_spec, template, uid};

#[tokio::test(start_paused = true)]
async fn an_agent_registers_runs_what_it_is_told_and_reports_it() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    plane.until("registered", |p| p.registered() > 0).await;
    let hash = plane.put_template(&template("/bin/app", Restart::Always)).await;
    plane.put_run(vec![entry(1, 0, Goal::Run), entry(2, 0, Goal::Run)], &[hash], None).await;
    plane
        .until_report("two processes run", |r| {
            r.processes.len() == 2 && r.processes.iter().all(|p| p.phase == ProcessPhase::Running && p.ready)
        })
        .await;
    let report = plane.report().await.expect("a report");
    assert_eq!(report.run.epoch, epoch(1));
    assert_eq!(plane.host.living().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_and_an_absent_entry_does_not() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    let hash = plane.put_template(&template("/bin/app", Restart::Always)).await;
    plane.put_run((1..=3).map(|n| entry(n, 0, Goal::Run)).collect(), &[hash], None).await;
    plane.until_report("three run", |r| r.processes.iter().filter(|p| p.ready).count() == 3).await;
    plane.put_run(vec![entry(1, 0, Goal::Stop), entry(2, 0, Goal::Run)], &[hash], None).await;
    plane
        .until_report("one stopped, one orphan", |r| {
            let phase = |n: u8| r.process(&uid(n)).map(|p| p.phase);
            phase(1) == Some(ProcessPhase::Stopped)
                && phase(2) == Some(ProcessPhase::Running)
                && phase(3) == Some(ProcessPhase::Orphan)
        })
        .await;
    assert_eq!(plane.report().await.expect("a report").orphans.len(), 1);
    plane.put_run(vec![entry(2, 0, Goal::Run)], &[hash], None).await;
    plane.until_report("the stopped one is retired", |r| r.process(&uid(1)).is_none()).await;
    assert_eq!(plane.host.unacknowledged(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_dies_changes_nothing_and_its_successor_adopts() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    let hash = plane.put_template(&template("/bin/app", Restart::Always)).await;
    plane.put_run((1..=4).map(|n| entry(n, 0, Goal::Run)).collect(), &[hash], None).await;
    plane.until_report("four run", |r| r.processes.iter().filter(|p| p.ready).count() == 4).await;
    let before = plane.host.living();
    plane.kill_agent().await;
    plane.pass(3_000).await;
    plane.host.end(before[0].0, ostler_agent_core::unit::HowEnded::Code(7));
    plane.start_agent().await;
    plane
        .until_report("the exit is accounted for and made good", |r| {
            r.exits.len() == 1 && r.processes.iter().filter(|p| p.ready).count() == 4
        })
        .await;
    let report = plane.report().await.expect("a report");
    assert_eq!((report.exits[0].code, report.exits[0].reason), (Some(7), ExitReason::Exited));
    let starts = plane.host.history().iter().filter(|h| matches!(h.event, SimEvent::Started(_))).count();
    assert_eq!(starts, 5, "four, and one restart");
    plane.until("acknowledged", |p| p.host.unacknowledged() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_boots_without_the_bus_starts_from_its_ledger() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    let hash = plane.put_template(&template("/bin/app", Restart::Always)).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    plane.until_report("it runs", |r| r.processes.iter().any(|p| p.ready)).await;
    plane.bus.faults().bus_down();
    plane.kill_agent().await;
    plane.host.power_off();
    plane.host.power_on();
    plane.start_agent().await;
    plane.until("it runs again", |p| p.host.living().len() == 1).await;
    plane.bus.faults().bus_up();
    plane
        .until_report("the reboot is told", |r| {
            r.exits.iter().any(|e| e.why.as_deref() == Some("the host was restarted"))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_stopped_meanwhile_ends_before_anything_starts() {
    let mut plane = Plane::new().await;
    plane.host.program("/bin/slow", Program { stops_in_ms: Some(4_000), ..Program::default() });
    plane.start_agent().await;
    let slow = plane.put_template(&template("/bin/slow", Restart::Always)).await;
    let quick = plane.put_template(&template("/bin/quick", Restart::Always)).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[slow, quick], None).await;
    plane.until_report("it runs", |r| r.processes.iter().any(|p| p.ready)).await;
    plane.kill_agent().await;
    plane.put_run(vec![entry(1, 0, Goal::Gone), entry(2, 1, Goal::Run)], &[slow, quick], None).await;
    plane.start_agent().await;
    plane.until("the other runs", |p| p.host.living().iter().any(|l| l.0.uid == uid(2))).await;
    let history = plane.host.history();
    let ended = history.iter().position(|h| h.key.uid == uid(1) && matches!(h.event, SimEvent::Ended(_)));
    let started = history.iter().position(|h| h.key.uid == uid(2));
    assert!(ended.is_some() && ended < started, "{history:?}");
}

#[tokio::test(start_paused = true)]
async fn documents_of_lower_epochs_and_silent_massacres_are_refused() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    let hash = plane.put_template(&template("/bin/app", Restart::Always)).await;
    plane.term = 5;
    plane.put_run((1..=10).map(|n| entry(n, 0, Goal::Run)).collect(), &[hash], None).await;
    plane.until_report("ten run", |r| r.processes.iter().filter(|p| p.ready).count() == 10).await;
    plane.put_run((1..=10).map(|n| entry(n, 0, Goal::Stop)).collect(), &[hash], None).await;
    plane
        .until_report("the massacre is refused", |r| {
            r.conditions.iter().any(|c| c.kind == Reason::BulkStopRefused.as_str())
        })
        .await;
    assert_eq!(plane.host.living().len(), 10);
    plane.term = 4;
    plane.put_run((1..=10).map(|n| entry(n, 0, Goal::Stop)).collect(), &[hash], Some("delete")).await;
    plane
        .until_report("the old leader is refused", |r| {
            r.conditions.iter().any(|c| c.kind == Reason::EpochRefused.as_str())
        })
        .await;
    assert_eq!(plane.host.living().len(), 10);
    plane.term = 5;
    plane.put_run((1..=10).map(|n| entry(n, 0, Goal::Stop)).collect(), &[hash], Some("delete")).await;
    plane.until("all stopped", |p| p.host.living().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_is_kept_right_through_crashes_and_gates_what_needs_it() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    let mut needy = template("/bin/app", Restart::Always);
    needy.needs = vec!["configfile/app-conf@>=1".parse().expect("a need")];
    let hash = plane.put_template(&needy).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    plane
        .until_report("it waits", |r| r.processes.iter().any(|p| p.reason == Some(Reason::NeedsNotMet)))
        .await;
    let one = plane.put_file_spec(&file_spec(b"one", Drift::Enforce), b"one").await;
    plane.put_files(vec![file_entry(9, 1, one)]).await;
    plane
        .until_report("file and process are well", |r| {
            r.file_states.iter().any(|f| f.state == FileState::InSync) && r.processes.iter().any(|p| p.ready)
        })
        .await;
    assert_eq!(plane.files.read("/etc/app.conf").as_deref(), Some(b"one".as_slice()));
    plane.files.with(|fs| {
        fs.put_file("/etc/app.conf", b"spoiled", 0o644, ostler_agent_core::file::Owner::default());
    });
    plane
        .until("drift is put back", |p| p.files.read("/etc/app.conf").as_deref() == Some(b"one".as_slice()))
        .await;
    let two = plane.put_file_spec(&file_spec(b"two", Drift::Enforce), b"two").await;
    for steps in 0..12 {
        plane.files.hang_after(Some(steps));
        plane.put_files(vec![file_entry(9, 2 + steps, if steps % 2 == 0 { two } else { one })]).await;
        plane.pass(2_000).await;
        let content = plane.files.read("/etc/app.conf").expect("never missing");
        assert!(content == b"one" || content == b"two", "torn: {content:?}");
        plane.kill_agent().await;
        plane.files.hang_after(None);
        plane.start_agent().await;
        plane
            .until_report("finished later", |r| {
                r.file_states.iter().any(|f| f.state == FileState::InSync && f.v.0 == 2 + steps)
            })
            .await;
    }
    let starts = plane.host.history().iter().filter(|h| matches!(h.event, SimEvent::Started(_))).count();
    assert_eq!(starts, 1, "no crash of the agent touched the process");
}

/// Of what `/bin/check` refuses nothing is ever in place, whatever dies in between; and it is not asked in a loop.
#[tokio::test(start_paused = true)]
async fn a_refused_version_is_never_put_in_place() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    let one = plane.put_file_spec(&checked(b"one", "/bin/true"), b"one").await;
    let bad = plane.put_file_spec(&checked(b"bad", "/bin/false"), b"bad").await;
    plane.host.program("/bin/false", Program { exits: Some((50, 1)), ..Program::default() });
    plane.put_files(vec![file_entry(9, 1, one)]).await;
    let stands = |r: &Report, state, v| r.file_states.iter().any(|f| f.state == state && f.v.0 == v);
    plane.until_report("the first is there", |r| stands(r, FileState::InSync, 1)).await;
    for steps in 0..14 {
        plane.files.hang_after(Some(steps));
        plane.put_files(vec![file_entry(9, 2 + steps, bad)]).await;
        plane.pass(2_000).await;
        plane.kill_agent().await;
        plane.files.hang_after(None);
        plane.start_agent().await;
        plane
            .until_report("it is refused", |r| {
                let refused =
                    |f: &FileReport| f.wanted.0 == 2 + steps && f.reason == Some(Reason::ValidatorFailed);
                stands(r, FileState::Failed, 1) && r.file_states.iter().any(refused)
            })
            .await;
        assert_eq!(plane.files.read("/etc/app.conf").as_deref(), Some(b"one".as_slice()));
        plane.until("nothing of it is left", |p| p.files.read("/etc/.app.conf.ostler").is_none()).await;
    }
    plane.pass(2_000).await;
    let asked = plane.host.ran().len();
    plane.kill_agent().await;
    plane.start_agent().await;
    plane.pass(30_000).await;
    assert_eq!(plane.host.ran().len(), asked, "a new agent knows what was said");
    plane.pass(60_000).await;
    assert_eq!(plane.host.ran().len(), asked + 1, "and asks again later");
}

#[tokio::test(start_paused = true)]
async fn a_validator_waits_for_the_holder_and_has_a_timeout() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    plane.host.holder_down();
    plane.until_report("the loss is told", |r| r.conditions.iter().any(|c| c.kind == "HolderLost")).await;
    let one = plane.put_file_spec(&checked(b"one", "/bin/true"), b"one").await;
    plane.put_files(vec![file_entry(9, 1, one)]).await;
    plane.until_report("it waits", |r| r.file_states.iter().any(|f| f.state == FileState::Applying)).await;
    plane.host.holder_up();
    plane.until_report("it is there", |r| r.file_states.iter().any(|f| f.state == FileState::InSync)).await;
    plane.host.program("/bin/hangs", Program { exits: None, ..Program::default() });
    let two = plane.put_file_spec(&checked(b"two", "/bin/hangs"), b"two").await;
    plane.put_files(vec![file_entry(9, 2, two)]).await;
    plane
        .until_report("its time is over", |r| {
            let message = r.file_states.first().and_then(|f| f.message.as_deref()).unwrap_or_default();
            message.contains("did not end within 10s")
        })
        .await;
    assert_eq!(plane.files.read("/etc/app.conf").as_deref(), Some(b"one".as_slice()));
}

#[tokio::test(start_paused = true)]
async fn the_holder_may_go_and_come_back() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    let hash = plane.put_template(&template("/bin/app", Restart::Always)).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    plane.until_report("it runs", |r| r.processes.iter().any(|p| p.ready)).await;
    plane.host.holder_down();
    plane.until_report("the loss is told", |r| r.conditions.iter().any(|c| c.kind == "HolderLost")).await;
    plane.host.holder_up();
    plane.until_report("and its end", |r| r.conditions.is_empty() && r.processes[0].ready).await;
    assert_eq!(plane.host.history().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_readiness_probe_is_followed_both_ways() {
    let mut plane = Plane::new().await;
    plane.host.program("/bin/app", Program { ready_after_ms: 2_500, ..Program::default() });
    plane.start_agent().await;
    let hash = plane.put_template(&plane::probed(8080)).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    plane
        .until_report("running, not ready", |r| {
            r.processes.iter().any(|p| p.phase == ProcessPhase::Running && !p.ready)
        })
        .await;
    plane.until_report("ready", |r| r.processes.iter().any(|p| p.ready)).await;
    plane.host.set_port_ready(8080, false);
    plane
        .until_report("not ready again", |r| {
            r.processes.iter().any(|p| !p.ready && p.reason == Some(Reason::ProbeFailed))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_cannot_be_written_starts_nothing_and_loses_no_exit() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    let hash = plane.put_template(&template("/bin/app", Restart::Always)).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    plane.until_report("it runs", |r| r.processes.iter().any(|p| p.ready)).await;
    plane.ledger.set_failing(Some("No space left on device"));
    let key = plane.host.living()[0].0;
    plane.host.end(key, ostler_agent_core::unit::HowEnded::Code(1));
    plane.pass(10_000).await;
    assert_eq!((plane.host.living().len(), plane.host.unacknowledged()), (0, 1));
    plane.ledger.set_failing(None);
    plane
        .until("it runs again and the exit is safe", |p| {
            p.host.living().len() == 1 && p.host.unacknowledged() == 0
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_second_instance_of_a_name_changes_nothing() {
    let mut plane = Plane::new().await;
    plane.refuse(Some("machine m2 is alive as n1"));
    plane.start_agent().await;
    let hash = plane.put_template(&template("/bin/app", Restart::Always)).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    plane.pass(30_000).await;
    assert!(plane.host.living().is_empty(), "started under a name that is another's");
    plane.refuse(None);
    plane.until("the name is its own", |p| p.host.living().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn garbage_is_no_document() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    let hash = plane.put_template(&template("/bin/app", Restart::Always)).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    plane.until_report("it runs", |r| r.processes.iter().any(|p| p.ready)).await;
    for garbage in [b"".as_slice(), b"\xc1\xff\x00", &[0x93; 5000]] {
        plane.put_garbage(DocumentKind::Run, garbage).await;
        plane.put_garbage(DocumentKind::Files, garbage).await;
        plane.pass(2_000).await;
    }
    assert_eq!(plane.host.living().len(), 1);
    let mut nonsense = entry(1, 0, Goal::Run);
    nonsense.t = 77;
    plane.put_run(vec![nonsense, entry(2, 0, Goal::Run)], &[hash], None).await;
    plane.until("the sound entry is followed", |p| p.host.living().len() == 2).await;
}

/// The same seed twice gives the same history: nothing in an agent depends on chance.
#[tokio::test(start_paused = true)]
async fn an_agent_is_deterministic() {
    let mut histories = Vec::new();
    for _ in 0..2 {
        let mut plane = Plane::new().await;
        plane.host.program("/bin/flaky", Program { exits: Some((700, 1)), ..Program::default() });
        plane.start_agent().await;
        let hash = plane.put_template(&template("/bin/flaky", Restart::Always)).await;
        plane.put_run((1..=5).map(|n| entry(n, 0, Goal::Run)).collect(), &[hash], None).await;
        plane.pass(60_000).await;
        let start = plane.started_at;
        let history: Vec<_> =
            plane.host.history().into_iter().map(|h| (h.at.since_ms(start), h.key, h.event)).collect();
        assert!(history.len() > 20);
        histories.push(history);
        plane.kill_agent().await;
        drop(Arc::clone(&plane.host));
    }
    assert_eq!(histories[0], histories[1]);
}
