use std::collections::BTreeSet;

use super::*;

fn scale() -> Scale {
    Scale { replicas: 1, sizes: Sizes::default() }
}

#[test]
fn what_agents_publish_into_takes_no_dangerous_headers() {
    for stream in streams(scale()) {
        let config = stream.to_json();
        assert_eq!(config["allow_rollup_hdrs"], false, "{}", stream.name);
        assert_eq!(config["allow_msg_ttl"], false, "{}", stream.name);
        assert!(config["max_bytes"].as_u64().is_some_and(|b| b > 0), "{}", stream.name);
        assert_eq!(config["duplicate_window"], 100_000_000, "{}", stream.name);
        let filled_by_agents = CROSSINGS.iter().any(|c| {
            c.to == Account::Ag && stream.subjects.iter().any(|s| c.subject.starts_with(&s[..s.len() - 1]))
        });
        if filled_by_agents {
            assert_eq!(config["allow_atomic"], false, "{}", stream.name);
        }
    }
}

#[test]
fn nothing_opens_the_api_of_jetstream() {
    let crossing_into_api: BTreeSet<&str> = CROSSINGS
        .iter()
        .map(|c| c.subject)
        .filter(|s| s.starts_with("$JS.API."))
        .filter(|s| !s.starts_with("$JS.API.DIRECT.GET.KV_ostler"))
        .collect();
    let mirrors: BTreeSet<String> =
        mirrors(scale()).iter().map(|m| format!("$JS.API.CONSUMER.CREATE.{}", m.name)).collect();
    assert_eq!(crossing_into_api, mirrors.iter().map(String::as_str).collect());
}

#[test]
fn no_two_identities_share_an_inbox() {
    let node: ostler_schemas::NodeName = "canary".parse().expect("a name");
    let all = [Identity::Canary { servers: vec![] }, Identity::Node(node)];
    let prefixes: BTreeSet<String> = all.iter().map(Identity::inbox_prefix).collect();
    assert_eq!(prefixes.len(), all.len());
}

#[test]
fn a_node_names_itself_in_everything_that_is_about_one_node() {
    let node: ostler_schemas::NodeName = "n1".parse().expect("a name");
    let lists = permissions(&Identity::Node(node));
    let shared = ["get.tmpl.*", "get.blob.*.*"];
    for subject in lists.publish_allow.iter().chain(&lists.subscribe_allow) {
        assert!(
            shared.contains(&subject.as_str()) || subject.split('.').any(|t| t == "n1" || t == "_INBOX_n1"),
            "{subject}"
        );
    }
}
