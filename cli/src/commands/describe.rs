//! `describe`: everything about an object, and what to do next when something is wrong.

use ostler_schemas::Kind;
use ostler_schemas::v1::api::{
    ConfigOp, ConfigReply, ConfigRequest, EventRecord, EventsRequest, ListRequest,
};
use ostler_schemas::v1::status::{ConfigFileNode, Status, View};

use super::get;
use crate::args::look::Describe;
use crate::args::target::{self, Target};
use crate::client::decode;
use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;
use crate::render::amounts::Moments;
use crate::render::describe::{Around, text};

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn run(session: &Session, args: &Describe, out: &mut Out) -> Result<(), Failure> {
    let moments = Moments::now(args.timestamps);
    let mut first = true;
    for Target { kind, name } in target::targets(&args.what, None)? {
        let views = match name {
            Some(name) => vec![get::one(&session.client, kind, &name, &session.namespace).await?],
            None => {
                let list = get::request(
                    kind,
                    Vec::new(),
                    &crate::args::look::Selection::default(),
                    &session.namespace,
                )?;
                session.client.list(&list).await?.items
            }
        };
        for mut view in views {
            let silent = super::top::fill_one(session, &mut view).await?;
            super::top::unanswered(&silent, out);
            if !first {
                out.line("")?;
            }
            first = false;
            let around = around(session, &view).await?;
            let colour = out.colour;
            out.data(&text(&view, &around, &moments, colour))?;
        }
    }
    Ok(())
}

async fn around(session: &Session, view: &View) -> Result<Around, Failure> {
    let mut around = Around { children: children(session, view).await?, ..Around::default() };
    if view.spec.kind() == Kind::ConfigFile {
        around.files = files(session, view).await?;
    }
    let request = EventsRequest {
        object: Some(view.object().object_ref()),
        namespace: None,
        node: None,
        follow: false,
        since: None,
    };
    let mut replies = session.client.events(&request).await?;
    while let Some(body) = replies.next().await? {
        let record: EventRecord = decode(&body)?;
        around.back_to = record.reaches_back_to.or(around.back_to);
        around.events.extend(record.event.map(|event| (event, record.sequence)));
    }
    Ok(around)
}

/// Processes of a workload, or on a node.
async fn children(session: &Session, view: &View) -> Result<Vec<View>, Failure> {
    let kind = view.spec.kind();
    if !matches!(kind, Kind::Deployment | Kind::Node) {
        return Ok(Vec::new());
    }
    let namespace = view.metadata.namespace.clone();
    let list = ListRequest { kind: Kind::Process, namespace, labels: Vec::new(), names: Vec::new() };
    let page = session.client.list(&list).await?;
    let belongs = |child: &View| {
        let is_here = matches!(&child.status, Status::Process(process)
            if process.node.as_ref().is_some_and(|node| node.as_str() == view.metadata.name.as_str()));
        let is_owned = child.metadata.owner_references.iter().any(|owner| owner.uid == view.metadata.uid);
        if kind == Kind::Node { is_here } else { is_owned }
    };
    Ok(page.items.into_iter().filter(belongs).collect())
}

async fn files(session: &Session, view: &View) -> Result<Vec<ConfigFileNode>, Failure> {
    let object = view.object().object_ref();
    let namespace = object.namespace.clone().unwrap_or_else(|| session.namespace.clone());
    let op = ConfigOp::Status { version: None, labels: Vec::new() };
    let parts = session.client.config(&ConfigRequest { name: object.name, namespace, op }).await?;
    Ok(parts
        .into_iter()
        .flat_map(|part| match part {
            ConfigReply::Status(rows) => rows,
            ConfigReply::Changed { .. }
            | ConfigReply::History(_)
            | ConfigReply::Content(_)
            | ConfigReply::Rendered { .. } => Vec::new(),
        })
        .collect())
}
