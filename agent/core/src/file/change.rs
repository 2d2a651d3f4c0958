//! What follows a change of the file: planned with it, and durable before it is on disk.

use ostler_schemas::Sha256;
use ostler_schemas::v1::document::{FileGoal, FileSpec};
use ostler_schemas::v1::report::FileState;

use super::{FileRecord, ManagedFile, Written};
use crate::acts::Plan;

impl FileRecord {
    /// Plans what follows a change to this version; the same again where that change was begun and did not get far.
    pub(super) fn plan_change(&mut self, target: &Written, spec: &FileSpec) {
        let is_it =
            |plan: &Plan| !plan.is_placed && plan.version == target.version && plan.sha256 == target.sha256;
        if self.change.as_deref().is_some_and(is_it) {
            return;
        }
        if spec.on_change.is_empty() && spec.probe.is_none() {
            self.change = None;
            return;
        }
        self.changes += 1;
        let plan = Plan::of(spec, (target.version, target.sha256), &self.path);
        self.change = Some(Box::new(Plan { n: self.changes, ..plan }));
    }

    /// The version is on disk. What is planned for the same content under another number follows it too, if it has not
    /// yet; what was planned for another content that never came follows nothing.
    pub(super) fn change_is_there(&mut self, target: &Written) {
        let Some(plan) = &mut self.change else { return };
        if plan.sha256 == target.sha256 {
            plan.version = target.version;
            plan.is_placed = true;
        } else {
            self.change = None;
        }
    }
}

impl ManagedFile {
    /// Whether a change to something else than the target was begun, and may be half done: then what is on disk is
    /// nobody's drift, and what follows must follow this one.
    pub(super) fn is_amid_another(&self, target: &Written) -> bool {
        let plan = self.record.change.as_deref();
        plan.is_some_and(|plan| !plan.is_placed && plan.sha256 != target.sha256)
    }

    /// The last change that something follows from.
    #[must_use]
    pub fn change(&self) -> Option<&Plan> {
        self.record.change.as_deref()
    }

    /// What will follow once what is asked is on disk, while it is on its way there.
    #[must_use]
    pub fn coming(&self) -> Option<Plan> {
        let is_coming = matches!(self.standing.state, FileState::Applying | FileState::Pending);
        let wanted = self.wanted.as_ref().filter(|wanted| is_coming && wanted.goal == FileGoal::Hold)?;
        let spec = wanted.spec.as_ref().filter(|spec| !spec.on_change.is_empty())?;
        Some(Plan::of(spec, (wanted.version, Sha256::from_bytes([0; 32])), &self.record.path))
    }
}
