//! `top`: what nodes and processes take.

use std::collections::BTreeMap;
use std::time::Duration;

use ostler_schemas::v1::api::ListRequest;
use ostler_schemas::v1::report::ProcessPhase;
use ostler_schemas::v1::status::{Status, View};
use ostler_schemas::v1::usage::{ProcessUsage, TopReply, TopRequest, Unanswered};
use ostler_schemas::{Kind, NodeName, Uid};

use crate::args::target;
use crate::args::top::Top;
use crate::commands::get::request;
use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;
use crate::render::form::{Form, list};
use crate::render::top as rows;

/// Between two looks of `-w`: two beats, so that no look shows what the one before it showed.
const AGAIN: Duration = Duration::from_secs(2);
/// Names in one warning; the rest are counted.
const NAMED: usize = 10;

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn run(session: &Session, args: &Top, out: &mut Out) -> Result<(), Failure> {
    let kind = target::kind(&args.what)?;
    let form = Form::parse(args.output.output.as_deref())?;
    if !matches!(kind, Kind::Node | Kind::Process) {
        return Err(Failure::message(format!(
            "top shows nodes and processes, not {}\nnext:  ostler top nodes, ostler top processes",
            kind.plural()
        )));
    }
    if args.selection.field_selector.is_some() {
        return Err(Failure::message("top takes no --field-selector: use -l, --node or names of get"));
    }
    let look = Look { session, args, form, kind };
    loop {
        look.once(out).await?;
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

struct Look<'a> {
    session: &'a Session,
    args: &'a Top,
    form: Form,
    kind: Kind,
}

impl Look<'_> {
    async fn once(&self, out: &mut Out) -> Result<(), Failure> {
        let list = request(self.kind, Vec::new(), &self.args.selection, &self.session.namespace)?;
        let (views, silent) = if self.kind == Kind::Node {
            (self.nodes(&list, out).await?, Vec::new())
        } else {
            self.processes(&list, out).await?
        };
        let is_table = matches!(self.form, Form::Table | Form::Wide | Form::Name);
        // On a terminal each look takes the place of the one before it.
        if self.args.watch && is_table && out.colour {
            out.data("\x1b[H\x1b[2J")?;
        }
        unanswered(&silent, out);
        self.show(&views, out)?;
        if self.args.watch && is_table && !out.colour {
            out.line("")?;
        }
        Ok(())
    }

    async fn nodes(&self, list: &ListRequest, out: &mut Out) -> Result<Vec<View>, Failure> {
        let page = self.session.client.list(list).await?;
        out.warnings(&page.warnings);
        let is_it = |view: &View| match &self.args.node {
            Some(name) => view.metadata.name.as_str() == name,
            None => true,
        };
        let views = page.items.into_iter().filter(is_it).collect();
        rows::nodes(views, self.args.sort_by).map_err(Failure::message)
    }

    async fn processes(
        &self,
        list: &ListRequest,
        out: &mut Out,
    ) -> Result<(Vec<View>, Vec<Unanswered>), Failure> {
        let node = self.args.node.as_deref().map(str::parse::<NodeName>).transpose();
        let node = node.map_err(|error| Failure::message(format!("--node: {error}")))?;
        let page = self.session.client.list(list).await?;
        out.warnings(&page.warnings);
        let is_here = |view: &View| match &view.status {
            Status::Process(process) => {
                process.phase.may_be_alive()
                    && (node.is_none() || process.node == node)
                    && process.node.is_some()
            }
            Status::Node(_)
            | Status::Namespace(_)
            | Status::Deployment(_)
            | Status::ConfigFile(_)
            | Status::Secret(_) => false,
        };
        let mut views: Vec<View> = page.items.into_iter().filter(is_here).collect();
        let silent = fill(self.session, list.clone(), node.into_iter().collect(), &mut views).await?;
        let views = rows::processes(views, self.args.sort_by).map_err(Failure::message)?;
        Ok((views, silent))
    }

    fn show(&self, views: &[View], out: &mut Out) -> Result<(), Failure> {
        let is_node = self.kind == Kind::Node;
        match &self.form {
            Form::Json | Form::Yaml | Form::JsonPath(_) => {
                let json = if is_node { rows::node_json } else { rows::process_json };
                let items = list(views.iter().map(json).collect(), true);
                if self.args.watch && self.form == Form::Json {
                    return out.line(&items.to_string());
                }
                out.data(&self.form.write(&items)?)
            }
            Form::Name => {
                let name = |view: &View| format!("{}\n", view.object().object_ref().short());
                out.data(&views.iter().map(name).collect::<String>())
            }
            Form::Table | Form::Wide if views.is_empty() => {
                let place = if is_node || self.args.selection.all_namespaces {
                    String::new()
                } else {
                    format!(" in namespace {}", self.session.namespace)
                };
                let running = if is_node { "" } else { "running " };
                out.say(&format!("no {running}{}{place}", self.kind.plural()));
                Ok(())
            }
            Form::Table | Form::Wide => {
                let table = if is_node {
                    rows::node_table(views)
                } else {
                    rows::process_table(views, self.args.selection.all_namespaces)
                };
                out.data(&table.text(!self.args.output.no_headers, out.colour))
            }
        }
    }
}

/// Asks the nodes of these processes what each takes, and writes it into their status; returns who did not answer.
///
/// # Errors
/// Whatever keeps the control plane from answering.
pub async fn fill(
    session: &Session,
    list: ListRequest,
    nodes: Vec<NodeName>,
    views: &mut [View],
) -> Result<Vec<Unanswered>, Failure> {
    if views.is_empty() {
        return Ok(Vec::new());
    }
    let TopReply { processes, unanswered } = session.client.top(&TopRequest { list, nodes }).await?;
    let known: BTreeMap<Uid, ProcessUsage> = processes.into_iter().map(|p| (p.u, p.usage)).collect();
    for view in views {
        if let Status::Process(process) = &mut view.status
            && process.phase != ProcessPhase::Unknown
        {
            process.usage = known.get(&view.metadata.uid).copied();
        }
    }
    Ok(unanswered)
}

/// The same for one process; anything else stays as it is.
///
/// # Errors
/// As [`fill`].
pub async fn fill_one(session: &Session, view: &mut View) -> Result<Vec<Unanswered>, Failure> {
    let Status::Process(process) = &view.status else { return Ok(Vec::new()) };
    let list = ListRequest {
        kind: Kind::Process,
        namespace: view.metadata.namespace.clone(),
        labels: Vec::new(),
        names: vec![view.metadata.name.to_string()],
    };
    let nodes = process.node.clone().into_iter().collect();
    fill(session, list, nodes, std::slice::from_mut(view)).await
}

/// Names who did not answer, and why.
pub fn unanswered(silent: &[Unanswered], out: &mut Out) {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in silent {
        by_reason.entry(&one.why).or_default().push(one.node.as_str());
    }
    for (why, mut nodes) in by_reason {
        nodes.sort_unstable();
        let more = nodes.len().saturating_sub(NAMED);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let count = nodes.len();
        nodes.truncate(NAMED);
        let word = if count == 1 { "node" } else { "nodes" };
        out.warn(&format!("{count} {word} did not answer: {}{rest} ({why})", nodes.join(", ")));
    }
}
