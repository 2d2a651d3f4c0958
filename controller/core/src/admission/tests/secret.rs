//! Secrets, and those who refer to them.

use ostler_schemas::manifest::{FindingCode, GivenValue, ManifestBody, Options, Refusal, read_manifests};
use ostler_schemas::sealing::{PublicKey, Sealed};
use ostler_schemas::spec::{SecretSpec, SecretValue, Spec};
use ostler_schemas::v1::api::{ApplyOutcome, DeleteRequest};
use ostler_schemas::{Key, Kind, ObjectRef, Version};

use super::super::{Apply, ApplyOptions, apply, delete, reseal};
use super::{after, by, commit, ids, world};
use crate::status::rig::{Rig, object};

const OLD: PublicKey = PublicKey::from_bytes([1; 32]);
const NEW: PublicKey = PublicKey::from_bytes([2; 32]);

const DB: &str = "
apiVersion: ostler/v1
kind: Secret
metadata: {name: db}
spec: {stringData: {password: correct-horse, user: app}}
";

const WEB: &str = "
apiVersion: ostler/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      command: [/usr/bin/app]
      env: [{name: P, valueFrom: {secretKeyRef: {name: db, key: password}}}]
      rollOnSecretChange: true
";

fn db() -> ObjectRef {
    object(Kind::Secret, "db")
}

/// As the edge does it, but that a box is the text backwards: the same value is the same box.
fn try_apply(rig: &Rig, yaml: &str) -> Result<Apply, Refusal> {
    let mut manifests = read_manifests(None, yaml.as_bytes(), &Options::default()).expect("checks");
    for manifest in &mut manifests {
        let ManifestBody::Secret(body) = &mut manifest.body else { continue };
        let stored = rig.fleet.objects.get(&db()).map(|o| o.value.spec.clone());
        for (key, given) in body.values.iter_mut().flat_map(|wish| &mut wish.given) {
            let GivenValue::Plain(plain) = &*given else { continue };
            let bytes: Vec<u8> = plain.reveal().iter().rev().copied().collect();
            let sealed = Sealed { to: OLD, bytes };
            let had = match &stored {
                Some(Spec::Secret(spec)) => spec.values.get(key),
                Some(_) | None => None,
            };
            let same = had.filter(|value| value.sealed.as_ref() == Some(&sealed)).cloned();
            let fresh = SecretValue { size: plain.size(), since: Version(0), sealed: Some(sealed) };
            *given = GivenValue::Sealed(same.unwrap_or(fresh));
        }
    }
    apply(&world(rig, &by()), manifests, &ApplyOptions::default(), &mut ids())
}

fn applied(rig: &mut Rig, yaml: &str) -> Apply {
    let done = try_apply(rig, yaml).expect("admitted");
    commit(rig, &done.decision);
    done
}

fn findings(rig: &Rig, yaml: &str) -> Vec<(FindingCode, String)> {
    let refusal = try_apply(rig, yaml).expect_err("refused");
    refusal.findings.into_iter().map(|f| (f.code, f.message)).collect()
}

fn spec(rig: &Rig) -> SecretSpec {
    match &rig.fleet.objects[&db()].value.spec {
        Spec::Secret(spec) => (**spec).clone(),
        other => panic!("{other:?}"),
    }
}

fn since(rig: &Rig) -> Vec<(String, u64)> {
    spec(rig).values.iter().map(|(key, value)| (key.clone(), value.since.0)).collect()
}

fn web_version(rig: &Rig) -> u64 {
    rig.fleet.objects[&object(Kind::Deployment, "web")].value.metadata.version.0
}

#[test]
fn a_secret_has_versions_and_its_kept_specs_have_no_values() {
    let mut rig = Rig::new();
    let done = applied(&mut rig, DB);
    assert_eq!((done.results[0].outcome, after(&done).metadata.version), (ApplyOutcome::Created, Version(1)));
    let again = applied(&mut rig, DB);
    assert_eq!(again.results[0].outcome, ApplyOutcome::Unchanged);
    assert!(again.decision.is_idle());
    let changed = applied(&mut rig, &DB.replace("correct-horse", "battery"));
    assert_eq!(after(&changed).metadata.version, Version(2));
    assert_eq!(since(&rig), [("password".to_owned(), 2), ("user".to_owned(), 1)]);
    let frozen = applied(
        &mut rig,
        &DB.replace("correct-horse", "battery").replace("spec: {", "spec: {immutable: true, "),
    );
    assert_eq!(after(&frozen).metadata.version, Version(2), "no value changed");
    let refused = findings(&rig, DB);
    assert!(
        refused.iter().all(|(code, _)| *code == FindingCode::Immutable) && refused.len() == 2,
        "{refused:?}"
    );
    for kept in rig.fleet.spec_revisions.values() {
        let Spec::Secret(kept) = &kept.value.spec else { panic!("a Secret") };
        assert!(kept.values.values().all(|value| value.sealed.is_none()));
    }
}

#[test]
fn what_is_kept_must_be_there_and_what_is_not_sealed_is_refused() {
    let mut rig = Rig::new();
    let keep = "{apiVersion: ostler/v1, kind: Secret, metadata: {name: db}, spec: {keep: [user, x], stringData: {}}}";
    assert_eq!(findings(&rig, keep).len(), 2);
    applied(&mut rig, DB);
    assert_eq!(
        findings(&rig, keep),
        [(
            FindingCode::NotFound,
            "has no value \"x\" that could be kept: give it, or take it out of keep".to_owned()
        )]
    );
    applied(&mut rig, &keep.replace(", x", ""));
    assert_eq!(since(&rig), [("user".to_owned(), 1)]);
    let manifests = read_manifests(None, DB.as_bytes(), &Options::default()).expect("checks");
    let plain = apply(&world(&rig, &by()), manifests, &ApplyOptions::default(), &mut ids());
    let refusal = plain.expect_err("nothing was sealed");
    assert!(
        refusal.findings.iter().all(|f| f.code == FindingCode::NotSupported && !f.message.contains("horse"))
    );
}

#[test]
fn references_must_exist_or_come_along() {
    let mut rig = Rig::new();
    let missing = "refers to secret/db, which does not exist in namespace default";
    assert_eq!(findings(&rig, WEB), [(FindingCode::NotFound, missing.to_owned())]);
    applied(&mut rig, &WEB.replace("key: password", "key: password, optional: true"));
    applied(&mut rig, &format!("{DB}---{WEB}"));
    let no_value = "refers to secret/db, which has no value \"token\"";
    assert_eq!(
        findings(&rig, &WEB.replace("key: password", "key: token")),
        [(FindingCode::NotFound, no_value.to_owned())]
    );
    let request = DeleteRequest { object: db(), reason: None, force: false };
    let refused = delete(&world(&rig, &by()), &request).expect_err("in use");
    assert!(refused.message.contains("is needed by deployment/web"), "{}", refused.message);
    let verdict = delete(&world(&rig, &by()), &DeleteRequest { force: true, ..request }).expect("forced");
    assert!(verdict.reply.gone);
}

#[test]
fn a_changed_secret_rolls_those_who_ask_for_it() {
    let mut rig = Rig::new();
    applied(&mut rig, &format!("{DB}---{WEB}"));
    assert_eq!(web_version(&rig), 1);
    assert!(applied(&mut rig, &format!("{DB}---{WEB}")).decision.is_idle());
    let changed = applied(&mut rig, &DB.replace("correct-horse", "battery"));
    assert_eq!(web_version(&rig), 2, "{:?}", changed.decision.writes);
    assert!(changed.decision.tell.iter().any(|t| t.message.contains("secret/db changed")));
    assert!(applied(&mut rig, WEB).decision.is_idle(), "what was applied is what there is");
    let quiet = WEB.replace("rollOnSecretChange: true", "rollOnSecretChange: false");
    applied(&mut rig, &quiet);
    assert_eq!(web_version(&rig), 3);
    applied(&mut rig, DB);
    assert_eq!(web_version(&rig), 3, "it is used at the next start");
    assert!(applied(&mut rig, &quiet).decision.is_idle());
    applied(&mut rig, &quiet.replace("/usr/bin/app", "/usr/bin/app2"));
    let Spec::Deployment(spec) = &rig.fleet.objects[&object(Kind::Deployment, "web")].value.spec else {
        panic!()
    };
    let noted: Vec<u64> = spec.template.spec.secret_versions.values().map(|v| v.v.0).collect();
    assert_eq!(noted, [3], "a new template starts with nothing older");
}

#[test]
fn older_keys_are_left_behind_and_nothing_else_changes() {
    let mut rig = Rig::new();
    applied(&mut rig, DB);
    let before = rig.fleet.objects[&db()].value.metadata.clone();
    let anew = |_: &ObjectRef, key: &str, value: &SecretValue| {
        let sealed = value.sealed.clone().filter(|_| key != "user")?;
        Some(SecretValue { sealed: Some(Sealed { to: NEW, ..sealed }), ..value.clone() })
    };
    let decision = reseal(&rig.fleet, NEW, &anew).expect("something to do");
    assert!(matches!(decision.writes[..], [super::super::Write { key: Key::Object(_), .. }]));
    commit(&mut rig, &decision);
    assert_eq!(rig.fleet.objects[&db()].value.metadata, before);
    assert!(reseal(&rig.fleet, NEW, &anew).is_none(), "what cannot be opened stays as it is");
    let keys: Vec<_> = spec(&rig).values.values().map(|v| v.sealed.as_ref().map(|s| s.to)).collect();
    assert_eq!(keys, [Some(NEW), Some(OLD)]);
}
