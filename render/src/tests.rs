use ostler_schemas::NodeName;
use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::spec::{Var, Vars};
use ostler_schemas::v1::document::NodeFacts;

use super::*;

fn facts() -> NodeFacts {
    NodeFacts {
        hostname: "web-017.ams.example.net".to_owned(),
        labels: [("rack", "r7"), ("role", "web")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        vars: Vars::from([("site".to_owned(), Var::Text("ams".to_owned()))]),
        addresses: [("internal".to_owned(), "10.0.0.17".to_owned())].into(),
        cpu: Cpu::from_millis(8_000),
        memory: Size::from_mib(1_024),
    }
}

fn vars() -> Vars {
    Vars::from([
        ("port".to_owned(), Var::Int(8080)),
        ("debug".to_owned(), Var::Bool(false)),
        ("list".to_owned(), Var::List(vec![Var::Int(2), Var::Text("b".to_owned())])),
        (
            "map".to_owned(),
            Var::Map(Vars::from([("z".to_owned(), Var::Int(1)), ("a".to_owned(), Var::Float(0.5))])),
        ),
    ])
}

fn render(source: &str) -> Result<String, Unrenderable> {
    let node: NodeName = "web-017".parse().expect("a name");
    let (facts, vars) = (facts(), vars());
    let input = Input { node: &node, facts: &facts, vars: &vars };
    let secrets: Arc<dyn Secrets> = Arc::new(NoSecrets);
    Template::parse(source)?.render(&input, &secrets).map(|rendered| rendered.text)
}

#[test]
fn the_example_of_the_contract() {
    let source = "listen  = {{ node.addresses.internal }}:{{ vars.port }}\nworkers = {{ node.cpus * 2 }}\n\
                  rack    = {{ node.labels.rack }}\ndebug   = {{ vars.debug }}\nsite = {{ node.vars.site }} {{ node.memory }}\n";
    let text =
        "listen  = 10.0.0.17:8080\nworkers = 16\nrack    = r7\ndebug   = false\nsite = ams 1073741824\n";
    assert_eq!(render(source).as_deref(), Ok(text));
}

#[test]
fn loops_tests_filters_and_macros() {
    let cases = [
        ("{% for k, v in vars.map | items %}{{ k }}={{ v }};{% endfor %}", "a=0.5;z=1;"),
        ("{{ vars.list | join(',') }}", "2,b"),
        ("{{ vars.missing | default('x') }}", "x"),
        ("{% if vars.debug %}a{% elif node.name == 'web-017' %}b{% endif %}", "b"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{{ m('&') }}", "<1><&>"),
        ("{{ vars.map | tojson }}", "{\"a\": 0.5, \"z\": 1}"),
        ("a\n", "a\n"),
        ("", ""),
    ];
    for (source, text) in cases {
        assert_eq!(render(source).as_deref(), Ok(text), "{source}");
    }
}

#[test]
fn what_is_undefined_is_named_with_its_place() {
    let refused = render("a\nb {{ node.labels.dc }}\n").expect_err("there is no such label");
    assert_eq!((refused.line, refused.column), (2, 6));
    assert_eq!(
        refused.to_string(),
        "line 2, column 6: node.labels.dc is undefined; set it or write {{ node.labels.dc | default(\"…\") }}"
    );
    let refused = render("{% for x in vars.none %}{% endfor %}").expect_err("nothing to walk");
    assert!(matches!(refused.why, Why::Undefined(_)), "{refused}");
    let refused = render("{{ frobnicate(1) }}").expect_err("no such function");
    assert_eq!(refused.line, 1);
}

#[test]
fn what_is_no_template_is_told_where() {
    let refused = render("a\n{{ vars.port\nb").expect_err("is not closed");
    assert!(matches!(refused.why, Why::Syntax(_)), "{refused}");
    assert!(refused.line >= 2, "{refused}");
}

#[test]
fn nothing_can_be_loaded_and_nothing_goes_on_for_ever() {
    for source in ["{% include 'a' %}", "{% extends 'a' %}", "{% import 'a' as b %}", "{{ debug() }}"] {
        assert!(render(source).is_err(), "{source}");
    }
    let long = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    assert!(matches!(render(long).expect_err("too long").why, Why::TooMuch(_)));
    let large = "{{ 'x' * 5000000 }}{{ 'x' * 5000000 }}";
    assert!(render(large).is_err());
    let deep = "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}";
    assert!(render(deep).is_err());
    let hidden = "{% set x %}{% for a in range(10000) %}{{ 'y' * 50000 }}{% endfor %}{% endset %}";
    assert!(render(hidden).is_err());
}

struct One;

impl Secrets for One {
    fn get(&self, name: &str, key: &str) -> Result<String, String> {
        if (name, key) == ("db", "password") {
            Ok("horse".to_owned())
        } else {
            Err(format!("secret/{name} has no key {key}"))
        }
    }
}

#[test]
fn secrets_are_asked_for_and_noted() {
    let node: NodeName = "a".parse().expect("a name");
    let (facts, vars) = (facts(), vars());
    let input = Input { node: &node, facts: &facts, vars: &vars };
    let secrets: Arc<dyn Secrets> = Arc::new(One);
    let template = Template::parse("p={{ secret('db', 'password') }}").expect("is one");
    assert!(template.uses().secret());
    let rendered = template.render(&input, &secrets).expect("renders");
    assert_eq!(rendered.text, "p=horse");
    assert_eq!(rendered.secrets, BTreeSet::from([("db".to_owned(), "password".to_owned())]));
    let refused = Template::parse("{{ secret('db', 'x') }}").expect("is one").render(&input, &secrets);
    assert_eq!(refused.map_err(|r| r.why), Err(Why::Secret("secret/db has no key x".to_owned())));
}

#[test]
fn inputs_that_differ_only_elsewhere_are_alike() {
    let (mut other, vars) = (facts(), vars());
    other.hostname = "web-018".to_owned();
    other.labels.insert("rack".to_owned(), "r8".to_owned());
    let (a, b): (NodeName, NodeName) = ("a".parse().expect("a name"), "b".parse().expect("a name"));
    let first = facts();
    let one = Input { node: &a, facts: &first, vars: &vars };
    let two = Input { node: &b, facts: &other, vars: &vars };
    let same = |source: &str| {
        let uses = Template::parse(source).expect("is one").uses();
        uses.part_of(&one) == uses.part_of(&two)
    };
    assert!(same("{{ vars.port }} {{ node.labels.role }} {{ node.cpus }}"));
    assert!(!same("{{ node.labels.rack }}"));
    assert!(!same("{{ node.labels['rack'] }}"));
    assert!(!same("{% set k = 'rack' %}{{ node.labels[k] }}"));
    assert!(!same("{{ node.name }}"));
    assert!(!same("{{ node }}"));
}
