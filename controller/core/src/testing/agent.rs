//! A scripted agent: follows its documents step by step and reports.
//!
//! The second word of a command says how a process behaves: `bad…` fails for good, `slow…` never becomes ready,
//! `crash…` exits and is started again every few steps, everything else becomes ready.

use std::collections::BTreeMap;

use ostler_schemas::quantity::{Cpu, Size};
use ostler_schemas::sealing::PublicKey;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::document::{FileGoal, FilesDocument, RunDocument};
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::report::{Facts, FileReport, FileState, ProcessPhase, ProcessReport, Report};
use ostler_schemas::{NodeName, Sha256, Uid, Version};

use crate::fleet::{Fleet, StoredTemplate};
use crate::status::rig;

/// Contents of this size or more cannot be written.
pub(crate) const BAD_SIZE: u64 = 1000;
/// A crashing process exits so many steps after its start.
const CRASH_STEPS: u32 = 3;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Agent {
    /// Whether it acts at all.
    pub(crate) alive: bool,
    pub(crate) incarnation: u64,
    /// What its host can do, as it reports it; nothing is what agents from before there were features say.
    pub(crate) features: Vec<String>,
    /// What secrets are sealed to.
    pub(crate) key: Option<PublicKey>,
    seq: u64,
    run: HeldDocument,
    files: HeldDocument,
    processes: BTreeMap<Uid, Running>,
    file_states: BTreeMap<Uid, FileReport>,
    last: Option<Report>,
}

#[derive(Debug, Clone, PartialEq)]
struct Running {
    report: ProcessReport,
    steps: u32,
    goal: Goal,
}

impl Agent {
    pub(crate) fn new() -> Self {
        Self {
            alive: true,
            incarnation: 1,
            features: Vec::new(),
            key: None,
            seq: 0,
            run: HeldDocument::default(),
            files: HeldDocument::default(),
            processes: BTreeMap::new(),
            file_states: BTreeMap::new(),
            last: None,
        }
    }

    /// Another start of the agent; its processes live on.
    pub(crate) fn restart(&mut self) {
        self.incarnation += 1;
        self.seq = 0;
        self.last = None;
    }

    /// How many processes are alive here.
    pub(crate) fn alive(&self) -> usize {
        self.processes.values().filter(|p| p.report.phase.may_be_alive()).count()
    }

    /// One step. A report if something is new.
    pub(crate) fn act(&mut self, fleet: &Fleet, node: &NodeName, at: Timestamp) -> Option<Report> {
        if let Some(document) = fleet.run_documents.get(node).filter(|d| d.revision != self.run.revision) {
            self.run = HeldDocument { epoch: document.epoch, revision: document.revision };
            self.follow_run(fleet, &document.value);
        }
        if let Some(document) = fleet.files_documents.get(node).filter(|d| d.revision != self.files.revision)
        {
            self.files = HeldDocument { epoch: document.epoch, revision: document.revision };
            self.follow_files(fleet, &document.value, at);
        }
        self.processes.values_mut().for_each(|p| p.step(fleet));
        self.report(at)
    }

    fn follow_run(&mut self, fleet: &Fleet, document: &RunDocument) {
        for entry in &document.entries {
            let Some(template) = document.template(entry) else { continue };
            let process = self.processes.entry(entry.u).or_insert_with(|| Running {
                report: rig::process_report(entry.u, ProcessPhase::Pending, false),
                steps: 0,
                goal: Goal::Run,
            });
            process.goal = process.goal.max(entry.g);
            process.take_template(fleet, template, entry.v);
        }
        // What has ended and has no entry any more is forgotten; what lives without an entry lives on.
        let listed = |u: &Uid| document.entries.iter().any(|e| e.u == *u);
        self.processes.retain(|u, p| listed(u) || p.report.phase.may_be_alive());
    }

    fn follow_files(&mut self, fleet: &Fleet, document: &FilesDocument, at: Timestamp) {
        for entry in &document.entries {
            let Some(StoredTemplate::File(file)) = fleet.templates.get(&entry.d) else { continue };
            let known = self.file_states.get(&entry.u).map_or(Version(0), |f| f.v);
            let bad = file.content.is_some_and(|content| content.size >= BAD_SIZE);
            let (v, state) = match entry.g {
                FileGoal::Release => (known, FileState::Released),
                FileGoal::Hold if bad => (known, FileState::Failed),
                FileGoal::Hold => (entry.v, FileState::InSync),
            };
            let report = FileReport {
                u: entry.u,
                v,
                wanted: entry.v,
                path: file.path.clone(),
                sha256: None,
                state,
                reason: bad.then_some(ostler_schemas::v1::reason::Reason::WriteFailed),
                message: None,
                at,
                last_drift: None,
                effect: None,
            };
            self.file_states.insert(entry.u, report);
        }
        self.file_states.retain(|u, _| document.entries.iter().any(|e| e.u == *u));
    }

    fn report(&mut self, at: Timestamp) -> Option<Report> {
        let facts = Facts {
            cpu: Cpu::from_millis(64_100),
            memory: Size::from_mib(65_536),
            ports: (20_000, 20_099),
            sealing_key: self.key,
            ..Facts::default()
        };
        let report = Report {
            incarnation: self.incarnation,
            run: self.run,
            files: self.files,
            facts,
            features: self.features.clone(),
            processes: self.processes.values().map(|p| p.report.clone()).collect(),
            file_states: self.file_states.values().cloned().collect(),
            ..Report::default()
        };
        if self.last.as_ref() == Some(&report) {
            return None;
        }
        self.last = Some(report.clone());
        self.seq += 1;
        Some(Report { seq: self.seq, at, ..report })
    }
}

impl Running {
    fn take_template(&mut self, fleet: &Fleet, template: Sha256, version: Version) {
        if self.report.t == Some(template) && self.report.v == version {
            return;
        }
        let of = |hash: &Sha256| match fleet.templates.get(hash) {
            Some(StoredTemplate::Process(template)) => Some(template.restart_hash()),
            Some(StoredTemplate::File(_) | StoredTemplate::Vars(_)) | None => None,
        };
        let restarts = self.report.t.is_some_and(|had| of(&had) != of(&template));
        if restarts {
            self.report.phase = ProcessPhase::Pending;
            self.report.ready = false;
            self.steps = 0;
        }
        self.report.t = Some(template);
        self.report.v = version;
    }

    fn word(&self, fleet: &Fleet) -> String {
        match self.report.t.and_then(|hash| fleet.templates.get(&hash).cloned()) {
            Some(StoredTemplate::Process(template)) => template.command.get(1).cloned().unwrap_or_default(),
            Some(StoredTemplate::File(_) | StoredTemplate::Vars(_)) | None => String::new(),
        }
    }

    fn step(&mut self, fleet: &Fleet) {
        if self.goal != Goal::Run {
            // One step to be seen stopping, so that tests meet that state.
            let ended = self.report.phase == ProcessPhase::Stopping || !self.report.phase.may_be_alive();
            if !self.report.phase.has_ended() {
                self.report.phase = if ended { ProcessPhase::Stopped } else { ProcessPhase::Stopping };
            }
            self.report.ready = false;
            return;
        }
        self.steps = self.steps.saturating_add(1);
        let word = self.word(fleet);
        match self.report.phase {
            ProcessPhase::Pending => self.report.phase = ProcessPhase::Starting,
            ProcessPhase::Starting if word.starts_with("bad") => self.report.phase = ProcessPhase::Failed,
            ProcessPhase::Starting => {
                self.report.phase = ProcessPhase::Running;
                self.report.ready = !word.starts_with("slow");
            }
            ProcessPhase::Running if word.starts_with("crash") && self.steps.is_multiple_of(CRASH_STEPS) => {
                self.report.exits += 1;
                self.report.restarts += 1;
            }
            ProcessPhase::Running
            | ProcessPhase::Stopping
            | ProcessPhase::Succeeded
            | ProcessPhase::Failed
            | ProcessPhase::Stopped
            | ProcessPhase::Orphan
            | ProcessPhase::Unknown => {}
        }
    }
}
