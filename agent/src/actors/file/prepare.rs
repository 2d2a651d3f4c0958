//! From what a document asks to the bytes of every file: contents fetched, templates rendered.
//!
//! What is rendered follows from what is stored for the node, so it is made again whenever it is needed, also when the
//! bus is away: templates and values lie beside the ledger. What has a secret in it is kept in memory only.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ostler_agent_core::file::Part;
use ostler_render::{Input, NoSecrets, Secrets, Template, Unrenderable};
use ostler_schemas::hash::sha256;
use ostler_schemas::spec::{ContentRef, Source};
use ostler_schemas::v1::document::{FileSpec, FileVars, NodeFacts};
use ostler_schemas::{NodeName, Sha256};

use crate::context::Shared;

/// First wait before content is asked for again; doubles.
pub(super) const FETCH_FIRST_MS: u64 = 250;
/// Longest such wait.
pub(super) const FETCH_MAX_MS: u64 = 10_000;

/// What one version is made of here. Two equal ones give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(super) spec: Arc<FileSpec>,
    pub(super) vars: Option<Arc<FileVars>>,
    pub(super) facts: Option<Arc<NodeFacts>>,
}

/// The files of one version, ready to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(super) parts: Vec<Part>,
    /// Their bytes, by hash.
    pub(super) contents: BTreeMap<Sha256, Bytes>,
    pub(super) is_secret: bool,
}

impl Recipe {
    /// The files as they are to be, where nothing is rendered: then that is known before the bytes are here.
    pub(super) fn parts(&self) -> Option<Vec<Part>> {
        let part = |part: ostler_schemas::spec::Part<'_>| match part.source {
            Source::Content(content) => {
                Some(Part { name: part.name.to_owned(), sha256: content.sha256, mode: part.mode })
            }
            Source::Template(_) => None,
        };
        self.spec.parts().map(part).collect()
    }

    /// Fetches and renders, until everything is there or it is certain that it cannot be rendered.
    pub(super) async fn prepare(&self, context: &Shared) -> Result<Prepared, String> {
        let mut out = Prepared::default();
        let secrets: Arc<dyn Secrets> = Arc::new(NoSecrets);
        for part in self.spec.parts() {
            let bytes = fetch(context, part.source.reference()).await;
            let (bytes, is_secret) = match part.source {
                Source::Content(_) => (bytes, false),
                Source::Template(_) => {
                    let node = &context.node;
                    let rendered = self.render(&bytes, node, &secrets);
                    let (text, is_secret) =
                        rendered.map_err(|refused| of_part(part.name, &refused.to_string()))?;
                    (Bytes::from(text), is_secret)
                }
            };
            let hash = sha256(&bytes);
            out.is_secret |= is_secret;
            out.parts.push(Part { name: part.name.to_owned(), sha256: hash, mode: part.mode });
            out.contents.insert(hash, bytes);
        }
        if !out.is_secret {
            self.keep(context, &out).await;
        }
        Ok(out)
    }

    /// Likewise for a trial: what is given is not fetched, nothing is kept, and what cannot be had in time is said.
    pub(super) async fn try_out(
        &self,
        context: &Shared,
        given: &BTreeMap<Sha256, Bytes>,
    ) -> Result<Prepared, String> {
        let mut out = Prepared::default();
        let secrets: Arc<dyn Secrets> = Arc::new(NoSecrets);
        for part in self.spec.parts() {
            let content = part.source.reference();
            let bytes = match (given.get(&content.sha256), context.deps.ledger.get(content.sha256).await) {
                (Some(bytes), _) => bytes.clone(),
                (None, Some(bytes)) => bytes,
                (None, None) => {
                    let fetched = context.deps.link.get_blob(&content).await;
                    fetched.map_err(|error| of_part(part.name, &format!("cannot be fetched: {error}")))?
                }
            };
            let (bytes, is_secret) = match part.source {
                Source::Content(_) => (bytes, false),
                Source::Template(_) => {
                    let rendered = self.render(&bytes, &context.node, &secrets);
                    let (text, is_secret) = rendered.map_err(|why| of_part(part.name, &why.to_string()))?;
                    (Bytes::from(text), is_secret)
                }
            };
            let hash = sha256(&bytes);
            out.is_secret |= is_secret;
            out.parts.push(Part { name: part.name.to_owned(), sha256: hash, mode: part.mode });
            out.contents.insert(hash, bytes);
        }
        Ok(out)
    }

    fn render(
        &self,
        bytes: &Bytes,
        node: &NodeName,
        secrets: &Arc<dyn Secrets>,
    ) -> Result<(String, bool), Unrenderable> {
        let source = std::str::from_utf8(bytes).map_err(|_| Unrenderable::not_text())?;
        let (no_vars, no_facts) = (FileVars::default(), NodeFacts::default());
        let input = Input {
            node,
            facts: self.facts.as_deref().unwrap_or(&no_facts),
            vars: &self.vars.as_deref().unwrap_or(&no_vars).vars,
        };
        let rendered = Template::parse(source)?.render(&input, secrets)?;
        Ok((rendered.text, !rendered.secrets.is_empty()))
    }

    /// What was rendered can be shown to people on the host, who ask how a file differs from what it should be.
    async fn keep(&self, context: &Shared, prepared: &Prepared) {
        for (hash, bytes) in &prepared.contents {
            if let Err(error) = context.deps.ledger.put(*hash, bytes.clone()).await {
                tracing::warn!(error, "a rendered file could not be stored");
            }
        }
    }
}

fn of_part(name: &str, why: &str) -> String {
    if name.is_empty() { why.to_owned() } else { format!("{name}: {why}") }
}

/// From beside the ledger, else from the bus, until it is there.
async fn fetch(context: &Shared, content: ContentRef) -> Bytes {
    let mut wait = FETCH_FIRST_MS;
    loop {
        if let Some(bytes) = context.deps.ledger.get(content.sha256).await {
            return bytes;
        }
        match context.deps.link.get_blob(&content).await {
            Ok(bytes) => match context.deps.ledger.put(content.sha256, bytes.clone()).await {
                Ok(()) => return bytes,
                Err(error) => tracing::warn!(error, "a content could not be stored"),
            },
            Err(error) => {
                tracing::debug!(%error, hash = %content.sha256, "a content could not be fetched");
            }
        }
        context.deps.clock.sleep_ms(wait).await;
        wait = (wait * 2).min(FETCH_MAX_MS);
    }
}
