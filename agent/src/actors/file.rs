//! One managed file: feeds its machine, carries out its steps in order, and shows it on the board.

mod look;
mod prepare;
mod trial;
mod validate;

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use ostler_agent_core::acts::Deed;
use ostler_agent_core::file::{Effect, Event, FileRecord, ManagedFile, Owner, Step, WantedFile, part_path};
use ostler_agent_core::holds::Held;
use ostler_agent_core::ledger::Change;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::document::{FileEntry, FileSpec, FileVars, NodeFacts};
use ostler_schemas::{Kind, ObjectRef, Sha256};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::sync::Arc;

use self::look::{Wish, carry_out, look};
pub(crate) use self::trial::try_out;

use self::prepare::{FETCH_FIRST_MS, FETCH_MAX_MS, Prepared, Recipe};
use crate::context::{FileView, Shared, Task};

/// How often a file is looked at although nothing was heard of it: inotify can lose events, and some changes (of a
/// folder above, of another host on a network file system, through a bind mount) are not heard at all. A tenth is
/// jitter, so that a thousand files do not ask at once.
const RESCAN_MS: u64 = 60_000;
/// Every how many such looks it is read although its number, size and times are what they were.
const READ_EVERY: u64 = 30;

pub(crate) struct FileActor;

pub(crate) enum Msg {
    /// The document asks this.
    Entry(Box<Asked>),
    /// The document has no entry any more.
    Unwanted,
    Event(Box<Event>),
    /// What is asked was fetched and rendered, or cannot be rendered.
    Prepared(Box<Recipe>, Result<Box<Prepared>, String>),
    /// Owner and group were looked up.
    Owner(Result<Owner, String>),
    /// Time to look without having heard anything.
    Rescan,
    /// What is held on the host has changed.
    Holds,
}

/// What the document asks of one file, as far as it is here.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) entry: FileEntry,
    pub(crate) spec: Option<Arc<FileSpec>>,
    /// Values that it is rendered with.
    pub(crate) vars: Option<Arc<FileVars>>,
    /// What templates may say of this node.
    pub(crate) facts: Option<Arc<NodeFacts>>,
    /// Another ConfigFile that keeps a path of it.
    pub(crate) conflict: Option<String>,
}

pub(crate) struct State {
    context: Shared,
    file: ManagedFile,
    wanted: Option<WantedFile>,
    /// What is to be made, once all of it is here.
    recipe: Option<Recipe>,
    /// The bytes to write, by hash.
    contents: BTreeMap<Sha256, Bytes>,
    armed: Option<(Mono, Task)>,
    watching: Option<(Vec<String>, Vec<Task>)>,
    fetching: Option<Task>,
    owning: Option<Task>,
    working: Option<Task>,
    rescan: Option<Task>,
    rescans: u64,
    glancing: Option<Task>,
    held: Option<Held>,
}

impl Actor for FileActor {
    type Msg = Msg;
    type State = State;
    type Arguments = (Shared, FileRecord);

    async fn pre_start(
        &self,
        me: ActorRef<Msg>,
        (context, record): (Shared, FileRecord),
    ) -> Result<State, ActorProcessingErr> {
        let file = ManagedFile::new(record, context.rules());
        let mut state = State {
            context,
            file,
            wanted: None,
            recipe: None,
            contents: BTreeMap::new(),
            armed: None,
            watching: None,
            fetching: None,
            owning: None,
            working: None,
            rescan: None,
            rescans: 0,
            glancing: None,
            held: None,
        };
        let path = state.file.path();
        state.heed_holds(&me, path);
        state.rescan_later(&me);
        state.show();
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Entry(asked) => state.entry(&me, *asked),
            Msg::Unwanted => {
                state.wanted = None;
                state.feed(&me, Event::Unwanted);
            }
            Msg::Event(event) => {
                let ran = matches!(*event, Event::Ran { .. });
                state.feed(&me, *event);
                // Only now has the machine taken over what its steps have recorded; before, this would undo it.
                if ran {
                    state.note_record();
                }
            }
            Msg::Prepared(recipe, prepared) => state.prepared(&me, &recipe, prepared),
            Msg::Owner(owner) => state.again(&me, |wanted| wanted.owner = Some(owner)),
            Msg::Holds => {
                let path = state.file.path();
                state.heed_holds(&me, path);
            }
            Msg::Rescan => {
                state.rescan(&me);
                state.rescan_later(&me);
            }
        }
        state.arm(&me);
        state.watch(&me);
        state.show();
        Ok(())
    }
}

fn cast(me: &ActorRef<Msg>, message: Msg) {
    // An actor that has ended is replaced by one that looks anew.
    drop(me.cast(message));
}

impl State {
    fn object(&self) -> Option<ObjectRef> {
        let (namespace, name) = self.file.record().named.clone()?;
        Some(ObjectRef { kind: Kind::ConfigFile, namespace: Some(namespace), name })
    }

    fn entry(&mut self, me: &ActorRef<Msg>, asked: Asked) {
        let Asked { entry, spec, vars, facts, conflict } = asked;
        let before = self.wanted.take();
        let same_spec = before.as_ref().is_some_and(|b| b.hash == entry.d && b.spec.is_some());
        let recipe = spec.clone().filter(|spec| vars.is_some() || !spec.has_template());
        let recipe = recipe.map(|spec| Recipe { spec, vars, facts });
        let kept = before.filter(|_| same_spec);
        let same_recipe = recipe.is_some() && recipe == self.recipe;
        let (parts, content, is_secret) = match kept.as_ref().filter(|_| same_recipe) {
            Some(kept) => (kept.parts.clone(), kept.content, kept.is_secret),
            None => (recipe.as_ref().and_then(Recipe::parts).map(Ok), false, false),
        };
        if !same_recipe {
            self.contents.clear();
            self.fetching = recipe.clone().map(|recipe| self.prepare(me, recipe));
            self.recipe = recipe;
        }
        let wanted = WantedFile {
            version: entry.v,
            goal: entry.g,
            hash: entry.d,
            owner: kept.and_then(|k| k.owner),
            parts,
            content,
            is_secret,
            spec,
            conflict,
        };
        if let Some(spec) = &wanted.spec
            && !matches!(wanted.owner, Some(Ok(_)))
        {
            self.look_up(me, spec);
        }
        self.wanted = Some(wanted.clone());
        // Before it is wanted: what is held is not written even once.
        let path = wanted.spec.as_ref().map(|spec| self.context.rules().on_host(&spec.path));
        let path = path.or_else(|| self.file.path());
        self.heed_holds(me, path);
        self.feed(me, Event::Want(wanted));
    }

    fn prepare(&self, me: &ActorRef<Msg>, recipe: Recipe) -> Task {
        let (context, me) = (self.context.clone(), me.clone());
        Task::spawn(async move {
            let prepared = recipe.prepare(&context).await.map(Box::new);
            cast(&me, Msg::Prepared(Box::new(recipe), prepared));
        })
    }

    fn prepared(&mut self, me: &ActorRef<Msg>, recipe: &Recipe, prepared: Result<Box<Prepared>, String>) {
        if self.recipe.as_ref() != Some(recipe) {
            return;
        }
        match prepared {
            Ok(prepared) => {
                let Prepared { parts, contents, is_secret } = *prepared;
                self.contents = contents;
                self.again(me, |wanted| {
                    wanted.parts = Some(Ok(parts));
                    wanted.content = true;
                    wanted.is_secret = is_secret;
                });
            }
            Err(why) => self.again(me, |wanted| wanted.parts = Some(Err(why))),
        }
    }

    /// Tells the machine whether its path is held.
    fn heed_holds(&mut self, me: &ActorRef<Msg>, path: Option<String>) {
        let held = path.and_then(|path| {
            let holds = self.context.holds();
            let (names, _) = self.file.to_look_at();
            let parts = names.iter().map(|name| part_path(&path, name));
            std::iter::once(path.clone()).chain(parts).find_map(|path| holds.path(&path))
        });
        if held != self.held {
            self.held.clone_from(&held);
            self.feed(me, Event::Hold(held));
        }
    }

    fn again(&mut self, me: &ActorRef<Msg>, change: impl FnOnce(&mut WantedFile)) {
        if let Some(wanted) = &mut self.wanted {
            change(wanted);
            let wanted = wanted.clone();
            self.feed(me, Event::Want(wanted));
        }
    }

    /// Looks owner and group up; users can be made later, so an unknown one is asked for again.
    fn look_up(&mut self, me: &ActorRef<Msg>, spec: &FileSpec) {
        let (context, me) = (self.context.clone(), me.clone());
        let is_own = !self.context.deps.config.privileged && spec.owner == "root";
        let (owner, group) = ((!is_own).then(|| spec.owner.clone()), spec.group.clone());
        self.owning = Some(Task::spawn(async move {
            let mut wait = FETCH_FIRST_MS;
            loop {
                let found = context.deps.host.user(owner.clone(), group.clone()).await;
                let done = found.is_ok();
                cast(&me, Msg::Owner(found.map(|user| user.owner)));
                if done {
                    return;
                }
                context.deps.clock.sleep_ms(wait).await;
                wait = (wait * 2).min(FETCH_MAX_MS);
            }
        }));
    }

    /// Feeds the machine and sets off what it says. Observing and steps run beside the actor; the machine has at most
    /// one of them under way.
    fn feed(&mut self, me: &ActorRef<Msg>, event: Event) {
        let effects = self.file.on(self.context.deps.clock.now(), event);
        for effect in effects {
            match effect {
                Effect::Observe => self.observe(me),
                Effect::Run(steps) => self.run(me, steps),
                Effect::Tell(reason, message) => {
                    if let Some(object) = self.object() {
                        self.context.tell(object, Some(self.file.record().uid), reason, message);
                    }
                }
            }
        }
    }

    fn observe(&mut self, me: &ActorRef<Msg>) {
        let Some(path) = self.file.path() else { return };
        let (names, unlisted) = self.file.to_look_at();
        let candidates = self.file.has_candidates();
        let parts = self.wanted.as_ref().and_then(|w| w.parts.clone()).and_then(Result::ok);
        let (parts, contents) = (parts.unwrap_or_default(), self.contents.clone());
        let wish = Wish { path, names, unlisted, candidates, parts, contents };
        let (context, me) = (self.context.clone(), me.clone());
        self.working = Some(Task::spawn(async move {
            let seen = look(&context, wish).await;
            cast(&me, Msg::Event(Box::new(Event::Observed(seen))));
        }));
    }

    fn run(&mut self, me: &ActorRef<Msg>, steps: Vec<Step>) {
        let (context, me, contents) = (self.context.clone(), me.clone(), self.contents.clone());
        self.working = Some(Task::spawn(async move {
            let total = steps.len();
            let mut ran = Event::Ran { done: total, error: None };
            for (done, step) in steps.into_iter().enumerate() {
                if let Err(error) = carry_out(&context, step, &contents).await {
                    ran = Event::Ran { done, error: Some(error) };
                    break;
                }
            }
            cast(&me, Msg::Event(Box::new(ran)));
        }));
    }

    /// What the machine knows beyond the last [`Step::Record`] (a drift that was only noted) is kept when convenient.
    fn note_record(&self) {
        self.context.note(Change::File(Box::new(self.file.record().clone())));
    }

    fn arm(&mut self, me: &ActorRef<Msg>) {
        let due = self.file.wake_at();
        if due == self.armed.as_ref().map(|(at, _)| *at) {
            return;
        }
        self.armed = due.map(|at| {
            let (clock, me) = (self.context.deps.clock.clone(), me.clone());
            let task = Task::spawn(async move {
                clock.sleep_until(at).await;
                cast(&me, Msg::Event(Box::new(Event::Tick)));
            });
            (at, task)
        });
    }

    fn watch(&mut self, me: &ActorRef<Msg>) {
        let path = self.wanted.as_ref().and_then(|_| self.file.path());
        let path = path.filter(|_| !self.file.is_left_alone());
        let (mut names, unlisted) = self.file.to_look_at();
        if unlisted {
            // What nobody named is heard of by its folder.
            names.insert("*".to_owned());
        }
        let paths: Vec<String> =
            path.iter().flat_map(|path| names.iter().map(|name| part_path(path, name))).collect();
        if self.watching.as_ref().is_some_and(|(watched, _)| *watched == paths) {
            return;
        }
        let watch = |path: &String| {
            let mut changes = self.context.deps.files.watch(path.clone());
            let me = me.clone();
            Task::spawn(async move {
                while changes.next().await.is_some() {
                    cast(&me, Msg::Event(Box::new(Event::Look)));
                }
            })
        };
        let tasks = paths.iter().map(watch).collect();
        self.watching = Some((paths, tasks));
    }

    /// What looks as it did when it was right is not read, but for every so often.
    fn rescan(&mut self, me: &ActorRef<Msg>) {
        if self.file.is_left_alone() {
            return;
        }
        self.rescans += 1;
        let stamps = self.file.stamps().filter(|_| !self.rescans.is_multiple_of(READ_EVERY));
        let Some(stamps) = stamps else { return self.feed(me, Event::Look) };
        let (context, me) = (self.context.clone(), me.clone());
        self.glancing = Some(Task::spawn(async move {
            for (path, stamp) in stamps {
                if !stamp.still(&context.deps.files.glance(path).await) {
                    return cast(&me, Msg::Event(Box::new(Event::Look)));
                }
            }
        }));
    }

    fn rescan_later(&mut self, me: &ActorRef<Msg>) {
        let wait = RESCAN_MS + self.context.deps.entropy.below(RESCAN_MS / 10);
        let (clock, me) = (self.context.deps.clock.clone(), me.clone());
        self.rescan = Some(Task::spawn(async move {
            clock.sleep_ms(wait).await;
            cast(&me, Msg::Rescan);
        }));
    }

    /// What will follow from what is on its way to the disk.
    fn coming(&self) -> Vec<Deed> {
        let Some(plan) = self.file.coming() else { return Vec::new() };
        let uid = self.file.record().uid;
        plan.actions.iter().map(|action| plan.deed(uid, action)).collect()
    }

    fn show(&self) {
        let record = self.file.record();
        let view = FileView {
            named: record.named.clone(),
            report: self.file.report(),
            orphan: self.file.orphan(),
            in_sync: self.file.version_in_sync(),
            written: record.written.is_some(),
            secret: self.wanted.as_ref().is_some_and(|w| w.is_secret),
            retired: self.file.is_retired(),
            change: self.file.change().cloned(),
            coming: self.coming(),
        };
        let (changed, concerns, acts) = {
            let mut board = self.context.board();
            let before = board.files.insert(record.uid, view.clone());
            let concerns = before.as_ref().is_none_or(|b| {
                (b.in_sync, b.retired, &b.named) != (view.in_sync, view.retired, &view.named)
            });
            let acts = (view.change.is_some()
                || !view.coming.is_empty()
                || before.as_ref().is_some_and(|b| b.change.is_some() || !b.coming.is_empty()))
                && before.as_ref() != Some(&view);
            (before.as_ref() != Some(&view), concerns, acts)
        };
        if acts {
            self.context.act();
        }
        if changed {
            self.context.changed();
        }
        if concerns {
            self.context.reassess();
        }
    }
}
