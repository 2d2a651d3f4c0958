//! Templates are rendered for every node that gets them before anything is committed.
//!
//! The work is cut into slices between which everything else of the daemon has its turn: an apply for ten thousand
//! nodes must not keep leases from being renewed.

use ostler_controller_core::admission::{Decision, RenderCheck, Rendering, conflict, refused, unavailable};
use ostler_controller_core::fleet::Fleet;
use ostler_render::{Input, NoSecrets, Secrets, Template, Unrenderable};
use ostler_schemas::manifest::{Finding, Refusal};
use ostler_schemas::spec::{ContentRef, Source};
use ostler_schemas::v1::api::ApiError;
use std::sync::Arc;

use super::blobs;
use super::server::Shared;

/// Nodes of one slice: a few milliseconds of usual templates.
const SLICE: usize = 32;

/// Renders what a decision must render.
///
/// # Errors
/// A refusal with every template that does not; or a template cannot be read from the store.
pub(super) async fn ensure(shared: &Shared, fleet: &Fleet, decision: &Decision) -> Result<(), ApiError> {
    let mut findings = Vec::new();
    for check in &decision.renders {
        let given = decision.contents.iter().find(|needed| needed.content == check.content());
        let bytes = match given.and_then(|needed| needed.bytes.clone()) {
            Some(bytes) => bytes,
            None => bytes_of(shared, check.content()).await?,
        };
        findings.extend(found(fleet, check, &bytes).await);
    }
    if findings.is_empty() {
        return Ok(());
    }
    let objects: std::collections::BTreeSet<&str> = findings.iter().map(|f| f.object.as_str()).collect();
    let refused_objects = objects.len();
    Err(refused(&Refusal { findings, refused: refused_objects, documents: refused_objects }))
}

async fn found(fleet: &Fleet, check: &RenderCheck, bytes: &[u8]) -> Vec<Finding> {
    if let Some(findings) = check.look_at_literal(bytes) {
        return findings;
    }
    let mut running = match check.begin(fleet, bytes) {
        Ok(running) => running,
        Err(finding) => return vec![*finding],
    };
    while running.step(SLICE) {
        tokio::task::yield_now().await;
    }
    running.finish()
}

async fn bytes_of(shared: &Shared, content: ContentRef) -> Result<Vec<u8>, ApiError> {
    let short = content.sha256.short();
    let missing = || unavailable(format!("content {short}… is not in the store any more; push it again"));
    blobs::read(shared, content).await?.ok_or_else(missing)
}

/// The files of a rendering, by name.
///
/// # Errors
/// One of them cannot be rendered, or its bytes are not there.
pub(super) async fn files(
    shared: &Shared,
    rendering: &Rendering,
    given: &[(ContentRef, Vec<u8>)],
) -> Result<Vec<(String, Vec<u8>)>, ApiError> {
    let secrets: Arc<dyn Secrets> = Arc::new(NoSecrets);
    let input = Input { node: &rendering.node, facts: &rendering.facts, vars: &rendering.vars };
    let mut out = Vec::new();
    for part in rendering.spec.parts() {
        let content = part.source.reference();
        let bytes = match given.iter().find(|(name, _)| *name == content) {
            Some((_, bytes)) => bytes.clone(),
            None => bytes_of(shared, content).await?,
        };
        let bytes = match part.source {
            Source::Content(_) => bytes,
            Source::Template(_) => {
                let rendered = render(&bytes, &input, &secrets);
                let node = &rendering.node;
                rendered.map_err(|refused| unrenderable(part.name, node.as_str(), &refused))?.into_bytes()
            }
        };
        out.push((part.name.to_owned(), bytes));
        tokio::task::yield_now().await;
    }
    Ok(out)
}

fn render(bytes: &[u8], input: &Input<'_>, secrets: &Arc<dyn Secrets>) -> Result<String, Unrenderable> {
    let source = std::str::from_utf8(bytes).map_err(|_| Unrenderable::not_text())?;
    Template::parse(source)?.render(input, secrets).map(|rendered| rendered.text)
}

fn unrenderable(part: &str, node: &str, refused: &Unrenderable) -> ApiError {
    let of = if part.is_empty() { String::new() } else { format!("{part}: ") };
    conflict(format!("Unrenderable: {of}{refused} (on {node})"))
}
