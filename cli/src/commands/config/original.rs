//! `config diff --original`: what a host had before Ostler against what it should have now.

use ostler_schemas::ObjectRef;
use ostler_schemas::spec::{Spec, selects};
use ostler_schemas::v1::api::{ConfigOp, ConfigRender, HostsOf, ListRequest};

use super::{ask, compare, get, hosts, render};
use crate::args::change::ConfigDiff;
use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;

/// Runs it.
///
/// # Errors
/// [`Failure::Different`] where there is a difference; whatever keeps it from being told.
pub(super) async fn diff(
    session: &Session,
    object: &ObjectRef,
    args: &ConfigDiff,
    out: &mut Out,
) -> Result<(), Failure> {
    let node = match &args.node {
        Some(node) => node.strip_prefix("node/").unwrap_or(node).to_owned(),
        None => the_only_node(session, object).await?,
    };
    let name = node.parse().map_err(|error| Failure::message(format!("{error}")))?;
    let wish = ConfigRender { node: name, version: None, manifest: None };
    let files = render::collect(ask(session, object, ConfigOp::Render(Box::new(wish))).await?);
    let mut different = false;
    for (part, wanted) in files {
        let of = HostsOf::Original { part: part.clone() };
        let original = hosts::one(session, object, (of, &node)).await?.map(|(_, bytes)| bytes);
        let part = if part.is_empty() { String::new() } else { format!(" {part}") };
        let before = match &original {
            Some(_) => format!("node/{node}{part} original"),
            None => "/dev/null".to_owned(),
        };
        let now = format!("{}{part}", object.short());
        different |= compare(&(before, original.unwrap_or_default()), &(now, wanted), out)?;
    }
    if different { Err(Failure::Different) } else { Ok(()) }
}

/// Each host had its own: one of many must be named.
async fn the_only_node(session: &Session, object: &ObjectRef) -> Result<String, Failure> {
    let view = get::one(&session.client, object.kind, object.name.as_str(), &session.namespace).await?;
    let Spec::ConfigFile(spec) = &view.spec else { return Err(Failure::message("it is no configfile")) };
    let list = ListRequest {
        kind: ostler_schemas::Kind::Node,
        namespace: None,
        labels: Vec::new(),
        names: Vec::new(),
    };
    let nodes = session.client.list(&list).await?.items;
    let mut meant = nodes.iter().filter(|node| selects(&spec.node_selector, &node.metadata.labels));
    match (meant.next(), meant.next()) {
        (Some(node), None) => Ok(node.metadata.name.to_string()),
        (_, _) => Err(Failure::message("each host had its own: say of which with --node NODE")),
    }
}
