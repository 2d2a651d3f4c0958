//! The tables are sound, and the committed JSON Schema is theirs.

use std::collections::BTreeSet;

use super::*;
use crate::ids::Kind;

fn every_object(object: &'static Object, visit: &mut impl FnMut(&'static Object)) {
    visit(object);
    for field in object.fields {
        let mut ty = &field.ty;
        while let Type::List { of, .. } = ty {
            ty = of;
        }
        if let Type::Object(inner) = ty {
            every_object(inner, visit);
        }
    }
}

#[test]
fn names_are_unique_and_described() {
    let mut check = |object: &'static Object| {
        let mut seen = BTreeSet::new();
        for field in object.fields {
            assert!(seen.insert(field.name), "{} twice", field.name);
            assert!(field.doc.ends_with('.'), "{}: {}", field.name, field.doc);
        }
    };
    every_object(&DOCUMENT, &mut check);
    for kind in Kind::ALL {
        every_object(spec_of(kind), &mut check);
    }
}

#[test]
fn kinds_that_are_not_served_have_only_reserved_fields() {
    for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_served()) {
        let reserved = |field: &Field| matches!(field.presence, Presence::Reserved);
        assert!(spec_of(kind).fields.iter().all(reserved), "{kind}");
    }
}

#[test]
fn suggestions() {
    let names = || TEMPLATE.fields.iter().map(|field| field.name);
    assert_eq!(suggest("livenesProbe", names()), Some("livenessProbe"));
    assert_eq!(suggest("WorkingDirectory", names()), Some("workingDirectory"));
    assert_eq!(suggest("comand", names()), Some("command"));
    assert_eq!(suggest("sidecars", names()), None);
    assert_eq!(suggest("x", names()), None);
    assert_eq!(translate("minReadySeconds"), Some("use rollout.bake"));
}

/// To renew the files after a change of the tables, run the tests with `OSTLER_WRITE_SCHEMA=1`.
#[test]
fn the_committed_pages_are_current() {
    let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema"));
    for (name, text) in
        [("ostler.v1.json", format!("{:#}\n", json_schema())), ("fields.md", field_reference())]
    {
        let path = folder.join(name);
        if std::env::var_os("OSTLER_WRITE_SCHEMA").is_some() {
            std::fs::write(&path, &text).expect("the page can be written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "docs/schema/{name} is not current: run with OSTLER_WRITE_SCHEMA=1");
    }
}

/// The fields of CONTRACT.md section 2 with their defaults as they stand there; `-` where there is none, or where it
/// depends on something else. Those marked as reserved in it, or in what this version leaves out, have `◊`.
const CONTRACT: [(&str, &str); 84] = [
    ("command", "-"),
    ("args", "[]"),
    ("artifacts", "[]"),
    ("type", "exec"),
    ("user", "-"),
    ("group", "-"),
    ("supplementaryGroups", "[]"),
    ("workingDirectory", "/"),
    ("umask", "\"0022\""),
    ("env", "[]"),
    ("environmentFile", "[]"),
    ("credentials", "[]"),
    ("rollOnSecretChange", "false"),
    ("ports", "[]"),
    ("resources", "{}"),
    ("tasksMax", "4096"),
    ("memoryMin", "-"),
    ("memoryHigh", "-"),
    ("memorySwapMax", "-"),
    ("allowedCPUs", "-"),
    ("ioReadBandwidthMax", "-"),
    ("ioWriteBandwidthMax", "-"),
    ("cpuWeight", "100"),
    ("ioWeight", "100"),
    ("nice", "0"),
    ("oomScoreAdjust", "0"),
    ("limitNOFILE", "1024:524288"),
    ("limitNPROC", "-"),
    ("limitCORE", "-"),
    ("limitMEMLOCK", "-"),
    ("limitSTACK", "-"),
    ("limitFSIZE", "-"),
    ("limitAS", "-"),
    ("noNewPrivileges", "true"),
    ("ambientCapabilities", "[]"),
    ("capabilityBoundingSet", "-"),
    ("stateDirectory", "[]"),
    ("cacheDirectory", "[]"),
    ("logsDirectory", "[]"),
    ("runtimeDirectory", "[]"),
    ("privateTmp", "false"),
    ("readOnlyPaths", "[]"),
    ("protectSystem", "◊"),
    ("protectHome", "◊"),
    ("systemCallFilter", "◊"),
    ("unit", "◊"),
    ("execStartPre", "[]"),
    ("execReload", "-"),
    ("execStop", "-"),
    ("execStopPost", "-"),
    ("timeoutStartSec", "1m30s"),
    ("watchdogSec", "-"),
    ("killSignal", "SIGTERM"),
    ("killMode", "mixed"),
    ("timeoutStopSec", "30s"),
    ("preStopDelay", "0s"),
    ("reloadSignal", "SIGHUP"),
    ("restart", "always"),
    ("successExitStatus", "[]"),
    ("restartSec", "1s"),
    ("restartMaxDelaySec", "1m"),
    ("startLimitBurst", "5"),
    ("startLimitIntervalSec", "10m"),
    ("startLimitAction", "-"),
    ("startupProbe", "-"),
    ("livenessProbe", "-"),
    ("readinessProbe", "-"),
    ("standardOutput", "file"),
    ("standardError", "file"),
    ("logs", "{}"),
    ("needs", "[]"),
    ("nodeName", "-"),
    ("nodeSelector", "{}"),
    ("priorityClassName", "◊"),
    ("affinity", "◊"),
    ("topologySpreadConstraints", "◊"),
    ("onDisconnect", "◊"),
    ("tolerations", "[]"),
    // Below them.
    ("artifacts.mode", "\"0755\""),
    ("environmentFile.optional", "false"),
    ("execStop.timeout", "30s"),
    ("livenessProbe.period", "10s"),
    ("logs.maxSize", "10Mi"),
    ("logs.keepAfterExit", "7d"),
];

/// The field of that path, through lists and maps.
fn field_at(path: &str) -> Option<&'static Field> {
    let mut object: &'static Object = &TEMPLATE;
    let mut found = None;
    for name in path.split('.') {
        let field = object.field(name)?;
        found = Some(field);
        let mut ty: &'static Type = &field.ty;
        while let Type::List { of, .. } = ty {
            ty = of;
        }
        if let Type::Object(inner) = ty {
            object = inner;
        }
    }
    found
}

#[test]
fn the_table_says_what_the_contract_says() {
    for (path, default) in CONTRACT {
        let field = field_at(path).unwrap_or_else(|| panic!("{path} is not in the table"));
        let is_reserved = matches!(field.presence, Presence::Reserved);
        assert_eq!((is_reserved, path), (default == "◊", path));
        let written = if default == "◊" { "◊" } else { field.default.unwrap_or("-") };
        assert_eq!(written, default, "{path}");
    }
    let promised: BTreeSet<&str> = CONTRACT.into_iter().map(|(path, _)| path).collect();
    for field in TEMPLATE.fields.iter().filter(|f| !matches!(f.presence, Presence::Ignored)) {
        assert!(promised.contains(field.name), "{} is not in the contract", field.name);
    }
}
