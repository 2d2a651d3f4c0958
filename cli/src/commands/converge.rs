//! Whether what was asked is so, and how far a rollout has come: shared by `apply --wait`, `config push --wait` and
//! `rollout status`.

use std::collections::BTreeMap;
use std::time::Duration;

use ostler_schemas::quantity::Dur;
use ostler_schemas::spec::Spec;
use ostler_schemas::v1::api::ListRequest;
use ostler_schemas::v1::report::ProcessPhase;
use ostler_schemas::v1::state::{RolloutPhase, WaveTally};
use ostler_schemas::v1::status::{ConfigFileStatus, DeploymentStatus, RolloutStatus, Status, View};
use ostler_schemas::{Generation, Kind, ObjectRef};

use crate::client::Client;
use crate::failure::Failure;
use crate::out::Out;
use crate::render::columns::{exit_word, process_word, wanted};
use crate::wait::{Seen, Verdict, until};

/// What is waited for: these objects, taken in at least at these generations.
pub type Goals = BTreeMap<ObjectRef, Generation>;

/// Whether an object is as its spec asks.
#[must_use]
pub fn verdict(view: &View, goal: Generation) -> Verdict {
    if view.metadata.generation < goal {
        return Verdict::NotYet("the change has not been seen yet".to_owned());
    }
    match &view.status {
        Status::Node(_) | Status::Namespace(_) | Status::Secret(_) => Verdict::Reached,
        Status::Process(process) => match process.phase {
            ProcessPhase::Running if process.ready == Some(true) => Verdict::Reached,
            ProcessPhase::Succeeded => Verdict::Reached,
            ProcessPhase::Failed => {
                let exit = process.last_exit.as_ref().map(|e| format!(", last exit {}", exit_word(e)));
                Verdict::Failed(format!("{}{}", process_word(process), exit.unwrap_or_default()))
            }
            ProcessPhase::Pending
            | ProcessPhase::Starting
            | ProcessPhase::Running
            | ProcessPhase::Stopping
            | ProcessPhase::Stopped
            | ProcessPhase::Orphan
            | ProcessPhase::Unknown => {
                let why = process.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default();
                Verdict::NotYet(format!("{}{why}", process_word(process)))
            }
        },
        Status::Deployment(deployment) => deployment_verdict(view, deployment),
        Status::ConfigFile(file) => file_verdict(view, file),
    }
}

fn is_behind(view: &View, observed: u64) -> Option<Verdict> {
    (observed < view.metadata.generation.0)
        .then(|| Verdict::NotYet("the controller has not looked at it yet".to_owned()))
}

fn rollout_verdict(rollout: &RolloutStatus) -> Option<Verdict> {
    match rollout.state {
        RolloutPhase::Complete => None,
        RolloutPhase::Failed | RolloutPhase::RolledBack | RolloutPhase::Paused => {
            Some(Verdict::Failed(ending(rollout)))
        }
        RolloutPhase::Progressing
        | RolloutPhase::Baking
        | RolloutPhase::RollingBack
        | RolloutPhase::Unknown => {
            let why =
                if rollout.message.is_empty() { String::new() } else { format!(": {}", rollout.message) };
            Some(Verdict::NotYet(format!(
                "rollout of version {} {}{why}",
                rollout.to_version,
                rollout.state.as_str()
            )))
        }
    }
}

fn deployment_verdict(view: &View, status: &DeploymentStatus) -> Verdict {
    if let Some(behind) = is_behind(view, status.observed_generation) {
        return behind;
    }
    if let Some(verdict) = status.rollout.as_ref().and_then(rollout_verdict) {
        return verdict;
    }
    let wanted = wanted(view);
    if status.ready >= wanted && status.updated >= wanted && status.replicas == wanted {
        return Verdict::Reached;
    }
    Verdict::NotYet(format!("{} of {wanted} ready", status.ready))
}

fn file_verdict(view: &View, status: &ConfigFileStatus) -> Verdict {
    let has_content = matches!(&view.spec, Spec::ConfigFile(spec) if spec.has_content());
    if !has_content {
        return Verdict::Reached;
    }
    if let Some(behind) = is_behind(view, status.observed_generation) {
        return behind;
    }
    if let Some(verdict) = status.rollout.as_ref().and_then(rollout_verdict) {
        return verdict;
    }
    let open = status.nodes.pending + status.nodes.applying;
    if open == 0 {
        return Verdict::Reached;
    }
    Verdict::NotYet(format!(
        "{open} of {} nodes have yet to take version {}",
        status.nodes.total, status.version
    ))
}

/// How a rollout ended: `complete`, or `paused|rolled back|failed: why`.
#[must_use]
pub fn ending(rollout: &RolloutStatus) -> String {
    let word = match rollout.state {
        RolloutPhase::Complete => "complete",
        RolloutPhase::Paused => "paused",
        RolloutPhase::RolledBack => "rolled back",
        RolloutPhase::Failed => "failed",
        RolloutPhase::RollingBack => "rolling back",
        RolloutPhase::Progressing | RolloutPhase::Baking => "not finished",
        RolloutPhase::Unknown => "unknown",
    };
    if rollout.message.is_empty() { word.to_owned() } else { format!("{word}: {}", rollout.message) }
}

/// The rollout of an object, if it has any.
#[must_use]
pub fn rollout_of(view: &View) -> Option<&RolloutStatus> {
    match &view.status {
        Status::Deployment(status) => status.rollout.as_ref(),
        Status::ConfigFile(status) => status.rollout.as_ref(),
        Status::Node(_) | Status::Namespace(_) | Status::Process(_) | Status::Secret(_) => None,
    }
}

/// Whether the status speaks of the spec as it is now, not of an earlier one.
#[must_use]
pub fn is_observed(view: &View) -> bool {
    let observed = match &view.status {
        Status::Deployment(status) => status.observed_generation,
        Status::ConfigFile(status) => status.observed_generation,
        Status::Node(_) | Status::Namespace(_) | Status::Process(_) | Status::Secret(_) => return true,
    };
    observed >= view.metadata.generation.0
}

/// What being well is called, and the bake. A push may have a bake of its own, which the object's spec does not show.
fn words(view: &View, rollout: &RolloutStatus) -> (&'static str, Option<Dur>) {
    let (well, usual) = match &view.spec {
        Spec::Deployment(spec) => ("ready", Some(spec.rollout.bake)),
        Spec::ConfigFile(spec) => ("in sync", Some(spec.rollout.bake)),
        Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Secret(_) => ("well", None),
    };
    (well, rollout.bake.or(usual))
}

fn counts(tally: &WaveTally, waves: u32, well: &str) -> String {
    let mut line =
        format!("wave {}/{}    {}/{}   {well}", tally.wave, waves.max(1), tally.healthy, tally.size);
    for (count, word) in [(tally.failed, "failed"), (tally.offline, "offline")] {
        if count > 0 {
            line.push_str(&format!(", {count} {word}"));
        }
    }
    line
}

/// `wave 1/4    1/1   in sync, bake 1m  done`, for each wave that is over.
#[must_use]
pub fn past_lines(view: &View, rollout: &RolloutStatus) -> Vec<String> {
    let (well, bake) = words(view, rollout);
    let bake = bake.map(|bake| format!(", bake {bake}")).unwrap_or_default();
    rollout.past.iter().map(|past| format!("{}{bake}  done", counts(past, rollout.waves, well))).collect()
}

/// `wave 2/4    3/4   in sync, bake 1m`: the present wave.
#[must_use]
pub fn wave_line(view: &View, rollout: &RolloutStatus) -> String {
    let (well, bake) = words(view, rollout);
    if let (RolloutPhase::Complete, Some(last)) = (rollout.state, past_lines(view, rollout).pop()) {
        return last;
    }
    let whole = WaveTally {
        wave: rollout.wave.max(1),
        size: rollout.total,
        healthy: rollout.healthy,
        failed: rollout.failed,
        offline: rollout.offline,
        ..WaveTally::default()
    };
    let mut line = counts(rollout.present.as_ref().unwrap_or(&whole), rollout.waves, well);
    match (rollout.state, bake) {
        (RolloutPhase::Baking, Some(bake)) => line.push_str(&format!(", bake {bake}")),
        (RolloutPhase::Complete, Some(bake)) => line.push_str(&format!(", bake {bake}  done")),
        (
            RolloutPhase::Failed
            | RolloutPhase::RolledBack
            | RolloutPhase::RollingBack
            | RolloutPhase::Paused,
            _,
        ) => {
            if !rollout.message.is_empty() {
                line.push_str(&format!(": {}", rollout.message));
            }
        }
        (RolloutPhase::Progressing | RolloutPhase::Unknown, _) => {
            // What keeps it: a window, a failure that is borne, or somebody who has not answered yet.
            let waits = (!rollout.waits_for.is_empty())
                .then(|| format!("waits for {}", rollout.waits_for.join(", ")));
            let message = Some(&rollout.message).filter(|message| !message.is_empty());
            if let Some(why) = message.or(rollout.failures.first()).cloned().or(waits) {
                line.push_str(&format!(": {why}"));
            }
        }
        (RolloutPhase::Baking | RolloutPhase::Complete, None) => {}
    }
    line
}

/// Tells how a rollout goes: a line for each wave, rewritten in place on a terminal.
#[derive(Debug, Default)]
pub struct Progress {
    shown: Option<((u64, u32), String)>,
    /// Lines are the command's data, not talk.
    pub is_data: bool,
    /// Standard output is a terminal.
    pub live: bool,
}

impl Progress {
    /// As the command's data; `live` if that is a terminal.
    #[must_use]
    pub fn data(live: bool) -> Self {
        Self { shown: None, is_data: true, live }
    }

    /// Takes in how the rollout stands.
    ///
    /// # Errors
    /// When output cannot be written.
    pub fn step(&mut self, view: &View, out: &mut Out) -> Result<(), Failure> {
        let Some(rollout) = rollout_of(view).filter(|_| is_observed(view)) else { return Ok(()) };
        let key = (rollout.to_version.0, rollout.wave.max(1));
        let line = wave_line(view, rollout);
        if self.shown.is_none() && self.is_data {
            // Who comes late sees what was before.
            let past = past_lines(view, rollout).into_iter().zip(&rollout.past);
            for (past, _) in past.filter(|(_, tally)| tally.wave < key.1) {
                out.line(&past)?;
            }
        }
        if let Some((before, shown)) = self.shown.take() {
            if before == key && shown == line {
                self.shown = Some((before, shown));
                return Ok(());
            }
            if before != key {
                // The wave is over by now: what it came to is said, not how it stood when it was last seen.
                let over = rollout.past.iter().zip(past_lines(view, rollout));
                let over =
                    over.filter(|(tally, _)| before == (key.0, tally.wave)).map(|(_, line)| line).next_back();
                self.finish_line(&over.unwrap_or(shown), out)?;
            }
        }
        if self.live && self.is_data {
            out.data(&format!("\r\x1b[K{line}"))?;
        }
        self.shown = Some((key, line));
        Ok(())
    }

    /// Writes the last line whole.
    ///
    /// # Errors
    /// When output cannot be written.
    pub fn end(&mut self, out: &mut Out) -> Result<(), Failure> {
        match self.shown.take() {
            Some((_, line)) => self.finish_line(&line, out),
            None => Ok(()),
        }
    }

    fn finish_line(&self, line: &str, out: &mut Out) -> Result<(), Failure> {
        match (self.is_data, self.live) {
            (true, true) => out.line(&format!("\r\x1b[K{line}")),
            (true, false) => out.line(line),
            (false, _) => {
                out.say(line);
                Ok(())
            }
        }
    }
}

/// Waits until all goals are reached, kind by kind, telling what is missing as it changes.
///
/// # Errors
/// [`Failure::NotConverged`], naming the object and why.
pub async fn wait_for(
    client: &Client,
    goals: &Goals,
    timeout: Duration,
    out: &mut Out,
) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut groups: BTreeMap<(Kind, Option<ostler_schemas::Namespace>), Goals> = BTreeMap::new();
    for (object, generation) in goals {
        let group = groups.entry((object.kind, object.namespace.clone())).or_default();
        group.insert(object.clone(), *generation);
    }
    for ((kind, namespace), group) in groups {
        let names = group.keys().map(|object| object.name.to_string()).collect();
        let list = ListRequest { kind, namespace, labels: Vec::new(), names };
        let mut told: BTreeMap<ObjectRef, String> = BTreeMap::new();
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        until(client, list, left, out, |seen, out| Ok(judge(&group, seen, &mut told, out))).await?;
    }
    Ok(())
}

fn judge(goals: &Goals, seen: &Seen, told: &mut BTreeMap<ObjectRef, String>, out: &mut Out) -> Verdict {
    let mut missing = Vec::new();
    for (object, goal) in goals {
        let name = object.short();
        let verdict = match seen.get(object) {
            Some(view) => verdict(view, *goal),
            None => Verdict::NotYet("it is not there".to_owned()),
        };
        let line = match verdict {
            Verdict::Failed(why) => return Verdict::Failed(format!("{name}: {why}")),
            Verdict::Reached => format!("{name}: as asked"),
            Verdict::NotYet(why) => {
                missing.push(format!("{name}: {why}"));
                format!("{name}: {why}")
            }
        };
        if told.get(object) != Some(&line) {
            out.say(&line);
            told.insert(object.clone(), line);
        }
    }
    if missing.is_empty() { Verdict::Reached } else { Verdict::NotYet(missing.join("; ")) }
}
