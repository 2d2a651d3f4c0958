//! `config release`.

use ostler_schemas::spec::{OnRemove, Spec};
use ostler_schemas::v1::api::{ApiErrorCode, ConfigReply};
use ostler_schemas::{Kind, ObjectRef};

use super::super::{Act, release};
use super::{by, commit, world};
use crate::status::rig::{Rig, file_spec, object, uid};

fn app() -> ObjectRef {
    object(Kind::ConfigFile, "app")
}

#[test]
fn a_release_keeps_the_files_whatever_on_remove_says() {
    let mut rig = Rig::new();
    let mut spec = file_spec("/etc/app.conf", None);
    spec.on_remove = OnRemove::Delete;
    rig.object(app(), uid(1), Spec::ConfigFile(Box::new(spec)));
    let verdict = release(&world(&rig, &by()), &app(), (false, Some("moved".to_owned()))).expect("released");
    assert!(matches!(verdict.reply, ConfigReply::Changed { changed: true, .. }));
    let revisions =
        verdict.decision.writes.iter().filter(|write| matches!(write.act, Act::SpecRevision(_))).count();
    assert_eq!(revisions, 1, "another spec is another generation");
    commit(&mut rig, &verdict.decision);
    let stored = &rig.fleet.objects[&app()].value;
    assert!(stored.is_deleting());
    assert_eq!((stored.metadata.applied.verb.as_str(), stored.metadata.generation.0), ("config release", 2));
    let Spec::ConfigFile(spec) = &stored.spec else { panic!("a file") };
    assert_eq!(spec.on_remove, OnRemove::Keep);
    let again = release(&world(&rig, &by()), &app(), (false, None)).expect_err("it goes already");
    assert_eq!(again.code, ApiErrorCode::Conflict);
}
