use ostler_schemas::spec::{ActionTarget, Exec};
use ostler_schemas::time::Timestamp;

use super::*;

fn exec(words: &[&str]) -> Action {
    let command = words.iter().map(|w| (*w).to_owned()).collect();
    let exec = Exec { command, user: None, timeout: Dur::from_secs(1) };
    Action { exec: Some(exec), ..Action::default() }
}

fn reload(app: &str) -> Action {
    let match_labels = [("app".to_owned(), app.to_owned())].into();
    let selector = Selector { match_labels, match_expressions: Vec::new() };
    let target = ActionTarget { process_selector: Some(selector), unit: None };
    Action { reload: Some(target), ..Action::default() }
}

fn plan(actions: Vec<Action>) -> Plan {
    Plan {
        n: 1,
        version: Version(7),
        sha256: Sha256::from_bytes([1; 32]),
        is_placed: true,
        named: (Namespace::default_namespace(), "app-conf".parse().expect("a name")),
        path: "/etc/app.conf".to_owned(),
        owner: "app".to_owned(),
        actions,
        probe: None,
        watch_ms: 0,
    }
}

fn deeds(actions: &[Action]) -> Queue {
    let plan = plan(actions.to_vec());
    Queue { deeds: actions.iter().map(|action| plan.deed(uid(1), action)).collect(), may_wait: false }
}

fn uid(n: u8) -> Uid {
    Uid::from_bytes([n; 16])
}

/// Does everything, and says for how many files each deed was.
fn run(mut queues: BTreeMap<Uid, Queue>) -> Vec<(Deed, usize)> {
    let mut out = Vec::new();
    while let Some((deed, of)) = choose(&queues, &[]) {
        for uid in &of {
            queues.get_mut(uid).expect("is queued").deeds.remove(0);
        }
        out.push((deed, of.len()));
    }
    out
}

#[test]
fn commands_that_speak_of_their_file_are_not_equal() {
    let own = exec(&["/bin/x", "$(OSTLER_PATH)"]);
    let (a, b) = (plan(Vec::new()), Plan { version: Version(8), ..plan(Vec::new()) });
    assert_ne!(a.deed(uid(1), &own), a.deed(uid(2), &own));
    assert_ne!(a.deed(uid(1), &own), b.deed(uid(1), &own));
    let common = exec(&["/bin/x", "$(OSTLER_NODE)", "$$(OSTLER_PATH)"]);
    assert_eq!(a.deed(uid(1), &common), b.deed(uid(2), &common));
}

#[test]
fn equal_actions_of_files_that_change_together_are_done_once() {
    let (x, y, web) = (exec(&["/x"]), exec(&["/y"]), reload("web"));
    let queues = [
        (uid(1), deeds(&[x.clone(), web.clone()])),
        (uid(2), deeds(std::slice::from_ref(&web))),
        (uid(3), deeds(&[y.clone(), web])),
    ];
    let done = run(queues.into());
    assert_eq!(done.len(), 3, "{done:?}");
    assert_eq!(done.iter().map(|(_, of)| *of).collect::<Vec<_>>(), [1, 1, 3], "the reload comes last, once");
    // Orders that contradict each other cannot be kept with one run of each.
    let queues = [(uid(1), deeds(&[x.clone(), y.clone()])), (uid(2), deeds(&[y, x]))];
    assert_eq!(run(queues.into()).iter().map(|(_, of)| of).sum::<usize>(), 4);
}

#[test]
fn what_others_on_their_way_ask_for_too_may_wait() {
    let web = deeds(&[reload("web")]);
    let coming = web.deeds.clone();
    let waiting = Queue { may_wait: true, ..web.clone() };
    assert_eq!(choose(&[(uid(1), waiting)].into(), &coming), None);
    assert!(choose(&[(uid(1), web)].into(), &coming).is_some(), "not for ever");
}

#[test]
fn after_a_crash_a_command_is_unknown_and_a_reload_is_done_again() {
    let at = Timestamp(5);
    let plan = plan(vec![reload("web"), exec(&["/x"]), exec(&["/y"])]);
    let mut progress = Progress::new(&plan, at);
    assert_eq!(progress.recover(&plan, at), None);
    progress.set(0, ActState::Begun { on: BTreeMap::new() }, at);
    assert_eq!(progress.recover(&plan, at), None);
    assert_eq!(progress.standing(&plan), Standing::At(0));
    progress.set(0, ActState::Done, at);
    assert_eq!(progress.recover(&plan, at), None, "what is planned is done");
    progress.set(1, ActState::Begun { on: BTreeMap::new() }, at);
    assert!(progress.recover(&plan, at).is_some_and(|told| told.contains("unknown")));
    assert!(matches!(progress.standing(&plan), Standing::Failed(why) if why.contains("not repeated")));
    assert_eq!(progress.recover(&plan, at), None, "told once");
}

#[test]
fn a_node_has_a_version_when_its_actions_are_done_and_its_probe_succeeds() {
    let plan = plan(vec![exec(&["/x"])]);
    let report = |state| FileReport {
        u: uid(1),
        v: Version(7),
        wanted: Version(7),
        path: String::new(),
        sha256: None,
        state,
        reason: None,
        message: None,
        at: Timestamp(1),
        last_drift: None,
        effect: None,
    };
    let shown = |report: FileReport, progress: Option<&Progress>, probed| {
        let mut report = report;
        overlay(&mut report, &plan, progress, probed);
        (report.state, report.reason)
    };
    let synced = || report(FileState::InSync);
    assert_eq!(shown(synced(), None, Probing::Over), (FileState::Applying, None));
    let mut progress = Progress::new(&plan, Timestamp(2));
    progress.set(0, ActState::Failed("exited with code 1".to_owned()), Timestamp(3));
    let failed = (FileState::Failed, Some(Reason::ActionFailed));
    assert_eq!(shown(synced(), Some(&progress), Probing::Over), failed);
    let old = Progress { n: 0, ..progress.clone() };
    assert_eq!(shown(synced(), Some(&old), Probing::Over), (FileState::Applying, None), "of another change");
    progress.set(0, ActState::Done, Timestamp(3));
    assert_eq!(shown(synced(), Some(&progress), Probing::Over), (FileState::InSync, None));
    assert_eq!(shown(synced(), Some(&progress), Probing::Asked(None)), (FileState::Applying, None));
    let bad = Verdict::Bad("refused".to_owned());
    let probe_failed = (FileState::Failed, Some(Reason::ProbeFailed));
    assert_eq!(shown(synced(), Some(&progress), Probing::Asked(Some(&bad))), probe_failed);
    let good = Probing::Asked(Some(&Verdict::Good));
    assert_eq!(shown(report(FileState::Drifted), Some(&progress), good), (FileState::Drifted, None));
    let other = FileReport { wanted: Version(8), ..synced() };
    assert_eq!(shown(other, None, Probing::Over), (FileState::InSync, None), "of another version");
}

#[test]
fn output_is_told_by_its_last_lines() {
    let long: String = (0..100).map(|n| format!("line {n}\n")).collect();
    let told = last_lines(long.as_bytes());
    assert!(told.starts_with("line 80") && told.ends_with("line 99"), "{told}");
    assert!(last_lines("x".repeat(10_000).as_bytes()).len() <= MESSAGE_MAX);
    assert!(clip(&"ä".repeat(5_000)).chars().count() <= MESSAGE_MAX + 200);
}
