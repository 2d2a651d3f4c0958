//! The template that what runs was started with. While its successor waits for its artifacts that is another one than
//! the template asked for, and questions, readiness and reloads are a matter of the former.

use std::sync::Arc;

use ostler_schemas::Sha256;
use ostler_schemas::spec::ProcessTemplate;

use super::{Start, Unit};

impl Unit {
    /// The template of what runs; none while it is not at hand, or nobody asks for the process.
    pub(super) fn made_of(&self) -> Option<&Arc<ProcessTemplate>> {
        let (current, wanted) = (self.record.current.as_ref()?, self.wanted.as_ref()?);
        match (current.restart_hash, wanted.restart_hash) {
            (Some(has), Some(asked)) if has == asked => wanted.template.as_ref(),
            // It was found running: what is asked for is all that is known of it.
            (None, _) => wanted.template.as_ref(),
            (Some(_), _) => {
                let kept = self.kept.as_ref().filter(|(hash, _)| current.template == Some(*hash));
                kept.map(|(_, template)| template)
            }
        }
    }

    /// The hash of a template that this machine needs and does not have: what was stored under it is to be told as
    /// [`super::Event::Kept`].
    #[must_use]
    pub fn lacks(&self) -> Option<Sha256> {
        let current = self.record.current.as_ref().filter(|_| self.wanted.is_some())?;
        current.template.filter(|_| self.made_of().is_none())
    }

    /// How what runs was started, with what was changed in place since.
    #[must_use]
    pub fn started_as(&self) -> Option<Start> {
        let current = self.record.current.as_ref()?;
        let (template, terms) = (self.made_of()?.clone(), self.terms());
        Some(Start {
            incarnation: current.incarnation,
            template,
            version: current.version,
            token: terms.token,
            ports: terms.ports,
        })
    }
}
