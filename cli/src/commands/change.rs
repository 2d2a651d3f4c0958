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
    let mut several = Several::default();
    for node in node_names(&args.nodes)? {
        let change = if on { NodeChange::Cordon } else { NodeChange::Uncordon };
        let request = NodeRequest { node, change, reason: args.reason.clone() };
        let word = if on { "cordoned" } else { "uncordoned" };
        match session.client.node(&request).await {
            Ok(reply) => tell(&reply, word, &format!("already {word}"), out)?,
            Err(failure) => several.failed(failure, out),
        }
    }
    several.end()
}

/// The first failure of several changes, told at the end; the others when they are met. One that fails keeps no other
/// from being made.
#[derive(Default)]
struct Several(Option<Failure>);

impl Several {
    fn failed(&mut self, failure: Failure, out: &mut Out) {
        if let (Some(text), Some(_)) = (failure.text(), &self.0) {
            out.say(&text);
        }
        self.0.get_or_insert(failure);
    }

    fn end(self) -> Result<(), Failure> {
        self.0.map_or(Ok(()), Err)
    }
}

/// `NAME…`, `node/NAME…`, `node NAME…`, and mixtures of the first two.
fn node_names(words: &[String]) -> Result<Vec<String>, Failure> {
    let words = match words {
        [first, rest @ ..] if !rest.is_empty() && Kind::by_any_name(first) == Some(Kind::Node) => rest,
        _ => words,
    };
    words
        .iter()
        .map(|word| match word.split_once('/') {
            None => Ok(word.clone()),
            Some((left, name)) => match target::kind(left)? {
                Kind::Node => Ok(name.to_owned()),
                kind => Err(Failure::message(format!("{}/{name} is no node: name nodes", kind.lower()))),
            },
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

/// The words before the first that is a change; names have none of its marks.
fn split_changes(words: &[String], is_change: impl Fn(&str) -> bool) -> (&[String], &[String]) {
    let at = words.iter().position(|word| is_change(word)).unwrap_or(words.len());
    words.split_at(at)
}

/// Objects, and the words after them.
type Named<'a> = (Vec<(Kind, String)>, &'a [String]);

/// `KIND/NAME… LABEL…` or `KIND NAME… LABEL…`.
fn objects_and_labels(words: &[String]) -> Result<Named<'_>, Failure> {
    let usage = || {
        Failure::message("write KIND/NAME or KIND NAME, and then labels: key=value, or key- to remove one")
    };
    let (objects, changes) = split_changes(words, |word| word.contains('=') || word.ends_with('-'));
    if objects.is_empty() || changes.is_empty() {
        return Err(usage());
    }
    let targets = target::targets(objects, None)?;
    let named: Option<Vec<_>> = targets.into_iter().map(|t| Some((t.kind, t.name?))).collect();
    Ok((named.ok_or_else(usage)?, changes))
}

/// `label`.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn label(session: &Session, args: &args::Label, out: &mut Out) -> Result<(), Failure> {
    let (objects, changes) = objects_and_labels(&args.words)?;
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
    let mut several = Several::default();
    for (kind, name) in objects {
        let reply = async {
            let object = get::resolve(session, kind, &name).await?;
            let (labels, overwrite) = (labels.clone(), args.overwrite);
            session.client.put(&PutRequest { object, labels, overwrite }).await
        };
        match reply.await {
            Ok(reply) => tell(&reply, "labelled", "unchanged", out)?,
            Err(failure) => several.failed(failure, out),
        }
    }
    several.end()
}

/// `taint`.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn taint(session: &Session, args: &args::Taint, out: &mut Out) -> Result<(), Failure> {
    let (nodes, changes) = nodes_and_taints(&args.words)?;
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
    let mut several = Several::default();
    for node in nodes {
        let change = NodeChange::Taint { set: set.clone(), remove: remove.clone() };
        match session.client.node(&NodeRequest { node, change, reason: args.reason.clone() }).await {
            Ok(reply) => tell(&reply, "tainted", "unchanged", out)?,
            Err(failure) => several.failed(failure, out),
        }
    }
    several.end()
}

/// Nodes as [`node_names`] takes them, and then taints: these always have a `:`, a `=` or end in `-`.
fn nodes_and_taints(words: &[String]) -> Result<(Vec<String>, &[String]), Failure> {
    let is_taint = |word: &str| word.contains([':', '=']) || word.ends_with('-');
    let (nodes, changes) = split_changes(words, is_taint);
    if nodes.is_empty() || changes.is_empty() {
        return Err(Failure::message(
            "write NODE and then taints: key=value:Effect (NoSchedule, PreferNoSchedule, NoExecute), or key- to \
             remove one",
        ));
    }
    Ok((node_names(nodes)?, changes))
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
            let (nodes, changes) = nodes_and_taints(&words).expect("parses");
            assert_eq!((nodes[0].as_str(), changes), ("web-017", &words[words.len() - 1..]));
        }
        let several = words("a node/b no/c gpu- disk=old:NoExecute");
        let (nodes, changes) = nodes_and_taints(&several).expect("parses");
        assert_eq!((nodes, changes), (words("a b c"), &several[3..]));
        assert!(nodes_and_taints(&words("web-017")).is_err());
        assert!(nodes_and_taints(&words("gpu-")).is_err());
        assert_eq!(node_names(&words("a node/b")).expect("parses"), ["a", "b"]);
        assert!(node_names(&words("deploy/web")).is_err());
        assert_eq!(node_names(&words("node a b")).expect("parses"), ["a", "b"]);
        assert_eq!(node_names(&words("node/a no/b")).expect("parses"), ["a", "b"]);
    }

    #[test]
    fn labels_are_for_one_or_several() {
        let line = words("deploy/web cf/app tier=front old-");
        let (objects, changes) = objects_and_labels(&line).expect("parses");
        assert_eq!(objects, [(Kind::Deployment, "web".to_owned()), (Kind::ConfigFile, "app".to_owned())]);
        assert_eq!(changes, &line[2..]);
        let line = words("nodes a b rack=r7");
        assert_eq!(objects_and_labels(&line).expect("parses").0.len(), 2);
        for bad in ["node a", "rack=r7", "node rack=r7", "a rack=r7"] {
            assert!(objects_and_labels(&words(bad)).is_err(), "{bad}");
        }
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
