//! Words and what they mean.

use clap::CommandFactory;
use ostler_schemas::Kind;
use ostler_schemas::v1::api::LabelOperator;

use super::Cli;
use super::target::{Target, selector, targets};

#[test]
fn the_definition_is_sound_and_helps_with_exit_codes() {
    let mut command = Cli::command();
    command.clone().debug_assert();
    let help = command.render_long_help().to_string();
    assert!(help.contains("130  watching stopped by Ctrl-C"), "{help}");
    assert!(!help.contains("dev-child"), "{help}");
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn objects_are_named_in_every_way() {
    let web = |kind| Target { kind, name: Some("web".to_owned()) };
    assert_eq!(targets(&words("deployment/web"), None).expect("parses"), [web(Kind::Deployment)]);
    assert_eq!(targets(&words("deploy web"), None).expect("parses"), [web(Kind::Deployment)]);
    assert_eq!(
        targets(&words("cf/web ps/web"), None).expect("parses"),
        [web(Kind::ConfigFile), web(Kind::Process)]
    );
    assert_eq!(targets(&words("web"), Some(Kind::Process)).expect("parses"), [web(Kind::Process)]);
    let all = targets(&words("nodes,deployments"), None).expect("parses");
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|t| t.name.is_none()));
}

#[test]
fn wrong_kinds_are_told_apart() {
    let text = |words: &str| targets(&self::words(words), None).expect_err("refused").to_string();
    assert!(text("deploymnt").contains("did you mean deployment?"), "{}", text("deploymnt"));
    assert!(text("services").contains("not supported by this version"), "{}", text("services"));
    assert!(text("deployment/web api").contains("has no kind"), "{}", text("deployment/web api"));
}

#[test]
fn selectors_are_those_of_kubernetes() {
    let found =
        selector("app=web, tier in (front,back),!old,rack notin (r7),zone,n>3,m<4,x!=y").expect("parses");
    let shapes: Vec<(&str, LabelOperator, usize)> =
        found.iter().map(|r| (r.key.as_str(), r.operator, r.values.len())).collect();
    assert_eq!(
        shapes,
        [
            ("app", LabelOperator::In, 1),
            ("tier", LabelOperator::In, 2),
            ("old", LabelOperator::DoesNotExist, 0),
            ("rack", LabelOperator::NotIn, 1),
            ("zone", LabelOperator::Exists, 0),
            ("n", LabelOperator::Gt, 1),
            ("m", LabelOperator::Lt, 1),
            ("x", LabelOperator::NotIn, 1),
        ]
    );
    assert!(selector("a in b").is_err());
    assert!(selector("a b").is_err());
}
