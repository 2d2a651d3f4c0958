//! What a template asks for, told without rendering it.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::spec::{Var, Vars};

use crate::input::Input;

/// Names that a template mentions and does not set itself: `vars.port`, `node.labels.rack`, `secret`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    names: BTreeSet<String>,
}

impl Uses {
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Uses {
        Uses { names: names.into_iter().collect() }
    }

    /// Whether it calls `secret`.
    #[must_use]
    pub fn secret(&self) -> bool {
        self.mentions("secret")
    }

    /// Whether it mentions a name, or something below it.
    #[must_use]
    pub fn mentions(&self, name: &str) -> bool {
        self.names
            .iter()
            .any(|n| n.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }

    /// The part of an input that it looks at: inputs with equal parts render alike. What it looks up by a computed
    /// name counts whole.
    #[must_use]
    pub fn part_of(&self, input: &Input<'_>) -> BTreeMap<String, Option<Var>> {
        let whole = Vars::from([
            ("vars".to_owned(), Var::Map(input.vars.clone())),
            ("node".to_owned(), Var::Map(input.node_vars())),
        ]);
        self.names.iter().map(|name| (name.clone(), look_up(&whole, name))).collect()
    }
}

/// A label may have dots in its key, so what cannot be followed to its end counts as its last part that is a map.
fn look_up(whole: &Vars, name: &str) -> Option<Var> {
    let mut steps = name.split('.');
    let mut here = whole.get(steps.next()?)?;
    for step in steps {
        match here {
            Var::Map(map) => match map.get(step) {
                Some(next) => here = next,
                None => break,
            },
            Var::Bool(_) | Var::Int(_) | Var::Float(_) | Var::Text(_) | Var::List(_) => break,
        }
    }
    Some(here.clone())
}
