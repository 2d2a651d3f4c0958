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
fn nobody_outside_cp_changes_or_consumes_through_the_api() {
    let reads = ["$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST"];
    for crossing in &CROSSINGS {
        if !crossing.subject.starts_with("$JS.") || reads.contains(&crossing.subject) {
            continue;
        }
        let read = ["$JS.API.DIRECT.GET.", "$JS.API.STREAM.INFO.", "$JS.API.STREAM.MSG.GET."];
        assert!(read.iter().any(|prefix| crossing.subject.starts_with(prefix)), "{crossing:?}");
    }
}

#[test]
fn what_crosses_twice_lands_nowhere() {
    for crossing in &CROSSINGS {
        let Some(local) = crossing.local else { continue };
        let wildcards = local.split('.').filter(|t| *t == "*").count();
        let first = local.split('.').position(|t| t == "*");
        let writes = !crossing.subject.starts_with("$JS.API.DIRECT.GET.");
        let safe = first >= Some(3) || wildcards > 1 || local.ends_with('>');
        assert!(!writes || safe, "{crossing:?}");
    }
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

#[test]
fn the_key_of_a_block_is_for_its_own_nodes_alone() {
    let prefix: ostler_schemas::Name = "sim".parse().expect("a name");
    let blocks = Block::all(&prefix, BLOCK + 1).expect("names");
    assert_eq!(blocks.iter().map(|block| block.nodes().len()).collect::<Vec<_>>(), [BLOCK as usize, 1]);
    for block in &blocks {
        let all = permissions(&Identity::Simulated(block.clone()));
        let mut own = BTreeSet::from([format!("{}.>", Identity::Simulated(block.clone()).inbox_prefix())]);
        for node in block.nodes() {
            let one = permissions(&Identity::Node(node.clone()));
            own.extend(one.publish_allow.into_iter().chain(one.subscribe_allow));
        }
        let inboxes: BTreeSet<String> = block.nodes().iter().map(|node| format!("_INBOX_{node}.>")).collect();
        let given: BTreeSet<String> = all.publish_allow.into_iter().chain(all.subscribe_allow).collect();
        assert_eq!(given, own.difference(&inboxes).cloned().collect());
    }
    assert_eq!(Block::all(&prefix, SIMULATED_MAX + 1), None);
    assert_eq!(Block::all(&"a".repeat(60).parse().expect("a name"), 1), None);
}
