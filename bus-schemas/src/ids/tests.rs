use super::*;

#[test]
fn labels_are_dns_labels() {
    for good in ["a", "web-1", "0", &"a".repeat(63)] {
        assert!(is_label(good), "{good}");
    }
    for bad in ["", "-a", "a-", "Web", "a.b", "a_b", "*", ">", &"a".repeat(64)] {
        assert!(!is_label(bad), "{bad}");
    }
}

#[test]
fn a_bad_name_says_what_to_write() {
    let said = "Web_1".parse::<Name>().expect_err("refused").to_string();
    assert_eq!(said, r#""Web_1" is not a name: use a-z, 0-9 and "-"; for example web-1"#);
}

#[test]
fn uids_round_trip_as_text_and_bytes() {
    let uid = Uid::from_bytes([0xab; 16]);
    assert_eq!(uid.to_string().parse::<Uid>().expect("parses"), uid);
    let packed = rmp_serde::to_vec_named(&uid).expect("packs");
    assert_eq!(packed.len(), 18, "bin8 header and 16 bytes");
    assert_eq!(rmp_serde::from_slice::<Uid>(&packed).expect("unpacks"), uid);
    assert_eq!(serde_json::to_string(&uid).expect("prints"), format!("\"{uid}\""));
}

#[test]
fn kinds_are_found_by_every_name() {
    for (text, kind) in [("deploy", Kind::Deployment), ("no", Kind::Node), ("ConfigFile", Kind::ConfigFile)] {
        assert_eq!(Kind::by_any_name(text), Some(kind));
    }
    assert_eq!(Kind::by_any_name("Deploy"), None);
}
