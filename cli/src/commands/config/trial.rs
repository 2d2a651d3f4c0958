//! `--dry-run=nodes`: what every node says of a version, which is put in place on none.

use ostler_schemas::v1::api::{ConfigOp, ConfigPush, ConfigRequest, ConfigTry, TrialNode, TrialState};
use ostler_schemas::{Kind, ObjectRef};
use serde_json::{Value, json};

use crate::connect::Session;
use crate::failure::Failure;
use crate::manifests::Manifests;
use crate::out::Out;
use crate::render::amounts::count;
use crate::render::form::{self, Form};
use crate::render::table::{Table, dash};

/// Nodes that one warning names.
const NAMED: usize = 10;

/// Of a push.
///
/// # Errors
/// A refusal; or some node refuses it, or did not answer.
pub(super) async fn of_push(
    session: &Session,
    object: &ObjectRef,
    (push, output): (ConfigPush, Option<&str>),
    out: &mut Out,
) -> Result<(), Failure> {
    let form = Form::parse(output)?;
    let nodes = ask(session, object, ConfigTry::Push(Box::new(push))).await?;
    show(&[(object.clone(), nodes)], &form, out)
}

/// Of every ConfigFile among manifests, one after the other.
///
/// # Errors
/// As of a push.
pub async fn of_manifests(
    session: &Session,
    manifests: &Manifests,
    form: &Form,
    out: &mut Out,
) -> Result<(), Failure> {
    let parcel = manifests.parcel(&session.namespace);
    let mut tried = Vec::new();
    for (object, document) in manifests.objects().into_iter().zip(parcel.documents) {
        if object.kind == Kind::ConfigFile {
            let nodes = ask(session, &object, ConfigTry::Manifest(Box::new(document))).await?;
            tried.push((object, nodes));
        }
    }
    if tried.is_empty() {
        return Err(Failure::message(
            "there is no ConfigFile in what was given with -f: nothing to try on nodes",
        ));
    }
    show(&tried, form, out)
}

async fn ask(session: &Session, object: &ObjectRef, what: ConfigTry) -> Result<Vec<TrialNode>, Failure> {
    let namespace = object.namespace.clone().unwrap_or_else(|| session.namespace.clone());
    let request = ConfigRequest { name: object.name.clone(), namespace, op: ConfigOp::Try(what) };
    let mut nodes = session.client.config_try(&request).await?;
    nodes.sort_by(|a, b| (a.answer.state, &a.node).cmp(&(b.answer.state, &b.node)));
    Ok(nodes)
}

type Tried = (ObjectRef, Vec<TrialNode>);

fn show(tried: &[Tried], form: &Form, out: &mut Out) -> Result<(), Failure> {
    let all = || tried.iter().flat_map(|(object, nodes)| nodes.iter().map(move |node| (object, node)));
    match form {
        Form::Json | Form::Yaml | Form::JsonPath(_) => {
            let items = all().map(|(object, node)| row(object, node)).collect();
            out.data(&form.write(&form::list(items, true))?)?;
        }
        Form::Name => {
            let names: String = all().map(|(_, node)| format!("node/{}\n", node.node)).collect();
            out.data(&names)?;
        }
        Form::Table | Form::Wide => {
            for (object, nodes) in tried {
                let text = table(nodes, out.colour);
                out.data(&format!("{} (dry run on nodes)\n{text}{}", object.short(), sum(nodes)))?;
            }
        }
    }
    let silent = |state: TrialState| -> Vec<&str> {
        all().filter(|(_, n)| n.answer.state == state).map(|(_, n)| n.node.as_str()).collect()
    };
    for (state, words) in
        [(TrialState::NoAnswer, "did not answer"), (TrialState::Offline, "could not be asked")]
    {
        let names = silent(state);
        if !names.is_empty() {
            let more = if names.len() > NAMED { ", …" } else { "" };
            let first = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            out.warn(&format!("{} {words}: {first}{more}", count(names.len() as u64, "node", "nodes")));
        }
    }
    verdict(&all().map(|(_, node)| node.answer.state).collect::<Vec<_>>())
}

/// Nodes that are known to be away hold nothing up, as in a rollout.
fn verdict(states: &[TrialState]) -> Result<(), Failure> {
    let number = |wanted: &[TrialState]| states.iter().filter(|state| wanted.contains(state)).count() as u64;
    let failed = number(&[TrialState::ValidatorFailed, TrialState::Failed, TrialState::Unknown]);
    let silent = number(&[TrialState::NoAnswer]);
    if failed > 0 {
        let nodes = count(failed, "node", "nodes");
        return Err(Failure::message(format!("{nodes} would refuse it; nothing was changed")));
    }
    if silent > 0 {
        let nodes = count(silent, "node", "nodes");
        return Err(Failure::NotConverged(format!("{nodes} did not answer; nothing was changed")));
    }
    Ok(())
}

fn table(nodes: &[TrialNode], colour: bool) -> String {
    let mut table = Table::new(vec!["NODE", "STATE", "HASH", "MESSAGE"]);
    for TrialNode { node, answer } in nodes {
        let line = answer.message.as_deref().and_then(|message| message.lines().next());
        let message = match (answer.state, answer.reason, line) {
            (TrialState::Failed, Some(reason), Some(line)) => format!("{reason}: {line}"),
            (_, _, Some(line)) => line.to_owned(),
            (_, Some(reason), None) => reason.to_string(),
            (_, None, None) => "-".to_owned(),
        };
        let hash = dash(answer.sha256.map(|hash| hash.short()));
        table.push(vec![node.to_string(), answer.state.as_str().to_owned(), hash, message]);
    }
    table.text(true, colour)
}

fn row(object: &ObjectRef, TrialNode { node, answer }: &TrialNode) -> Value {
    json!({
        "kind": "ConfigFileTrial",
        "object": object.short(),
        "node": node,
        "state": answer.state.as_str(),
        "reason": answer.reason,
        "message": answer.message,
        "sha256": answer.sha256.map(|hash| hash.to_string()),
    })
}

/// `80 nodes: 1 ValidatorFailed, 78 WouldChange, 1 Offline`.
fn sum(nodes: &[TrialNode]) -> String {
    let mut counts: Vec<(TrialState, u64)> = Vec::new();
    for node in nodes {
        match counts.iter_mut().find(|(state, _)| *state == node.answer.state) {
            Some((_, number)) => *number += 1,
            None => counts.push((node.answer.state, 1)),
        }
    }
    let parts: Vec<String> =
        counts.iter().map(|(state, number)| format!("{number} {}", state.as_str())).collect();
    let all = count(nodes.len() as u64, "node", "nodes");
    if parts.is_empty() { format!("{all}\n") } else { format!("{all}: {}\n", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use ostler_schemas::v1::api::TrialAnswer;

    use super::*;

    fn node(name: &str, state: TrialState, message: Option<&str>) -> TrialNode {
        let answer = TrialAnswer { state, reason: None, message: message.map(str::to_owned), sha256: None };
        TrialNode { node: name.parse().expect("a name"), answer }
    }

    #[test]
    fn one_line_of_each_node_and_the_sum() {
        let nodes = [
            node(
                "web-1",
                TrialState::ValidatorFailed,
                Some("line 12: no\nthe validator exited with code 1:\nline 12: no"),
            ),
            node("web-2", TrialState::WouldChange, Some("content")),
            node("web-3", TrialState::WouldChange, None),
        ];
        let expected = "\
NODE   STATE            HASH  MESSAGE
web-1  ValidatorFailed  -     line 12: no
web-2  WouldChange      -     content
web-3  WouldChange      -     -
";
        assert_eq!(table(&nodes, false), expected);
        assert_eq!(sum(&nodes), "3 nodes: 1 ValidatorFailed, 2 WouldChange\n");
    }

    #[test]
    fn what_it_ends_with_follows_from_the_worst() {
        use TrialState::{Failed, NoAnswer, Offline, Unchanged, WouldChange};
        assert!(verdict(&[WouldChange, Unchanged, Offline]).is_ok());
        assert!(matches!(verdict(&[WouldChange, NoAnswer]), Err(Failure::NotConverged(_))));
        assert!(matches!(verdict(&[NoAnswer, Failed]), Err(Failure::Message(_))));
    }
}
