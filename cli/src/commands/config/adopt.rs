//! `config adopt`: what hosts have at a path, and a ConfigFile of what most of them, or the right ones, have.

use std::collections::BTreeMap;

use ostler_schemas::manifest::{Document, Node as Tree, Options, check, encode_tree};
use ostler_schemas::spec::Source;
use ostler_schemas::v1::api::{
    ApplyRequest, HostAnswer, HostFile, HostsOf, HostsWish, ManifestDocument, content_ref,
};
use ostler_schemas::{Kind, NodeName, ObjectRef, Sha256};
use serde_bytes::ByteBuf;
use serde_json::{Value, json};

use super::{get, hosts, rollout};
use crate::args::change::Adopt;
use crate::args::target;
use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;
use crate::render::amounts::count;
use crate::render::form::{self, Form};
use crate::render::table::{Table, dash};

/// Fewest digits that name a group.
const DIGITS: usize = 6;

/// Hosts that have the same at the path.
#[derive(Debug, PartialEq)]
struct Group {
    /// Its content; none where nothing lies there, or it was not told.
    sha256: Option<Sha256>,
    /// As the first of them has it.
    file: HostFile,
    nodes: Vec<NodeName>,
    /// Why it was not told.
    refused: Option<String>,
}

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well.
pub(super) async fn run(session: &Session, args: &Adopt, out: &mut Out) -> Result<(), Failure> {
    let form = Form::parse(args.output.output.as_deref())?;
    let object = object(session, args)?;
    let selector = args.selector.as_deref();
    let labels = selector.map(target::selector).transpose()?.unwrap_or_default();
    let of = HostsOf::Path(args.path.clone());
    let wish = HostsWish { of: of.clone(), labels, node: None, content: false };
    let (nodes, _) = hosts::ask(session, &object, wish).await?;
    hosts::warn_silent(&nodes, out);
    let groups = grouped(&nodes);
    let Some(pick) = &args.pick else { return show(&groups, (&form, &args.path), out) };
    let group = picked(&groups, pick)?;
    let example = group.nodes.first().map(ToString::to_string).unwrap_or_default();
    let found = hosts::one(session, &object, (of, &example)).await?;
    let Some((file, bytes)) = found.filter(|(file, _)| file.sha256 == group.sha256) else {
        return Err(Failure::message(format!(
            "{} has changed on node/{example} meanwhile: look again",
            args.path
        )));
    };
    let manifest = manifest(&object, args, &file)?;
    make(session, (&object, args), (manifest, &bytes), out).await
}

/// As named, else after the path: `/etc/app.conf` is `app-conf`.
fn object(session: &Session, args: &Adopt) -> Result<ObjectRef, Failure> {
    let name = args.name.clone().unwrap_or_else(|| {
        let last = args.path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        last.chars().map(word).collect::<String>().trim_matches('-').to_owned()
    });
    super::file(&name, &session.namespace)
}

/// The largest first; what was not told last.
fn grouped(nodes: &[HostAnswer]) -> Vec<Group> {
    let mut groups: BTreeMap<(Option<Sha256>, Option<String>), Group> = BTreeMap::new();
    for answer in nodes.iter().filter(|answer| !answer.silent) {
        let file = answer.file.clone().unwrap_or_default();
        let (sha256, refused) = (file.sha256, answer.refused.clone());
        let key = (sha256, refused.clone());
        let new = || Group { sha256, file, nodes: Vec::new(), refused };
        groups.entry(key).or_insert_with(new).nodes.push(answer.node.clone());
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    let last = |group: &Group| (group.refused.is_some(), group.sha256.is_none());
    groups.sort_by(|a, b| (last(a), b.nodes.len(), a.sha256).cmp(&(last(b), a.nodes.len(), b.sha256)));
    groups
}

fn picked<'a>(groups: &'a [Group], pick: &str) -> Result<&'a Group, Failure> {
    if pick.len() < DIGITS {
        return Err(Failure::message(format!("--pick {pick}: give at least {DIGITS} digits of the hash")));
    }
    let is_meant = |group: &&Group| group.sha256.is_some_and(|hash| hash.to_string().starts_with(pick));
    let mut found = groups.iter().filter(is_meant);
    match (found.next(), found.next()) {
        (Some(group), None) => Ok(group),
        (Some(_), Some(_)) => Err(Failure::message(format!("--pick {pick}: several contents begin so"))),
        (None, _) => Err(Failure::message(format!("--pick {pick}: no host has that; run it without --pick"))),
    }
}

fn show(groups: &[Group], (form, path): (&Form, &str), out: &mut Out) -> Result<(), Failure> {
    match form {
        Form::Json | Form::Yaml | Form::JsonPath(_) => {
            let items: Vec<Value> = groups.iter().map(row).collect();
            out.data(&form.write(&form::list(items, true))?)
        }
        Form::Name | Form::Table | Form::Wide => {
            let mut table = Table::new(vec!["HASH", "NODES", "BYTES", "MODE", "OWNER", "EXAMPLE"]);
            for group in groups {
                let is_there = group.sha256.is_some();
                let example = group.nodes.first().map(ToString::to_string).unwrap_or_default();
                let what = match (&group.refused, is_there) {
                    (Some(why), _) => format!("{example}: {why}"),
                    (None, false) => format!("{example}: nothing lies there"),
                    (None, true) => example,
                };
                table.push(vec![
                    dash(group.sha256.map(|hash| hash.short())),
                    group.nodes.len().to_string(),
                    dash(is_there.then(|| group.file.size.to_string())),
                    dash(group.file.mode.map(|mode| mode.to_string())),
                    dash(is_there.then(|| format!("{}:{}", group.file.owner, group.file.group))),
                    what,
                ]);
            }
            let colour = out.colour;
            out.data(&table.text(true, colour))?;
            let kinds = groups.iter().filter(|group| group.sha256.is_some()).count() as u64;
            out.say(&format!(
                "{path}: {}; take one over with --pick HASH",
                count(kinds, "content", "contents")
            ));
            Ok(())
        }
    }
}

fn row(group: &Group) -> Value {
    let is_there = group.sha256.is_some();
    json!({
        "kind": "HostFileGroup",
        "sha256": group.sha256.map(|hash| hash.to_string()),
        "bytes": is_there.then_some(group.file.size),
        "mode": group.file.mode.map(|mode| mode.to_string()),
        "owner": is_there.then(|| group.file.owner.clone()),
        "group": is_there.then(|| group.file.group.clone()),
        "nodes": group.nodes,
        "message": group.refused,
    })
}

/// Version 1: exactly as these hosts have it, so that nothing changes there.
fn manifest(object: &ObjectRef, args: &Adopt, file: &HostFile) -> Result<Value, Failure> {
    let selector = super::equal_labels(args.selector.as_deref())?;
    if selector.is_empty() && !args.all_nodes {
        return Err(Failure::message("for which nodes? give -l key=value,… or --all-nodes"));
    }
    Ok(json!({
        "apiVersion": "ostler/v1",
        "kind": "ConfigFile",
        "metadata": { "name": object.name.as_str(), "namespace": object.namespace },
        "spec": {
            "path": args.path,
            "nodeSelector": selector,
            "owner": file.owner,
            "group": file.group,
            "mode": file.mode.map(|mode| mode.to_string()),
        },
    }))
}

async fn make(
    session: &Session,
    (object, args): (&ObjectRef, &Adopt),
    (manifest, bytes): (Value, &[u8]),
    out: &mut Out,
) -> Result<(), Failure> {
    let there = get::one(&session.client, Kind::ConfigFile, object.name.as_str(), &session.namespace).await;
    match there {
        Ok(_) => {
            let message = format!("{} is there already: push to it, or give another NAME", object.short());
            return Err(Failure::message(message));
        }
        Err(failure) if failure.is_not_found() => {}
        Err(failure) => return Err(failure),
    }
    let tree = Tree::from_json(&manifest).ok_or_else(|| Failure::message("nested too deep"))?;
    let content = content_ref(bytes);
    let document = Document { content: Some(Source::Content(content)), ..Document::new(None, tree) };
    // What is wrong with it is told before anything is sent.
    check(vec![document.clone()], &Options::default()).map_err(Failure::Refused)?;
    session.client.blob(content, bytes).await?;
    let tree = ByteBuf::from(encode_tree(&document));
    let request = ApplyRequest {
        documents: vec![ManifestDocument { file: None, tree, content: Some(content) }],
        content: None,
        force: false,
        retry: false,
        dry_run: false,
        reason: args.reason.clone().or_else(|| Some(format!("adopted from {}", args.path))),
    };
    session.client.apply(&request).await?;
    let view = get::one(&session.client, Kind::ConfigFile, object.name.as_str(), &session.namespace).await?;
    out.line(&format!("{} version 1 created of {}, {}", object.short(), args.path, content.sha256.short()))?;
    if args.wait {
        let goal = view.metadata.generation;
        return rollout::follow(&session.client, object, goal, args.timeout.to_std(), out).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ostler_schemas::hash::sha256;

    use super::*;

    fn answer(node: &str, content: Option<&[u8]>) -> HostAnswer {
        let file = HostFile { sha256: content.map(sha256), ..HostFile::default() };
        HostAnswer { node: node.parse().expect("a name"), file: Some(file), refused: None, silent: false }
    }

    #[test]
    fn hosts_are_grouped_by_what_they_have_the_most_first() {
        let mut nodes = vec![
            answer("n1", Some(b"b")),
            answer("n2", None),
            answer("n3", Some(b"a")),
            answer("n4", Some(b"a")),
        ];
        nodes.push(HostAnswer { file: None, refused: Some("a link".to_owned()), ..answer("n5", None) });
        nodes.push(HostAnswer { file: None, silent: true, ..answer("n6", None) });
        let groups = grouped(&nodes);
        let shown: Vec<(Option<Sha256>, usize)> = groups.iter().map(|g| (g.sha256, g.nodes.len())).collect();
        assert_eq!(shown, [(Some(sha256(b"a")), 2), (Some(sha256(b"b")), 1), (None, 1), (None, 1)]);
        assert_eq!(groups[3].refused.as_deref(), Some("a link"), "what was not told comes last");
        let hash = sha256(b"b").to_string();
        assert_eq!(picked(&groups, &hash[..8]).expect("one").nodes[0].as_str(), "n1");
        assert!(picked(&groups, "abc").is_err() && picked(&groups, "0000000").is_err());
    }
}
