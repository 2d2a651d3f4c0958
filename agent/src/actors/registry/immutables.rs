//! Templates and file specs: what a hash in a document stands for, fetched once and kept.

use std::sync::Arc;

use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::v1::document::{FileSpec, FileVars};
use ostler_schemas::{Sha256, Uid, codec};
use ractor::ActorRef;

use super::{Done, FETCH_FIRST_MS, Msg, State};
use crate::context::Task;

/// Longest wait before a template or file spec is asked for again.
const FETCH_MAX_MS: u64 = 5_000;

impl State {
    /// Fetches a template or file spec: from the ledger, else from the bus, until it is there.
    pub(super) fn fetch(&mut self, me: &ActorRef<Msg>, hash: Sha256) {
        if self.fetching.get(&hash).is_some_and(Task::is_running) {
            return;
        }
        let (context, me) = (self.context.clone(), me.clone());
        let task = Task::spawn(async move {
            let mut wait = FETCH_FIRST_MS;
            loop {
                if let Some(bytes) = context.deps.ledger.get(hash).await {
                    drop(me.cast(Msg::Immutable(hash, bytes)));
                    return;
                }
                match context.deps.link.get_template(hash).await {
                    Ok(bytes) => {
                        if let Err(error) = context.deps.ledger.put(hash, bytes.clone()).await {
                            tracing::warn!(error, "a template could not be stored");
                        }
                        drop(me.cast(Msg::Immutable(hash, bytes)));
                        return;
                    }
                    Err(error) => tracing::debug!(%error, %hash, "could not be fetched"),
                }
                context.deps.clock.sleep_ms(wait).await;
                wait = (wait * 2).min(FETCH_MAX_MS);
            }
        });
        self.fetching.insert(hash, task);
    }

    /// A hash names a template, a file spec or values; its envelope says which.
    pub(super) fn learn(&mut self, hash: Sha256, bytes: &[u8]) {
        if let Ok(template) = codec::decode::<ProcessTemplate>(bytes) {
            self.templates.insert(hash, Arc::new(template));
        } else if let Ok(spec) = codec::decode::<FileSpec>(bytes) {
            self.specs.insert(hash, Arc::new(spec));
        } else if let Ok(vars) = codec::decode::<FileVars>(bytes) {
            self.vars.insert(hash, Arc::new(vars));
        }
    }

    pub(super) async fn immutable(&mut self, me: &ActorRef<Msg>, hash: Sha256, bytes: &[u8]) -> Done {
        self.fetching.remove(&hash);
        self.learn(hash, bytes);
        let users: Vec<Uid> = self.items.values().filter(|i| i.template == hash).map(|i| i.uid).collect();
        for uid in users {
            self.want_process(me, uid).await?;
        }
        if self.entries.values().any(|e| e.d == hash || e.w == Some(hash)) {
            self.tell_files();
        }
        self.assess(me);
        Ok(())
    }
}
