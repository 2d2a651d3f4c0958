//! Files as hosts have them: the answers of nodes that are asked now.

use ostler_schemas::ObjectRef;
use ostler_schemas::v1::api::{ConfigOp, ConfigRequest, HostAnswer, HostFile, HostsOf, HostsWish};

use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;
use crate::render::amounts::count;

/// Nodes that one warning names.
const NAMED: usize = 10;

/// Asks nodes; bytes come only if they were asked for.
pub(super) async fn ask(
    session: &Session,
    object: &ObjectRef,
    wish: HostsWish,
) -> Result<(Vec<HostAnswer>, Vec<u8>), Failure> {
    let namespace = object.namespace.clone().unwrap_or_else(|| session.namespace.clone());
    let request = ConfigRequest { name: object.name.clone(), namespace, op: ConfigOp::Hosts(Box::new(wish)) };
    session.client.host_files(&request).await
}

/// The file of one node; none if nothing lies there.
pub(super) async fn one(
    session: &Session,
    object: &ObjectRef,
    (of, node): (HostsOf, &str),
) -> Result<Option<(HostFile, Vec<u8>)>, Failure> {
    let name = node.strip_prefix("node/").unwrap_or(node);
    let name = name.parse().map_err(|error| Failure::message(format!("{error}")))?;
    let wish = HostsWish { of, labels: Vec::new(), node: Some(name), content: true };
    let (nodes, bytes) = ask(session, object, wish).await?;
    match nodes.into_iter().next() {
        Some(HostAnswer { file: Some(file), .. }) => Ok(file.sha256.is_some().then_some((file, bytes))),
        Some(HostAnswer { node, refused, .. }) => {
            let why = refused.unwrap_or_else(|| "no reason given".to_owned());
            Err(Failure::message(format!("node/{node}: {why}")))
        }
        None => Err(Failure::message(format!("node/{node} did not answer"))),
    }
}

/// Names who did not answer.
pub(super) fn warn_silent(nodes: &[HostAnswer], out: &mut Out) {
    let silent: Vec<&str> = nodes.iter().filter(|node| node.silent).map(|node| node.node.as_str()).collect();
    if !silent.is_empty() {
        let more = if silent.len() > NAMED { ", …" } else { "" };
        let first = silent.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let nodes = count(silent.len() as u64, "node", "nodes");
        out.warn(&format!("{nodes} did not answer: {first}{more}"));
    }
}
