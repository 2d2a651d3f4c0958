//! The steps that bring a version to its place.

use std::collections::BTreeSet;

use super::validate::CANDIDATE_FOLDER;
use super::{
    Content, FileRecord, Found, ManagedFile, Observed, Original, Part, Sight, Step, Written, parent,
    temp_path,
};

/// Where one file is, with its folder's links resolved.
pub(super) struct Place {
    pub(super) path: String,
    pub(super) dir: String,
    pub(super) temp: String,
    pub(super) has_dir: bool,
    pub(super) found: Found,
}

impl Place {
    pub(super) fn of(path: &str, seen: &Observed) -> Place {
        let path = seen.reached(path);
        let (dir, temp) = (parent(&path).to_owned(), temp_path(&path));
        Place { path, dir, temp, has_dir: seen.real_dir.is_some(), found: seen.found.clone() }
    }
}

/// A file of a version, and what is done with it.
struct Planned {
    part: Part,
    place: Place,
    /// It lies in its place as it should already: then it is written only to be looked at.
    is_there: bool,
}

impl ManagedFile {
    /// The steps that bring the target to the path, whatever is there. With `check` its validator looks at it before
    /// the first file of it is put in place; then it is written whole, so that all of it can be looked at.
    pub(super) fn write_steps(
        &self,
        target: &Written,
        observed: &Sight,
        (record, check): (&mut FileRecord, bool),
    ) -> Vec<Step> {
        let spec = self.wanted.as_ref().and_then(|wanted| wanted.spec.as_ref());
        let asks = check && spec.and_then(|s| s.validator.as_ref()).is_some_and(|v| v.has_command());
        let folder = observed.candidate.as_ref().filter(|_| asks && !target.parts.is_empty());
        let folder = folder.map(|seen| {
            let path = seen.reached(&super::part_path(&record.path, CANDIDATE_FOLDER));
            (path, seen.real_dir.is_some())
        });
        let planned = planned(target, observed, (record, folder.as_ref().map(|(path, _)| path.as_str())));
        let todo: Vec<&Planned> = planned.iter().filter(|plan| asks || !plan.is_there).collect();
        let extra: Vec<(&String, Place)> = observed
            .unlisted
            .iter()
            .map(|(name, seen)| (name, Place::of(&record.path_of(name), seen)))
            .collect();
        let mut steps = Vec::new();
        if self.makes_dirs() {
            let missing = todo.iter().filter(|p| !p.place.has_dir && !p.is_there).map(|p| &p.place.dir);
            steps.extend(
                missing.collect::<BTreeSet<_>>().into_iter().map(|dir| Step::MakeDirs { dir: dir.clone() }),
            );
        }
        if let Some((path, has_dir)) = &folder {
            // Whatever an earlier look left there is no part of this one.
            steps.push(Step::RemoveTree { dir: path.clone() });
            if *has_dir || self.makes_dirs() {
                let dirs: BTreeSet<&str> = todo.iter().map(|plan| parent(&plan.place.temp)).collect();
                steps.extend(dirs.into_iter().map(|dir| Step::MakeDirs { dir: dir.to_owned() }));
            }
        }
        let replaced =
            planned.iter().filter(|plan| !plan.is_there).map(|plan| (&plan.part.name, &plan.place));
        let replaced = replaced.chain(extra.iter().map(|(name, place)| (*name, place)));
        let plan = std::mem::replace(&mut record.change, self.record.change.clone());
        let changes = std::mem::replace(&mut record.changes, self.record.changes);
        self.keep_originals(replaced, record, &mut steps);
        for Planned { part, place, .. } in &todo {
            steps.extend([
                Step::WriteTemp { temp: place.temp.clone(), content: Content::Blob(part.sha256) },
                Step::Own { path: place.temp.clone(), owner: target.owner },
                Step::SetMode { path: place.temp.clone(), mode: part.mode },
            ]);
            if asks {
                steps.push(Step::Label { path: place.temp.clone(), like: place.path.clone() });
            }
            steps.push(Step::Sync { path: place.temp.clone() });
        }
        if check {
            let file = |plan: &Planned| (plan.part.clone(), asks.then(|| plan.place.temp.clone()));
            let whole = match (&folder, planned.first()) {
                (Some((path, _)), _) => path.clone(),
                (None, first) => first.map(|plan| plan.place.temp.clone()).unwrap_or_default(),
            };
            steps.extend(self.validation(target, (whole, planned.iter().map(file).collect())));
        }
        // Only now, because what is refused changes nothing and has nothing that follows; and before the first rename,
        // because nobody would know after a crash what is to follow.
        record.changes = changes;
        if plan != record.change {
            record.change = plan;
            steps.push(Step::Record(Box::new(record.clone())));
        }
        // All of them are whole beside their paths: from here on nothing is left to do but to put them in place.
        for Planned { place, is_there, .. } in &todo {
            steps.push(match is_there {
                false => Step::Rename { from: place.temp.clone(), to: place.path.clone() },
                true => Step::Remove { path: place.temp.clone() },
            });
        }
        steps.extend(extra.iter().map(|(_, place)| Step::Remove { path: place.path.clone() }));
        let all = todo.iter().filter(|plan| !plan.is_there).map(|plan| &plan.place);
        let dirs: BTreeSet<&String> =
            all.chain(extra.iter().map(|(_, place)| place)).map(|p| &p.dir).collect();
        steps.extend(dirs.into_iter().map(|dir| Step::SyncDir { dir: dir.clone() }));
        steps.extend(folder.map(|(dir, _)| Step::RemoveTree { dir }));
        record.written = Some(target.clone());
        record.rejected = None;
        record.released = false;
        record.change_is_there(target);
        steps.push(Step::Record(Box::new(record.clone())));
        steps
    }

    /// What was there before is kept, and that is durable before the first rename: else a crash after it would take our
    /// own version for the original.
    fn keep_originals<'a>(
        &self,
        replaced: impl Iterator<Item = (&'a String, &'a Place)>,
        record: &mut FileRecord,
        steps: &mut Vec<Step>,
    ) {
        let before = record.clone();
        for (name, place) in replaced {
            if *record.original_of(name) != Original::Unseen {
                continue;
            }
            let original = match place.found {
                Found::Regular { mode, owner, .. } => {
                    let at = self.rules.original_of(&record.uid, name);
                    steps.push(Step::Keep { from: place.path.clone(), to: at.clone() });
                    Original::Kept { at, mode, owner }
                }
                Found::Missing | Found::NotRegular(_) => Original::Absent,
            };
            record.set_original(name, original);
        }
        if *record != before {
            steps.push(Step::Record(Box::new(record.clone())));
        }
    }

    fn makes_dirs(&self) -> bool {
        self.wanted.as_ref().and_then(|w| w.spec.as_ref()).is_some_and(|s| s.create_directories)
    }
}

/// The files of a version; in a folder of candidates if there is one, else each beside its path.
fn planned(
    target: &Written,
    observed: &Sight,
    (record, folder): (&FileRecord, Option<&str>),
) -> Vec<Planned> {
    let plan = |part: Part| {
        let mut place = Place::of(&record.path_of(&part.name), observed.parts.get(&part.name)?);
        if let Some(folder) = folder {
            place.temp = format!("{folder}/{}", part.name);
        }
        let is_there = part.is_as(observed.found(&part.name), target.owner);
        Some(Planned { part, place, is_there })
    };
    target.all().into_iter().filter_map(plan).collect()
}
