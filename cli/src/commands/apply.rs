//! `apply`: check here, send contents ahead, then everything in one request.

use ostler_schemas::codec::{self, EncodeError};
use ostler_schemas::manifest::{Refusal, to_yaml};
use ostler_schemas::v1::api::{
    ApplyOutcome, ApplyReply, ApplyRequest, ApplyResult, ManifestDocument, ManifestDocuments, content_ref,
};
use ostler_schemas::{Namespace, Revision};
use serde_json::{Value, json};

use super::converge::{Goals, wait_for};
use crate::args::Global;
use crate::args::change::Apply;
use crate::client::{Client, REQUEST_MAX};
use crate::connect::{Session, namespace, session};
use crate::context::Contexts;
use crate::failure::Failure;
use crate::manifests::{self, Manifests};
use crate::out::Out;
use crate::render::form::{self, Form, pretty};

/// What a document takes in a request beside its tree: names of fields, a file's name, a content's hash. Generous: what
/// is near the limit goes ahead too.
const DOCUMENT_EXTRA: usize = 1_000;

/// How a request asks.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// Even where that undoes what another verb did.
    pub force: bool,
    /// A version again that was rolled back from.
    pub retry: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Why.
    pub reason: Option<String>,
}

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn run(global: &Global, args: &Apply, out: &mut Out) -> Result<(), Failure> {
    let form = Form::parse(args.output.as_deref())?;
    match local_then_server(global, args, &form, out).await {
        Err(Failure::Refused(refusal)) if form == Form::Json => {
            out.data(&pretty(&refusal.to_json()))?;
            Err(Failure::Refused(refusal))
        }
        other => other,
    }
}

/// The namespace as far as it is known without a connection: mistakes in manifests are told without one.
///
/// # Errors
/// When it is no name.
pub fn local_namespace(global: &Global) -> Result<Namespace, Failure> {
    let context = Contexts::of_user().and_then(|c| c.resolve(global.context.as_deref())).ok();
    namespace(global, context.as_ref().map(|(_, context)| context))
}

async fn local_then_server(global: &Global, args: &Apply, form: &Form, out: &mut Out) -> Result<(), Failure> {
    let manifests = manifests::read(&args.sources, &local_namespace(global)?)?;
    if args.dry_run.as_deref() == Some("client") {
        for object in manifests.objects() {
            out.line(&format!("{} valid (client dry run)", object.short()))?;
        }
        return Ok(());
    }
    let session = session(global).await?;
    let manner = Manner {
        force: args.force,
        retry: args.retry,
        dry_run: args.dry_run.is_some(),
        reason: args.reason.clone(),
    };
    let reply = send(&session.client, &manifests, &session.namespace, &manner).await?;
    for result in &reply.results {
        for warning in &result.warnings {
            out.warn(&format!("{}: {warning}", result.object.short()));
        }
    }
    if args.dry_run.as_deref() == Some("nodes") {
        return super::config::try_manifests(&session, &manifests, form, out).await;
    }
    print(&session, &reply, form, manner.dry_run, out).await?;
    if args.wait && !manner.dry_run {
        wait_for(&session.client, &goals(&reply), args.timeout.to_std(), out).await?;
    }
    Ok(())
}

/// Sends manifests: contents first, then the request.
///
/// # Errors
/// A refusal, with findings that point into the user's files.
pub async fn send(
    client: &Client,
    manifests: &Manifests,
    namespace: &Namespace,
    manner: &Manner,
) -> Result<ApplyReply, Failure> {
    let parcel = manifests.parcel(namespace);
    for bytes in &parcel.contents {
        client.blob(content_ref(bytes), bytes).await?;
    }
    let documents = parcel.documents.len();
    let request = ApplyRequest {
        documents: parcel.documents,
        content: None,
        force: manner.force,
        retry: manner.retry,
        dry_run: manner.dry_run,
        reason: manner.reason.clone(),
    };
    let request = fitting(client, request, manifests).await?;
    client.apply(&request).await.map_err(|failure| match failure {
        // The server counts nothing; here it is known how many documents there were.
        Failure::Refused(refusal) => Failure::Refused(Refusal { documents, ..refusal }),
        other => other,
    })
}

/// The request as it fits into a message: where it does not, its documents go ahead of it; but not Secrets, for what goes
/// ahead is stored for a while.
async fn fitting(
    client: &Client,
    request: ApplyRequest,
    manifests: &Manifests,
) -> Result<ApplyRequest, Failure> {
    let size_of = |documents: &[ManifestDocument]| -> usize {
        documents.iter().map(|d| d.tree.len() + DOCUMENT_EXTRA).sum()
    };
    let size = size_of(&request.documents);
    let reason = request.reason.as_ref().map_or(0, String::len);
    if size + reason <= REQUEST_MAX {
        return Ok(request);
    }
    let (mut secrets, mut others) = (Vec::new(), Vec::new());
    for (index, document) in request.documents.into_iter().enumerate() {
        if manifests.is_secret(index) { secrets.push(document) } else { others.push(document) }
    }
    let held = size_of(&secrets) + reason;
    if held > REQUEST_MAX {
        let message = format!(
            "the Secrets of one apply take {held} bytes together, the limit is {REQUEST_MAX}: split it into parts"
        );
        return Err(Failure::message(message));
    }
    let whole = ManifestDocuments { documents: others };
    let bytes = match codec::encode(&whole) {
        Ok(bytes) => bytes,
        Err(EncodeError::TooLarge { found, .. }) => {
            let refusal = ManifestDocuments::too_large(found as u64);
            return Err(Failure::Refused(Refusal { documents: whole.documents.len(), ..refusal }));
        }
        Err(error @ EncodeError::Shape { .. }) => {
            return Err(Failure::local("cannot send the manifests", error));
        }
    };
    let content = content_ref(&bytes);
    client.blob(content, &bytes).await?;
    Ok(ApplyRequest { documents: secrets, content: Some(content), ..request })
}

fn goals(reply: &ApplyReply) -> Goals {
    reply.results.iter().map(|result| (result.object.clone(), result.generation)).collect()
}

/// `created`, `configured`, `unchanged`.
#[must_use]
pub fn outcome_word(outcome: ApplyOutcome) -> &'static str {
    match outcome {
        ApplyOutcome::Created => "created",
        ApplyOutcome::Configured => "configured",
        ApplyOutcome::Unchanged => "unchanged",
    }
}

async fn print(
    session: &Session,
    reply: &ApplyReply,
    form: &Form,
    dry_run: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    match form {
        Form::Table | Form::Wide => {
            let mark = if dry_run { " (server dry run)" } else { "" };
            for result in &reply.results {
                out.line(&format!("{} {}{mark}", result.object.short(), outcome_word(result.outcome)))?;
            }
            Ok(())
        }
        Form::Name => {
            let names: String = reply.results.iter().map(|r| format!("{}\n", r.object.short())).collect();
            out.data(&names)
        }
        Form::Json => out.data(&pretty(&summary(reply))),
        Form::Yaml => out.data(&to_yaml(&summary(reply))),
        Form::JsonPath(_) => {
            let mut items = Vec::new();
            for result in &reply.results {
                items.push(object_after(session, result).await?);
            }
            out.data(&form.write(&form::list(items, false))?)
        }
    }
}

fn summary(reply: &ApplyReply) -> Value {
    let results: Vec<Value> = reply
        .results
        .iter()
        .map(|r| {
            json!({"object": r.object.short(), "namespace": r.object.namespace, "uid": r.uid,
                   "outcome": outcome_word(r.outcome), "generation": r.generation, "version": r.version,
                   "warnings": r.warnings})
        })
        .collect();
    let Revision(revision) = reply.revision;
    json!({"kind": "Applied", "revision": revision, "txn": reply.txn, "results": results})
}

async fn object_after(session: &Session, result: &ApplyResult) -> Result<Value, Failure> {
    let object = &result.object;
    let namespace = object.namespace.clone().unwrap_or_else(|| session.namespace.clone());
    let view = super::get::one(&session.client, object.kind, object.name.as_str(), &namespace).await?;
    super::get::whole(&session.client, &view).await
}
