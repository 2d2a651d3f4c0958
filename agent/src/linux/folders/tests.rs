//! Folders of processes, made and removed below a folder of the test's.

use std::os::unix::fs::symlink;

use ostler_agent_core::environment::UserFacts;
use ostler_agent_core::file::Owner;

use super::*;

struct Box {
    dir: tempfile::TempDir,
    folders: OwnFolders,
}

fn a_box(boot: &str) -> Box {
    let dir = tempfile::tempdir().unwrap();
    let folders = OwnFolders::new(dir.path().to_str().unwrap(), &dir.path().join("state"), boot);
    Box { dir, folders }
}

impl Box {
    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }
}

fn uid(n: u8) -> Uid {
    Uid::from_bytes([n; 16])
}

fn me() -> HostUser {
    let owner = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    HostUser {
        facts: UserFacts { name: "app".to_owned(), ..UserFacts::default() },
        owner,
        groups: Vec::new(),
        is_self: true,
    }
}

fn wanted(n: u8, kind: FolderKind, names: &[&str]) -> Preparation {
    Preparation {
        uid: uid(n),
        folders: names.iter().map(|name| Folder { kind, name: (*name).to_owned() }).collect(),
        supplementary_groups: Vec::new(),
        private_tmp: false,
        read_only_paths: Vec::new(),
        environment_files: Vec::new(),
        credentials: None,
    }
}

#[test]
fn folders_are_made_and_left_alone_the_next_time() {
    let it = a_box("b");
    let wanted = wanted(1, FolderKind::State, &["app", "app/more"]);
    it.folders.prepare(&wanted, &me()).unwrap();
    assert_eq!(it.path("var/lib/app/more").metadata().unwrap().mode() & 0o7777, 0o755);
    fs::set_permissions(it.path("var/lib/app"), Permissions::from_mode(0o700)).unwrap();
    fs::write(it.path("var/lib/app/data"), "kept").unwrap();
    it.folders.prepare(&wanted, &me()).unwrap();
    assert_eq!(it.path("var/lib/app").metadata().unwrap().mode() & 0o7777, 0o700);
    it.folders.tidy(&BTreeSet::new(), &[uid(1)].into());
    assert_eq!(fs::read_to_string(it.path("var/lib/app/data")).unwrap(), "kept");
}

#[test]
fn links_and_odd_names_are_refused() {
    let it = a_box("b");
    fs::create_dir_all(it.path("var/lib")).unwrap();
    fs::create_dir_all(it.path("elsewhere")).unwrap();
    symlink(it.path("elsewhere"), it.path("var/lib/link")).unwrap();
    for (name, word) in [
        ("link", "links are not followed"),
        ("link/below", "links are not followed"),
        ("../etc", "not a relative name"),
        ("/etc", "not a relative name"),
        ("ostler/agent", "Ostler's own"),
    ] {
        let error = it.folders.prepare(&wanted(1, FolderKind::State, &[name]), &me()).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(fs::read_dir(it.path("elsewhere")).unwrap().count(), 0);
}

#[test]
fn what_belongs_to_others_is_not_taken_over() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give folders away");
        return;
    }
    let it = a_box("b");
    let wanted = wanted(1, FolderKind::Cache, &["app"]);
    let other = HostUser { owner: Owner { uid: 4_321, gid: 4_321 }, ..me() };
    it.folders.prepare(&wanted, &me()).unwrap();
    let error = it.folders.prepare(&wanted, &other).unwrap_err();
    assert!(error.contains("belongs to user 0"), "an empty one, too: {error}");
    // What a crash left unfinished is nobody's yet.
    let unfinished = Permissions::from_mode(UNFINISHED);
    fs::set_permissions(it.path("var/cache/app"), unfinished).unwrap();
    it.folders.prepare(&wanted, &other).unwrap();
    let made = it.path("var/cache/app").metadata().unwrap();
    assert_eq!((made.uid(), made.mode() & 0o7777), (4_321, 0o755));
    let error = it.folders.prepare(&wanted, &me()).unwrap_err();
    assert!(error.contains("belongs to user 4321") && error.contains("app"), "{error}");
}

#[test]
fn nothing_is_made_below_a_part_of_the_system_and_nothing_of_it_removed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root has what others have not");
        return;
    }
    let it = a_box("b");
    let other = HostUser { owner: Owner { uid: 4_321, gid: 4_321 }, ..me() };
    fs::create_dir_all(it.path("run/systemd/system")).unwrap();
    for name in ["systemd/system/ssh.service.d", "systemd"] {
        let error = it.folders.prepare(&wanted(1, FolderKind::Runtime, &[name]), &other).unwrap_err();
        assert!(error.contains("belongs to user 0"), "{error}");
    }
    it.folders.tidy(&BTreeSet::new(), &[uid(1)].into());
    assert!(it.path("run/systemd/system").exists(), "it was refused, not given");
    assert_eq!(fs::read_dir(it.path("run/systemd/system")).unwrap().count(), 0);
    // Its own may be nested, also the second time; and goes only when nobody has what is below it.
    for n in [1, 2] {
        it.folders.prepare(&wanted(n, FolderKind::Runtime, &["app/sub"]), &other).unwrap();
    }
    it.folders.prepare(&wanted(3, FolderKind::Runtime, &["app"]), &other).unwrap();
    it.folders.tidy(&[uid(1), uid(2)].into(), &[uid(3)].into());
    assert!(it.path("run/app/sub").exists());
}

#[test]
fn runtime_folders_and_own_tmp_go_with_the_last_process_that_has_them() {
    let it = a_box("b");
    let mut first = wanted(1, FolderKind::Runtime, &["app", "shared"]);
    first.private_tmp = true;
    let prepared = it.folders.prepare(&first, &me()).unwrap();
    let tmp = PathBuf::from(prepared.private_tmp.unwrap().tmp);
    assert_eq!(tmp.metadata().unwrap().mode() & 0o7777, 0o1777);
    fs::write(tmp.join("file"), "x").unwrap();
    fs::write(it.path("run/app/socket"), "x").unwrap();
    it.folders.prepare(&wanted(2, FolderKind::Runtime, &["shared"]), &me()).unwrap();
    it.folders.tidy(&[uid(2)].into(), &BTreeSet::new());
    assert!(it.path("run/app/socket").exists() && tmp.join("file").exists());
    it.folders.tidy(&BTreeSet::new(), &[uid(1)].into());
    assert!(!it.path("run/app").exists() && !tmp.exists());
    assert!(it.path("run/shared").exists(), "another process has it too");
    it.folders.tidy(&BTreeSet::new(), &[uid(2)].into());
    assert!(!it.path("run/shared").exists());
}

#[test]
fn another_boot_s_folders_are_nobody_s() {
    let it = a_box("b");
    let mut first = wanted(1, FolderKind::Runtime, &["app"]);
    first.private_tmp = true;
    let tmp = it.folders.prepare(&first, &me()).unwrap().private_tmp.unwrap().tmp;
    let later = OwnFolders::new(it.dir.path().to_str().unwrap(), &it.path("state"), "c");
    later.tidy(&[uid(1)].into(), &BTreeSet::new());
    assert!(!Path::new(&tmp).exists() && !it.path("run/app").exists());
    assert_eq!(fs::read_dir(it.path("state/own")).unwrap().count(), 0);
}

#[test]
fn a_runtime_folder_that_became_a_link_leads_nowhere() {
    let it = a_box("b");
    it.folders.prepare(&wanted(1, FolderKind::Runtime, &["app/sub"]), &me()).unwrap();
    fs::create_dir_all(it.path("precious/sub")).unwrap();
    fs::remove_dir_all(it.path("run/app")).unwrap();
    symlink(it.path("precious"), it.path("run/app")).unwrap();
    it.folders.tidy(&BTreeSet::new(), &[uid(1)].into());
    assert!(it.path("precious/sub").exists());
}
