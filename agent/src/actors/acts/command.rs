//! Commands that belong to files: run by the holder, in a cgroup of their own, as the file's owner or who is named.

use std::collections::BTreeMap;
use std::sync::Arc;

use ostler_agent_core::acts::{ActState, Plan, clip, last_lines};
use ostler_agent_core::unit::{HowEnded, Start};
use ostler_schemas::spec::{EnvVar, ProcessTemplate};
use ostler_schemas::v1::epoch::Token;
use ostler_schemas::{Kind, ObjectRef, Uid};

use crate::actors::process::{Who, prepare};
use crate::context::Shared;
use crate::ports::{HostRun, HostSpawn, RunOutcome};

/// A command.
pub(super) struct Command<'a> {
    pub(super) uid: Uid,
    pub(super) plan: &'a Plan,
    pub(super) words: &'a [String],
    /// Who runs it; the owner if nobody is named.
    pub(super) user: Option<&'a str>,
    pub(super) owner: &'a str,
    pub(super) timeout_ms: u64,
}

/// Runs it to its end.
pub(super) async fn run(context: &Shared, command: Command<'_>) -> ActState {
    let run = match order(context, &command).await {
        Ok(run) => run,
        Err(why) => return ActState::Failed(clip(&format!("was not run: {why}"))),
    };
    match context.deps.host.run(run).await {
        Ok(outcome) => judge(&outcome),
        Err(error) => ActState::Failed(clip(&format!("was not run: {error}"))),
    }
}

/// Likewise as a question: `Ok` if it ends with code 0.
pub(super) async fn ask(context: &Shared, command: Command<'_>) -> Result<(), String> {
    match run(context, command).await {
        ActState::Done => Ok(()),
        ActState::Failed(why) | ActState::Unknown(why) => Err(format!("its command {why}")),
        ActState::Planned | ActState::Begun { .. } => Err("its command was not run".to_owned()),
    }
}

/// The command as a process of its user would be started: same variables, limits and rules of the host.
async fn order(context: &Shared, command: &Command<'_>) -> Result<HostRun, String> {
    let Command { uid, plan, words, user, owner, timeout_ms } = command;
    let is_own = user.is_none() && !context.deps.config.privileged && *owner == "root";
    let user = user.or((!is_own).then_some(*owner)).map(str::to_owned);
    // The path is no word of a template: nothing in it is expanded.
    let path = EnvVar {
        name: "OSTLER_PATH".to_owned(),
        value: Some(plan.path.replace('$', "$$")),
        value_from: None,
    };
    let template = ProcessTemplate { user, env: vec![path], ..ProcessTemplate::of(words.to_vec()) };
    let start = Start {
        incarnation: plan.n,
        template: Arc::new(template),
        version: plan.version,
        token: Token::default(),
        ports: BTreeMap::new(),
    };
    let (namespace, name) = plan.named.clone();
    let object = ObjectRef { kind: Kind::ConfigFile, namespace: Some(namespace), name };
    let who = Who { uid: *uid, object };
    let spawn = prepare(context, &who, &start).await.map_err(|(_, why)| why)?;
    // Who is not changed to is whom the holder runs as.
    let own = if context.deps.config.privileged { 0 } else { u32::MAX };
    context.deps.config.veto.exec(spawn.user.as_ref().map_or(own, |user| user.uid))?;
    let argv = spawn.argv.clone();
    let run = HostRun::like(&HostSpawn { listen: None, ..spawn }, argv);
    Ok(HostRun { timeout_ms: *timeout_ms, ..run })
}

fn judge(outcome: &RunOutcome) -> ActState {
    let how = match &outcome.how {
        HowEnded::Code(0) if !outcome.timed_out => return ActState::Done,
        _ if outcome.timed_out => "did not end within its timeout".to_owned(),
        HowEnded::Code(code) => format!("exited with code {code}"),
        HowEnded::Signal(signal) => format!("was killed by signal {signal}"),
        HowEnded::Unknown(why) => {
            return match &outcome.ended_because {
                Some(because) => ActState::Failed(clip(&format!("was not run: {because}"))),
                None => ActState::Unknown(clip(&format!(
                    "was begun and its outcome is unknown: {why}; it is not repeated"
                ))),
            };
        }
    };
    let because = outcome.ended_because.as_ref().map_or(String::new(), |why| format!(" ({why})"));
    // The last line mostly says why; what came before it stands below.
    let lines = last_lines(&outcome.output);
    let said = match lines.rsplit_once('\n') {
        None if lines.is_empty() => " and said nothing".to_owned(),
        None => format!(": {lines}"),
        Some((_, last)) => format!(": {last}\n{lines}"),
    };
    ActState::Failed(clip(&format!("{how}{because}{said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(how: HowEnded, output: &str) -> RunOutcome {
        RunOutcome { how, timed_out: false, ended_because: None, output: output.to_owned().into() }
    }

    #[test]
    fn what_came_of_it_is_told_in_short() {
        assert_eq!(judge(&ended(HowEnded::Code(0), "fine")), ActState::Done);
        let failed = judge(&ended(HowEnded::Code(3), "a\nb\n"));
        assert_eq!(failed, ActState::Failed("exited with code 3: b\na\nb".to_owned()));
        let lost = judge(&ended(HowEnded::Unknown("the holder ended".to_owned()), ""));
        assert!(matches!(lost, ActState::Unknown(why) if why.contains("the holder ended")));
        let slow = RunOutcome { timed_out: true, ..ended(HowEnded::Signal(9), "") };
        assert!(matches!(judge(&slow), ActState::Failed(why) if why.contains("timeout")));
    }
}
