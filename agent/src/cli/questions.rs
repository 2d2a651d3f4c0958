//! `status`, `ps`, `files`, `logs`: from the agent, or from the holder when the agent is down.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use ostler_agent_core::holder::protocol::ProcessInfo;

use super::{FilesCommand, Question, SettingsArgs, acts, chain, complain, logs, owns};
use crate::linux::ProcessLog;
use crate::local::client::AskError;
use crate::local::{client, files_table, find, process_table, status_text};
use crate::status::Status;

/// The agent does not run.
const NOT_RUNNING: u8 = 3;

pub(super) fn answer(args: &SettingsArgs, question: &Question) -> ExitCode {
    let run_dir = args.run_dir();
    let status = client::status(&run_dir);
    match question {
        Question::Status { output } => match status {
            Ok(status) => {
                let (text, well) = status_text(&status);
                if output.is_json() {
                    acts::json(&status)
                } else {
                    print(&text)
                };
                ExitCode::from(u8::from(!well))
            }
            Err(error) => silent(&run_dir, &error),
        },
        Question::Ps { output } => match status {
            Ok(status) if output.is_json() => acts::json_list(&status.processes),
            Ok(status) => print(&process_table(&status)),
            Err(error) => match holder(&run_dir) {
                Ok(processes) => {
                    warn("the agent does not run; this is what the holder has");
                    if output.is_json() {
                        return acts::json_list(&processes);
                    }
                    print(&holder_table(&processes))
                }
                Err(_) => silent(&run_dir, &error),
            },
        },
        Question::Files { output, command } => match (command, status) {
            (Some(FilesCommand::Diff { path }), _) => acts::diff(args, path),
            (None, Ok(status)) if output.is_json() => acts::json_list(&status.file_states),
            (None, Ok(status)) => print(&files_table(&status)),
            (None, Err(error)) => silent(&run_dir, &error),
        },
        Question::Owns { path, output } => owns::owns(args, path, output.is_json()),
        Question::Why { process, output } => acts::why(args, process, output.is_json()),
        Question::Events { count, output } => acts::events(args, *count, output.is_json()),
        Question::Hold { what, all, limit, reason } => {
            acts::hold(args, acts::what(what.as_deref(), *all), limit.as_deref(), reason)
        }
        Question::Release { what, all } => acts::release(args, acts::what(what.as_deref(), *all)),
        Question::Stop { process, reason } => acts::stop(args, process, reason.as_deref()),
        Question::Start { process } => acts::start(args, process),
        Question::Restart { process, reason } => acts::restart(args, process, reason.as_deref()),
        Question::RotateKey => acts::rotate_key(args),
        Question::Logs { process, follow, tail, since, until, previous, stream, timestamps } => {
            let found = match &status {
                Ok(status) => in_status(status, process),
                Err(_) => in_holder(&holder(&run_dir).unwrap_or_default(), process),
            };
            let dir = status.map_or_else(|_| args.log_dir(), |s| s.log_dir.into());
            match found.or_else(|why| on_disk(&dir, process).ok_or(why)) {
                Ok((namespace, name)) => {
                    let log = ProcessLog::new(&dir, &namespace, &name);
                    let wanted = logs::Wanted {
                        follow: *follow,
                        tail: *tail,
                        since: since.as_deref(),
                        until: until.as_deref(),
                        previous: *previous,
                        stream: *stream,
                        timestamps: *timestamps,
                    };
                    logs::show(&log, &wanted).unwrap_or_else(|error| complain(&error))
                }
                Err(why) => complain(&why),
            }
        }
    }
}

/// Whoever reads may stop reading: that is the end of the command, and no error.
pub(super) fn print(text: &str) -> ExitCode {
    io::stdout().write_all(text.as_bytes()).ok();
    ExitCode::SUCCESS
}

pub(super) fn warn(text: &str) {
    writeln!(io::stderr(), "warning: {text}").ok();
}

pub(super) fn not_running(run_dir: &Path, error: &io::Error) -> ExitCode {
    let text = format!("error: the agent does not answer at {}: {error}", run_dir.display());
    writeln!(io::stderr(), "{text}").ok();
    ExitCode::from(NOT_RUNNING)
}

fn silent(run_dir: &Path, error: &AskError) -> ExitCode {
    match error {
        AskError::Silent(error) => not_running(run_dir, error),
        AskError::Refused(_) | AskError::Answer(_) => complain(&chain(error)),
    }
}

pub(super) fn holder(run_dir: &Path) -> Result<Vec<ProcessInfo>, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(client::holder_list(run_dir)).map_err(|error| error.to_string())
}

fn holder_table(processes: &[ProcessInfo]) -> String {
    let mut rows = vec![["NAMESPACE", "NAME", "STATUS", "PID"].map(str::to_owned)];
    for p in processes {
        rows.push([p.namespace.clone(), p.name.clone(), format!("{:?}", p.phase), p.pid.to_string()]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        let [a, b, c] = widths;
        format!("{:<a$}  {:<b$}  {:<c$}  {}\n", row[0], row[1], row[2], row[3])
    };
    rows.iter().map(line).collect()
}

fn in_status(status: &Status, asked: &str) -> Result<(String, String), String> {
    let all = status.processes.iter().map(|p| (p.report.u, p.namespace.to_string(), p.name.to_string()));
    find(asked, all).map(|(_, namespace, name)| (namespace, name))
}

fn in_holder(processes: &[ProcessInfo], asked: &str) -> Result<(String, String), String> {
    let all = processes.iter().map(|p| (p.key.uid, p.namespace.clone(), p.name.clone()));
    find(asked, all).map(|(_, namespace, name)| (namespace, name))
}

/// A process that has ended and was retired: its files may still be there.
fn on_disk(dir: &Path, asked: &str) -> Option<(String, String)> {
    let (namespace, name) = asked.split_once('/').unwrap_or(("default", asked));
    let is_name = |text: &str| ostler_schemas::ids::is_label(text);
    let there = is_name(namespace) && is_name(name) && dir.join(namespace).join(name).is_dir();
    there.then(|| (namespace.to_owned(), name.to_owned()))
}
