//! The files document: who is asked to hold what, and who keeps a path that two ask for.

use std::collections::BTreeMap;

use ostler_agent_core::documents::{Verdict, file_items, judge};
use ostler_agent_core::file::FileRecord;
use ostler_agent_core::ledger::{Change, Kept};
use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::document::{FileGoal, FilesDocument};
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
        for (uid, entry) in self.entries.clone() {
            if !self.files.contains_key(&uid) {
                self.spawn_file(me, FileRecord::new(uid)).await?;
            }
            if !self.specs.contains_key(&entry.d) {
                self.fetch(me, entry.d);
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
            let conflict = spec.as_ref().and_then(|s| {
                let (keeper, name) = keepers.get(&s.path)?;
                (keeper != uid && entry.g == FileGoal::Hold).then(|| name.clone())
            });
            drop(actor.cast(file::Msg::Entry(Box::new(entry.clone()), spec, conflict)));
        }
    }

    /// Per path the ConfigFile that keeps it: the one that has written it already, else the lower uid.
    fn keepers(&self) -> BTreeMap<String, (Uid, String)> {
        let board = self.context.board();
        let mut keepers: BTreeMap<String, (bool, Uid, String)> = BTreeMap::new();
        for (uid, entry) in self.entries.iter().filter(|(_, e)| e.g == FileGoal::Hold) {
            let Some(spec) = self.specs.get(&entry.d) else { continue };
            let written = board.files.get(uid).is_some_and(|v| v.written);
            let name = format!("configfile/{}/{}", spec.namespace, spec.name);
            let slot = keepers.entry(spec.path.clone()).or_insert_with(|| (written, *uid, name.clone()));
            if written && !slot.0 {
                *slot = (written, *uid, name);
            }
        }
        keepers.into_iter().map(|(path, (_, uid, name))| (path, (uid, name))).collect()
    }
}
