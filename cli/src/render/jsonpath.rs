//! JSONPath templates as kubectl has them: text, `{.path}`, `{range .items[*]}…{end}`, `{"\n"}`.
//!
//! Steps: `.name`, `['name']`, `[0]`, `[-1]`, `[1:3]`, `[*]`, `.*`, `..name`, `[?(@.path == "value")]` with the
//! comparisons `== != < <= > >=`, or a path alone for "is there". What is not there is nothing, not an error. Several
//! results are joined by a space.

mod parse;

use serde_json::Value;

use crate::failure::Failure;

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    Below(String),
    Filter(Filter),
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    path: Vec<Step>,
    test: Option<(Comparison, Value)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Template {
    /// From text.
    ///
    /// # Errors
    /// Says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        parse::template(text).map(Template).map_err(|why| {
            Failure::message(format!(
                "{text:?} is not a JSONPath template: {why}; for example '{{.items[*].metadata.name}}'"
            ))
        })
    }

    /// One path: `.metadata.name`, with or without braces.
    ///
    /// # Errors
    /// Says what is wrong and where.
    pub fn path(text: &str) -> Result<Self, Failure> {
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let inner =
            if inner.starts_with(['.', '[', '$', '@']) { inner.to_owned() } else { format!(".{inner}") };
        Self::parse(&format!("{{{inner}}}"))
    }

    /// The text that it makes of a value.
    #[must_use]
    pub fn apply(&self, value: &Value) -> String {
        let mut out = String::new();
        render(&self.0, value, &mut out);
        out
    }

    /// All values of the first path in it.
    #[must_use]
    pub fn values<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        self.0
            .iter()
            .find_map(|part| match part {
                Part::Path(steps) => Some(find(steps, value)),
                Part::Text(_) | Part::Range(..) => None,
            })
            .unwrap_or_default()
    }
}

fn render(parts: &[Part], here: &Value, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(steps) => {
                let found: Vec<String> = find(steps, here).into_iter().map(shown).collect();
                out.push_str(&found.join(" "));
            }
            Part::Range(steps, inner) => {
                for item in find(steps, here) {
                    // A range over a list goes through its items, written `[*]` or not.
                    match item {
                        Value::Array(items) if !ends_with_all(steps) => {
                            items.iter().for_each(|i| render(inner, i, out));
                        }
                        _ => render(inner, item, out),
                    }
                }
            }
        }
    }
}

fn ends_with_all(steps: &[Step]) -> bool {
    matches!(steps.last(), Some(Step::All | Step::Slice(..) | Step::Filter(_)))
}

/// Text as it is, everything else as JSON in one line.
#[must_use]
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

fn find<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|v| one_step(step, v)).collect();
    }
    found
}

fn one_step<'v>(step: &Step, value: &'v Value) -> Vec<&'v Value> {
    let items = value.as_array();
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => {
            items.and_then(|list| list.get(position(*index, list.len()))).into_iter().collect()
        }
        Step::Slice(from, to) => items.map_or_else(Vec::new, |list| {
            let begin = position(from.unwrap_or(0), list.len()).min(list.len());
            let end = to.map_or(list.len(), |t| position(t, list.len()).min(list.len()));
            list.get(begin..end.max(begin)).unwrap_or_default().iter().collect()
        }),
        Step::All => match value {
            Value::Array(list) => list.iter().collect(),
            Value::Object(fields) => fields.values().collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        },
        Step::Below(name) => {
            let mut out = Vec::new();
            below(name, value, &mut out);
            out
        }
        Step::Filter(filter) => {
            items.map_or_else(Vec::new, |list| list.iter().filter(|item| holds(filter, item)).collect())
        }
    }
}

fn position(index: i64, len: usize) -> usize {
    let back = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
    if index < 0 { len.checked_sub(back).unwrap_or(usize::MAX) } else { back }
}

fn below<'v>(name: &str, value: &'v Value, out: &mut Vec<&'v Value>) {
    if let Some(found) = value.get(name) {
        out.push(found);
    }
    match value {
        Value::Object(fields) => fields.values().for_each(|v| below(name, v, out)),
        Value::Array(list) => list.iter().for_each(|v| below(name, v, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn holds(filter: &Filter, item: &Value) -> bool {
    let found = find(&filter.path, item);
    let Some((comparison, wanted)) = &filter.test else { return !found.is_empty() };
    if found.is_empty() {
        return *comparison == Comparison::NotEqual;
    }
    found.into_iter().any(|value| {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let order = match (value.as_f64(), wanted.as_f64()) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            (Some(_) | None, _) => Some(shown(value).cmp(&shown(wanted))),
        };
        match comparison {
            Comparison::Equal => order == Some(Equal),
            Comparison::NotEqual => order != Some(Equal),
            Comparison::Less => order == Some(Less),
            Comparison::LessOrEqual => matches!(order, Some(Less | Equal)),
            Comparison::Greater => order == Some(Greater),
            Comparison::GreaterOrEqual => matches!(order, Some(Greater | Equal)),
        }
    })
}

#[cfg(test)]
mod tests;
