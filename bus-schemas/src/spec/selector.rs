//! Selectors with expressions: which objects are meant, by their labels (CONTRACT.md 1.2).

use serde::{Deserialize, Serialize};

use super::{Labels, selects};

/// All that is said must hold; what says nothing selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// These labels have these values.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub match_labels: Labels,
    /// And these expressions hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// The label that is looked at.
    pub key: String,
    /// How.
    pub operator: SelectorOperator,
    /// What it is compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SelectorOperator {
    /// It has one of the values.
    In,
    /// It is not there, or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
    /// It is a whole number above the only value.
    Gt,
    /// It is a whole number below the only value.
    Lt,
    /// One of a newer server: it holds for nothing.
    #[serde(other)]
    Unknown,
}

impl Selector {
    /// Whether something with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        selects(&self.match_labels, labels) && self.match_expressions.iter().all(|one| one.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let found = labels.get(&self.key);
        let is_listed = found.is_some_and(|value| self.values.contains(value));
        let number = |text: &String| text.parse::<i64>().ok();
        let pair = || Some((number(found?)?, number(self.values.first()?)?));
        match self.operator {
            SelectorOperator::In => is_listed,
            SelectorOperator::NotIn => !is_listed,
            SelectorOperator::Exists => found.is_some(),
            SelectorOperator::DoesNotExist => found.is_none(),
            SelectorOperator::Gt => pair().is_some_and(|(is, than)| is > than),
            SelectorOperator::Lt => pair().is_some_and(|(is, than)| is < than),
            SelectorOperator::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_said_must_hold() {
        let labels: Labels = [("app", "web"), ("gen", "7")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let one = |key: &str, operator, values: &[&str]| Selector {
            match_expressions: vec![Requirement {
                key: key.to_owned(),
                operator,
                values: values.iter().map(|v| (*v).to_owned()).collect(),
            }],
            ..Selector::default()
        };
        use SelectorOperator::{DoesNotExist, Exists, Gt, In, Lt, NotIn, Unknown};
        for (selector, expected) in [
            (Selector::default(), true),
            (one("app", In, &["db", "web"]), true),
            (one("app", In, &["db"]), false),
            (one("app", NotIn, &["db"]), true),
            (one("x", NotIn, &["db"]), true),
            (one("app", Exists, &[]), true),
            (one("x", Exists, &[]), false),
            (one("x", DoesNotExist, &[]), true),
            (one("gen", Gt, &["6"]), true),
            (one("gen", Gt, &["7"]), false),
            (one("gen", Lt, &["8"]), true),
            (one("app", Gt, &["6"]), false),
            (one("app", Unknown, &["web"]), false),
        ] {
            assert_eq!(selector.matches(&labels), expected, "{selector:?}");
            let and = Selector { match_labels: [("app".to_owned(), "db".to_owned())].into(), ..selector };
            assert!(!and.matches(&labels));
        }
    }
}
