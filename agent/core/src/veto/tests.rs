//! A table of decisions, and the promise that no spelling of a denied path passes.

use proptest::prelude::*;

use super::*;

fn rule(text: &str, line: Option<usize>) -> PathRule {
    PathRule { pattern: Pattern::parse(text).expect("a pattern"), line }
}

/// What a host has when nobody wrote anything.
fn usual() -> Veto {
    Veto {
        file: "/etc/ostler/agent.toml".to_owned(),
        enforced: true,
        denied_groups: Setting {
            value: BTreeMap::from([(0, "root".to_owned()), (999, "docker".to_owned())]),
            line: None,
        },
        capabilities: Setting {
            value: USUAL_CAPABILITIES.iter().map(|c| (*c).to_owned()).collect(),
            line: None,
        },
        deny_paths: USUAL_DENIED.iter().map(|text| rule(text, None)).collect(),
        exec: Setting { value: AllowExec::OwnUser, line: None },
        ..Veto::default()
    }
}

#[test]
fn paths_by_the_usual_rules() {
    let veto = usual();
    for denied in [
        "/etc/sudoers",
        "/etc/sudoers.d/web",
        "/etc/passwd",
        "/etc/passwd-",
        "/etc/shadow",
        "/etc/group",
        "/etc/gshadow-",
        "/root/.ssh/authorized_keys",
        "/home/anna/.ssh/config",
        "/srv/git/deep/.ssh/id",
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/ssh/ssh_host_key.pub",
        "/etc/pam.d/sshd",
        "/etc/pam.conf",
        "/etc/ld.so.preload",
        "/boot/grub/grub.cfg",
        "/BOOT/grub/grub.cfg",
        "/Etc/Shadow",
        "/etc/ostler/agent.toml",
        "/var/lib/ostler/agent/ledger.mpk",
        "/etc//shadow",
        "/etc/./shadow",
        "/etc/app/../shadow",
        "/../etc/shadow",
    ] {
        assert!(veto.path(denied, None).is_some(), "{denied} passes");
    }
    for allowed in [
        "/etc/app.conf",
        "/etc/ssh/sshd_config",
        "/etc/bootstrap",
        "/srv/ssh/x",
        "/etc/passive.conf",
        "/opt/boot",
    ] {
        assert_eq!(veto.path(allowed, Some(allowed)), None, "{allowed}");
    }
}

#[test]
fn a_link_does_not_lead_past_a_rule() {
    let veto = usual();
    let why = veto.path("/srv/app/app.conf", Some("/etc/pam.d/app.conf")).expect("denied");
    assert!(
        why.contains("/srv/app/app.conf really is /etc/pam.d/app.conf") && why.contains("/etc/pam.*"),
        "{why}"
    );
    let narrow = Veto { allow_paths: vec![rule("/srv/app", Some(7))], ..usual() };
    assert_eq!(narrow.path("/srv/app/x/y.conf", Some("/srv/app/x/y.conf")), None);
    let why = narrow.path("/srv/app/y.conf", Some("/opt/y.conf")).expect("not allowed");
    assert!(why.contains("line 7"), "{why}");
    assert!(narrow.path("/srv/apple/y.conf", None).is_some());
    assert!(narrow.path("/SRV/app/y.conf", None).is_some(), "what is allowed is allowed as written");
    assert!(narrow.path("/srv/app/.ssh/y", None).is_some(), "what is denied stays so");
}

#[test]
fn users_groups_and_capabilities() {
    let runner = |name, uid, gid, groups| Runner { name, uid, gid, groups };
    let veto = usual();
    assert!(veto.user(runner("app", 1000, 1000, &[1000])).is_ok());
    let why = veto.user(runner("root", 0, 0, &[])).expect_err("refused");
    assert!(why.contains("as root") && why.contains("allow_root") && why.contains("agent.toml"), "{why}");
    assert!(veto.user(runner("toor", 0, 5, &[])).is_err(), "a name does not hide the number");
    assert!(veto.user(runner("app", 1000, 0, &[])).is_err(), "root's group");
    assert!(veto.user(runner("app", 1000, 1000, &[1000, 999])).expect_err("refused").contains("docker"));
    let named = Users::Named(BTreeSet::from(["app".to_owned(), "1007".to_owned()]));
    let narrow = Veto { users: Setting { value: named, line: Some(12) }, ..usual() };
    assert!(narrow.user(runner("app", 1000, 1000, &[999])).is_ok(), "who is named is named with his groups");
    assert!(narrow.user(runner("app", 1000, 999, &[])).is_err(), "not with one that the template picks");
    assert!(narrow.user(runner("x", 1007, 1007, &[])).is_ok());
    assert!(narrow.user(runner("db", 1001, 1001, &[])).expect_err("refused").contains("line 12"));
    assert!(narrow.user(runner("root", 0, 0, &[])).is_err());
    let open = Veto { root: Setting { value: true, line: Some(3) }, ..usual() };
    assert!(open.user(runner("root", 0, 0, &[0])).is_ok());
    let caps = |text: &str| vec![text.parse::<Capability>().expect("a capability")];
    assert!(veto.capabilities(&caps("CAP_NET_BIND_SERVICE")).is_ok());
    assert!(veto.capabilities(&caps("CAP_DAC_OVERRIDE")).expect_err("refused").contains("CAP_DAC_OVERRIDE"));
    assert!(open.capabilities(&caps("CAP_SYS_ADMIN")).is_ok());
    assert!(veto.mode(0o4755).is_some() && veto.mode(0o644).is_none() && open.mode(0o4755).is_none());
}

#[test]
fn limits_refuse_more_and_bound_what_was_not_asked() {
    let veto = Veto {
        max_memory: Some(Setting { value: 1000, line: Some(20) }),
        max_cpu: Some(Setting { value: 2000, line: None }),
        max_nofile: Some(Setting { value: 4096, line: None }),
        max_processes: Some(Setting { value: 2, line: None }),
        ..usual()
    };
    let mut limits = Limits { cpu_millis: Some(500), ..Limits::default() };
    veto.limits(&mut limits).expect("fits");
    assert_eq!((limits.cpu_millis, limits.memory_max), (Some(500), Some(1000)));
    let mut limits = Limits { memory_max: Some(1001), ..Limits::default() };
    assert!(
        veto.limits(&mut limits)
            .expect_err("refused")
            .contains("max_memory in /etc/ostler/agent.toml line 20")
    );
    let nofile = |soft, hard| Rlimit { resource: "nofile".to_owned(), soft, hard };
    let mut rlimits = vec![nofile(1024, 524_288)];
    veto.rlimits(&mut rlimits).expect("fits");
    assert_eq!(rlimits, vec![nofile(1024, 4096)]);
    assert!(veto.rlimits(&mut [nofile(5000, 5000)]).is_err());
    assert!(veto.rlimits(&mut [nofile(1024, 4097)]).is_err(), "asked for, so not cut in silence");
    let can = [("nofile".to_owned(), 1024), ("core".to_owned(), 0)].into();
    let bounds = veto.bounds(&can).into_iter().collect::<Vec<_>>();
    let told = [("core", 0), ("cpu", 2000), ("memory", 1000), ("nofile", 1024)];
    assert_eq!(bounds, told.map(|(name, most)| (name.to_owned(), most)));
    assert!(veto.processes(2).is_ok() && veto.processes(3).is_err());
}

#[test]
fn commands_beside_processes() {
    let with = |value| Veto { exec: Setting { value, line: None }, ..usual() };
    assert!(with(AllowExec::OwnUser).exec(1000).is_ok() && with(AllowExec::OwnUser).exec(0).is_err());
    assert!(with(AllowExec::Off).exec(1000).is_err() && with(AllowExec::Any).exec(0).is_ok());
}

#[test]
fn patterns_that_mean_something_else_are_refused() {
    for bad in ["etc/x", "/etc/../x", "/etc//x", "/etc/[ab]", "/etc/{a,b}", ""] {
        assert!(Pattern::parse(bad).is_err(), "{bad}");
    }
    let all = Pattern::parse("/").expect("everything");
    assert!(all.matches("/") && all.matches("/etc/x"));
    let many = Pattern::parse("/a/**/b/**/c?").expect("a pattern");
    assert!(many.matches("/a/b/c1") && many.matches("/a/x/b/y/b/c2/deeper") && !many.matches("/a/c1"));
}

fn spelling() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("/"), Just("//"), Just("/./"), Just("/x/../"), Just("/././"), Just("/a/b/../../")]
}

proptest! {
    /// However a denied path is spelled, and whichever of its spellings is the real one, it is denied.
    #[test]
    fn no_spelling_of_a_denied_path_passes(
        which in 0usize..8,
        seams in proptest::collection::vec(spelling(), 8),
        upper in proptest::collection::vec(any::<bool>(), 64),
        by_link in any::<bool>(),
    ) {
        let denied = ["/etc/sudoers.d/x", "/etc/shadow", "/root/.ssh/authorized_keys", "/home/a/.ssh/id",
            "/boot/x", "/etc/ssh/my_key", "/etc/pam.d/login", "/etc/ld.so.preload"];
        let names = denied[which].split('/').filter(|name| !name.is_empty());
        let mut spelled = String::new();
        for (name, seam) in names.zip(&seams) {
            spelled.push_str(seam);
            spelled.push_str(name);
        }
        let spelled: String = spelled.chars().zip(upper.iter().cycle())
            .map(|(c, up)| if *up { c.to_ascii_uppercase() } else { c }).collect();
        let refused = if by_link { usual().path("/srv/a", Some(&spelled)) } else { usual().path(&spelled, None) };
        prop_assert!(refused.is_some(), "{} passes", spelled);
    }

    /// Matching ends, whatever the pattern and the path.
    #[test]
    fn matching_ends(pattern in "(/[ab*?]{1,4}|/\\*\\*){1,6}", path in "(/[ab]{1,5}){0,9}") {
        if let Ok(pattern) = Pattern::parse(&pattern) {
            // Any answer will do: it ends.
            std::hint::black_box(pattern.matches(&path));
        }
    }
}

#[test]
fn units_are_as_the_file_says_and_never_our_own() {
    let named = |patterns: &[&str]| Veto {
        enforced: true,
        units: Setting {
            value: Units::Named(patterns.iter().map(|p| (*p).to_owned()).collect()),
            line: Some(7),
        },
        ..Veto::default()
    };
    assert_eq!(Veto::default().unit("ostler-agent.service"), Ok(()), "whoever has no host to protect");
    let any = Veto { enforced: true, ..Veto::default() };
    assert_eq!(any.unit("nginx.service"), Ok(()));
    assert!(any.unit("ostler-holder.service").is_err());
    let some = named(&["nginx.service", "app@*.service"]);
    assert_eq!(some.unit("nginx.service"), Ok(()));
    assert_eq!(some.unit("app@7.service"), Ok(()));
    assert!(some.unit("ssh.service").is_err_and(|why| why.contains("line 7")));
    assert!(named(&["ostler-*"]).unit("ostler-agent.service").is_err());
    assert!(named(&[]).unit("nginx.service").is_err());
}
