//! What a template is rendered with.

use std::collections::BTreeMap;

use minijinja::value::Value;
use ostler_schemas::NodeName;
use ostler_schemas::spec::{Var, Vars};
use ostler_schemas::v1::document::NodeFacts;

/// Values and facts of one node.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// What is known of it.
    pub facts: &'a NodeFacts,
    /// The file's values for it.
    pub vars: &'a Vars,
}

fn value(var: &Var) -> Value {
    match var {
        Var::Bool(flag) => Value::from(*flag),
        Var::Int(whole) => Value::from(*whole),
        Var::Float(number) => Value::from(*number),
        Var::Text(text) => Value::from(text.as_str()),
        Var::List(items) => Value::from(items.iter().map(value).collect::<Vec<_>>()),
        Var::Map(vars) => map(vars),
    }
}

fn map(vars: &Vars) -> Value {
    Value::from(vars.iter().map(|(key, var)| (key.clone(), value(var))).collect::<BTreeMap<_, _>>())
}

/// Thousandths of a core.
const MILLIS: u64 = 1_000;

impl Input<'_> {
    /// `vars`, `node` and `secret`.
    pub(crate) fn context(&self, secret: Value) -> Value {
        let vars = map(self.vars);
        let node = map(&self.node_vars());
        Value::from(BTreeMap::from([("vars", vars), ("node", node), ("secret", secret)]))
    }

    /// `node`, as templates see it.
    #[must_use]
    pub fn node_vars(&self) -> Vars {
        let NodeFacts { hostname, labels, vars, addresses, cpu, memory } = self.facts;
        let texts = |map: &BTreeMap<String, String>| {
            Var::Map(map.iter().map(|(key, text)| (key.clone(), Var::Text(text.clone()))).collect())
        };
        let whole = |n: u64| Var::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let millis = cpu.as_millis();
        let cpus = if millis.is_multiple_of(MILLIS) {
            whole(millis / MILLIS)
        } else {
            #[expect(clippy::cast_precision_loss, reason = "no host has 2^52 thousandths of a core")]
            let cores = millis as f64 / MILLIS as f64;
            Var::Float(cores)
        };
        Vars::from([
            ("name".to_owned(), Var::Text(self.node.to_string())),
            ("hostname".to_owned(), Var::Text(hostname.clone())),
            ("labels".to_owned(), texts(labels)),
            ("vars".to_owned(), Var::Map(vars.clone())),
            ("addresses".to_owned(), texts(addresses)),
            ("cpus".to_owned(), cpus),
            ("memory".to_owned(), whole(memory.as_bytes())),
        ])
    }
}
