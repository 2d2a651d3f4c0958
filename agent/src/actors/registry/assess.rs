//! What follows from the board: who may start, whose needs hold, who can be forgotten.

use std::collections::BTreeSet;

use ostler_agent_core::artifacts::set_id;
use ostler_agent_core::ledger::Change;
use ostler_agent_core::needs::{Present, unmet};
use ostler_agent_core::unit::{Event, UnitRecord};
use ostler_schemas::key::DocumentKind;
use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::{Sha256, Uid};
use ractor::ActorRef;

use super::{BLOCKED_MS, KNOWN, Msg, POLL_MS, State, polls, send};
use crate::context::{Task, lock};

impl State {
    pub(super) fn assess(&mut self, me: &ActorRef<Msg>) {
        self.open_gate();
        self.tell_needs(me);
        self.retire(me);
    }

    pub(super) fn set_gate(&mut self, open: bool) {
        if self.gate != open {
            self.gate = open;
            self.feed_all(&Event::Gate(open));
        }
    }

    fn open_gate(&mut self) {
        let all_fresh = DocumentKind::ALL.iter().all(|kind| self.fresh.contains(kind.as_str()))
            && self.fresh.contains(KNOWN);
        if self.gate || !all_fresh {
            return;
        }
        // What was stopped while this node was away ends before anything starts. A goal that its process has not
        // taken in yet counts as not ended.
        let blocked = {
            let board = self.context.board();
            self.items.values().filter(|item| item.goal != Goal::Run).any(|item| {
                let view = board.processes.get(&item.uid);
                view.is_some_and(|v| v.goal < item.goal || v.blocks_starts)
            })
        };
        let now = self.context.deps.clock.mono();
        let since = *self.blocked_since.get_or_insert(now);
        if blocked && now.since_ms(since) < BLOCKED_MS {
            return;
        }
        self.blocked_since = None;
        if !self.is_refused() {
            self.set_gate(true);
        }
    }

    fn present(&self) -> Present {
        let board = self.context.board();
        let mut present = Present::default();
        for uid in self.entries.keys() {
            if let Some(view) = board.files.get(uid)
                && let Some(named) = &view.named
            {
                present.files.insert(named.clone(), view.in_sync);
            }
        }
        for view in board.processes.values() {
            let name = (view.namespace.clone(), view.name.clone());
            present.processes.insert(name, view.ready);
            if let Some(owner) = &view.owner {
                let workload = (owner.kind, view.namespace.clone(), owner.name.clone());
                *present.workloads.entry(workload).or_default() += usize::from(view.ready);
            }
        }
        present
    }

    fn tell_needs(&mut self, me: &ActorRef<Msg>) {
        let present = self.present();
        let mut poll = false;
        for (uid, item) in &self.items {
            let Some(template) = self.templates.get(&item.template) else { continue };
            let missing = unmet(&template.needs, &item.namespace, &present, &*self.context);
            let missing = missing.or_else(|| self.missing_secret(template, &item.namespace));
            poll |= missing.is_some() && polls(template);
            if self.needs.get(uid) != Some(&missing)
                && let Some(actor) = self.processes.get(uid)
            {
                send(actor, Event::Needs(missing.clone()));
                self.needs.insert(*uid, missing);
            }
        }
        self.poll = poll.then(|| {
            let (clock, me) = (self.context.deps.clock.clone(), me.clone());
            Task::spawn(async move {
                clock.sleep_ms(POLL_MS).await;
                drop(me.cast(Msg::Reassess));
            })
        });
    }

    /// Forgets what has ended and is asked for no more.
    fn retire(&mut self, me: &ActorRef<Msg>) {
        let (processes, files): (Vec<Uid>, Vec<Uid>) = {
            let board = self.context.board();
            let processes = board
                .processes
                .iter()
                .filter(|(u, v)| v.retired && !self.items.contains_key(u))
                .map(|(u, _)| *u);
            let files = board
                .files
                .iter()
                .filter(|(u, v)| v.retired && !self.entries.contains_key(u))
                .map(|(u, _)| *u);
            (processes.collect(), files.collect())
        };
        for uid in &processes {
            if let Some(actor) = self.processes.remove(uid) {
                actor.stop(None);
            }
            self.needs.remove(uid);
            self.context.board().processes.remove(uid);
            self.context.note(Change::UnitGone(*uid));
        }
        for uid in &files {
            if let Some(actor) = self.files.remove(uid) {
                actor.stop(None);
            }
            self.context.board().files.remove(uid);
            self.context.note(Change::FileGone(*uid));
        }
        if !processes.is_empty() {
            self.forget_holds(me, &processes);
            self.tidy(processes.iter().copied().collect());
        }
        if !processes.is_empty() || !files.is_empty() {
            self.context.changed();
            self.sweep();
        }
    }

    /// Lets the host remove what only lived for processes that are gone.
    pub(super) fn tidy(&mut self, gone: BTreeSet<Uid>) {
        let known = self.processes.keys().copied().collect();
        let host = self.context.deps.host.clone();
        self.timers.push(Task::spawn(async move { host.tidy(known, gone).await }));
    }

    /// Removes templates, specs and contents that nothing uses any more, from memory and from beside the ledger.
    pub(super) fn sweep(&mut self) {
        let specs = self.entries.values().filter_map(|e| self.specs.get(&e.d));
        let contents: BTreeSet<Sha256> =
            specs.flat_map(|spec| spec.parts()).map(|part| part.source.reference().sha256).collect();
        let complete = self.entries.values().all(|e| self.specs.contains_key(&e.d));
        if !complete {
            // A spec that is still being fetched may name a content that is here already.
            return;
        }
        let mut templates: BTreeSet<Sha256> = self.items.values().map(|i| i.template).collect();
        let used = {
            let memory = lock(&self.context.memory);
            // What runs may have been made of a template that no document names any more.
            templates.extend(memory.units.values().flat_map(UnitRecord::templates));
            let mut used = memory.in_use();
            used.extend(contents.iter().copied());
            used.extend(templates.iter().copied());
            used.extend(self.entries.values().flat_map(|e| [Some(e.d), e.w]).flatten());
            used
        };
        self.templates.retain(|hash, _| used.contains(hash));
        self.specs.retain(|hash, _| used.contains(hash));
        self.vars.retain(|hash, _| used.contains(hash));
        self.context.note(Change::Contents(contents));
        let mut sets: BTreeSet<Sha256> = self.templates.values().filter_map(|t| set_of(t)).collect();
        templates.retain(|hash| !self.templates.contains_key(hash));
        let context = self.context.clone();
        self.timers.retain(Task::is_running);
        self.timers.push(Task::spawn(async move {
            for hash in templates {
                sets.extend(context.kept_template(hash).await.as_ref().and_then(set_of));
            }
            context.deps.artifacts.retain(sets);
            if let Err(error) = context.deps.ledger.retain(used).await {
                tracing::warn!(error, "what is used no more could not be removed");
            }
        }));
    }
}

/// The set of artifacts that a template asks for.
fn set_of(template: &ProcessTemplate) -> Option<Sha256> {
    (!template.artifacts.is_empty()).then(|| set_id(&template.artifacts))
}
