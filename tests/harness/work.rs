//! What the operator of a random run asks for, and what must be there in the end.
//!
//! The history of an object is folded into the set of states that it may be in: an acknowledged request moves all of
//! them, one of unknown outcome adds to them, a refused one does nothing. Requests come one after the other, so an
//! object that is in none of those states has lost something that was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ostler_bus::EntropyRef;
use ostler_schemas::hash::sha256;
use ostler_schemas::spec::Spec;
use ostler_schemas::v1::object::Object;
use ostler_schemas::{Kind, ObjectRef, Sha256};
use tokio::task::JoinHandle;
use tokio::time::Duration;

use crate::checks::files::FileWatch;
use crate::checks::log::LogCheck;
use crate::operator::{Answer, Operator, configfile, deployment, object};
use crate::seeds::between;

/// What an object is, as far as the operator's wishes go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Not there, or on its way out.
    Absent,
    /// A Deployment with so many replicas and these words.
    Deployment(u32, String),
    /// A ConfigFile with this content.
    ConfigFile(Sha256),
}

impl State {
    fn of(object: &Object) -> Self {
        if object.is_deleting() {
            return State::Absent;
        }
        match &object.spec {
            Spec::Deployment(d) => State::Deployment(d.replicas, d.template.spec.args.join(" ")),
            Spec::ConfigFile(c) => c.content.map_or(State::Absent, |c| State::ConfigFile(c.sha256)),
            Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::Secret(_) => State::Absent,
        }
    }
}

/// A change that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish {
    Deployment(u32, u64),
    Scale(u32),
    Content(String),
    Delete,
}

impl Wish {
    fn after(&self, state: &State) -> State {
        match (self, state) {
            (Wish::Deployment(replicas, rev), _) => State::Deployment(*replicas, format!("--rev {rev}")),
            (Wish::Scale(replicas), State::Deployment(_, words)) => {
                State::Deployment(*replicas, words.clone())
            }
            (Wish::Scale(_), other) => other.clone(),
            (Wish::Content(text), _) => State::ConfigFile(sha256(text.as_bytes())),
            (Wish::Delete, _) => State::Absent,
        }
    }
}

/// What was asked and answered.
#[derive(Debug, Default)]
pub struct History {
    states: BTreeMap<ObjectRef, BTreeSet<State>>,
    /// In words, for whoever reads a failure.
    pub lines: Vec<String>,
    /// How many requests were acknowledged.
    pub acknowledged: usize,
    /// Of how many it is not known.
    pub unknown: usize,
}

impl History {
    fn answered<T>(&mut self, object: &ObjectRef, wish: &Wish, answer: &Answer<T>) {
        let states = self.states.entry(object.clone()).or_insert_with(|| BTreeSet::from([State::Absent]));
        let moved: BTreeSet<State> = states.iter().map(|s| wish.after(s)).collect();
        let outcome = match answer {
            Answer::Done(_) => {
                self.acknowledged += 1;
                *states = moved;
                "done".to_owned()
            }
            Answer::Unknown(why) => {
                self.unknown += 1;
                states.extend(moved);
                format!("unknown: {why}")
            }
            Answer::Refused(error) => format!("refused: {}", error.message),
        };
        self.lines.push(format!("{object}: {wish:?}: {outcome}"));
    }

    /// Objects that are in no state that they may be in.
    #[must_use]
    pub fn lost(&self, log: &LogCheck) -> Vec<String> {
        let mut out = Vec::new();
        for (object, states) in &self.states {
            let is = log.fleet.objects.get(object).map_or(State::Absent, |o| State::of(o));
            if !states.contains(&is) {
                out.push(format!("{object} is {is:?}, may be {states:?}"));
            }
        }
        out
    }
}

/// A working operator.
pub struct Work {
    history: Arc<Mutex<History>>,
    stop: Arc<tokio::sync::Notify>,
    task: JoinHandle<()>,
}

/// How much work there is.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Deployments.
    pub deployments: u64,
    /// Most replicas of each.
    pub replicas: u64,
    /// ConfigFiles.
    pub files: u64,
    /// Longest pause between two requests.
    pub pause_ms: u64,
}

fn lock(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work {
    /// Begins to ask.
    #[must_use]
    pub fn begin(operator: Operator, entropy: EntropyRef, watch: Arc<FileWatch>, load: Load) -> Self {
        let history = Arc::new(Mutex::new(History::default()));
        let stop = Arc::new(tokio::sync::Notify::new());
        let worker = Worker { operator, entropy, watch, load, history: Arc::clone(&history), rev: 0 };
        let task = tokio::spawn(worker.run(Arc::clone(&stop)));
        Self { history, stop, task }
    }

    /// Waits for the last answer; time must pass meanwhile.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Whether the last answer has come.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// What was asked and answered so far.
    pub fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }
}

struct Worker {
    operator: Operator,
    entropy: EntropyRef,
    watch: Arc<FileWatch>,
    load: Load,
    history: Arc<Mutex<History>>,
    rev: u64,
}

impl Worker {
    async fn run(mut self, stop: Arc<tokio::sync::Notify>) {
        loop {
            self.ask().await;
            let pause = between(&self.entropy, 100, self.load.pause_ms);
            tokio::select! {
                biased;
                () = stop.notified() => return,
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            }
        }
    }

    fn answered<T>(&self, object: &ObjectRef, wish: &Wish, answer: &Answer<T>) {
        lock(&self.history).answered(object, wish, answer);
    }

    async fn ask(&mut self) {
        self.rev += 1;
        let on_files = self.load.deployments == 0 || self.entropy.below(100) < 35;
        if on_files && self.load.files > 0 {
            self.ask_file().await;
        } else {
            self.ask_deployment().await;
        }
    }

    async fn ask_deployment(&mut self) {
        let name = format!("web-{}", self.entropy.below(self.load.deployments));
        let target = object(Kind::Deployment, &name);
        let replicas = u32::try_from(self.entropy.below(self.load.replicas + 1)).unwrap_or(0);
        match self.entropy.below(100) {
            0..60 => {
                let wish = Wish::Deployment(replicas, self.rev);
                let answer = self.operator.apply(&deployment(&name, replicas, self.rev)).await;
                self.answered(&target, &wish, &answer);
            }
            60..92 => {
                let answer = self.operator.scale(target.clone(), replicas).await;
                self.answered(&target, &Wish::Scale(replicas), &answer);
            }
            _ => {
                let answer = self.operator.delete(target.clone()).await;
                self.answered(&target, &Wish::Delete, &answer);
            }
        }
    }

    async fn ask_file(&mut self) {
        let name = format!("app-{}", self.entropy.below(self.load.files));
        let target = object(Kind::ConfigFile, &name);
        let text = format!("version {} of {name}", self.rev);
        self.watch.version(&format!("/etc/{name}.conf"), text.as_bytes());
        let wish = Wish::Content(text.clone());
        match self.entropy.below(100) {
            0..40 => {
                let answer = self.operator.apply(&configfile(&name, &text)).await;
                self.answered(&target, &wish, &answer);
            }
            40..92 => {
                let answer = self.operator.push(&name, text.as_bytes()).await;
                self.answered(&target, &wish, &answer);
            }
            _ => {
                let answer = self.operator.delete(target.clone()).await;
                self.answered(&target, &Wish::Delete, &answer);
            }
        }
    }
}
