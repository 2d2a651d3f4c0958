//! Small changes of one object: `scale`, `cordon`, `label`, `taint`.

use std::collections::BTreeMap;

use ostler_schemas::Kind;
use ostler_schemas::spec::{Taint, TaintEffect};
use ostler_schemas::v1::api::{ChangeReply, NodeChange, NodeRequest, PutRequest, ScaleRequest};

use super::get;
use crate::args::change as args;
use crate::args::target;
use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;

/// `scale`.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn scale(session: &Session, args: &args::Scale, out: &mut Out) -> Result<(), Failure> {
    let (kind, name) = target::one(&args.object, None)?;
    let request = ScaleRequest {
        object: target::object_ref(kind, &name, &session.namespace)?,
        replicas: args.replicas,
        if_replicas: args.current_replicas,
        reason: args.reason.clone(),
    };
    let reply = session.client.scale(&request).await?;
    tell(&reply, "scaled", "unchanged", out)
}

/// `cordon` and `uncordon`.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn cordon(session: &Session, args: &args::Cordon, on: bool, out: &mut Out) -> Result<(), Failure> {
    let nodes = node_names(&args.nodes)?;
    for node in nodes {
        let change = if on { NodeChange::Cordon } else { NodeChange::Uncordon };
        let reply = session.client.node(&NodeRequest { node, change, reason: args.reason.clone() }).await?;
        let word = if on { "cordoned" } else { "uncordoned" };
        tell(&reply, word, &format!("already {word}"), out)?;
    }
    Ok(())
}

/// `NAME`, `node/NAME` or `node NAME`.
fn node_names(words: &[String]) -> Result<Vec<String>, Failure> {
    let words = match words {
        [first, rest @ ..] if !rest.is_empty() && Kind::by_any_name(first) == Some(Kind::Node) => rest,
        _ => words,
    };
    target::targets(words, Some(Kind::Node))?
        .into_iter()
        .map(|t| match (t.kind, t.name) {
            (Kind::Node, Some(name)) => Ok(name),
            (kind, _) => Err(Failure::message(format!("{} is no node: name nodes", kind.lower()))),
        })
        .collect()
}

fn tell(reply: &ChangeReply, changed: &str, unchanged: &str, out: &mut Out) -> Result<(), Failure> {
    let word = if reply.changed { changed } else { unchanged };
    let name = reply.object.short();
    // The server says what was and what is, with the object's name; an older one may say nothing.
    match reply.message.as_str() {
        "" => out.line(&format!("{name} {word}")),
        message if message.starts_with(&name) => out.line(message),
        message => out.line(&format!("{name} {word}: {message}")),
    }
}

/// Splits `KIND/NAME change…` or `KIND NAME change…`.
fn object_and_changes(words: &[String]) -> Result<(Kind, String, &[String]), Failure> {
    let usage = || Failure::message("write KIND/NAME or KIND NAME, and then what to change");
    let taken = if words.first().is_some_and(|word| word.contains('/')) { 1 } else { 2 };
    if words.len() <= taken {
        return Err(usage());
    }
    let (kind, name) = target::one(&words[..taken], None)?;
    Ok((kind, name, &words[taken..]))
}

/// `label`.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn label(session: &Session, args: &args::Label, out: &mut Out) -> Result<(), Failure> {
    let (kind, name, changes) = object_and_changes(&args.words)?;
    let mut labels = BTreeMap::new();
    for change in changes {
        let (key, value) = match (change.split_once('='), change.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value.to_owned())),
            (None, Some(key)) => (key, None),
            (None, None) => {
                return Err(Failure::message(format!(
                    "{change:?} is no label: write key=value, or key- to remove it"
                )));
            }
        };
        labels.insert(key.to_owned(), value);
    }
    let object = get::resolve(session, kind, &name).await?;
    let reply = session.client.put(&PutRequest { object, labels, overwrite: args.overwrite }).await?;
    tell(&reply, "labeled", "unchanged", out)
}

/// `taint`.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn taint(session: &Session, args: &args::Taint, out: &mut Out) -> Result<(), Failure> {
    let (node, changes) = node_and_changes(&args.words)?;
    let (mut set, mut remove) = (Vec::new(), Vec::new());
    for change in changes {
        match change.strip_suffix('-') {
            Some(gone) => {
                let (key, effect) = match gone.split_once(':') {
                    Some((key, effect)) => (key, Some(self::effect(effect)?)),
                    None => (gone, None),
                };
                remove.push((key.to_owned(), effect));
            }
            None => set.push(parse_taint(change)?),
        }
    }
    let change = NodeChange::Taint { set, remove };
    let reply = session.client.node(&NodeRequest { node, change, reason: args.reason.clone() }).await?;
    tell(&reply, "tainted", "unchanged", out)
}

/// `node NAME …`, `node/NAME …` or `NAME …`: a taint always has a `:` or ends in `-`.
fn node_and_changes(words: &[String]) -> Result<(String, &[String]), Failure> {
    let usage = || Failure::message("write NODE and then taints: key=value:Effect, or key- to remove one");
    let (first, rest) = words.split_first().ok_or_else(usage)?;
    if let Some((kind, name)) = first.split_once('/') {
        if target::kind(kind)? != Kind::Node || rest.is_empty() {
            return Err(usage());
        }
        return Ok((name.to_owned(), rest));
    }
    match rest.split_first() {
        Some((name, changes)) if Kind::by_any_name(first) == Some(Kind::Node) && !changes.is_empty() => {
            Ok((name.clone(), changes))
        }
        Some(_) => Ok((first.clone(), rest)),
        None => Err(usage()),
    }
}

fn parse_taint(text: &str) -> Result<Taint, Failure> {
    let bad = || {
        Failure::message(format!(
            "{text:?} is no taint: write key=value:Effect, for example disk=old:NoSchedule"
        ))
    };
    let (left, effect) = text.rsplit_once(':').ok_or_else(bad)?;
    let (key, value) = left.split_once('=').unwrap_or((left, ""));
    if key.is_empty() {
        return Err(bad());
    }
    Ok(Taint { key: key.to_owned(), value: value.to_owned(), effect: self::effect(effect)? })
}

fn effect(text: &str) -> Result<TaintEffect, Failure> {
    match text {
        "NoSchedule" => Ok(TaintEffect::NoSchedule),
        "PreferNoSchedule" => Ok(TaintEffect::PreferNoSchedule),
        "NoExecute" => Ok(TaintEffect::NoExecute),
        other => {
            Err(Failure::message(format!("{other:?} is not one of NoSchedule, PreferNoSchedule, NoExecute")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn nodes_are_named_in_three_ways() {
        for text in ["node web-017 a=b:NoSchedule", "node/web-017 a=b:NoSchedule", "web-017 a=b:NoSchedule"] {
            let words = words(text);
            let (node, changes) = node_and_changes(&words).expect("parses");
            assert_eq!((node.as_str(), changes), ("web-017", &words[words.len() - 1..]));
        }
        assert!(node_and_changes(&words("web-017")).is_err());
        assert_eq!(node_names(&words("node a b")).expect("parses"), ["a", "b"]);
        assert_eq!(node_names(&words("node/a no/b")).expect("parses"), ["a", "b"]);
    }

    #[test]
    fn taints_are_written_as_in_kubernetes() {
        let taint = parse_taint("maintenance=disk-swap:NoSchedule").expect("parses");
        assert_eq!(crate::render::columns::taint(&taint), "maintenance=disk-swap:NoSchedule");
        assert_eq!(parse_taint("gpu:NoExecute").expect("parses").value, "");
        assert!(parse_taint("gpu").is_err());
        assert!(parse_taint("gpu:Never").is_err());
    }
}
