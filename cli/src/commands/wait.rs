//! `wait`: until a condition holds, a field has a value, or objects are there or gone.

use ostler_schemas::v1::api::ListRequest;
use ostler_schemas::v1::report::Condition;
use ostler_schemas::v1::status::{Status, View};
use ostler_schemas::{Kind, Namespace};
use serde_json::Value;
use std::collections::BTreeMap;

use super::get;
use crate::args::change::Sources;
use crate::args::look::Wait;
use crate::args::target;
use crate::connect::Session;
use crate::failure::Failure;
use crate::manifests;
use crate::out::Out;
use crate::render::jsonpath::{Template, shown};
use crate::render::object;
use crate::wait::{Seen, Verdict, until};

/// What is waited for.
#[derive(Debug, Clone, PartialEq)]
enum Until {
    Condition { kind: String, status: String },
    Field { path: Template, text: String, value: Option<String> },
    Deleted,
    Created,
}

impl Until {
    fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(rest) = text.strip_prefix("condition=") {
            let (kind, status) = rest.split_once('=').unwrap_or((rest, "True"));
            let status = match status.to_ascii_lowercase().as_str() {
                "true" => "True",
                "false" => "False",
                "unknown" => "Unknown",
                _ => return Err(Failure::message(format!("{status:?} is not one of True, False, Unknown"))),
            };
            return Ok(Until::Condition { kind: kind.to_owned(), status: status.to_owned() });
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let rest = rest.trim_matches('\'');
            let (path, value) = match rest.rfind('}') {
                Some(at) => (&rest[..=at], rest[at + 1..].strip_prefix('=')),
                None => rest.split_once('=').map_or((rest, None), |(path, value)| (path, Some(value))),
            };
            return Ok(Until::Field {
                path: Template::path(path)?,
                text: path.to_owned(),
                value: value.map(str::to_owned),
            });
        }
        match text {
            "delete" => Ok(Until::Deleted),
            "create" => Ok(Until::Created),
            other => Err(Failure::message(format!(
                "{other:?} is nothing to wait for: write condition=TYPE, jsonpath={{PATH}}=VALUE, delete or create"
            ))),
        }
    }

    /// Whether it is so of one object; else what is.
    fn holds(&self, view: &View) -> Result<(), String> {
        match self {
            Until::Created => Ok(()),
            Until::Deleted => Err("still there".to_owned()),
            Until::Condition { kind, status } => {
                let is = condition(view, kind);
                if is.0 == *status { Ok(()) } else { Err(format!("{kind} is {}{}", is.0, is.1)) }
            }
            Until::Field { path, text, value } => {
                let whole = object::view(view, &object::Contents::new());
                let found: Vec<&Value> = path.values(&whole);
                let is = found.first().map(|v| shown(v));
                match (value, &is) {
                    (None, Some(_)) => Ok(()),
                    (Some(wanted), Some(is)) if wanted == is => Ok(()),
                    (_, is) => Err(format!("{text} is {}", is.as_deref().unwrap_or("not there"))),
                }
            }
        }
    }
}

fn conditions(view: &View) -> &[Condition] {
    match &view.status {
        Status::Node(status) => &status.conditions,
        Status::Namespace(_) | Status::Secret(_) => &[],
        Status::Process(status) => &status.conditions,
        Status::Deployment(status) => &status.conditions,
        Status::ConfigFile(status) => &status.conditions,
    }
}

/// The status of a condition, and why. One that speaks of an older generation says nothing of this one.
fn condition(view: &View, kind: &str) -> (String, String) {
    match conditions(view).iter().find(|c| c.kind.eq_ignore_ascii_case(kind)) {
        None => {
            let there: Vec<&str> = conditions(view).iter().map(|c| c.kind.as_str()).collect();
            let there = if there.is_empty() { "none yet".to_owned() } else { there.join(", ") };
            ("not there".to_owned(), format!(" (there are: {there})"))
        }
        Some(c) if c.observed_generation.is_some_and(|g| g < view.metadata.generation.0) => {
            ("not known yet".to_owned(), String::new())
        }
        Some(c) => {
            let why = if c.message.is_empty() { String::new() } else { format!(" ({})", c.message) };
            (format!("{:?}", c.status), why)
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`Failure::NotConverged`] when it is not so in time.
pub async fn run(session: &Session, args: &Wait, out: &mut Out) -> Result<(), Failure> {
    let goal = Until::parse(&args.until)?;
    let deadline = tokio::time::Instant::now() + args.timeout.to_std();
    for (list, names) in groups(session, args, &goal).await? {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let mut met: BTreeMap<String, ()> = BTreeMap::new();
        until(&session.client, list.clone(), left, out, |seen, out| {
            judge(&goal, list.kind, names.as_deref(), seen, &mut met, out)
        })
        .await?;
    }
    Ok(())
}

fn judge(
    goal: &Until,
    kind: Kind,
    names: Option<&[String]>,
    seen: &Seen,
    met: &mut BTreeMap<String, ()>,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let mut missing = Vec::new();
    if let (Some(names), false) = (names, *goal == Until::Deleted) {
        for name in names {
            if !seen.keys().any(|o| o.name.as_str() == name) {
                missing.push(format!("{}/{name} is not there", kind.lower()));
            }
        }
    }
    if names.is_none() && seen.is_empty() && *goal != Until::Deleted {
        missing.push(format!("no {} match", kind.plural()));
    }
    for (object, view) in seen {
        match goal.holds(view) {
            Ok(()) => {
                if met.insert(object.to_string(), ()).is_none() {
                    out.line(&format!("{} condition met", object.short()))?;
                }
            }
            Err(is) => missing.push(format!("{}: {is}", object.short())),
        }
    }
    if !missing.is_empty() {
        missing.truncate(5);
        return Ok(Verdict::NotYet(missing.join("; ")));
    }
    if *goal == Until::Deleted {
        for name in names.unwrap_or_default() {
            out.line(&format!("{}/{name} condition met", kind.lower()))?;
        }
    }
    Ok(Verdict::Reached)
}

/// What is watched, and by which names if by any.
async fn groups(
    session: &Session,
    args: &Wait,
    goal: &Until,
) -> Result<Vec<(ListRequest, Option<Vec<String>>)>, Failure> {
    let mut named: BTreeMap<(Kind, Option<Namespace>), Vec<String>> = BTreeMap::new();
    let mut out = Vec::new();
    if !args.filename.is_empty() {
        let sources = Sources { files: args.filename.clone(), recursive: false };
        for object in manifests::read(&sources, &session.namespace)?.objects() {
            named.entry((object.kind, object.namespace)).or_default().push(object.name.to_string());
        }
    }
    for target in target::targets(&args.what, None)? {
        match target.name {
            Some(name) => {
                // A short uid or host name is resolved while the object is there; a name stands for itself.
                let name = match get::one(&session.client, target.kind, &name, &session.namespace).await {
                    Ok(view) => view.metadata.name.to_string(),
                    Err(failure)
                        if failure.is_not_found() && matches!(goal, Until::Deleted | Until::Created) =>
                    {
                        name
                    }
                    Err(failure) if failure.is_nothing_done() => name,
                    Err(failure) => return Err(failure),
                };
                let namespace = (!target.kind.is_cluster_wide()).then(|| session.namespace.clone());
                named.entry((target.kind, namespace)).or_default().push(name);
            }
            None if args.all || args.selection.selector.is_some() => {
                let list = get::request(target.kind, Vec::new(), &args.selection, &session.namespace)?;
                out.push((list, None));
            }
            None => {
                return Err(Failure::message(format!(
                    "which {}? Name them, or give -l SELECTOR or --all",
                    target.kind.plural()
                )));
            }
        }
    }
    for ((kind, namespace), names) in named {
        let list = ListRequest { kind, namespace, labels: Vec::new(), names: names.clone() };
        out.push((list, Some(names)));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_written_as_in_kubernetes() {
        let until = |text| Until::parse(text).expect("parses");
        assert_eq!(
            until("condition=Available"),
            Until::Condition { kind: "Available".to_owned(), status: "True".to_owned() }
        );
        assert!(
            matches!(until("condition=Ready=false"), Until::Condition { status, .. } if status == "False")
        );
        let field = until("jsonpath={.status.ready}=3");
        assert!(matches!(field, Until::Field { value: Some(value), .. } if value == "3"));
        assert!(matches!(until("jsonpath={.status.node}"), Until::Field { value: None, .. }));
        assert_eq!(until("delete"), Until::Deleted);
        assert!(Until::parse("ready").is_err());
    }
}
