//! The files document: who is asked to hold what, and who keeps a path that two ask for.

use std::sync::Arc;

use ostler_agent_core::documents::{Verdict, file_items, judge};
use ostler_agent_core::file::FileRecord;
use ostler_agent_core::ledger::{Change, Kept};
use ostler_schemas::spec::Taken;
use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::document::{FileGoal, FileSpec, FilesDocument};
use ostler_schemas::{Revision, Uid, codec};
use ractor::ActorRef;

use super::{Done, Msg, State};
use crate::actors::file;

impl State {
    pub(super) async fn take_files(&mut self, me: &ActorRef<Msg>, revision: Revision, bytes: &[u8]) -> Done {
        let document: FilesDocument = match codec::decode(bytes) {
            Ok(document) => document,
            Err(error) => {
                tracing::error!(%error, "the files document cannot be read and is not followed");
                return Ok(());
            }
        };
        let held = self.context.board().files_held;
        match judge(&held, document.epoch, revision) {
            Verdict::Old => {}
            Verdict::Refuse(refused) => {
                self.context.condition(refused.reason(), Some(format!("files document: {refused}")));
            }
            Verdict::Take => {
                let held = HeldDocument { epoch: document.epoch, revision };
                let kept = Kept { held, document: Some(document.clone()) };
                self.context.note(Change::Files(Box::new(kept)));
                self.context.board().files_held = held;
                self.context.board().documents_at = Some(self.context.deps.clock.wall());
                self.follow_files(me, &document).await?;
                self.context.changed();
                self.sweep();
            }
        }
        Ok(())
    }

    pub(super) async fn follow_files(&mut self, me: &ActorRef<Msg>, document: &FilesDocument) -> Done {
        self.entries = file_items(document);
        self.facts = document.node.as_deref().cloned().map(Arc::new);
        for (uid, entry) in self.entries.clone() {
            if !self.files.contains_key(&uid) {
                self.spawn_file(me, FileRecord::new(uid)).await?;
            }
            if !self.specs.contains_key(&entry.d) {
                self.fetch(me, entry.d);
            }
            if let Some(vars) = entry.w.filter(|vars| !self.vars.contains_key(vars)) {
                self.fetch(me, vars);
            }
        }
        self.tell_files();
        for (uid, actor) in &self.files {
            if !self.entries.contains_key(uid) {
                drop(actor.cast(file::Msg::Unwanted));
            }
        }
        Ok(())
    }

    /// Tells every file what is asked of it, and who keeps a path that two ask for.
    pub(super) fn tell_files(&self) {
        let keepers = self.keepers();
        for (uid, entry) in &self.entries {
            let Some(actor) = self.files.get(uid) else { continue };
            let spec = self.specs.get(&entry.d).cloned();
            let conflict = spec.as_ref().filter(|_| entry.g == FileGoal::Hold).and_then(|spec| {
                let (_, (keeper, name)) = keepers.holder_of(&spec.claims())?;
                (keeper != *uid).then_some(name)
            });
            let asked = file::Asked {
                entry: entry.clone(),
                spec,
                vars: entry.w.and_then(|vars| self.vars.get(&vars)).cloned(),
                facts: self.facts.clone().filter(|_| entry.w.is_some()),
                conflict,
            };
            drop(actor.cast(file::Msg::Entry(Box::new(asked))));
        }
    }

    /// Per path the ConfigFile that keeps it: the one that has written it already, else the lower uid. Of two that
    /// both have written something the lower uid has what they share.
    fn keepers(&self) -> Taken<(Uid, String)> {
        let board = self.context.board();
        let mut held: Vec<(bool, &Uid, &Arc<FileSpec>)> = Vec::new();
        for (uid, entry) in self.entries.iter().filter(|(_, e)| e.g == FileGoal::Hold) {
            let Some(spec) = self.specs.get(&entry.d) else { continue };
            let written = board.files.get(uid).is_some_and(|v| v.written);
            held.push((!written, uid, spec));
        }
        held.sort_unstable_by_key(|(is_new, uid, _)| (*is_new, **uid));
        let mut keepers = Taken::default();
        for (_, uid, spec) in held {
            // Who comes too late for one of its paths holds none: a version is written whole or not at all.
            if keepers.holder_of(&spec.claims()).is_none() {
                let name = format!("configfile/{}/{}", spec.namespace, spec.name);
                keepers.take(&spec.claims(), (*uid, name));
            }
        }
        keepers
    }
}
