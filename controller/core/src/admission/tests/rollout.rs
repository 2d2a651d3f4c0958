use ostler_schemas::key::StateSubject;
use ostler_schemas::spec::Spec;
use ostler_schemas::v1::api::{ApiErrorCode, RolloutChange, RolloutOp, RolloutRequest};
use ostler_schemas::v1::object::RolloutAct;
use ostler_schemas::v1::state::{RolloutHold, RolloutPhase, RolloutState};
use ostler_schemas::{ControllerName, Key, Kind, ObjectRef, Version};

use super::*;
use crate::admission::{rollout, rollout_already, rollout_history};
use crate::status::rig::object;

const WEB: &str = "{apiVersion: ostler/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 2, template: {spec: \
                   {command: [/bin/app, WORD]}}}}";

fn web() -> ObjectRef {
    object(Kind::Deployment, "web")
}

fn made() -> Rig {
    let mut rig = Rig::new();
    applied(&mut rig, &WEB.replace("WORD", "one"));
    applied(&mut rig, &WEB.replace("WORD", "two"));
    rig
}

fn at(rig: &mut Rig, phase: RolloutPhase, hold: Option<RolloutHold>) {
    let uid = rig.fleet.objects[&web()].value.metadata.uid;
    let state = RolloutState {
        target: Version(2),
        last_good: Version(1),
        phase,
        hold,
        orders: 4,
        ..RolloutState::default()
    };
    rig.put(&Key::State(ControllerName::Deployment, StateSubject::Uid(uid)), &state);
}

fn ask(rig: &mut Rig, op: RolloutOp) -> Result<RolloutChange, ApiErrorCode> {
    let request = RolloutRequest { object: web(), op, reason: Some("why".to_owned()) };
    // Each request has a transaction of its own, as callers draw them.
    let drawn = u8::try_from(rig.fleet.revision.0 % 100).unwrap_or(0) + 100;
    let by = By { txn: TxnId::from_bytes([drawn; 16]), ..by() };
    let verdict = rollout(&world(rig, &by), &request).map_err(|error| error.code)?.expect("a change");
    let changes = !verdict.decision.is_idle();
    commit(rig, &verdict.decision);
    assert_eq!(changes, verdict.reply.changed);
    if changes {
        let again = rollout_already(&world(rig, &by), &request).expect("ours");
        assert!(again.is_some_and(|again| again.changed), "a copy of the request is answered alike");
    }
    Ok(verdict.reply)
}

fn is_paused(rig: &Rig) -> bool {
    matches!(&rig.fleet.objects[&web()].value.spec, Spec::Deployment(spec) if spec.paused)
}

#[test]
fn a_pause_stands_in_the_spec_until_it_is_taken_back() {
    let mut rig = made();
    at(&mut rig, RolloutPhase::Progressing, None);
    assert_eq!(ask(&mut rig, RolloutOp::Pause).expect("done").message, "deployment/web paused");
    assert!(is_paused(&rig));
    assert!(!ask(&mut rig, RolloutOp::Pause).expect("done").changed);
    // What a manifest does not say stays as the verb has left it; what it says against it is refused.
    applied(&mut rig, &WEB.replace("WORD", "two").replace("replicas: 2", "replicas: 3"));
    assert!(is_paused(&rig));
    let found = findings(&rig, &WEB.replace("WORD", "two").replace("replicas: 2", "paused: false"));
    assert!(found.iter().any(|finding| finding.message.contains("rollout pause")), "{found:?}");
    assert!(ask(&mut rig, RolloutOp::Resume).expect("done").changed);
    assert!(!is_paused(&rig));
}

#[test]
fn orders_are_numbered_and_about_one_version() {
    let mut rig = made();
    at(&mut rig, RolloutPhase::Paused, Some(RolloutHold::AfterWave));
    assert!(ask(&mut rig, RolloutOp::Resume).expect("done").changed);
    let order = rig.fleet.objects[&web()].value.metadata.order.clone().expect("an order");
    assert_eq!((order.n, order.act, order.version), (5, RolloutAct::Resume, Version(2)));
    assert!(ask(&mut rig, RolloutOp::Abort).expect("done").changed);
    let order = rig.fleet.objects[&web()].value.metadata.order.clone().expect("an order");
    assert_eq!((order.n, order.act), (6, RolloutAct::Abort));
    assert_eq!(rig.fleet.objects[&web()].value.metadata.version, Version(2), "no new version");
}

#[test]
fn what_is_over_is_neither_resumed_nor_aborted() {
    let mut rig = made();
    at(&mut rig, RolloutPhase::Complete, None);
    assert!(!ask(&mut rig, RolloutOp::Resume).expect("done").changed);
    assert_eq!(ask(&mut rig, RolloutOp::Abort), Err(ApiErrorCode::Conflict));
    let request =
        RolloutRequest { object: object(Kind::Deployment, "other"), op: RolloutOp::Pause, reason: None };
    let missing = rollout(&world(&rig, &by()), &request).expect_err("refused");
    assert_eq!(missing.code, ApiErrorCode::NotFound);
    let request = RolloutRequest { object: object(Kind::Namespace, "default"), ..request };
    assert_eq!(rollout(&world(&rig, &by()), &request).expect_err("refused").code, ApiErrorCode::Invalid);
}

#[test]
fn an_undo_is_a_new_version_with_the_old_template() {
    let mut rig = made();
    at(&mut rig, RolloutPhase::Complete, None);
    let said = ask(&mut rig, RolloutOp::Undo { to_version: None }).expect("done").message;
    assert_eq!(said, "deployment/web version 3 (was 2), as version 1 was");
    let Spec::Deployment(spec) = &rig.fleet.objects[&web()].value.spec else { panic!("a Deployment") };
    assert_eq!(spec.template.spec.command, ["/bin/app", "one"]);
    let missing = ask(&mut rig, RolloutOp::Undo { to_version: Some(Version(9)) });
    assert_eq!(missing, Err(ApiErrorCode::NotFound));
    let versions = rollout_history(&rig.fleet, &web()).expect("a history");
    let shown: Vec<(u64, &[String])> = versions.iter().map(|v| (v.version.0, v.change.as_slice())).collect();
    let changed = ["spec.template.spec.command".to_owned()];
    assert_eq!(shown, [(3, changed.as_slice()), (2, changed.as_slice()), (1, [].as_slice())]);
    assert_eq!(versions[1].state, "Held");
}
