//! Several files of one folder: staged whole, put in place together, finished after every crash.

use ostler_schemas::spec::FileItem;

use super::*;

const FOLDER: &str = "/etc/app.d";

/// A version of two files, one of them in a folder below.
fn several(a: &[u8], b: &[u8], unlisted: Unlisted) -> FileSpec {
    let item = |name: &str, content: &[u8]| FileItem {
        name: name.to_owned(),
        content: Some(ContentRef { sha256: sha256(content), size: content.len() as u64 }),
        template: None,
        mode: None,
    };
    let files = vec![item("a.conf", a), item("sub/b.conf", b)];
    FileSpec { path: FOLDER.to_owned(), content: None, files, unlisted, ..spec(b"") }
}

fn at_path(host: &Host, name: &str) -> Option<Vec<u8>> {
    host.fs.file(&part_path(FOLDER, name)).map(|file| file.bytes.clone())
}

fn both(host: &Host) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    (at_path(host, "a.conf"), at_path(host, "sub/b.conf"))
}

fn is(host: &Host, a: &[u8], b: &[u8]) -> bool {
    both(host) == (Some(a.to_vec()), Some(b.to_vec()))
}

fn want(host: &mut Host, version: u64, spec: &FileSpec, goal: FileGoal) -> bool {
    host.feed(Event::Want(wanted(version, spec.clone(), goal)))
}

#[test]
fn a_version_of_several_files_is_finished_after_every_crash() {
    for crash in [Crash::Agent, Crash::Power] {
        for steps in 0..60 {
            let mut host = Host::new(ModelFs::new(&["/etc"]));
            assert!(want(&mut host, 1, &several(b"one", b"two", Unlisted::Keep), FileGoal::Hold));
            assert!(is(&host, b"one", b"two"), "{:?}", both(&host));
            host.steps_left = steps;
            let next = several(b"two", b"one", Unlisted::Keep);
            let lived = want(&mut host, 2, &next, FileGoal::Hold);
            let (a, b) = both(&host);
            for whole in [a, b] {
                let whole = whole.expect("never missing");
                assert!([b"one".to_vec(), b"two".to_vec()].contains(&whole), "torn after {steps}");
            }
            if lived {
                assert!(is(&host, b"two", b"one"));
                break;
            }
            host.restart(crash);
            assert!(want(&mut host, 2, &next, FileGoal::Hold));
            assert!(is(&host, b"two", b"one"), "after {steps} steps and {crash:?}: {:?}", both(&host));
            assert_eq!(host.file.report().state, FileState::InSync);
        }
    }
}

#[test]
fn nothing_is_put_in_place_before_all_is_staged() {
    let mut host = Host::new(ModelFs::new(&["/etc"]));
    assert!(want(&mut host, 1, &several(b"one", b"one", Unlisted::Keep), FileGoal::Hold));
    host.blobs.insert(sha256(b"much too long"), b"much too long".to_vec());
    host.fs.room = Some(5);
    assert!(want(&mut host, 2, &several(b"two", b"much too long", Unlisted::Keep), FileGoal::Hold));
    assert!(is(&host, b"one", b"one"), "the first file alone would be half a version: {:?}", both(&host));
    assert_eq!(host.file.report().reason, Some(Reason::DiskFull));
}

#[test]
fn what_is_not_named_is_kept_or_removed_and_comes_back() {
    let mut fs = ModelFs::new(&["/etc", FOLDER]);
    fs.put_file("/etc/app.d/old.conf", b"original", 0o600, ROOT);
    fs.put_file("/etc/app.d/a.conf", b"spoiled", 0o644, ROOT);
    let mut host = Host::new(fs);
    assert!(want(&mut host, 1, &several(b"one", b"two", Unlisted::Keep), FileGoal::Hold));
    assert_eq!(at_path(&host, "old.conf").as_deref(), Some(b"original".as_slice()));
    let exact = several(b"one", b"two", Unlisted::Delete);
    assert!(want(&mut host, 2, &exact, FileGoal::Hold));
    assert_eq!((at_path(&host, "old.conf"), is(&host, b"one", b"two")), (None, true));
    // Another hand puts a file there: it is drift, and goes.
    host.fs.put_file("/etc/app.d/new.conf", b"spoiled", 0o644, ROOT);
    host.now += 1_000;
    host.feed(Event::Look);
    assert_eq!(at_path(&host, "new.conf"), None);
    let drift = host.file.report().last_drift.expect("is told");
    assert_eq!(drift.what, "new.conf: not named");
    // Let go, everything is as it was before Ostler came.
    assert!(want(&mut host, 2, &exact, FileGoal::Release));
    assert_eq!(at_path(&host, "old.conf").as_deref(), Some(b"original".as_slice()));
    assert_eq!(at_path(&host, "a.conf").as_deref(), Some(b"spoiled".as_slice()));
    assert_eq!(at_path(&host, "sub/b.conf"), None);
}

#[test]
fn a_folder_where_a_file_should_be_is_left_alone_and_so_is_the_rest() {
    let mut host = Host::new(ModelFs::new(&["/etc", "/etc/app.d/a.conf"]));
    assert!(want(&mut host, 1, &several(b"one", b"two", Unlisted::Keep), FileGoal::Hold));
    assert_eq!(host.file.report().reason, Some(Reason::NotRegular));
    assert_eq!(at_path(&host, "sub/b.conf"), None);
}

#[test]
fn what_cannot_be_rendered_leaves_what_is_there() {
    let mut host = Host::new(ModelFs::new(&["/etc"]));
    assert!(want(&mut host, 1, &several(b"one", b"two", Unlisted::Keep), FileGoal::Hold));
    let mut next = wanted(2, several(b"two", b"one", Unlisted::Keep), FileGoal::Hold);
    next.parts = Some(Err("line 1: vars.x is undefined".to_owned()));
    host.feed(Event::Want(next));
    assert!(is(&host, b"one", b"two"));
    let report = host.file.report();
    assert_eq!((report.state, report.reason), (FileState::Failed, Some(Reason::Unrenderable)));
    assert_eq!(report.message.as_deref(), Some("line 1: vars.x is undefined"));
}
