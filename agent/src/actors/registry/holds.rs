//! What a person on the host asks: hold, release, stop, start, restart. Every act is told, with who and why.

use ostler_agent_core::holds::{By, Hold, Holds, Kind, LONGEST_MS, REASON_MAX, Target, USUAL_MS};
use ostler_agent_core::ledger::Change;
use ostler_agent_core::unit::{Ask, Event};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{Kind as ObjectKind, ObjectRef, Uid};
use ractor::ActorRef;

use super::{Msg, State, send};
use crate::actors::file;
use crate::context::Task;
use crate::local::{Act, find, on_host};

/// How often the wall clock is looked at while something is held: it may be set.
const LOOK_MS: u64 = 60_000;

type Answer = Result<String, String>;

impl State {
    pub(super) async fn act(&mut self, me: &ActorRef<Msg>, act: Act, by: By) -> Answer {
        match act {
            Act::Hold { what, for_ms, reason } => {
                let hold = self.new_hold(&what, for_ms, &reason, by)?;
                let mut said = format!("{}: {}", hold.name, hold.text());
                if let Target::Path(path) = &hold.target
                    && !self.context.board().files.values().any(|view| view.report.path == *path)
                {
                    said.push_str("\nno ConfigFile manages it now; one that comes waits for its release");
                }
                self.keep(me, hold, Reason::Held).await?;
                Ok(said)
            }
            Act::Release { what } => self.release(me, &what, &by).await,
            Act::Stop { process, reason } => {
                let (uid, name) = self.process(&process)?;
                let reason = words(&reason)?;
                let since = self.context.deps.clock.wall();
                let target = Target::Process(uid);
                let hold = Hold { target, kind: Kind::Stop, name, reason, by, since, until: None };
                let said = format!("{}: {}", hold.name, hold.text());
                self.keep(me, hold, Reason::Held).await?;
                Ok(said)
            }
            Act::Start { process } => self.start_again(me, &process, &by).await,
            Act::Restart { process, reason } => {
                let (uid, name) = self.process(&process)?;
                if let Some(held) = self.context.holds().process(uid) {
                    return Err(format!("{name} is {}; nothing was done", held.message));
                }
                let text = format!("restart asked on the host by {by}: {}", words(&reason)?);
                self.tell_process(uid, Reason::Stopped, text);
                self.feed(&uid, Event::Ask(Ask::Restart));
                Ok(format!("{name} is being restarted; \"ostler-agent why {name}\" tells how it does"))
            }
        }
    }

    fn process(&self, asked: &str) -> Result<(Uid, String), String> {
        let board = self.context.board();
        let all = board.processes.iter().map(|(uid, v)| (*uid, v.namespace.to_string(), v.name.to_string()));
        find(asked, all).map(|(uid, namespace, name)| (uid, format!("{namespace}/{name}")))
    }

    fn target(&self, what: &str) -> Result<(Target, String), String> {
        match what {
            "--all" => Ok((Target::All, "all".to_owned())),
            path if path.starts_with('/') => {
                let path = on_host(&self.context.deps.config.root, path);
                Ok((Target::Path(path.clone()), path))
            }
            process => self.process(process).map(|(uid, name)| (Target::Process(uid), name)),
        }
    }

    fn new_hold(&self, what: &str, for_ms: Option<u64>, reason: &str, by: By) -> Result<Hold, String> {
        let (target, name) = self.target(what)?;
        let ms = for_ms.unwrap_or(USUAL_MS);
        if !(1..=LONGEST_MS).contains(&ms) {
            return Err(format!("--for must be between 1ms and {}d", LONGEST_MS / 86_400_000));
        }
        let since = self.context.deps.clock.wall();
        let until = Some(ostler_schemas::time::Timestamp(since.0.saturating_add(ms)));
        Ok(Hold { target, kind: Kind::Hold, name, reason: words(reason)?, by, since, until })
    }

    /// Nothing is told or done before it is durable.
    async fn keep(&mut self, me: &ActorRef<Msg>, hold: Hold, reason: Reason) -> Result<(), String> {
        let mut holds = self.context.holds();
        let (target, text) = (hold.target.clone(), hold.text());
        let first = holds.is_empty();
        holds.set(hold).map_err(|error| error.to_string())?;
        self.take_holds(me, holds).await?;
        // That a node's condition begins is told as such.
        if target != Target::All || !first {
            self.tell_target(&target, reason, text);
        }
        Ok(())
    }

    async fn release(&mut self, me: &ActorRef<Msg>, what: &str, by: &By) -> Answer {
        let (target, name) = self.target(what)?;
        let mut holds = self.context.holds();
        let released = holds.release(&target);
        if released.is_empty() {
            let other = match &target {
                Target::Process(uid) => holds.process(*uid),
                Target::Path(path) => holds.path(path),
                Target::All => None,
            };
            return Err(match other {
                Some(held) if held.stop => {
                    format!("{name} is {}; \"ostler-agent start {name}\" starts it", held.message)
                }
                Some(held) => format!("{}; \"ostler-agent release --all\" ends that", held.message),
                None => format!("{name} is not held"),
            });
        }
        self.take_holds(me, holds).await?;
        for hold in &released {
            self.tell_target(&hold.target, Reason::Resumed, format!("released on the host by {by}"));
        }
        Ok(released.iter().map(|h| format!("{} is released", h.name)).collect::<Vec<_>>().join("\n"))
    }

    async fn start_again(&mut self, me: &ActorRef<Msg>, process: &str, by: &By) -> Answer {
        let (uid, name) = self.process(process)?;
        let mut holds = self.context.holds();
        if holds.start(uid).is_none() {
            return Err(match holds.process(uid) {
                Some(held) => format!("{name} is {}; release it first", held.message),
                None => format!(
                    "{name} was not stopped on this host; \"ostler-agent why {name}\" tells how it does"
                ),
            });
        }
        let still = holds.process(uid);
        self.take_holds(me, holds).await?;
        self.tell_process(uid, Reason::Resumed, format!("start asked on the host by {by}"));
        if let Some(held) = still {
            return Ok(format!("{name} is not stopped any more, but {}", held.message));
        }
        let alive = self.context.board().processes.get(&uid).is_some_and(|view| view.alive);
        if !alive {
            // What has failed for good is tried again, too.
            self.feed(&uid, Event::Ask(Ask::Restart));
        }
        Ok(format!("{name} is being started"))
    }

    /// Makes it durable, and lets everything know.
    async fn take_holds(&mut self, me: &ActorRef<Msg>, holds: Holds) -> Result<(), String> {
        let change = Change::Holds(Box::new(holds));
        self.context.persist(change).await.map_err(|why| format!("the ledger cannot be written: {why}"))?;
        self.show_holds(me);
        Ok(())
    }

    /// Tells every process and file whether it is held.
    pub(super) fn show_holds(&mut self, me: &ActorRef<Msg>) {
        let holds = self.context.holds();
        for (uid, actor) in &self.processes {
            send(actor, Event::Hold(holds.process(*uid)));
        }
        for actor in self.files.values() {
            drop(actor.cast(file::Msg::Holds));
        }
        self.context.condition(Reason::Held, holds.summary());
        self.holding = holds.next_end().map(|end| {
            let (clock, me) = (self.context.deps.clock.clone(), me.clone());
            let wait = end.since_ms(clock.wall()).clamp(1, LOOK_MS);
            Task::spawn(async move {
                clock.sleep_ms(wait).await;
                drop(me.cast(Msg::HoldsDue));
            })
        });
    }

    pub(super) async fn holds_due(&mut self, me: &ActorRef<Msg>) {
        let mut holds = self.context.holds();
        let over = holds.expire(self.context.deps.clock.wall());
        if over.is_empty() {
            return self.show_holds(me);
        }
        if let Err(why) = self.take_holds(me, holds).await {
            tracing::warn!(why, "what has ended by itself stays held for now");
            return self.show_holds(me);
        }
        for hold in over {
            self.tell_target(
                &hold.target,
                Reason::Resumed,
                format!("no longer {}: its time is over", hold.text()),
            );
        }
    }

    /// Holds of processes that are gone: their names may come again, they do not.
    pub(super) fn forget_holds(&mut self, me: &ActorRef<Msg>, gone: &[Uid]) {
        let mut holds = self.context.holds();
        let forgotten: usize = gone.iter().map(|uid| holds.forget(*uid).len()).sum();
        if forgotten > 0 {
            self.context.note(Change::Holds(Box::new(holds.clone())));
            self.context.condition(Reason::Held, holds.summary());
            drop(me.cast(Msg::HoldsDue));
        }
    }

    fn tell_process(&self, uid: Uid, reason: Reason, text: String) {
        let named = {
            let board = self.context.board();
            board.processes.get(&uid).map(|view| (view.namespace.clone(), view.name.clone()))
        };
        if let Some((namespace, name)) = named {
            let object = ObjectRef { kind: ObjectKind::Process, namespace: Some(namespace), name };
            self.context.tell(object, Some(uid), reason, text);
        }
    }

    fn tell_target(&self, target: &Target, reason: Reason, text: String) {
        let file = match target {
            Target::Process(uid) => return self.tell_process(*uid, reason, text),
            Target::All => None,
            Target::Path(path) => {
                let board = self.context.board();
                let of_path = board.files.iter().find(|(_, view)| view.report.path == *path);
                of_path.and_then(|(uid, view)| Some((*uid, view.named.clone()?)))
            }
        };
        if let Some((uid, (namespace, name))) = file {
            let object = ObjectRef { kind: ObjectKind::ConfigFile, namespace: Some(namespace), name };
            self.context.tell(object, Some(uid), reason, text);
        } else if let Some(node) = self.context.node_ref() {
            let text = match target {
                Target::Path(path) => format!("{path}: {text}"),
                Target::All | Target::Process(_) => text,
            };
            self.context.tell(node, None, reason, text);
        }
    }
}

/// A reason as it can be told on one line.
fn words(reason: &str) -> Result<String, String> {
    let text: String =
        reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_MAX).collect();
    let text = text.trim().to_owned();
    if text.is_empty() { Err("say why: --reason TEXT".to_owned()) } else { Ok(text) }
}
