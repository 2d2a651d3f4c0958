//! The secrets document: taken like the others, kept as sealed as it came.

use ostler_agent_core::documents::{Verdict, judge};
use ostler_agent_core::ledger::{Change, Kept};
use ostler_agent_core::secrets::unmet;
use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::secret::SecretsDocument;
use ostler_schemas::{Namespace, Revision, codec};

use super::State;
use crate::context::lock;

impl State {
    pub(super) async fn take_secrets(&mut self, revision: Revision, bytes: &[u8]) {
        let document: SecretsDocument = match codec::decode(bytes) {
            Ok(document) => document,
            Err(error) => {
                tracing::error!(%error, "the secrets document cannot be read and is not followed");
                return;
            }
        };
        let held = self.context.board().secrets_held;
        match judge(&held, document.epoch, revision) {
            Verdict::Old => {}
            Verdict::Refuse(refused) => {
                self.context.condition(refused.reason(), Some(format!("secrets document: {refused}")));
            }
            Verdict::Take => {
                let held = HeldDocument { epoch: document.epoch, revision };
                let kept = Kept { held, document: Some(document) };
                // Starts read it from there, so it must be there before they are let go.
                if let Err(error) = self.context.persist(Change::Secrets(Box::new(kept))).await {
                    tracing::warn!(error, "the secrets document could not be kept; it is read again");
                    return;
                }
                self.context.board().secrets_held = held;
                self.context.changed();
            }
        }
    }

    /// The Secret that a process waits for, in words.
    pub(super) fn missing_secret(&self, template: &ProcessTemplate, namespace: &Namespace) -> Option<String> {
        template.secret_refs().next()?;
        let keys = self.context.deps.keys.public_keys();
        let memory = lock(&self.context.memory);
        unmet(template, namespace, memory.secrets.document.as_ref(), &keys)
    }
}
