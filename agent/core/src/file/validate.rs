//! What stands between a version that is whole beside its path and the path: its validator.
//!
//! A version is looked at before the first time it is put in place here; one that was accepted and has drifted is put
//! back as it was. A refusal stands in the record of the file, so that a restarted agent says it again and does not ask
//! again at once: what a validator says follows mostly from the file, and now and then from what the host lacks.

use ostler_schemas::spec::Validator;
use ostler_schemas::time::{Now, Timestamp};
use ostler_schemas::v1::document::FileSpec;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::FileState;
use ostler_schemas::{Name, Namespace, Sha256, Uid, Version};
use serde::{Deserialize, Serialize};

use super::{Effect, FileRecord, ManagedFile, Part, Step, Work, Written};

/// Until a refused version is looked at again for the first time; doubles. A minute: what a host lacks comes with the
/// next package or the next file, and a validator that is costly must not be felt.
const AGAIN_FIRST_MS: u64 = 60_000;
/// Longest such wait.
const AGAIN_MAX_MS: u64 = 1_800_000;

/// The folder in which a version of several files stands as it will, while it is looked at.
pub const CANDIDATE_FOLDER: &str = ".candidate.ostler";

/// A version that was refused here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The version.
    pub version: Version,
    /// Hash of its spec: another validator may say something else.
    pub spec: Sha256,
    /// Names its files, as they are here.
    pub digest: Sha256,
    /// When it was looked at last.
    pub at: Timestamp,
    /// How often it was.
    pub tries: u32,
    /// What was said: one line, and what came out of the validator below it.
    pub message: String,
}

impl Rejected {
    /// How long it is left alone from the last look on.
    fn wait_ms(&self) -> u64 {
        let doublings = self.tries.saturating_sub(1).min(16);
        AGAIN_FIRST_MS.saturating_mul(1 << doublings).min(AGAIN_MAX_MS)
    }
}

/// A version that is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Uid of the ConfigFile.
    pub uid: Uid,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: Name,
    /// The version.
    pub version: Version,
    /// Hash of its spec.
    pub spec: Sha256,
    /// Names its files.
    pub digest: Sha256,
    /// Who looks.
    pub validator: Validator,
    /// Name of the user that owns the file.
    pub owner: String,
    /// What `$(FILE)` is: the file, or the folder, that will be put in place.
    pub path: String,
    /// Its files, each with where it lies now if it was written.
    pub files: Vec<(Part, Option<String>)>,
    /// How they must lie there when it has been looked at.
    pub held_by: super::Owner,
    /// Whether a secret is in it: then what comes out of the validator is told to nobody.
    pub is_secret: bool,
}

impl ManagedFile {
    /// Whether a version is to be looked at before it is put in place: not where the same files were accepted already.
    pub(super) fn needs_check(&self, spec: &FileSpec, target: &Written) -> bool {
        let same = |w: &Written| {
            w.sha256 == target.sha256
                && w.mode == target.mode
                && w.owner == target.owner
                && w.parts == target.parts
        };
        let written = self.record.written.as_ref().filter(|_| !self.record.released);
        spec.validator.is_some() && !written.is_some_and(same)
    }

    /// The refusal of a version, if it was refused here as it is now.
    pub(super) fn refusal_of(&self, target: &Written) -> Option<&Rejected> {
        let hash = self.wanted.as_ref().map(|wanted| wanted.hash)?;
        self.record.rejected.as_deref().filter(|rejected| {
            rejected.version == target.version && rejected.spec == hash && rejected.digest == target.sha256
        })
    }

    /// Leaves a refused version alone until it is time to look again; `false` if it is.
    pub(super) fn stays_refused(&mut self, now: Now, target: &Written) -> bool {
        let Some(rejected) = self.refusal_of(target) else { return false };
        let (waited, wait) = (now.wall.since_ms(rejected.at), rejected.wait_ms());
        if waited >= wait {
            return false;
        }
        let message = rejected.message.clone();
        self.pace = Some(now.mono.plus_ms(wait - waited));
        self.set(now, FileState::Failed, Some(Reason::ValidatorFailed), Some(message));
        true
    }

    /// The step that looks at a version.
    pub(super) fn validation(&self, target: &Written, (path, files): (String, Files)) -> Option<Step> {
        let wanted = self.wanted.as_ref()?;
        let spec = wanted.spec.as_ref()?;
        Some(Step::Validate(Box::new(Candidate {
            uid: self.record.uid,
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            version: target.version,
            spec: wanted.hash,
            digest: target.sha256,
            validator: spec.validator.clone()?,
            owner: spec.owner.clone(),
            path,
            files,
            held_by: target.owner,
            is_secret: wanted.is_secret,
        })))
    }

    /// A version was refused: that is remembered, and nothing of it stays.
    pub(super) fn refused(
        &mut self,
        now: Now,
        (message, steps): (String, &[Step]),
        effects: &mut Vec<Effect>,
    ) {
        let looked_at =
            steps.iter().find_map(|step| if let Step::Validate(c) = step { Some(c) } else { None });
        let Some(candidate) = looked_at else { return };
        let (version, spec, digest) = (candidate.version, candidate.spec, candidate.digest);
        let before = self.record.rejected.as_deref();
        let is_same = |r: &&Rejected| (r.version, r.spec, r.digest) == (version, spec, digest);
        let tries = before.filter(is_same).map_or(0, |rejected| rejected.tries).saturating_add(1);
        if self.set(now, FileState::Failed, Some(Reason::ValidatorFailed), Some(message.clone())) {
            let line = message.lines().next().unwrap_or_default().to_owned();
            effects.push(Effect::Tell(Reason::ValidatorFailed, line));
        }
        let at = now.wall;
        self.record.rejected = Some(Box::new(Rejected { version, spec, digest, at, tries, message }));
        let mut tidy = clearing(steps);
        tidy.push(Step::Record(Box::new(self.record.clone())));
        self.run(Work::Tidy, tidy, effects);
    }
}

impl ManagedFile {
    /// What an earlier agent left beside the path goes.
    pub(super) fn left_behind(&self, observed: &super::Sight) -> Vec<Step> {
        let left = observed.parts.iter().filter(|(_, seen)| seen.temp);
        let temp =
            |name: &str, seen: &super::Observed| super::temp_path(&seen.reached(&self.record.path_of(name)));
        let steps = left.map(|(name, seen)| Step::Remove { path: temp(name, seen) });
        steps.chain(self.left_candidate(observed)).collect()
    }

    /// What it left in the folder of candidates.
    pub(super) fn left_candidate(&self, observed: &super::Sight) -> Option<Step> {
        let seen = observed.candidate.as_ref().filter(|seen| seen.found != super::Found::Missing)?;
        let dir = seen.reached(&super::part_path(&self.record.path, CANDIDATE_FOLDER));
        Some(Step::RemoveTree { dir })
    }
}

/// Files of a candidate.
pub(super) type Files = Vec<(Part, Option<String>)>;

/// What clears away what these steps have written beside its place.
fn clearing(steps: &[Step]) -> Vec<Step> {
    let folder =
        steps.iter().find_map(|step| if let Step::RemoveTree { dir } = step { Some(dir) } else { None });
    let is_inside = |temp: &str| folder.is_some_and(|dir| temp.starts_with(&format!("{dir}/")));
    let temps = steps
        .iter()
        .filter_map(|step| if let Step::WriteTemp { temp, .. } = step { Some(temp) } else { None })
        .filter(|temp| !is_inside(temp));
    let temps = temps.map(|temp| Step::Remove { path: temp.clone() });
    temps.chain(folder.map(|dir| Step::RemoveTree { dir: dir.clone() })).collect()
}

impl FileRecord {
    /// Forgets a refusal that is of another version: that one may be tried anew by a person.
    pub(super) fn forget_refusal_unless(&mut self, version: Version) {
        if self.rejected.as_ref().is_some_and(|rejected| rejected.version != version) {
            self.rejected = None;
        }
    }
}
