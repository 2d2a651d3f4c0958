//! The level-triggered half of the machine: what should be done, given only where things stand.

use ostler_schemas::spec::{OnExisting, OnRemove};

use std::collections::BTreeSet;

use super::write::Place;
use super::{
    CONTEST_WINDOW_MS, Content, Effect, FileGoal, FileRecord, FileSpec, FileState, Found, ManagedFile, Now,
    Original, Reason, Sight, Step, StepError, StepErrorKind, Work, Written, evidence, part_path, temp_path,
};

impl ManagedFile {
    pub(super) fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.work.is_some() {
            return;
        }
        self.heed_clock(now);
        if let Some(held) = &self.held
            && self.wanted.is_some()
        {
            let message = held.message.clone();
            self.set(now, FileState::Held, Some(Reason::Held), Some(message));
            return;
        }
        if self.is_let_go() {
            self.told_release(now, effects);
            return;
        }
        if self.looking {
            return;
        }
        let waits = self.retry.is_some_and(|(at, _)| at.0 != u64::MAX && now.mono < at);
        let Some(wanted) = &self.wanted else { return };
        if waits {
            return;
        }
        let Some(spec) = wanted.spec.clone() else {
            self.set(now, FileState::Pending, None, Some("waits for its spec".to_owned()));
            return;
        };
        if wanted.goal == FileGoal::Release {
            self.settle_release(now, &spec, effects);
        } else {
            self.settle_hold(now, &spec, effects);
        }
    }

    /// What forbids writing at all; decided before anything is looked at.
    fn obstacle(&self, spec: &FileSpec) -> Option<(Reason, String)> {
        let wanted = self.wanted.as_ref()?;
        if let Some(other) = &wanted.conflict {
            return Some((Reason::PathConflict, format!("{} is kept by {other}, which is older", spec.path)));
        }
        for part in spec.parts() {
            let path = part_path(&spec.path, part.name);
            let seen = self.observed.as_ref().and_then(|o| o.parts.get(part.name));
            let refused = self.rules.refusal(&path, seen.and_then(|seen| seen.leads_to.as_deref()));
            if let Some(why) = refused.or_else(|| self.rules.veto.mode(part.mode.bits())) {
                return Some((Reason::PathRefused, why));
            }
        }
        match &wanted.owner {
            Some(Err(why)) => Some((Reason::OwnerRefused, why.clone())),
            Some(Ok(_)) | None => None,
        }
    }

    fn refuse(&mut self, now: Now, (reason, message): (Reason, String), effects: &mut Vec<Effect>) {
        if self.set(now, FileState::Failed, Some(reason), Some(message.clone())) {
            effects.push(Effect::Tell(reason, message));
        }
    }

    fn settle_hold(&mut self, now: Now, spec: &FileSpec, effects: &mut Vec<Effect>) {
        if let Some(obstacle) = self.obstacle(spec) {
            self.refuse(now, obstacle, effects);
            return;
        }
        let Some(wanted) = &self.wanted else { return };
        let owner = match &wanted.owner {
            Some(Ok(owner)) => *owner,
            Some(Err(_)) | None => {
                self.set(now, FileState::Pending, None, Some("its owner is being looked up".to_owned()));
                return;
            }
        };
        let parts = match &wanted.parts {
            Some(Ok(parts)) => parts.clone(),
            Some(Err(why)) => {
                let refused = (Reason::Unrenderable, why.clone());
                self.refuse(now, refused, effects);
                return;
            }
            None => {
                self.set(now, FileState::Pending, None, Some("its content is being fetched".to_owned()));
                return;
            }
        };
        let Some(observed) = self.observed.clone() else { return };
        let target = Written::of(wanted.version, &parts, spec.mode, owner);
        let content = wanted.content;
        for part in &parts {
            if let Found::NotRegular(what) = observed.found(&part.name) {
                let path = part_path(&spec.path, &part.name);
                let mut text = format!("{path} is {what}");
                if self.record.written.is_some() {
                    self.note(now, &target, &observed);
                    let hand = self.record.last_drift.as_ref().and_then(evidence::hand_text);
                    text.push_str(&hand.map(|hand| format!("; {hand}")).unwrap_or_default());
                }
                self.refuse(now, (Reason::NotRegular, text), effects);
                return;
            }
        }
        let check = self.needs_check(spec, &target);
        if observed.differing(&target).is_empty() && !check {
            self.in_sync(now, &target, &observed, effects);
        } else if !content {
            self.set(now, FileState::Pending, None, Some("its content is being fetched".to_owned()));
        } else if spec.on_existing != OnExisting::Replace
            && let Some(name) = self.first_contact(&observed)
        {
            let path = part_path(&spec.path, &name);
            let why = format!("{path} holds a file that Ostler did not write, and onExisting is refuse");
            self.refuse(now, (Reason::PathRefused, why), effects);
        } else if check && self.stays_refused(now, &target) {
            self.retry = None;
            let left = self.left_behind(&observed);
            if !left.is_empty() {
                self.run(Work::Tidy, left, effects);
            }
        } else if self.is_new(&target) {
            self.write(now, spec, (&target, check), &observed, effects);
        } else {
            self.drifted(now, spec, &target, &observed, effects);
        }
    }

    /// A file that lies there and was never looked at before.
    fn first_contact(&self, observed: &Sight) -> Option<String> {
        let all = observed.parts.iter().chain(&observed.unlisted);
        let mut strange = all.filter(|(name, seen)| {
            *self.record.original_of(name) == Original::Unseen && matches!(seen.found, Found::Regular { .. })
        });
        strange.next().map(|(name, _)| name.clone())
    }

    /// Whether the target differs from what was last written: then a difference on disk is no drift.
    fn is_new(&self, target: &Written) -> bool {
        let same = |w: &Written| {
            w.sha256 == target.sha256
                && w.mode == target.mode
                && w.owner == target.owner
                && w.version == target.version
                && w.parts == target.parts
        };
        self.record.released
            || self.is_amid_another(target)
            || !self.record.written.as_ref().is_some_and(same)
    }

    fn in_sync(&mut self, now: Now, target: &Written, observed: &Sight, effects: &mut Vec<Effect>) {
        self.retry = None;
        self.drift_seen = None;
        let quiet = self.record.repairs.last().is_none_or(|at| now.wall.since_ms(*at) >= CONTEST_WINDOW_MS);
        let mut record = self.record.clone();
        if quiet {
            record.repairs.clear();
            record.contested_since = None;
        }
        record.released = false;
        record.rejected = None;
        record.written = Some(target.clone());
        record.change_is_there(target);
        let mut steps = Vec::new();
        for part in target.all() {
            let Some(seen) = observed.parts.get(&part.name) else { continue };
            let path = seen.reached(&record.path_of(&part.name));
            if *record.original_of(&part.name) == Original::Unseen {
                // It was as asked before Ostler came: that is its original, too.
                let at = self.rules.original_of(&record.uid, &part.name);
                steps.push(Step::Keep { from: path.clone(), to: at.clone() });
                let original = Original::Kept { at, mode: part.mode, owner: target.owner };
                record.set_original(&part.name, original);
            }
            if seen.temp {
                steps.push(Step::Remove { path: temp_path(&path) });
            }
        }
        steps.extend(self.left_candidate(observed));
        if record != self.record {
            steps.push(Step::Record(Box::new(record)));
        }
        let contested = self.record.contested_since.is_some() && !quiet;
        if contested {
            let message = self.contest_text();
            let last = self.record.repairs.last().map_or(0, |at| now.wall.since_ms(*at));
            self.pace = Some(now.mono.plus_ms(CONTEST_WINDOW_MS.saturating_sub(last)));
            self.set(now, FileState::Contested, Some(Reason::Contested), Some(message));
        } else {
            self.set(now, FileState::InSync, None, None);
        }
        if !steps.is_empty() {
            self.run(Work::Tidy, steps, effects);
        }
    }

    fn write(
        &mut self,
        now: Now,
        spec: &FileSpec,
        (target, check): (&Written, bool),
        observed: &Sight,
        effects: &mut Vec<Effect>,
    ) {
        let mut record = self.record.clone();
        if !observed.differing(target).is_empty() {
            record.plan_change(target, spec);
        }
        let steps = self.write_steps(target, observed, (&mut record, check));
        // What was refused and is looked at again is refused until it is not.
        if self.refusal_of(target).is_none() {
            self.set(now, FileState::Applying, None, None);
        }
        self.run(Work::Write, steps, effects);
    }

    /// A file that never was here is as released as any: whoever waits for the node must hear so, even where its spec
    /// cannot be had or its path cannot be read.
    fn told_release(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.retry = None;
        self.pace = None;
        if self.set(now, FileState::Released, None, None) && self.record.released {
            let text = format!("{} is not managed any more", self.path().unwrap_or_default());
            effects.push(Effect::Tell(Reason::Released, text));
        }
    }

    fn settle_release(&mut self, now: Now, spec: &FileSpec, effects: &mut Vec<Effect>) {
        let Some(observed) = self.observed.clone() else { return };
        let looked_at = self.rules.on_host(&spec.path) == self.record.path;
        let (mut staged, mut placed, mut dirs) = (Vec::new(), Vec::new(), BTreeSet::new());
        for name in self.record.names() {
            let Some(seen) = observed.parts.get(&name) else { continue };
            let place = Place::of(&self.record.path_of(&name), seen);
            // What the host forbids to write it forbids to remove, and what was looked at must be what was written: a
            // release is no way around the rules.
            let refused =
                self.rules.refusal(&part_path(&spec.path, &name), seen.leads_to.as_deref()).is_some();
            let touchable = looked_at && !refused && !matches!(seen.found, Found::NotRegular(_));
            match (spec.on_remove, self.record.original_of(&name)) {
                (OnRemove::Restore, Original::Kept { at, mode, owner }) if touchable => {
                    staged.extend([
                        Step::WriteTemp { temp: place.temp.clone(), content: Content::Kept(at.clone()) },
                        Step::Own { path: place.temp.clone(), owner: *owner },
                        Step::SetMode { path: place.temp.clone(), mode: *mode },
                        Step::Sync { path: place.temp.clone() },
                    ]);
                    placed.push(Step::Rename { from: place.temp, to: place.path });
                    dirs.insert(place.dir);
                }
                (OnRemove::Delete, _) | (OnRemove::Restore, Original::Absent)
                    if touchable && seen.found != Found::Missing && self.is_written(&name) =>
                {
                    placed.push(Step::Remove { path: place.path });
                    dirs.insert(place.dir);
                }
                (OnRemove::Keep | OnRemove::Unknown | OnRemove::Restore | OnRemove::Delete, _) => {}
            }
        }
        let mut steps = staged;
        steps.extend(self.left_candidate(&observed));
        steps.extend(placed);
        steps.extend(dirs.into_iter().map(|dir| Step::SyncDir { dir }));
        // From here on it is as if Ostler had never been here: what is found at a next first contact is an original.
        let mut record = self.record.clone();
        let original = std::mem::replace(&mut record.original, Original::Unseen);
        let originals = std::mem::take(&mut record.originals);
        record.released = true;
        record.rejected = None;
        record.written = None;
        record.change = None;
        steps.push(Step::Record(Box::new(record)));
        for original in std::iter::once(original).chain(originals.into_values()) {
            if let Original::Kept { at, .. } = original {
                // After the record: a crash between the two leaves a copy that nobody needs, never a lost original.
                steps.push(Step::Discard { kept: at });
            }
        }
        self.set(now, FileState::Applying, None, None);
        self.run(Work::Release, steps, effects);
    }

    /// Whether the version on disk has a file of this name: what was only taken over or removed is not ours to delete.
    fn is_written(&self, name: &str) -> bool {
        self.record.written.iter().any(|w| w.all().iter().any(|part| part.name == name))
    }

    pub(super) fn run(&mut self, work: Work, steps: Vec<Step>, effects: &mut Vec<Effect>) {
        effects.push(Effect::Run(steps.clone()));
        self.work = Some((work, steps));
    }

    pub(super) fn ran(&mut self, now: Now, done: usize, error: Option<StepError>, effects: &mut Vec<Effect>) {
        let Some((work, steps)) = self.work.take() else { return };
        let taken_over =
            steps.iter().take(done).any(|s| matches!(s, Step::Keep { .. })) && work == Work::Write;
        for step in steps.iter().take(done) {
            if let Step::Record(record) = step {
                self.record = FileRecord::clone(record);
            }
        }
        if taken_over {
            effects.push(Effect::Tell(
                Reason::FileTakenOver,
                "what was there before is kept on the host".to_owned(),
            ));
        }
        let outdated = std::mem::take(&mut self.outdated);
        match error {
            Some(_) if outdated => {}
            Some(StepError { kind, message }) => match kind {
                StepErrorKind::DiskFull => self.failed(now, Reason::DiskFull, message, effects),
                StepErrorKind::OwnerRefused => self.failed(now, Reason::OwnerRefused, message, effects),
                StepErrorKind::NotRegular => self.failed(now, Reason::NotRegular, message, effects),
                StepErrorKind::Failed => self.failed(now, Reason::WriteFailed, message, effects),
                StepErrorKind::Rejected => self.refused(now, (message, &steps), effects),
                StepErrorKind::NotNow => self.waits(now, message),
            },
            None => self.told_work(work, effects),
        }
        self.observed = None;
        self.look_again = false;
        self.look(effects);
    }

    fn told_work(&mut self, work: Work, effects: &mut Vec<Effect>) {
        let version = self.record.written.as_ref().map(|w| w.version).unwrap_or_default();
        match work {
            Work::Write => {
                effects.push(Effect::Tell(Reason::FileWritten, format!("version {version} is on disk")));
            }
            Work::Repair => self.told_repair(effects),
            Work::Release | Work::Tidy => {}
        }
    }
}
