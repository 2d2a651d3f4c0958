//! The level-triggered half of the machine: what should be done, given only where things stand.

use ostler_schemas::spec::{Drift, OnExisting, OnRemove};

use super::{
    CONTEST_END_MS, CONTEST_REPAIRS, CONTEST_WINDOW_MS, CONTESTED_PACE_MS, Content, DriftReport, Effect,
    FileGoal, FileSpec, FileState, Found, ManagedFile, Mono, Now, Observed, Original, Reason, Step,
    StepError, StepErrorKind, Timestamp, Work, Written, parent, temp_path,
};

/// Whether drift may be put back now.
enum Leave {
    Now,
    At(Mono),
    NoMore,
}

impl ManagedFile {
    pub(super) fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.work.is_some() {
            return;
        }
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
        let leads_to = self.observed.as_ref().and_then(|o| o.leads_to.as_deref());
        if let Some(why) = self.rules.refusal(&spec.path, leads_to) {
            return Some((Reason::PathRefused, why));
        }
        if let Some(why) = self.rules.veto.mode(spec.mode.bits()) {
            return Some((Reason::PathRefused, why));
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
        let Some(observed) = self.observed.clone() else { return };
        let Some(held) = spec.content else {
            self.set(now, FileState::Pending, None, Some("it is not rendered yet".to_owned()));
            return;
        };
        let target = Written { version: wanted.version, sha256: held.sha256, mode: spec.mode, owner };
        let content = wanted.content;
        if let Found::NotRegular(what) = observed.found {
            self.refuse(now, (Reason::NotRegular, format!("{} is {what}", spec.path)), effects);
            return;
        }
        if is_as(&observed.found, &target) {
            self.in_sync(now, &target, &observed, effects);
        } else if !content {
            self.set(now, FileState::Pending, None, Some("its content is being fetched".to_owned()));
        } else if self.is_first_contact(&observed) && spec.on_existing != OnExisting::Replace {
            let why =
                format!("{} holds a file that Ostler did not write, and onExisting is refuse", spec.path);
            self.refuse(now, (Reason::PathRefused, why), effects);
        } else if self.is_new(&target) {
            self.write(now, &target, &observed, effects);
        } else {
            self.drifted(now, spec, &target, &observed, effects);
        }
    }

    fn is_first_contact(&self, observed: &Observed) -> bool {
        self.record.original == Original::Unseen && matches!(observed.found, Found::Regular { .. })
    }

    /// Whether the target differs from what was last written: then a difference on disk is no drift.
    fn is_new(&self, target: &Written) -> bool {
        let same = |w: &Written| {
            w.sha256 == target.sha256
                && w.mode == target.mode
                && w.owner == target.owner
                && w.version == target.version
        };
        self.record.released || !self.record.written.as_ref().is_some_and(same)
    }

    fn in_sync(&mut self, now: Now, target: &Written, observed: &Observed, effects: &mut Vec<Effect>) {
        self.retry = None;
        self.drift_told = None;
        let quiet = self.record.repairs.last().is_none_or(|at| now.wall.since_ms(*at) >= CONTEST_WINDOW_MS);
        let mut record = self.record.clone();
        if quiet {
            record.repairs.clear();
            record.contested_since = None;
        }
        record.released = false;
        record.written = Some(target.clone());
        let mut steps = Vec::new();
        let path = observed.reached(&record.path);
        if record.original == Original::Unseen {
            // It was as asked before Ostler came: that is its original, too.
            let at = self.rules.original(&record.uid);
            steps.push(Step::Keep { from: path.clone(), to: at.clone() });
            record.original = Original::Kept { at, mode: target.mode, owner: target.owner };
        }
        if observed.temp {
            steps.push(Step::Remove { path: temp_path(&path) });
        }
        if record != self.record {
            steps.push(Step::Record(Box::new(record)));
        }
        let contested = self.record.contested_since.is_some() && !quiet;
        if contested {
            let message = self.contest_text();
            self.pace = Some(now.mono.plus_ms(CONTEST_WINDOW_MS));
            self.set(now, FileState::Contested, Some(Reason::Contested), Some(message));
        } else {
            self.set(now, FileState::InSync, None, None);
        }
        if !steps.is_empty() {
            self.run(Work::Tidy, steps, effects);
        }
    }

    fn contest_text(&self) -> String {
        format!("put back {} times in 10m; another writer changes it", self.record.repairs.len())
    }

    fn write(&mut self, now: Now, target: &Written, observed: &Observed, effects: &mut Vec<Effect>) {
        let steps = self.write_steps(target, observed, &mut self.record.clone());
        self.set(now, FileState::Applying, None, None);
        self.run(Work::Write, steps, effects);
    }

    /// The steps that bring the target to the path, whatever is there.
    fn write_steps(
        &self,
        target: &Written,
        observed: &Observed,
        record: &mut super::FileRecord,
    ) -> Vec<Step> {
        let path = observed.reached(&record.path);
        let (dir, temp) = (parent(&path).to_owned(), temp_path(&path));
        let mut steps = Vec::new();
        if observed.real_dir.is_none() && self.makes_dirs() {
            steps.push(Step::MakeDirs { dir: dir.clone() });
        }
        if record.original == Original::Unseen {
            record.original = match &observed.found {
                Found::Regular { mode, owner, .. } => {
                    let at = self.rules.original(&record.uid);
                    steps.push(Step::Keep { from: path.clone(), to: at.clone() });
                    Original::Kept { at, mode: *mode, owner: *owner }
                }
                Found::Missing | Found::NotRegular(_) => Original::Absent,
            };
            // Durable before the rename: else a crash after it would take our own version for the original.
            steps.push(Step::Record(Box::new(record.clone())));
        }
        steps.extend([
            Step::WriteTemp { temp: temp.clone(), content: Content::Blob(target.sha256) },
            Step::Own { path: temp.clone(), owner: target.owner },
            Step::SetMode { path: temp.clone(), mode: target.mode },
            Step::Sync { path: temp.clone() },
            Step::Rename { from: temp, to: path },
            Step::SyncDir { dir },
        ]);
        record.written = Some(target.clone());
        record.released = false;
        steps.push(Step::Record(Box::new(record.clone())));
        steps
    }

    fn makes_dirs(&self) -> bool {
        self.wanted.as_ref().and_then(|w| w.spec.as_ref()).is_some_and(|s| s.create_directories)
    }

    fn drifted(
        &mut self,
        now: Now,
        spec: &FileSpec,
        target: &Written,
        observed: &Observed,
        effects: &mut Vec<Effect>,
    ) {
        match spec.drift {
            Drift::Ignore => {
                self.set(now, FileState::InSync, None, None);
            }
            Drift::Warn | Drift::Unknown => {
                let text = self.note_drift(now, target, observed, effects);
                self.set(now, FileState::Drifted, Some(Reason::DriftFound), Some(text));
            }
            Drift::Enforce => match self.leave(now) {
                Leave::Now => self.repair(now, target, observed, effects),
                Leave::At(at) => {
                    self.note_drift(now, target, observed, effects);
                    self.pace = Some(at);
                    let message = self.contest_text();
                    self.set(now, FileState::Contested, Some(Reason::Contested), Some(message));
                }
                Leave::NoMore => {
                    self.note_drift(now, target, observed, effects);
                    let message =
                        "contested for an hour; not put back until a new version is pushed".to_owned();
                    self.set(now, FileState::Contested, Some(Reason::Contested), Some(message));
                }
            },
        }
    }

    fn leave(&self, now: Now) -> Leave {
        let Some(since) = self.record.contested_since else { return Leave::Now };
        if now.wall.since_ms(since) >= CONTEST_END_MS {
            return Leave::NoMore;
        }
        let last = self.record.repairs.last().copied().unwrap_or(Timestamp(0));
        let waited = now.wall.since_ms(last);
        if waited >= CONTESTED_PACE_MS {
            Leave::Now
        } else {
            Leave::At(now.mono.plus_ms(CONTESTED_PACE_MS - waited))
        }
    }

    /// Records what is different and tells it once.
    fn note_drift(
        &mut self,
        now: Now,
        target: &Written,
        observed: &Observed,
        effects: &mut Vec<Effect>,
    ) -> String {
        let what = differences(&observed.found, target);
        let text = format!("{what} changed by another hand");
        if self.drift_told.as_ref() != Some(&observed.found) {
            self.drift_told = Some(observed.found.clone());
            self.record.last_drift = Some(DriftReport {
                at: now.wall,
                what,
                diff: observed.diff.clone(),
                repairs: self.record.repairs_total,
            });
            effects.push(Effect::Tell(Reason::DriftFound, text.clone()));
        }
        text
    }

    fn repair(&mut self, now: Now, target: &Written, observed: &Observed, effects: &mut Vec<Effect>) {
        let mut record = self.record.clone();
        record.repairs.retain(|at| now.wall.since_ms(*at) < CONTEST_WINDOW_MS);
        record.repairs.push(now.wall);
        record.repairs_total += 1;
        record.last_drift = Some(DriftReport {
            at: now.wall,
            what: differences(&observed.found, target),
            diff: observed.diff.clone(),
            repairs: record.repairs_total,
        });
        if record.contested_since.is_none() && record.repairs.len() >= CONTEST_REPAIRS {
            record.contested_since = Some(now.wall);
            let text = format!("put back {} times in 10m; from now on once a minute", record.repairs.len());
            effects.push(Effect::Tell(Reason::Contested, text));
        }
        let steps = self.write_steps(target, observed, &mut record);
        self.set(now, FileState::Drifted, Some(Reason::DriftFound), None);
        self.run(Work::Repair, steps, effects);
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
        let path = observed.reached(&self.record.path);
        let (dir, temp) = (parent(&path).to_owned(), temp_path(&path));
        let mut steps = Vec::new();
        // What the host forbids to write it forbids to remove, and what was looked at must be what was written: a
        // release is no way around the rules.
        let refused = self.rules.refusal(&spec.path, observed.leads_to.as_deref()).is_some();
        let touchable = looked_at && !refused && !matches!(observed.found, Found::NotRegular(_));
        match (spec.on_remove, &self.record.original) {
            (OnRemove::Restore, Original::Kept { at, mode, owner }) if touchable => {
                steps.extend([
                    Step::WriteTemp { temp: temp.clone(), content: Content::Kept(at.clone()) },
                    Step::Own { path: temp.clone(), owner: *owner },
                    Step::SetMode { path: temp.clone(), mode: *mode },
                    Step::Sync { path: temp.clone() },
                    Step::Rename { from: temp, to: path },
                    Step::SyncDir { dir },
                ]);
            }
            (OnRemove::Delete, _) | (OnRemove::Restore, Original::Absent)
                if touchable && observed.found != Found::Missing =>
            {
                steps.extend([Step::Remove { path }, Step::SyncDir { dir }]);
            }
            (OnRemove::Keep | OnRemove::Unknown | OnRemove::Restore | OnRemove::Delete, _) => {}
        }
        // From here on it is as if Ostler had never been here: what is found at a next first contact is an original.
        let mut record = self.record.clone();
        let original = std::mem::replace(&mut record.original, Original::Unseen);
        record.released = true;
        record.written = None;
        steps.push(Step::Record(Box::new(record)));
        if let Original::Kept { at, .. } = original {
            // After the record: a crash between the two leaves a copy that nobody needs, never a lost original.
            steps.push(Step::Discard { kept: at });
        }
        self.set(now, FileState::Applying, None, None);
        self.run(Work::Release, steps, effects);
    }

    fn run(&mut self, work: Work, steps: Vec<Step>, effects: &mut Vec<Effect>) {
        effects.push(Effect::Run(steps.clone()));
        self.work = Some((work, steps));
    }

    pub(super) fn ran(&mut self, now: Now, done: usize, error: Option<StepError>, effects: &mut Vec<Effect>) {
        let Some((work, steps)) = self.work.take() else { return };
        let taken_over =
            steps.iter().take(done).any(|s| matches!(s, Step::Keep { .. })) && work == Work::Write;
        for step in steps.into_iter().take(done) {
            if let Step::Record(record) = step {
                self.record = *record;
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
            Some(error) => {
                let reason = match error.kind {
                    StepErrorKind::DiskFull => Reason::DiskFull,
                    StepErrorKind::OwnerRefused => Reason::OwnerRefused,
                    StepErrorKind::NotRegular => Reason::NotRegular,
                    StepErrorKind::Failed => Reason::WriteFailed,
                };
                self.failed(now, reason, error.message, effects);
            }
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
            Work::Repair => {
                let what = self.record.last_drift.as_ref().map_or("it", |d| d.what.as_str());
                effects.push(Effect::Tell(
                    Reason::DriftRepaired,
                    format!("{what} put back to version {version}"),
                ));
            }
            Work::Release | Work::Tidy => {}
        }
    }
}

fn is_as(found: &Found, target: &Written) -> bool {
    match found {
        Found::Regular { sha256, mode, owner } => {
            *sha256 == target.sha256 && *mode == target.mode && *owner == target.owner
        }
        Found::Missing | Found::NotRegular(_) => false,
    }
}

/// What differs, in words: `content`, `mode`, `owner`, or `missing`.
fn differences(found: &Found, target: &Written) -> String {
    let Found::Regular { sha256, mode, owner } = found else { return "missing".to_owned() };
    let mut what = Vec::new();
    if *sha256 != target.sha256 {
        what.push("content");
    }
    if *mode != target.mode {
        what.push("mode");
    }
    if *owner != target.owner {
        what.push("owner");
    }
    what.join(", ")
}
