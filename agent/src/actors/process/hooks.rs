//! Commands that are run for a process: in its surroundings, as its user unless they name another one.

use std::sync::Arc;

use ostler_agent_core::unit::{Event, Hook, HookEnd, HowEnded, Run, Start};
use ostler_schemas::Sha256;
use ostler_schemas::spec::{Exec, ProcessTemplate};
use ractor::ActorRef;

use super::start::{Who, prepare};
use super::{Msg, State, cast};
use crate::context::{Shared, Task};
use crate::ports::{HostRun, HostSpawn, RunOutcome};

/// Characters of a command's last words that are told.
const LAST_WORDS: usize = 200;

impl State {
    /// Runs a command; nothing is run before what was decided is durable.
    pub(super) fn run(&mut self, me: &ActorRef<Msg>, run: Run, durable: Result<(), String>) {
        if let Err(why) = durable {
            let end = HookEnd::Lost(format!("was not run: the ledger cannot be written: {why}"));
            return cast(me, Event::Ran { run: run.run, end });
        }
        let (context, me, number) = (self.context.clone(), me.clone(), run.run);
        let who = Who { uid: self.unit.record().uid, object: self.object() };
        let known = self.unit.wanted().filter(|w| Some(w.hash) == run.template);
        let known = known.and_then(|wanted| wanted.template.clone());
        let task = Task::spawn(async move {
            let end = match template_of(&context, run.template, known).await {
                Some(template) => carry_out(&context, &who, template, run).await,
                None => HookEnd::Failed("was not run: its template is not known here any more".to_owned()),
            };
            cast(&me, Event::Ran { run: number, end });
        });
        self.runs.insert(number, task);
    }
}

/// The template that an incarnation was made of: as wanted now, else as kept for it.
async fn template_of(
    context: &Shared,
    hash: Option<Sha256>,
    known: Option<Arc<ProcessTemplate>>,
) -> Option<Arc<ProcessTemplate>> {
    if known.is_some() {
        return known;
    }
    context.kept_template(hash?).await.map(Arc::new)
}

async fn carry_out(context: &Shared, who: &Who, template: Arc<ProcessTemplate>, run: Run) -> HookEnd {
    let start = Start {
        incarnation: run.incarnation,
        template: Arc::new(as_command(&template, &run.exec)),
        version: run.version,
        token: run.token,
        ports: run.ports,
    };
    let spawn = match prepare(context, who, &start).await {
        Ok(spawn) => spawn,
        Err((_, why)) => return HookEnd::Failed(format!("was not run: {why}")),
    };
    // What prepares, stops or cleans up must not be killed with the process; a reload concerns only what runs.
    let beside = run.hook == Hook::Reload;
    let timeout_ms = run.exec.timeout.as_millis();
    let asked = HostRun { beside, timeout_ms, ..like(spawn) };
    match context.deps.host.run(asked).await {
        Ok(outcome) => judge(&outcome),
        Err(error) if context.board().host.is_none() => HookEnd::Lost(format!("was not run: {error}")),
        Err(error) => HookEnd::Failed(format!("was not run: {error}")),
    }
}

/// A template whose program is a command of another one. Its folders and files are the same.
fn as_command(template: &ProcessTemplate, exec: &Exec) -> ProcessTemplate {
    let user = exec.user.clone();
    let group = if user.is_some() { None } else { template.group.clone() };
    ProcessTemplate {
        command: exec.command.clone(),
        args: Vec::new(),
        user: user.or_else(|| template.user.clone()),
        group,
        ..template.clone()
    }
}

/// As a start of it would be; but what it says of itself is not the process's word.
fn like(spawn: HostSpawn) -> HostRun {
    let argv = spawn.argv.clone();
    HostRun::like(&HostSpawn { listen: None, ..spawn }, argv)
}

fn judge(outcome: &RunOutcome) -> HookEnd {
    let how = match &outcome.how {
        HowEnded::Code(0) => return HookEnd::Success,
        _ if outcome.timed_out => "did not end within its timeout".to_owned(),
        HowEnded::Code(code) => format!("exited with code {code}"),
        HowEnded::Signal(signal) => format!("was killed by signal {signal}"),
        HowEnded::Unknown(why) => {
            return match &outcome.ended_because {
                Some(because) => HookEnd::Failed(format!("was not run: {because}")),
                None => HookEnd::Lost(format!("ended, unknown how: {why}")),
            };
        }
    };
    let because = outcome.ended_because.as_ref().map_or(String::new(), |why| format!(" ({why})"));
    HookEnd::Failed(format!("{how}{because}{}", last_words(&outcome.output)))
}

/// The last line that it wrote, which mostly says why it failed.
fn last_words(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let clean = |line: &str| -> String {
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LAST_WORDS).collect()
    };
    line.map_or(String::new(), |line| format!(": {}", clean(line)))
}

/// A command that asks a running process how it is: `Ok` if it ends with code 0.
pub(super) async fn ask(context: &Shared, who: &Who, asking: ExecQuestion) -> Result<(), String> {
    let ExecQuestion { start, timeout_ms } = asking;
    let spawn = prepare(context, who, &start).await.map_err(|(_, why)| why)?;
    let run = HostRun { beside: true, timeout_ms, ..like(spawn) };
    let outcome = context.deps.host.run(run).await.map_err(|error| error.to_string())?;
    match judge(&outcome) {
        HookEnd::Success => Ok(()),
        HookEnd::Failed(why) | HookEnd::Lost(why) => Err(format!("its command {why}")),
    }
}

/// A question that is a command.
#[derive(Clone)]
pub(super) struct ExecQuestion {
    start: Start,
    timeout_ms: u64,
}

impl ExecQuestion {
    /// `command` in the surroundings of `start`.
    pub(super) fn new(start: Start, command: &[String], timeout_ms: u64) -> Self {
        let timeout = ostler_schemas::quantity::Dur::from_millis(timeout_ms);
        let exec = Exec { command: command.to_vec(), user: None, timeout };
        let template = Arc::new(as_command(&start.template, &exec));
        Self { start: Start { template, ..start }, timeout_ms }
    }
}
