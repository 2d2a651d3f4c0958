//! One managed file: feeds its machine, carries out its steps in order, and shows it on the board.

use bytes::Bytes;
use futures::StreamExt;
use ostler_agent_core::file::{
    Content, Effect, Event, FileRecord, ManagedFile, Owner, Step, StepError, StepErrorKind, WantedFile,
};
use ostler_agent_core::holds::Held;
use ostler_agent_core::ledger::Change;
use ostler_schemas::time::Mono;
use ostler_schemas::v1::document::{FileEntry, FileSpec};
use ostler_schemas::{Kind, ObjectRef};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::sync::Arc;

use crate::context::{FileView, Shared, Task};

/// How often a file is looked at although nothing was heard of it: inotify can lose events, and some changes (of a
/// folder above) are not heard at all. A tenth is jitter, so that a thousand files do not ask at once.
const RESCAN_MS: u64 = 120_000;
/// First wait before content or owner is asked for again; doubles.
const FETCH_FIRST_MS: u64 = 250;
/// Longest such wait.
const FETCH_MAX_MS: u64 = 10_000;

pub(crate) struct FileActor;

pub(crate) enum Msg {
    /// The document asks this.
    Entry(Box<FileEntry>, Option<Arc<FileSpec>>, Option<String>),
    /// The document has no entry any more.
    Unwanted,
    Event(Box<Event>),
    /// The content of a spec is at hand.
    Content(Bytes),
    /// Owner and group were looked up.
    Owner(Result<Owner, String>),
    /// Time to look without having heard anything.
    Rescan,
    /// What is held on the host has changed.
    Holds,
}

pub(crate) struct State {
    context: Shared,
    file: ManagedFile,
    wanted: Option<WantedFile>,
    content: Option<Bytes>,
    armed: Option<(Mono, Task)>,
    watching: Option<(String, Task)>,
    fetching: Option<Task>,
    owning: Option<Task>,
    working: Option<Task>,
    rescan: Option<Task>,
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
            content: None,
            armed: None,
            watching: None,
            fetching: None,
            owning: None,
            working: None,
            rescan: None,
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
            Msg::Entry(entry, spec, conflict) => state.entry(&me, &entry, spec, conflict),
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
            Msg::Content(bytes) => {
                state.content = Some(bytes);
                state.again(&me, |wanted| wanted.content = true);
            }
            Msg::Owner(owner) => state.again(&me, |wanted| wanted.owner = Some(owner)),
            Msg::Holds => {
                let path = state.file.path();
                state.heed_holds(&me, path);
            }
            Msg::Rescan => {
                state.feed(&me, Event::Look);
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

    fn entry(
        &mut self,
        me: &ActorRef<Msg>,
        entry: &FileEntry,
        spec: Option<Arc<FileSpec>>,
        conflict: Option<String>,
    ) {
        let before = self.wanted.take();
        let same_spec = before.as_ref().is_some_and(|b| b.hash == entry.d && b.spec.is_some());
        let kept = before.filter(|_| same_spec);
        let is_here = self.content.is_some() && kept.is_some();
        if !is_here {
            self.content = None;
        }
        let wanted = WantedFile {
            version: entry.v,
            goal: entry.g,
            hash: entry.d,
            owner: kept.and_then(|k| k.owner),
            content: is_here,
            spec,
            conflict,
        };
        if let Some(spec) = &wanted.spec {
            if !wanted.content {
                self.fetch(me, spec);
            }
            if !matches!(wanted.owner, Some(Ok(_))) {
                self.look_up(me, spec);
            }
        }
        self.wanted = Some(wanted.clone());
        // Before it is wanted: what is held is not written even once.
        let path = wanted.spec.as_ref().map(|spec| self.context.rules().on_host(&spec.path));
        let path = path.or_else(|| self.file.path());
        self.heed_holds(me, path);
        self.feed(me, Event::Want(wanted));
    }

    /// Tells the machine whether its path is held.
    fn heed_holds(&mut self, me: &ActorRef<Msg>, path: Option<String>) {
        let held = path.and_then(|path| self.context.holds().path(&path));
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

    /// Fetches the content: from the ledger, else from the bus, until it is there.
    fn fetch(&mut self, me: &ActorRef<Msg>, spec: &FileSpec) {
        let Some(content) = spec.content else { return };
        let (context, me) = (self.context.clone(), me.clone());
        self.fetching = Some(Task::spawn(async move {
            let mut wait = FETCH_FIRST_MS;
            loop {
                if let Some(bytes) = context.deps.ledger.get(content.sha256).await {
                    return cast(&me, Msg::Content(bytes));
                }
                match context.deps.link.get_blob(&content).await {
                    Ok(bytes) => match context.deps.ledger.put(content.sha256, bytes.clone()).await {
                        Ok(()) => return cast(&me, Msg::Content(bytes)),
                        Err(error) => tracing::warn!(error, "a content could not be stored"),
                    },
                    Err(error) => {
                        tracing::debug!(%error, hash = %content.sha256, "a content could not be fetched");
                    }
                }
                context.deps.clock.sleep_ms(wait).await;
                wait = (wait * 2).min(FETCH_MAX_MS);
            }
        }));
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
        let (context, me, content) = (self.context.clone(), me.clone(), self.content.clone());
        self.working = Some(Task::spawn(async move {
            let seen = context.deps.files.observe(path, content).await;
            cast(&me, Msg::Event(Box::new(Event::Observed(seen))));
        }));
    }

    fn run(&mut self, me: &ActorRef<Msg>, steps: Vec<Step>) {
        let (context, me, content) = (self.context.clone(), me.clone(), self.content.clone());
        self.working = Some(Task::spawn(async move {
            let total = steps.len();
            let mut ran = Event::Ran { done: total, error: None };
            for (done, step) in steps.into_iter().enumerate() {
                if let Err(error) = carry_out(&context, step, content.clone()).await {
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
        if path == self.watching.as_ref().map(|(path, _)| path.clone()) {
            return;
        }
        self.watching = path.map(|path| {
            let mut changes = self.context.deps.files.watch(path.clone());
            let me = me.clone();
            let task = Task::spawn(async move {
                while changes.next().await.is_some() {
                    cast(&me, Msg::Event(Box::new(Event::Look)));
                }
            });
            (path, task)
        });
    }

    fn rescan_later(&mut self, me: &ActorRef<Msg>) {
        let wait = RESCAN_MS + self.context.deps.entropy.below(RESCAN_MS / 10);
        let (clock, me) = (self.context.deps.clock.clone(), me.clone());
        self.rescan = Some(Task::spawn(async move {
            clock.sleep_ms(wait).await;
            cast(&me, Msg::Rescan);
        }));
    }

    fn show(&self) {
        let record = self.file.record();
        let view = FileView {
            named: record.named.clone(),
            report: self.file.report(),
            orphan: self.file.orphan(),
            in_sync: self.file.version_in_sync(),
            written: record.written.is_some(),
            retired: self.file.is_retired(),
        };
        let (changed, concerns) = {
            let mut board = self.context.board();
            let before = board.files.insert(record.uid, view.clone());
            let concerns = before.as_ref().is_none_or(|b| {
                (b.in_sync, b.retired, &b.named) != (view.in_sync, view.retired, &view.named)
            });
            (before.as_ref() != Some(&view), concerns)
        };
        if changed {
            self.context.changed();
        }
        if concerns {
            self.context.reassess();
        }
    }
}

async fn carry_out(context: &Shared, step: Step, content: Option<Bytes>) -> Result<(), StepError> {
    let failed = |message: String| StepError { kind: StepErrorKind::Failed, message };
    match step {
        Step::Record(record) => context.persist(Change::File(record)).await.map_err(failed),
        Step::WriteTemp { content: Content::Blob(_), .. } if content.is_none() => {
            Err(failed("its content is not at hand".to_owned()))
        }
        step => context.deps.files.apply(step, content).await,
    }
}
