//! Versions that are looked at before they are put in place.

use ostler_schemas::quantity::Dur;
use ostler_schemas::spec::{Action, Exec, FileItem, Validator};

use super::*;

const FOLDER: &str = "/etc/app.d";

impl Host {
    /// What a validator that refuses `bad` would say; it sees the whole version as it will be put in place.
    pub(super) fn look_at(&mut self, candidate: &Candidate) -> Result<(), StepError> {
        if self.is_deaf {
            return Err(StepError {
                kind: StepErrorKind::NotNow,
                message: "waits for the holder".to_owned(),
            });
        }
        self.asked += 1;
        for (part, temp) in &candidate.files {
            let temp = temp.as_ref().expect("a command looks at it");
            let file = self.fs.file(temp).expect("it is written");
            let found = Found::Regular { sha256: sha256(&file.bytes), mode: file.mode, owner: file.owner };
            assert!(part.is_as(&found, candidate.held_by) && file.synced, "{temp}");
            let expected =
                if part.name.is_empty() { temp.clone() } else { part_path(&candidate.path, &part.name) };
            assert!(
                candidate.path == expected || *temp == expected,
                "{temp} is not below {}",
                candidate.path
            );
        }
        let is_bad = candidate.files.iter().any(|(part, _)| part.sha256 == sha256(b"bad"));
        let message = "line 1: it is bad\nmore of it".to_owned();
        if is_bad { Err(StepError { kind: StepErrorKind::Rejected, message }) } else { Ok(()) }
    }

    /// Whether anything of an unfinished version lies around.
    fn leaves_something(&self) -> bool {
        let folder = part_path(FOLDER, CANDIDATE_FOLDER);
        self.fs.exists(&temp_path(PATH)) || self.fs.exists(&folder)
    }
}

fn checked(content: &[u8]) -> FileSpec {
    FileSpec { validator: Some(validator()), ..spec(content) }
}

fn validator() -> Validator {
    let command = vec!["/usr/bin/check".to_owned(), "$(FILE)".to_owned()];
    Validator { command, user: None, timeout: Dur::from_secs(10), syntax: None }
}

fn several(a: &[u8], b: &[u8]) -> FileSpec {
    let item = |name: &str, content: &[u8]| FileItem {
        name: name.to_owned(),
        content: Some(ContentRef { sha256: sha256(content), size: content.len() as u64 }),
        template: None,
        mode: None,
    };
    let files = vec![item("a.conf", a), item("sub/b.conf", b)];
    FileSpec { path: FOLDER.to_owned(), content: None, files, ..checked(b"") }
}

fn want(host: &mut Host, version: u64, spec: FileSpec) -> bool {
    host.feed(Event::Want(wanted(version, spec, FileGoal::Hold)))
}

fn stands(host: &Host) -> (FileState, Option<Reason>) {
    let report = host.file.report();
    (report.state, report.reason)
}

const REFUSED: (FileState, Option<Reason>) = (FileState::Failed, Some(Reason::ValidatorFailed));

#[test]
fn a_bad_version_is_never_there_and_the_verdict_outlives_the_agent() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    assert!(want(&mut host, 1, checked(b"one")));
    assert!(host.holds(b"one") && host.asked == 1);
    assert!(want(&mut host, 2, checked(b"bad")));
    assert!(host.holds(b"one") && !host.leaves_something());
    assert_eq!(stands(&host), REFUSED);
    let report = host.file.report();
    assert_eq!((report.v, report.wanted), (Version(1), Version(2)));
    assert_eq!(report.message.as_deref(), Some("line 1: it is bad\nmore of it"));
    assert_eq!(host.asked, 2);
    host.restart(Crash::Agent);
    assert!(want(&mut host, 2, checked(b"bad")));
    assert_eq!((stands(&host), host.asked), (REFUSED, 2), "what was said is known");
    assert_eq!(host.told.iter().filter(|reason| **reason == Reason::ValidatorFailed).count(), 1);
    // It is looked at again later, in case the host has changed, and less and less often.
    for (ms, asked) in [(59_999, 2), (1, 3), (119_999, 3), (1, 4)] {
        host.pass(ms);
        assert_eq!((host.asked, stands(&host)), (asked, REFUSED), "after {ms}");
    }
    assert!(want(&mut host, 3, checked(b"two")));
    assert!(host.holds(b"two") && host.file.record().rejected.is_none());
    assert_eq!(stands(&host), (FileState::InSync, None));
}

#[test]
fn what_lies_there_already_is_looked_at_too_but_not_what_was_accepted() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.fs.put_file(PATH, b"bad", 0o644, ROOT);
    host.blobs.insert(sha256(b"bad"), b"bad".to_vec());
    let inode = host.fs.file(PATH).cloned();
    // The model's own check knows nothing of this one.
    host.whole.push(b"bad".to_vec());
    assert!(want(&mut host, 1, checked(b"bad")));
    assert_eq!((stands(&host), host.asked), (REFUSED, 1));
    assert_eq!(host.fs.file(PATH).cloned(), inode);
    assert!(want(&mut host, 2, checked(b"one")));
    assert_eq!(host.asked, 2);
    host.spoil();
    assert!(host.holds(b"one") && host.asked == 2, "a repair asks nobody");
    assert!(want(&mut host, 3, checked(b"one")));
    assert_eq!((stands(&host), host.asked), ((FileState::InSync, None), 2));
}

#[test]
fn who_cannot_be_asked_has_refused_nothing() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    host.is_deaf = true;
    assert!(want(&mut host, 1, checked(b"one")));
    assert!(host.fs.file(PATH).is_none());
    assert_eq!(stands(&host), (FileState::Applying, None));
    host.is_deaf = false;
    host.pass(RETRY_FIRST_MS);
    assert!(host.holds(b"one"));
}

#[test]
fn another_validator_is_another_question() {
    let mut host = Host::new(ModelFs::new(&["/etc/app"]));
    assert!(want(&mut host, 1, checked(b"bad")));
    assert_eq!((stands(&host), host.asked), (REFUSED, 1));
    let other = Validator { user: Some("app".to_owned()), ..validator() };
    assert!(want(&mut host, 1, FileSpec { validator: Some(other), ..checked(b"bad") }));
    assert_eq!((stands(&host), host.asked), (REFUSED, 2));
}

#[test]
fn several_files_are_looked_at_as_they_will_stand() {
    let mut host = Host::new(ModelFs::new(&["/etc"]));
    assert!(want(&mut host, 1, several(b"one", b"two")));
    assert_eq!((host.asked, stands(&host)), (1, (FileState::InSync, None)));
    assert!(!host.leaves_something());
    assert!(want(&mut host, 2, several(b"two", b"bad")));
    assert_eq!((host.asked, stands(&host)), (2, REFUSED));
    let read = |host: &Host, name: &str| host.fs.file(&part_path(FOLDER, name)).map(|f| f.bytes.clone());
    assert_eq!(
        (read(&host, "a.conf"), read(&host, "sub/b.conf")),
        (Some(b"one".to_vec()), Some(b"two".to_vec()))
    );
    assert!(!host.leaves_something());
}

/// Good and bad versions come one after the other, and the agent or the power goes at every step.
#[test]
fn a_crash_at_any_step_never_lets_a_bad_version_through() {
    for crash in [Crash::Agent, Crash::Power] {
        for steps in 0..400 {
            let mut host = Host::new(ModelFs::new(&["/etc/app"]));
            host.steps_left = steps;
            let versions = [b"one".as_slice(), b"bad", b"two", b"bad", b"one"];
            let lived =
                (1..).zip(versions).all(|(version, content)| want(&mut host, version, checked(content)));
            if lived {
                assert!(steps > 40, "every step was a place to crash: {steps}");
                break;
            }
            host.restart(crash);
            assert!(want(&mut host, 4, checked(b"bad")));
            assert_eq!(stands(&host), REFUSED, "{crash:?} after {steps} steps");
            assert!(!host.leaves_something(), "{crash:?} after {steps} steps");
            assert!(want(&mut host, 5, checked(b"two")));
            assert!(host.holds(b"two"), "{crash:?} after {steps} steps: {:?}", host.file);
            assert!(!host.leaves_something(), "{crash:?} after {steps} steps");
        }
    }
}

#[test]
fn a_crash_at_any_step_leaves_nothing_of_several_candidates() {
    for crash in [Crash::Agent, Crash::Power] {
        for steps in 0..400 {
            let mut host = Host::new(ModelFs::new(&["/etc"]));
            assert!(want(&mut host, 1, several(b"one", b"one")));
            host.steps_left = steps;
            let lived =
                want(&mut host, 2, several(b"two", b"bad")) && want(&mut host, 3, several(b"two", b"two"));
            if lived {
                break;
            }
            host.restart(crash);
            let content = |name| host.fs.file(&part_path(FOLDER, name)).map(|f| f.bytes.clone());
            for name in ["a.conf", "sub/b.conf"] {
                let whole = content(name).expect("never missing");
                assert!([b"one".to_vec(), b"two".to_vec()].contains(&whole), "{whole:?} after {steps}");
            }
            assert!(want(&mut host, 3, several(b"two", b"two")));
            assert_eq!(stands(&host), (FileState::InSync, None));
            assert!(!host.leaves_something(), "{crash:?} after {steps} steps");
        }
    }
}

/// What is refused has changed nothing, so nothing follows it, whenever the agent dies; and going back is no change.
#[test]
fn nothing_follows_what_was_refused() {
    let exec = Exec { command: vec!["/x".to_owned()], user: None, timeout: Dur::from_secs(1) };
    let on_change = vec![Action { exec: Some(exec), ..Action::default() }];
    let acting = |content: &[u8]| FileSpec { on_change: on_change.clone(), ..checked(content) };
    let planned = |host: &Host| host.file.change().map(|plan| (plan.n, plan.version, plan.is_placed));
    let first = Some((1, Version(1), true));
    for crash in [Crash::Agent, Crash::Power] {
        for steps in 0..100 {
            let mut host = Host::new(ModelFs::new(&["/etc/app"]));
            assert!(want(&mut host, 1, acting(b"one")));
            assert_eq!(planned(&host), first);
            host.steps_left = steps;
            let lived = want(&mut host, 2, acting(b"bad"));
            if !lived {
                host.restart(crash);
                assert!(want(&mut host, 2, acting(b"bad")));
            }
            host.steps_left = usize::MAX;
            assert_eq!((stands(&host), planned(&host)), (REFUSED, first), "{crash:?} after {steps} steps");
            assert!(want(&mut host, 1, acting(b"one")));
            assert_eq!(planned(&host), first, "{crash:?} after {steps} steps: going back is no change");
            assert!(want(&mut host, 3, acting(b"two")));
            assert_eq!(planned(&host), Some((2, Version(3), true)), "{crash:?} after {steps} steps");
            if lived {
                break;
            }
        }
    }
}
