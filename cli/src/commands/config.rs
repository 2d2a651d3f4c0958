//! `config`: contents of files on hosts: push, status, diff, history, rollback, render.

mod adopt;
mod hosts;
mod original;
mod release;
mod render;
mod settle;
mod trial;

pub use trial::of_manifests as try_manifests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ostler_schemas::manifest::MAX_CONTENT;
use ostler_schemas::quantity::{CountOrPercent, Dur};
use ostler_schemas::spec::{Spec, check_waves};
use ostler_schemas::v1::api::{
    ConfigOp, ConfigPush, ConfigReply, ConfigRequest, ConfigVersion, INLINE_MAX, LabelOperator, content_ref,
    file_state_by_name,
};
use ostler_schemas::v1::report::FileState;
use ostler_schemas::v1::state::RolloutPhase;
use ostler_schemas::v1::status::{ConfigFileNode, ConfigFileStatus, Status, View};
use ostler_schemas::{Generation, Kind, Namespace, ObjectRef, Version};
use serde_bytes::ByteBuf;
use serde_json::{Value, json};

use super::{get, rollout};
use crate::args::Global;
use crate::args::change::{Config, ConfigDiff, ConfigHistory, ConfigStatus, Push, Rollback};
use crate::args::target;
use crate::connect::{Session, session};
use crate::failure::Failure;
use crate::manifests::standard_input;
use crate::out::Out;
use crate::render::amounts::{Moments, count};
use crate::render::diff::unified;
use crate::render::form::{self, Form};
use crate::render::object::file_node;
use crate::render::table::{Table, dash};

/// Runs one of them.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn run(global: &Global, args: &Config, out: &mut Out) -> Result<(), Failure> {
    match args {
        Config::Push(args) => push(global, args, out).await,
        Config::Status(args) => status(&session(global).await?, args, out).await,
        Config::Diff(args) => diff(&session(global).await?, args, out).await,
        Config::History(args) => history(&session(global).await?, args, out).await,
        Config::Rollback(args) => rollback(&session(global).await?, args, out).await,
        Config::Adopt(args) => adopt::run(&session(global).await?, args, out).await,
        Config::Release(args) => release::run(&session(global).await?, args, out).await,
        Config::Render(args) => render::run(&session(global).await?, args, out).await,
        Config::Other(words) => Err(super::other_below(
            "config",
            words,
            &["push", "status", "diff", "history", "rollback", "adopt", "release", "render"],
        )),
    }
}

/// `NAME` or `configfile/NAME`.
fn file(name: &str, namespace: &Namespace) -> Result<ObjectRef, Failure> {
    let (kind, name) = target::one(&[name.to_owned()], Some(Kind::ConfigFile))?;
    if kind != Kind::ConfigFile {
        return Err(Failure::message(format!("{}/{name} is no configfile", kind.lower())));
    }
    target::object_ref(kind, &name, namespace)
}

async fn ask(session: &Session, object: &ObjectRef, op: ConfigOp) -> Result<Vec<ConfigReply>, Failure> {
    let namespace = object.namespace.clone().unwrap_or_else(|| session.namespace.clone());
    session.client.config(&ConfigRequest { name: object.name.clone(), namespace, op }).await
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    if path.as_os_str() == "-" {
        return standard_input();
    }
    std::fs::read(path).map_err(|error| Failure::local(&format!("cannot read {}", path.display()), error))
}

async fn push(global: &Global, args: &Push, out: &mut Out) -> Result<(), Failure> {
    if let Some(side) = args.dry_run.as_deref().filter(|side| *side != "nodes") {
        return Err(super::not_supported(&format!("--dry-run={side}")));
    }
    let Some(source) = args.template.as_ref().or(args.file.as_ref()) else {
        return Err(Failure::message("--file or --template is missing"));
    };
    let bytes = read(source)?;
    if bytes.len() > MAX_CONTENT {
        // Told here, before megabytes of it are sent for nothing.
        let (is, limit) = (bytes.len(), MAX_CONTENT);
        return Err(Failure::message(format!(
            "{} is {is} bytes, the limit of a file's content is {limit} (8Mi)",
            source.display()
        )));
    }
    let session = session(global).await?;
    let object = file(&args.name, &session.namespace)?;
    let content = content_ref(&bytes);
    let inline = if bytes.len() <= INLINE_MAX {
        Some(ByteBuf::from(bytes))
    } else {
        session.client.blob(content, &bytes).await?;
        None
    };
    let push = ConfigPush {
        inline,
        content,
        is_template: args.template.is_some(),
        waves: args.waves.as_deref().map(waves).transpose()?,
        path: args.path.clone(),
        node_selector: node_selector(args)?,
        bake: args.bake,
        if_version: args.if_version.map(Version),
        retry: args.retry,
        reason: args.reason.clone(),
    };
    if args.dry_run.is_some() {
        return trial::of_push(&session, &object, (push, args.output.as_deref()), out).await;
    }
    let parts = ask(&session, &object, ConfigOp::Push(Box::new(push))).await?;
    changed(&session, &object, &parts, args.wait.then_some(args.timeout), out).await
}

/// `1,10%,100%`; the last may be left out.
fn waves(text: &str) -> Result<Vec<CountOrPercent>, Failure> {
    let parsed = text.split(',').map(|wave| wave.trim().parse::<CountOrPercent>());
    let mut waves =
        parsed.collect::<Result<Vec<_>, _>>().map_err(|e| Failure::message(format!("--waves: {e}")))?;
    if waves.last() != Some(&CountOrPercent::ALL) {
        waves.push(CountOrPercent::ALL);
    }
    check_waves(&waves).map_err(|bad| Failure::message(format!("--waves: {}", bad.message)))?;
    Ok(waves)
}

/// Selectors of files are plain maps.
fn node_selector(args: &Push) -> Result<Option<BTreeMap<String, String>>, Failure> {
    if args.all_nodes {
        return Ok(Some(BTreeMap::new()));
    }
    args.selector.as_deref().map(|text| equal_labels(Some(text))).transpose()
}

/// `key=value,…`; nothing is no label.
fn equal_labels(text: Option<&str>) -> Result<BTreeMap<String, String>, Failure> {
    let Some(text) = text else { return Ok(BTreeMap::new()) };
    target::selector(text)?
        .into_iter()
        .map(|requirement| match (requirement.operator, requirement.values.as_slice()) {
            (LabelOperator::In, [value]) => Ok((requirement.key, value.clone())),
            _ => Err(Failure::message("a configfile selects nodes by key=value only")),
        })
        .collect()
}

async fn rollback(session: &Session, args: &Rollback, out: &mut Out) -> Result<(), Failure> {
    let object = file(&args.name, &session.namespace)?;
    let op = ConfigOp::Rollback { to_version: args.to_version.map(Version), reason: args.reason.clone() };
    let parts = ask(session, &object, op).await?;
    changed(session, &object, &parts, args.wait.then_some(args.timeout), out).await
}

async fn changed(
    session: &Session,
    object: &ObjectRef,
    parts: &[ConfigReply],
    wait: Option<Dur>,
    out: &mut Out,
) -> Result<(), Failure> {
    let Some(line) = parts.iter().find_map(|part| changed_line(object, part)) else {
        return Err(Failure::message("the server answered something else than was asked"));
    };
    out.line(&line)?;
    let Some(timeout) = wait else { return Ok(()) };
    let view = get::one(&session.client, object.kind, object.name.as_str(), &session.namespace).await?;
    let goal: Generation = view.metadata.generation;
    rollout::follow(&session.client, object, goal, timeout.to_std(), out).await
}

/// `configfile/app-conf version 9 (was 8): 2 lines changed, 80 nodes, 4 waves of 1, 4, 20, 80`.
fn changed_line(object: &ObjectRef, part: &ConfigReply) -> Option<String> {
    let ConfigReply::Changed { version, before, changed, created, nodes, waves, lines, .. } = part else {
        return None;
    };
    let name = object.short();
    if !changed {
        return Some(format!("{name} unchanged, still version {version}"));
    }
    let was = match (created, before) {
        (true, _) => "created".to_owned(),
        (false, before) => format!("was {before}"),
    };
    let lines = lines.map(|(added, removed)| {
        let most = u64::from(added.max(removed));
        format!("{} changed, ", count(most, "line", "lines"))
    });
    Some(format!(
        "{name} version {version} ({was}): {}{}, {}",
        lines.unwrap_or_default(),
        count(u64::from(*nodes), "node", "nodes"),
        wave_words(waves, *nodes),
    ))
}

/// `4 waves of 1, 4, 20, 80`.
fn wave_words(waves: &[u32], nodes: u32) -> String {
    let sizes: Vec<String> = waves.iter().map(ToString::to_string).collect();
    match sizes.as_slice() {
        [] => format!("1 wave of {nodes}"),
        sizes => format!("{} of {}", count(sizes.len() as u64, "wave", "waves"), sizes.join(", ")),
    }
}

async fn status(session: &Session, args: &ConfigStatus, out: &mut Out) -> Result<(), Failure> {
    let form = Form::parse(args.output.output.as_deref())?;
    let object = file(&args.name, &session.namespace)?;
    let wanted = match &args.state {
        None => None,
        Some(text) => Some(file_state_by_name(text).ok_or_else(|| {
            Failure::message(format!(
                "{text:?} is not one of Failed, Contested, Drifted, Offline, Held, Applying, Pending, InSync"
            ))
        })?),
    };
    let labels = args.selector.as_deref().map(target::selector).transpose()?.unwrap_or_default();
    let settled = match args.wait {
        true => settle::settled(session, &object, args, out).await?,
        false => Ok(()),
    };
    let view = get::one(&session.client, object.kind, object.name.as_str(), &session.namespace).await?;
    let parts =
        ask(session, &object, ConfigOp::Status { version: args.version.map(Version), labels }).await?;
    let mut rows: Vec<ConfigFileNode> = Vec::new();
    for part in parts {
        match part {
            ConfigReply::Status(more) => rows.extend(more),
            ConfigReply::Changed { .. }
            | ConfigReply::History(_)
            | ConfigReply::Content(_)
            | ConfigReply::Rendered { .. } => {}
        }
    }
    rows.retain(|row| wanted.is_none_or(|state| row.state == state));
    rows.sort_by(|a, b| (a.state, &a.node).cmp(&(b.state, &b.node)));
    match form {
        Form::Json | Form::Yaml | Form::JsonPath(_) => {
            let items: Vec<Value> = rows.iter().map(file_node).collect();
            out.data(&form.write(&form::list(items, true))?)?;
        }
        Form::Name => {
            let names: String = rows.iter().map(|row| format!("node/{}\n", row.node)).collect();
            out.data(&names)?;
        }
        Form::Table | Form::Wide => {
            let moments = Moments::now(args.output.timestamps);
            let text = status_text(&view, &rows, &moments, !args.output.no_headers, out.colour);
            out.data(&text)?;
        }
    }
    settled
}

/// The head line, a row for each node, and the sum.
fn status_text(
    view: &View,
    rows: &[ConfigFileNode],
    moments: &Moments,
    with_headers: bool,
    colour: bool,
) -> String {
    let mut text = if with_headers { head(view, moments) } else { String::new() };
    rows_text(rows, moments, with_headers, colour, &mut text);
    if with_headers {
        text.push_str(&sum(rows));
    }
    text
}

fn rows_text(
    rows: &[ConfigFileNode],
    moments: &Moments,
    with_headers: bool,
    colour: bool,
    text: &mut String,
) {
    let mut table = Table::new(vec!["NODE", "VERSION", "HASH", "STATE", "CHANGED", "MESSAGE"]);
    for row in rows {
        let message = match (row.reason, &row.message) {
            // What a validator said stands below the line that sums it up, and in the other forms.
            (_, Some(message)) => message.lines().next().unwrap_or_default().to_owned(),
            (Some(reason), None) => reason.to_string(),
            (None, None) => "-".to_owned(),
        };
        table.push(vec![
            row.node.to_string(),
            if row.version.0 == 0 { "-".to_owned() } else { row.version.to_string() },
            dash(row.sha256.map(|hash| hash.short())),
            format!("{:?}", row.state),
            dash(row.changed_at.map(|at| moments.ago(at))),
            message,
        ]);
    }
    if !table.is_empty() {
        text.push_str(&table.text(with_headers, colour));
    }
}

/// `configfile/app-conf  /etc/app.conf  version 8, RolledBack from 9 at 14:03:41: why`.
fn head(view: &View, moments: &Moments) -> String {
    let path = match &view.spec {
        Spec::ConfigFile(spec) => spec.path.as_str(),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Deployment(_) | Spec::Secret(_) => "-",
    };
    let state = match &view.status {
        Status::ConfigFile(status) => state_words(status, moments),
        Status::Node(_)
        | Status::Namespace(_)
        | Status::Process(_)
        | Status::Deployment(_)
        | Status::Secret(_) => String::new(),
    };
    format!("{}  {path}  {state}\n", view.object().object_ref().short())
}

fn state_words(status: &ConfigFileStatus, moments: &Moments) -> String {
    let mut text = format!("version {}", status.version);
    let Some(rollout) = &status.rollout else { return text };
    let at = rollout.finished_at.map(|at| format!(" at {}", moments.clock(at))).unwrap_or_default();
    match rollout.state {
        RolloutPhase::RolledBack | RolloutPhase::RollingBack => {
            text.push_str(&format!(", {} from {}{at}", rollout.state.as_str(), status.failed_version));
        }
        RolloutPhase::Complete => text.push_str(&format!(", Complete{at}")),
        RolloutPhase::Progressing
        | RolloutPhase::Baking
        | RolloutPhase::Paused
        | RolloutPhase::Failed
        | RolloutPhase::Unknown => {
            text.push_str(&format!(", {} wave {}/{}", rollout.state.as_str(), rollout.wave, rollout.waves));
        }
    }
    if rollout.state != RolloutPhase::Complete && !rollout.message.is_empty() {
        text.push_str(&format!(": {}", rollout.message));
    }
    text
}

/// `80 nodes: 78 in sync, 1 contested, 1 offline`.
fn sum(rows: &[ConfigFileNode]) -> String {
    let words = [
        (FileState::InSync, "in sync"),
        (FileState::Applying, "applying"),
        (FileState::Pending, "pending"),
        (FileState::Drifted, "drifted"),
        (FileState::Contested, "contested"),
        (FileState::Failed, "failed"),
        (FileState::Held, "held"),
        (FileState::Offline, "offline"),
        (FileState::Released, "released"),
        (FileState::Unknown, "unknown"),
    ];
    let parts: Vec<String> = words
        .into_iter()
        .filter_map(|(state, word)| {
            let number = rows.iter().filter(|row| row.state == state).count();
            (number > 0).then(|| format!("{number} {word}"))
        })
        .collect();
    let nodes = count(rows.len() as u64, "node", "nodes");
    if parts.is_empty() { format!("{nodes}\n") } else { format!("{nodes}: {}\n", parts.join(", ")) }
}

async fn versions(session: &Session, object: &ObjectRef) -> Result<Vec<ConfigVersion>, Failure> {
    let mut versions = Vec::new();
    for part in ask(session, object, ConfigOp::History).await? {
        match part {
            ConfigReply::History(more) => versions.extend(more),
            ConfigReply::Changed { .. }
            | ConfigReply::Status(_)
            | ConfigReply::Content(_)
            | ConfigReply::Rendered { .. } => {}
        }
    }
    Ok(versions)
}

async fn history(session: &Session, args: &ConfigHistory, out: &mut Out) -> Result<(), Failure> {
    let form = Form::parse(args.output.output.as_deref())?;
    let object = file(&args.name, &session.namespace)?;
    let versions = versions(session, &object).await?;
    match form {
        Form::Json | Form::Yaml | Form::JsonPath(_) => {
            let items = versions.iter().map(|v| json!(v)).collect();
            out.data(&form.write(&form::list(items, true))?)
        }
        Form::Table | Form::Wide | Form::Name => {
            let moments = Moments::now(args.output.timestamps);
            let mut table = Table::new(vec!["VERSION", "STATE", "TIME", "BY", "NODES", "HASH", "REASON"]);
            for version in versions {
                table.push(vec![
                    version.version.to_string(),
                    version.state,
                    moments.time(version.at),
                    version.by.actor.to_string(),
                    version.nodes.to_string(),
                    dash(version.content.map(|c| c.sha256.short())),
                    dash(version.by.reason),
                ]);
            }
            let colour = out.colour;
            out.data(&table.text(!args.output.no_headers, colour))
        }
    }
}

async fn diff(session: &Session, args: &ConfigDiff, out: &mut Out) -> Result<(), Failure> {
    let object = file(&args.name, &session.namespace)?;
    if args.original {
        return original::diff(session, &object, args, out).await;
    }
    let name = object.short();
    if let Some(node) = &args.node {
        return node_diff(session, &object, node, out).await;
    }
    let different = if let Some(path) = &args.file {
        let old = session.client.content(&object, args.to).await?;
        let version = args.to.map_or_else(|| "(now)".to_owned(), |v| format!("version {v}"));
        let old = (format!("{name} {version}"), old);
        compare(&old, &(path.display().to_string(), read(path)?), out)?
    } else {
        let (from, to) = range(session, &object, args).await?;
        let mut different = false;
        for (part, sides) in parts_of(session, &object, (from, to)).await? {
            let of = part.as_deref().map(|part| format!(" {part}")).unwrap_or_default();
            let (old, new) = sides;
            let old = (format!("{name}{of} version {from}"), old);
            different |= compare(&old, &(format!("{name}{of} version {to}"), new), out)?;
        }
        different
    };
    if different { Err(Failure::Different) } else { Ok(()) }
}

/// Shows how two texts differ; says whether they do.
fn compare(
    (old_name, old): &(String, Vec<u8>),
    (new_name, new): &(String, Vec<u8>),
    out: &mut Out,
) -> Result<bool, Failure> {
    if old == new {
        return Ok(false);
    }
    match (std::str::from_utf8(old), std::str::from_utf8(new)) {
        (Ok(old), Ok(new)) => {
            let colour = out.colour;
            out.data(&unified(old, new, (old_name, new_name), colour))?;
        }
        _ => {
            let (was, is) = (old.len(), new.len());
            out.line(&format!("{old_name} ({was} bytes) and {new_name} ({is} bytes) differ"))?;
        }
    }
    Ok(true)
}

/// One of several files, and what is in it in two versions.
type PartSides = (Option<String>, (Vec<u8>, Vec<u8>));

/// The files of two versions side by side. What one of them does not have is empty there.
async fn parts_of(
    session: &Session,
    object: &ObjectRef,
    (from, to): (u64, u64),
) -> Result<Vec<PartSides>, Failure> {
    let kept = versions(session, object).await?;
    let names = |version: u64| {
        let kept = kept.iter().find(|kept| kept.version.0 == version);
        kept.map(|kept| kept.files.clone()).unwrap_or_default()
    };
    let (old, new) = (names(from), names(to));
    let all: BTreeSet<Option<&String>> = match old.is_empty() && new.is_empty() {
        true => BTreeSet::from([None]),
        false => old.iter().chain(&new).map(Some).collect(),
    };
    let mut out = Vec::new();
    for part in all {
        let mut sides = Vec::new();
        for (version, names) in [(from, &old), (to, &new)] {
            let is_there = part.is_none_or(|part| names.contains(part));
            sides.push(match is_there {
                true => {
                    let wanted = (Some(version), part.map(String::as_str));
                    session.client.content_of(object, wanted).await?
                }
                false => Vec::new(),
            });
        }
        let new = sides.pop().unwrap_or_default();
        out.push((part.cloned(), (sides.pop().unwrap_or_default(), new)));
    }
    Ok(out)
}

/// By default the last version against the one before it.
async fn range(session: &Session, object: &ObjectRef, args: &ConfigDiff) -> Result<(u64, u64), Failure> {
    if let (Some(from), Some(to)) = (args.from, args.to) {
        return Ok((from, to));
    }
    let kept: Vec<u64> = versions(session, object).await?.iter().map(|v| v.version.0).collect();
    let to = args.to.or_else(|| kept.iter().copied().max());
    let to = to.ok_or_else(|| Failure::message(format!("{} has no version yet", object.short())))?;
    let from = args.from.or_else(|| kept.iter().copied().filter(|v| *v < to).max());
    let from = from.ok_or_else(|| Failure::message(format!("no version before {to} is kept")))?;
    Ok((from, to))
}

/// What a node's file differs in, as the node reported it last.
async fn node_diff(session: &Session, object: &ObjectRef, node: &str, out: &mut Out) -> Result<(), Failure> {
    let op = ConfigOp::Status { version: None, labels: Vec::new() };
    let rows = ask(session, object, op).await?.into_iter().filter_map(|part| match part {
        ConfigReply::Status(rows) => Some(rows),
        ConfigReply::Changed { .. }
        | ConfigReply::History(_)
        | ConfigReply::Content(_)
        | ConfigReply::Rendered { .. } => None,
    });
    let row = rows.flatten().find(|row| row.node.as_str() == node);
    let row = row.ok_or_else(|| Failure::message(format!("{} is not for node/{node}", object.short())))?;
    if row.state == FileState::InSync {
        return Ok(());
    }
    let diff = row.last_drift.as_ref().and_then(|drift| drift.diff.clone());
    match diff {
        Some(text) => out.data(&text)?,
        None => out.line(&format!(
            "node/{node}: {:?}, version {}, {}",
            row.state,
            row.version,
            row.message.unwrap_or_else(|| "no difference was reported".to_owned())
        ))?,
    }
    Err(Failure::Different)
}

#[cfg(test)]
mod tests;
