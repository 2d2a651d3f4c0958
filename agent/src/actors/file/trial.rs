//! A dry run on this node: a version is rendered and looked at as if it were to be put in place, and is not.
//!
//! Guarantees: nothing in its place changes, nothing is recorded. Where a command looks at it, it stands beside its path
//! for that long, under a name that no version has, with owner, mode and label; then it is removed. An agent that dies in
//! between leaves it there until the next trial of that file.
//!
//! Where a folder on the way is missing, the candidate stands in the nearest one that is there: none is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ostler_agent_core::file::{
    Candidate, Content, Found, Observed, Owner, Part, Sight, Step, StepError, StepErrorKind, Written, digest,
    parent, part_path,
};
use ostler_schemas::Sha256;
use ostler_schemas::hash::sha256;
use ostler_schemas::spec::OnExisting;
use ostler_schemas::v1::api::{FileTrial, TrialAnswer, TrialState};
use ostler_schemas::v1::document::FileSpec;
use ostler_schemas::v1::reason::Reason;

use super::look::{Wish, look};
use super::prepare::{Prepared, Recipe};
use super::validate::look_at;
use crate::context::Shared;

/// What candidates of a trial are called, beside `.NAME.ostler` of versions that come.
const SUFFIX: &str = ".try.ostler";
/// Longest name of a file on Linux.
const NAME_MAX: usize = 255;

/// Why a version would not be put in place.
struct No {
    state: TrialState,
    reason: Reason,
    message: String,
}

fn no(reason: Reason, message: impl Into<String>) -> No {
    No { state: TrialState::Failed, reason, message: message.into() }
}

/// Tries a version.
pub(crate) async fn try_out(context: &Shared, trial: FileTrial) -> TrialAnswer {
    let answer = match tried(context, trial).await {
        Ok(answer) => return answer,
        Err(No { state, reason, message }) => (state, reason, message),
    };
    let (state, reason, message) = answer;
    TrialAnswer { state, reason: Some(reason), message: Some(message), sha256: None }
}

async fn tried(context: &Shared, trial: FileTrial) -> Result<TrialAnswer, No> {
    let given: BTreeMap<Sha256, Bytes> =
        trial.given.iter().map(|bytes| (sha256(bytes), Bytes::copy_from_slice(bytes))).collect();
    let spec = Arc::new(trial.spec.clone());
    let recipe = Recipe {
        spec: Arc::clone(&spec),
        vars: trial.vars.clone().map(Arc::new),
        facts: trial.facts.clone().map(Arc::new),
    };
    let prepared = recipe.try_out(context, &given).await.map_err(|why| no(Reason::Unrenderable, why))?;
    let sight = seen(context, &spec, &prepared).await?;
    permitted(context, &spec, &sight)?;
    let owner = owner(context, &spec).await?;
    let target = Written::of(trial.version, &prepared.parts, spec.mode, owner);
    let differs = !sight.differing(&target).is_empty();
    if differs && spec.on_existing != OnExisting::Replace {
        untouched(context, &trial, &sight)?;
    }
    if spec.validator.is_some() {
        let stand = Stand { trial: &trial, prepared: &prepared, sight: &sight, owner };
        let _alone = context.trials.lock().await;
        validated(context, &stand).await?;
    }
    let state = if differs { TrialState::WouldChange } else { TrialState::Unchanged };
    let sha256 = (!prepared.is_secret).then(|| digest(&prepared.parts));
    let message = differs.then(|| sight.differences(&target)).filter(|words| !words.is_empty());
    Ok(TrialAnswer { state, reason: None, message, sha256 })
}

async fn seen(context: &Shared, spec: &FileSpec, prepared: &Prepared) -> Result<Sight, No> {
    let path = context.rules().on_host(&spec.path);
    let wish = Wish {
        path,
        names: prepared.parts.iter().map(|part| part.name.clone()).collect(),
        unlisted: false,
        candidates: !spec.files.is_empty(),
        parts: prepared.parts.clone(),
        contents: BTreeMap::new(),
    };
    look(context, wish).await.map_err(|why| no(Reason::WriteFailed, format!("cannot be read: {why}")))
}

/// What this host forbids, and what is nobody's to replace.
fn permitted(context: &Shared, spec: &FileSpec, sight: &Sight) -> Result<(), No> {
    let rules = context.rules();
    for part in spec.parts() {
        let path = part_path(&spec.path, part.name);
        let seen = sight.parts.get(part.name);
        let refused = rules.refusal(&path, seen.and_then(|seen| seen.leads_to.as_deref()));
        if let Some(why) = refused.or_else(|| rules.veto.mode(part.mode.bits())) {
            return Err(no(Reason::PathRefused, why));
        }
        if let Found::NotRegular(what) = sight.found(part.name) {
            return Err(no(Reason::NotRegular, format!("{path} is {what}")));
        }
    }
    Ok(())
}

/// `onExisting: refuse`: what Ostler has not written is left alone.
fn untouched(context: &Shared, trial: &FileTrial, sight: &Sight) -> Result<(), No> {
    let is_ours = context.board().files.get(&trial.uid).is_some_and(|view| view.written);
    let is_there = sight.parts.values().any(|seen| matches!(seen.found, Found::Regular { .. }));
    if is_there && !is_ours {
        let path = &trial.spec.path;
        let why = format!("{path} holds a file that Ostler did not write, and onExisting is refuse");
        return Err(no(Reason::PathRefused, why));
    }
    Ok(())
}

async fn owner(context: &Shared, spec: &FileSpec) -> Result<Owner, No> {
    let is_own = !context.deps.config.privileged && spec.owner == "root";
    let user = (!is_own).then(|| spec.owner.clone());
    let found = context.deps.host.user(user, spec.group.clone()).await;
    found.map(|user| user.owner).map_err(|why| no(Reason::OwnerRefused, why))
}

/// A version as it stands for a trial.
struct Stand<'a> {
    trial: &'a FileTrial,
    prepared: &'a Prepared,
    sight: &'a Sight,
    owner: Owner,
}

impl Stand<'_> {
    fn asks(&self) -> bool {
        self.trial.spec.validator.as_ref().is_some_and(|validator| validator.has_command())
    }

    /// Where the candidate stands: the file, or the folder of several.
    async fn place(&self, context: &Shared) -> Result<String, No> {
        let spec = &self.trial.spec;
        let is_folder = !spec.files.is_empty();
        let seen = if is_folder { self.sight.candidate.as_deref() } else { self.sight.parts.get("") };
        let real = seen.and_then(|seen: &Observed| seen.real_dir.clone());
        let mut dir = real;
        let mut above = context.rules().on_host(&spec.path);
        while dir.is_none() {
            if parent(&above) == above || above == "/" {
                return Err(no(Reason::WriteFailed, "no folder above it is there"));
            }
            let beside = context.deps.files.observe(above.clone(), None).await;
            dir = beside.map_err(|why| no(Reason::WriteFailed, why))?.real_dir;
            above = parent(&above).to_owned();
        }
        let name = spec.path.rsplit('/').next().unwrap_or_default();
        let mut end = name.len().min(NAME_MAX - 1 - SUFFIX.len());
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let dir = dir.unwrap_or_default();
        Ok(format!("{}/.{}{SUFFIX}", dir.trim_end_matches('/'), &name[..end]))
    }

    fn candidate(&self, place: &str) -> Option<Candidate> {
        let FileTrial { uid, version, spec, .. } = self.trial;
        let file = |part: &Part| {
            let path = if part.name.is_empty() { place.to_owned() } else { part_path(place, &part.name) };
            (part.clone(), self.asks().then_some(path))
        };
        Some(Candidate {
            uid: *uid,
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            version: *version,
            spec: sha256(spec.path.as_bytes()),
            digest: digest(&self.prepared.parts),
            validator: spec.validator.clone()?,
            owner: spec.owner.clone(),
            path: place.to_owned(),
            files: self.prepared.parts.iter().map(file).collect(),
            held_by: self.owner,
            is_secret: self.prepared.is_secret,
        })
    }

    /// Puts the candidate where it is looked at.
    fn steps(&self, candidate: &Candidate) -> Vec<Step> {
        let mut steps = vec![Step::RemoveTree { dir: candidate.path.clone() }];
        for (part, path) in &candidate.files {
            let Some(temp) = path else { continue };
            if !part.name.is_empty() {
                steps.push(Step::MakeDirs { dir: parent(temp).to_owned() });
            }
            steps.extend([
                Step::WriteTemp { temp: temp.clone(), content: Content::Blob(part.sha256) },
                Step::Own { path: temp.clone(), owner: self.owner },
                Step::SetMode { path: temp.clone(), mode: part.mode },
            ]);
            if let Some(like) = self.sight.parts.get(&part.name).filter(|seen| seen.real_dir.is_some()) {
                let path = part_path(&self.trial.spec.path, &part.name);
                steps.push(Step::Label { path: temp.clone(), like: like.reached(&path) });
            }
        }
        steps
    }
}

async fn validated(context: &Shared, stand: &Stand<'_>) -> Result<(), No> {
    let place = if stand.asks() { stand.place(context).await? } else { String::new() };
    let Some(candidate) = stand.candidate(&place) else { return Ok(()) };
    let contents = &stand.prepared.contents;
    let said = match stand.asks() {
        false => look_at(context, &candidate, contents).await,
        true => {
            let staged = stage(context, stand.steps(&candidate), contents).await;
            let said = match staged {
                Ok(()) => look_at(context, &candidate, contents).await,
                Err(error) => Err(error),
            };
            // Whatever was said: nothing of it stays.
            if let Err(error) = stage(context, vec![Step::RemoveTree { dir: place.clone() }], contents).await
            {
                tracing::warn!(place, %error, "a candidate of a dry run could not be removed");
            }
            said
        }
    };
    said.map_err(|StepError { kind, message }| match kind {
        StepErrorKind::Rejected => {
            No { state: TrialState::ValidatorFailed, reason: Reason::ValidatorFailed, message }
        }
        StepErrorKind::DiskFull => no(Reason::DiskFull, message),
        StepErrorKind::OwnerRefused => no(Reason::OwnerRefused, message),
        StepErrorKind::NotRegular => no(Reason::NotRegular, message),
        StepErrorKind::Failed | StepErrorKind::NotNow => no(Reason::WriteFailed, message),
    })
}

async fn stage(
    context: &Shared,
    steps: Vec<Step>,
    contents: &BTreeMap<Sha256, Bytes>,
) -> Result<(), StepError> {
    for step in steps {
        let content = if let Step::WriteTemp { content: Content::Blob(hash), .. } = &step {
            contents.get(hash).cloned()
        } else {
            None
        };
        context.deps.files.apply(step, content).await?;
    }
    Ok(())
}
