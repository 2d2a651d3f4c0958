//! Looking at the files of one version, and carrying out steps on them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ostler_agent_core::file::{
    CANDIDATE_FOLDER, Content, Part, Sight, Step, StepError, StepErrorKind, part_path,
};
use ostler_agent_core::ledger::Change;
use ostler_schemas::Sha256;

use crate::context::Shared;

/// What is to be looked at.
pub(super) struct Wish {
    /// The file, or the folder of several.
    pub(super) path: String,
    /// The files, by name.
    pub(super) names: BTreeSet<String>,
    /// Whether what nobody named is looked for, too.
    pub(super) unlisted: bool,
    /// Whether the folder of candidates is looked for, too.
    pub(super) candidates: bool,
    /// What they should be.
    pub(super) parts: Vec<Part>,
    /// Their contents.
    pub(super) contents: BTreeMap<Sha256, Bytes>,
}

/// What lies there.
pub(super) async fn look(context: &Shared, wish: Wish) -> Result<Sight, String> {
    let files = &context.deps.files;
    let mut sight = Sight::default();
    for name in &wish.names {
        let wanted = wish.parts.iter().find(|part| part.name == *name).map(|part| part.sha256);
        let content = wanted.and_then(|wanted| wish.contents.get(&wanted)).cloned();
        let seen = files.observe(part_path(&wish.path, name), content).await?;
        sight.parts.insert(name.clone(), seen);
    }
    if wish.candidates {
        let seen = files.observe(part_path(&wish.path, CANDIDATE_FOLDER), None).await?;
        sight.candidate = Some(Box::new(seen));
    }
    if !wish.unlisted {
        return Ok(sight);
    }
    // The folder itself, and those below it that a named file lies in; others are nobody's.
    let folders: BTreeSet<&str> =
        wish.names.iter().map(|name| name.rfind('/').map_or("", |at| &name[..at])).collect();
    for folder in folders {
        for file in files.list(part_path(&wish.path, folder)).await? {
            let name = if folder.is_empty() { file } else { format!("{folder}/{file}") };
            if !wish.names.contains(&name) && !is_unfinished(&name) {
                let seen = files.observe(part_path(&wish.path, &name), None).await?;
                sight.unlisted.insert(name, seen);
            }
        }
    }
    Ok(sight)
}

/// Unfinished files of ours are cleared away with the file that they were to become.
fn is_unfinished(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.starts_with('.') && file.ends_with(".ostler")
}

/// Carries out one step.
pub(super) async fn carry_out(
    context: &Shared,
    step: Step,
    contents: &BTreeMap<Sha256, Bytes>,
) -> Result<(), StepError> {
    let failed = |message: String| StepError { kind: StepErrorKind::Failed, message };
    let content = match &step {
        Step::WriteTemp { content: Content::Blob(hash), .. } => match contents.get(hash) {
            Some(bytes) => Some(bytes.clone()),
            None => return Err(failed("its content is not at hand".to_owned())),
        },
        Step::Record(_)
        | Step::MakeDirs { .. }
        | Step::Keep { .. }
        | Step::WriteTemp { .. }
        | Step::Own { .. }
        | Step::SetMode { .. }
        | Step::Label { .. }
        | Step::Validate(_)
        | Step::RemoveTree { .. }
        | Step::Sync { .. }
        | Step::Rename { .. }
        | Step::SyncDir { .. }
        | Step::Remove { .. }
        | Step::Discard { .. } => None,
    };
    match step {
        Step::Validate(candidate) => super::validate::look_at(context, &candidate, contents).await,
        Step::Record(record) => context.persist(Change::File(record)).await.map_err(failed),
        step => context.deps.files.apply(step, content).await,
    }
}
