use proptest::prelude::*;

use super::*;

fn sample() -> Vec<Key> {
    let uid = Uid::from_bytes([7; 16]);
    let hash = Sha256::from_bytes([9; 32]);
    let node: NodeName = "web-001".parse().expect("a name");
    let web = ObjectRef {
        kind: Kind::Deployment,
        namespace: Some(Namespace::default_namespace()),
        name: "web".parse().expect("a name"),
    };
    let mut keys = vec![
        Key::Object(web.clone()),
        Key::Object(ObjectRef::node(&node).expect("a node")),
        Key::SpecRevision(web.clone(), uid, Generation(12)),
        Key::Template(hash),
        Key::ProcessSpec(uid),
        Key::ProcessTemplate(uid),
        Key::ProcessBind(uid),
        Key::ProcessGoal(uid),
        Key::NodeDocument(node.clone(), DocumentKind::Run),
        Key::NodeDocument(node.clone(), DocumentKind::Files),
        Key::NodeDocument(node.clone(), DocumentKind::Secrets),
        Key::State(ControllerName::Node, StateSubject::Node(node.clone())),
        Key::State(ControllerName::Deployment, StateSubject::Uid(uid)),
        Key::MetaIncarnation,
        Key::MetaFormatFloor,
        Key::Report(node.clone()),
        Key::Status(web),
        Key::Grant(node),
        Key::BlobChunk(hash, 3),
    ];
    for c in ControllerName::ALL {
        keys.extend([Key::Lease(c), Key::Term(c), Key::Fence(c)]);
    }
    keys
}

#[test]
fn every_key_reads_back() {
    for key in sample() {
        assert_eq!(Key::parse(key.bucket(), &key.to_string()), Ok(key.clone()));
        assert_eq!(Key::from_subject(&key.subject()), Ok(key));
    }
}

#[test]
fn near_misses_are_refused() {
    let uid = "07".repeat(16);
    for text in [
        "",
        "o.deployment.default",
        "o.deployment._.web",
        "o.node.default.web-001",
        "o.Deployment.default.web",
        "o.deployment.default.web.x",
        "p.07.spec",
        "n.web-001.runs",
        "n.*.run",
        "lease.king",
        "meta.",
        &format!("p.{uid}.bound"),
        &format!("p.{}.spec", uid.to_uppercase().replace('0', "A")),
        &format!("rev.deployment.default.web.{uid}.012"),
        &format!("s.node.{}", "a".repeat(64)),
    ] {
        assert!(Key::parse(Bucket::Objects, text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn parsing_is_total_and_canonical(text in "[-_.a-z0-9$*>é]{0,90}") {
        for bucket in Bucket::ALL {
            if let Ok(key) = Key::parse(bucket, &text) {
                prop_assert_eq!(key.to_string(), text.clone());
            }
        }
        prop_assert!(Key::from_subject(&text).map_or(true, |k| k.subject() == text));
    }
}
