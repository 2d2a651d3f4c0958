//! What validators say: the syntaxes that are built in, and commands that the holder runs.
//!
//! Guarantees: a command sees the very files that will be put in place, with their owner, mode and label, on disk; it
//! runs as its user in a cgroup of its own, within its timeout, and what it leaves behind is killed; what it has changed
//! in the candidate is noticed. What comes out of it is bounded, and told to nobody where a secret is in the file.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ostler_agent_core::file::{Candidate, StepError, StepErrorKind};
use ostler_agent_core::unit::{HowEnded, Start};
use ostler_render::syntax;
use ostler_schemas::spec::{CANDIDATE, EnvVar, ProcessTemplate, Syntax};
use ostler_schemas::v1::epoch::Token;
use ostler_schemas::{Kind, ObjectRef, Sha256};

use crate::actors::process::{Who, prepare};
use crate::context::Shared;
use crate::ports::{HostRun, HostSpawn, RunOutcome};

/// Lines of a validator's output that are told (CONTRACT.md 4.5).
const LINES: usize = 20;
/// Most bytes of them: a report of two hundred files has room for no more.
const OUTPUT: usize = 2 << 10;
/// Bytes of output that are kept to find those lines in.
const KEPT: usize = 8 << 10;
/// How many of the last lines make the one line that stands for all.
const IN_SHORT: usize = 3;
/// Characters of that line.
const SHORT: usize = 240;

fn rejected(message: String) -> StepError {
    StepError { kind: StepErrorKind::Rejected, message }
}

fn not_now(message: String) -> StepError {
    StepError { kind: StepErrorKind::NotNow, message }
}

/// Has a version looked at.
///
/// # Errors
/// It is refused, with what was said; or nobody can be asked for the moment.
pub(crate) async fn look_at(
    context: &Shared,
    candidate: &Candidate,
    contents: &BTreeMap<Sha256, Bytes>,
) -> Result<(), StepError> {
    if let Some(syntax) = candidate.validator.syntax {
        check_syntax(syntax, candidate, contents)?;
    }
    if candidate.validator.has_command() {
        ask(context, candidate).await?;
        unchanged(context, candidate).await?;
    }
    Ok(())
}

fn check_syntax(
    syntax: Syntax,
    candidate: &Candidate,
    contents: &BTreeMap<Sha256, Bytes>,
) -> Result<(), StepError> {
    for (part, _) in &candidate.files {
        let Some(bytes) = contents.get(&part.sha256) else {
            return Err(not_now("its content is not at hand".to_owned()));
        };
        syntax::check(syntax, bytes).map_err(|misspelt| {
            let why = if candidate.is_secret { misspelt.discreet() } else { misspelt.to_string() };
            rejected(if part.name.is_empty() { why } else { format!("{}: {why}", part.name) })
        })?;
    }
    Ok(())
}

/// A validator that rewrites what it looks at has looked at something else than what would be put in place.
async fn unchanged(context: &Shared, candidate: &Candidate) -> Result<(), StepError> {
    for (part, path) in &candidate.files {
        let Some(path) = path else { continue };
        let seen = context.deps.files.observe(path.clone(), None).await;
        let seen = seen.map_err(|why| not_now(format!("it cannot be read again: {why}")))?;
        if !part.is_as(&seen.found, candidate.held_by) {
            let what = part.differences(&seen.found, candidate.held_by);
            return Err(rejected(format!("the validator has changed what it looked at ({what})")));
        }
    }
    Ok(())
}

async fn ask(context: &Shared, candidate: &Candidate) -> Result<(), StepError> {
    let run = run_of(context, candidate).await.map_err(rejected)?;
    match context.deps.host.run(run).await {
        Ok(outcome) => judge(&outcome, candidate),
        Err(_) if context.board().host.is_none() => {
            Err(not_now("its validator waits for the holder".to_owned()))
        }
        Err(error) => Err(rejected(format!("its validator could not be run: {error}"))),
    }
}

/// The command as a process of its user would be started: same variables, limits and rules of the host.
async fn run_of(context: &Shared, candidate: &Candidate) -> Result<HostRun, String> {
    let validator = &candidate.validator;
    let is_own = validator.user.is_none() && !context.deps.config.privileged && candidate.owner == "root";
    let user = validator.user.clone().or_else(|| (!is_own).then(|| candidate.owner.clone()));
    // The path is no word of a template: nothing in it is expanded.
    let file = EnvVar {
        name: CANDIDATE.to_owned(),
        value: Some(candidate.path.replace("$(", "$$(")),
        value_from: None,
    };
    let template =
        ProcessTemplate { user, env: vec![file], ..ProcessTemplate::of(validator.command.clone()) };
    let start = Start {
        incarnation: candidate.version.0,
        template: Arc::new(template),
        version: candidate.version,
        token: Token::default(),
        ports: BTreeMap::new(),
    };
    let object = ObjectRef {
        kind: Kind::ConfigFile,
        namespace: Some(candidate.namespace.clone()),
        name: candidate.name.clone(),
    };
    let who = Who { uid: candidate.uid, object };
    let by_default = validator.user.is_none();
    let advice =
        if by_default { "; it runs as the file's owner unless validator.user names another" } else { "" };
    let refused = |why: String| format!("its validator is refused: {why}{advice}");
    let spawn = prepare(context, &who, &start).await.map_err(|(_, why)| refused(why))?;
    let uid = spawn
        .user
        .as_ref()
        .map_or_else(|| if context.deps.config.privileged { 0 } else { u32::MAX }, |u| u.uid);
    context.deps.config.veto.exec(uid).map_err(refused)?;
    let argv = spawn.argv.clone();
    let run = HostRun::like(&HostSpawn { listen: None, ..spawn }, argv);
    Ok(HostRun { timeout_ms: validator.timeout.as_millis(), output_max: KEPT, ..run })
}

fn judge(outcome: &RunOutcome, candidate: &Candidate) -> Result<(), StepError> {
    let how = match &outcome.how {
        HowEnded::Code(0) if !outcome.timed_out => return Ok(()),
        _ if outcome.timed_out => format!("did not end within {}", candidate.validator.timeout),
        HowEnded::Code(code) => format!("exited with code {code}"),
        HowEnded::Signal(signal) => format!("was killed by signal {signal}"),
        HowEnded::Unknown(why) => {
            let why = outcome.ended_because.as_ref().unwrap_or(why);
            return Err(not_now(format!("its validator ended, and not how is known: {why}")));
        }
    };
    // A code speaks for itself only where nothing was said.
    let says_enough = matches!(outcome.how, HowEnded::Code(_)) && !outcome.timed_out;
    Err(rejected(told(&how, says_enough, outcome, candidate.is_secret)))
}

/// One line that says why, and below it what came out, where that is more.
fn told(how: &str, is_implied: bool, outcome: &RunOutcome, is_secret: bool) -> String {
    if is_secret {
        return format!("the validator {how}; what it said is not told, because a secret is in the file");
    }
    let lines = last_lines(&outcome.output);
    let last: Vec<&str> = lines.iter().rev().take(IN_SHORT).rev().map(String::as_str).collect();
    let short: String = last.join("; ").chars().take(SHORT).collect();
    let mut text = match (short.is_empty(), is_implied) {
        (true, _) => format!("the validator {how} and said nothing"),
        (false, true) => short.clone(),
        (false, false) => format!("the validator {how}: {short}"),
    };
    if lines.len() > 1 || short.chars().count() == SHORT {
        text.push_str(&format!("\nthe validator {how}:\n{}", lines.join("\n")));
    }
    text
}

/// The last lines that say anything, as text without control characters.
fn last_lines(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let clean = |line: &str| -> String {
        line.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    };
    let all: Vec<String> = text.lines().map(clean).filter(|line| !line.trim().is_empty()).collect();
    let mut room = OUTPUT;
    let mut kept = Vec::new();
    for line in all.into_iter().rev().take(LINES) {
        let mut end = line.len().min(room);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        if end == 0 {
            break;
        }
        room -= end;
        kept.push(line[..end].to_owned());
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(code: i32, output: &str) -> RunOutcome {
        let output = Bytes::copy_from_slice(output.as_bytes());
        RunOutcome { how: HowEnded::Code(code), timed_out: false, ended_because: None, output }
    }

    #[test]
    fn one_line_stands_for_all() {
        let one = told("exited with code 1", true, &outcome(1, "line 12: workers must be <= 64\n"), false);
        assert_eq!(one, "line 12: workers must be <= 64");
        let none = told("exited with code 3", true, &outcome(3, "\n"), false);
        assert_eq!(none, "the validator exited with code 3 and said nothing");
        let many: String = (1..=50).map(|n| format!("line\t{n}\n")).collect();
        let many = told("exited with code 1", true, &outcome(1, &many), false);
        let lines: Vec<&str> = many.lines().collect();
        assert_eq!((lines.len(), lines[0]), (22, "line 48; line 49; line 50"));
        assert_eq!(
            (lines[1], lines[2], lines[21]),
            ("the validator exited with code 1:", "line 31", "line 50")
        );
        let slow = told("did not end within 10s", false, &outcome(1, "thinking\n"), false);
        assert_eq!(slow, "the validator did not end within 10s: thinking");
    }

    #[test]
    fn output_is_bounded_and_secrets_are_not_told() {
        let long = format!("{}\n", "ä".repeat(9_000));
        assert!(told("exited with code 1", true, &outcome(1, &long), false).len() < 2 * OUTPUT + 1_000);
        let secret = told("exited with code 1", true, &outcome(1, "password hunter2 is weak\n"), true);
        assert!(!secret.contains("hunter2"), "{secret}");
    }
}
