//! What a person on the host asks, with and without a bus, and what the host does not allow.

use std::collections::BTreeMap;
use std::sync::Arc;

use ostler_agent::NodeConfig;
use ostler_agent::local::Act;
use ostler_agent_core::holds::By;
use ostler_agent_core::unit::HowEnded;
use ostler_agent_core::veto::{PathRule, Pattern, Setting, Veto};
use ostler_schemas::spec::{Drift, Restart};
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{FileState, ProcessPhase};

use crate::plane::{Parts, Plane, entry, file_entry, file_spec, template, uid};

fn anna() -> By {
    By { uid: 1000, user: "anna".to_owned() }
}

fn hold(what: &str, for_ms: Option<u64>) -> Act {
    Act::Hold { what: what.to_owned(), for_ms, reason: "disk swap".to_owned() }
}

async fn one_running() -> (Plane, ostler_schemas::Sha256) {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    let hash = plane.put_template(&template("/bin/app", Restart::Always)).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    plane.until_report("it runs", |r| r.processes.iter().any(|p| p.ready)).await;
    (plane, hash)
}

#[tokio::test(start_paused = true)]
async fn a_hold_outlives_the_agent_is_reported_and_ends_by_itself() {
    let (mut plane, _) = one_running().await;
    let viewer = plane.viewer();
    let refused = viewer.act(hold("web-1", Some(0)), anna()).await.expect_err("no time");
    assert!(refused.contains("--for"), "{refused}");
    assert!(viewer.act(hold("nobody", None), anna()).await.expect_err("none").contains("ostler-agent ps"));
    let said = viewer.act(hold("web-1", Some(300_000)), anna()).await.expect("held");
    assert!(said.contains("anna (uid 1000)") && said.contains("disk swap"), "{said}");
    plane
        .until_report("everybody sees it", |r| {
            r.conditions.iter().any(|c| c.kind == "Held")
                && r.processes.iter().any(|p| p.reason == Some(Reason::Held))
        })
        .await;
    plane.kill_agent().await;
    plane.start_agent().await;
    plane.until("a new agent is there", |p| p.host.living().len() == 1).await;
    let other = plane.put_template(&template("/bin/other", Restart::Always)).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[other], None).await;
    plane.pass(60_000).await;
    assert!(plane.host.living()[0].2[0].ends_with("/bin/app"), "nothing replaces it");
    plane.host.end(plane.host.living()[0].0, HowEnded::Code(1));
    plane.pass(60_000).await;
    assert!(plane.host.living().is_empty(), "what ended is not started");
    plane.until("its time is over", |p| p.host.living().iter().any(|l| l.2[0] == "/bin/other")).await;
    plane.until_report("and nothing is held", |r| r.conditions.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_stopped_here_stays_so_until_it_is_started_here() {
    let (mut plane, hash) = one_running().await;
    let stop = Act::Stop { process: "web-1".to_owned(), reason: "looking".to_owned() };
    plane.viewer().act(stop, anna()).await.expect("stops");
    plane.until("it ended", |p| p.host.living().is_empty()).await;
    plane.kill_agent().await;
    plane.start_agent().await;
    plane.put_run(vec![entry(1, 0, Goal::Run), entry(2, 0, Goal::Run)], &[hash], None).await;
    plane.until("the other one runs", |p| p.host.living().len() == 1).await;
    plane.pass(120_000).await;
    assert_eq!(plane.host.living().len(), 1);
    let why = plane.viewer().why("web-1").await.expect("known");
    assert!(why.held.as_ref().is_some_and(|held| held.contains("looking")), "{why:?}");
    assert!(why.text().contains("/bin/app") && !why.exits.is_empty(), "{}", why.text());
    let act = |act| {
        let viewer = plane.viewer();
        async move { viewer.act(act, anna()).await }
    };
    let restart = Act::Restart { process: "web-1".to_owned(), reason: "x".to_owned() };
    assert!(act(restart).await.expect_err("held").contains("stopped on the host"));
    let release = act(Act::Release { what: "web-1".to_owned() }).await.expect_err("no hold");
    assert!(release.contains("ostler-agent start"), "{release}");
    act(Act::Start { process: "web-1".to_owned() }).await.expect("starts");
    plane.until("both run", |p| p.host.living().len() == 2).await;
    assert!(act(Act::Start { process: "web-1".to_owned() }).await.is_err(), "it was not stopped");
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_one_incarnation_more() {
    let (plane, _) = one_running().await;
    let act = Act::Restart { process: "default/web-1".to_owned(), reason: "leak".to_owned() };
    plane.viewer().act(act, anna()).await.expect("restarts");
    plane.until("the next one runs", |p| p.host.living().iter().any(|l| l.0.incarnation == 2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_held_path_is_not_written_even_when_it_is_new() {
    let mut plane = Plane::new().await;
    plane.start_agent().await;
    plane.viewer().act(hold("/etc/app.conf", None), anna()).await.expect("held");
    let conf = plane.put_file_spec(&file_spec(b"one\n", Drift::Enforce), b"one\n").await;
    plane.put_files(vec![file_entry(9, 1, conf)]).await;
    plane.until_report("held", |r| r.file_states.iter().any(|f| f.state == FileState::Held)).await;
    plane.pass(30_000).await;
    assert_eq!(plane.files.read("/etc/app.conf"), None);
    plane.viewer().act(Act::Release { what: "--all".to_owned() }, anna()).await.expect("released");
    plane.until_report("written", |r| r.file_states.iter().any(|f| f.state == FileState::InSync)).await;
    let managed = plane.viewer().managed("/etc/app.conf").await.expect("managed");
    assert_eq!(
        (managed.content.as_str(), managed.of.as_str()),
        ("one\n", "configfile/default/app-conf version 1")
    );
}

#[tokio::test(start_paused = true)]
async fn a_host_refuses_users_paths_and_limits_and_names_the_line() {
    let mut plane = Plane::new().await;
    let rule = PathRule { pattern: Pattern::parse("/etc/app*").expect("a pattern"), line: Some(7) };
    let veto = Veto {
        file: "/etc/ostler/agent.toml".to_owned(),
        enforced: true,
        denied_groups: Setting { value: BTreeMap::from([(1000, "docker".to_owned())]), line: Some(4) },
        deny_paths: vec![rule],
        max_processes: Some(Setting { value: 1, line: Some(9) }),
        ..Veto::default()
    };
    let open = Veto { denied_groups: Setting::default(), ..veto.clone() };
    plane.start_agent_on(parts(&plane, veto)).await;
    let hash = plane.put_template(&template("/bin/app", Restart::Always)).await;
    let conf = plane.put_file_spec(&file_spec(b"one\n", Drift::Enforce), b"one\n").await;
    plane.put_files(vec![file_entry(9, 1, conf)]).await;
    plane.put_run(vec![entry(1, 0, Goal::Run)], &[hash], None).await;
    plane
        .until_report("both are refused", |r| {
            let told = |text: &Option<String>, word: &str| text.as_ref().is_some_and(|t| t.contains(word));
            r.file_states.iter().any(|f| f.reason == Some(Reason::PathRefused) && told(&f.message, "line 7"))
                && r.processes.iter().any(|p| told(&p.message, "docker") && told(&p.message, "line 4"))
        })
        .await;
    assert_eq!((plane.host.living().len(), plane.files.read("/etc/app.conf")), (0, None));
    plane.kill_agent().await;
    plane.start_agent_on(parts(&plane, open)).await;
    plane.until("the first runs", |p| p.host.living().len() == 1).await;
    plane.put_run(vec![entry(1, 0, Goal::Run), entry(2, 0, Goal::Run)], &[hash], None).await;
    plane
        .until_report("the second is one too many", |r| {
            r.process(&uid(2)).is_some_and(|p| {
                p.phase == ProcessPhase::Pending
                    && p.message.as_ref().is_some_and(|m| m.contains("max_processes"))
            })
        })
        .await;
    assert_eq!(plane.host.living().len(), 1);
}

fn parts(plane: &Plane, veto: Veto) -> Parts {
    let config = NodeConfig {
        own: vec!["/var/lib/ostler".to_owned()],
        originals: "/var/lib/ostler/originals".to_owned(),
        privileged: true,
        veto: Arc::new(veto),
        ..NodeConfig::default()
    };
    plane.parts(config)
}
