//! `status`, `ps`, `files`, `logs`: from the agent, or from the holder when the agent is down.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use ostler_agent_core::holder::protocol::ProcessInfo;

use super::{Question, SettingsArgs, complain, logs};
use crate::linux::ProcessLog;
use crate::local::{client, files_table, process_table, status_text};
use crate::status::Status;

/// The agent does not run.
const NOT_RUNNING: u8 = 3;

pub(super) fn answer(args: &SettingsArgs, question: &Question) -> ExitCode {
    let run_dir = args.run_dir();
    let status = client::status(&run_dir);
    match question {
        Question::Status => match status {
            Ok(status) => {
                let (text, well) = status_text(&status);
                print(&text);
                ExitCode::from(u8::from(!well))
            }
            Err(error) => not_running(&run_dir, &error),
        },
        Question::Ps => match status {
            Ok(status) => print(&process_table(&status)),
            Err(error) => match holder(&run_dir) {
                Ok(processes) => {
                    warn("the agent does not run; this is what the holder has");
                    print(&holder_table(&processes))
                }
                Err(_) => not_running(&run_dir, &error),
            },
        },
        Question::Files => match status {
            Ok(status) => print(&files_table(&status)),
            Err(error) => not_running(&run_dir, &error),
        },
        Question::Logs { process, follow, tail, since, until, previous, stream, timestamps } => {
            let found = match &status {
                Ok(status) => in_status(status, process),
                Err(_) => in_holder(&holder(&run_dir).unwrap_or_default(), process),
            };
            let dir = status.map_or_else(|_| args.log_dir(), |s| s.log_dir.into());
            match found.or_else(|| on_disk(&dir, process)) {
                Some((namespace, name)) => {
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
                None => complain(&format!("no process {process} on this host")),
            }
        }
    }
}

/// Whoever reads may stop reading: that is the end of the command, and no error.
fn print(text: &str) -> ExitCode {
    io::stdout().write_all(text.as_bytes()).ok();
    ExitCode::SUCCESS
}

fn warn(text: &str) {
    writeln!(io::stderr(), "warning: {text}").ok();
}

fn not_running(run_dir: &Path, error: &io::Error) -> ExitCode {
    let text = format!("error: the agent does not answer at {}: {error}", run_dir.display());
    writeln!(io::stderr(), "{text}").ok();
    ExitCode::from(NOT_RUNNING)
}

fn holder(run_dir: &Path) -> Result<Vec<ProcessInfo>, String> {
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

fn is_meant(asked: &str, namespace: &str, name: &str, uid: &str) -> bool {
    let short = asked.len() >= ostler_schemas::ids::SHORT_UID && uid.starts_with(asked);
    asked == name || asked == format!("{namespace}/{name}") || short
}

fn in_status(status: &Status, asked: &str) -> Option<(String, String)> {
    status.processes.iter().find_map(|p| {
        let (namespace, name) = (p.namespace.to_string(), p.name.to_string());
        is_meant(asked, &namespace, &name, &p.report.u.to_string()).then_some((namespace, name))
    })
}

fn in_holder(processes: &[ProcessInfo], asked: &str) -> Option<(String, String)> {
    let found = processes.iter().find(|p| is_meant(asked, &p.namespace, &p.name, &p.key.uid.to_string()));
    found.map(|p| (p.namespace.clone(), p.name.clone()))
}

/// A process that has ended and was retired: its files may still be there.
fn on_disk(dir: &Path, asked: &str) -> Option<(String, String)> {
    let (namespace, name) = asked.split_once('/').unwrap_or(("default", asked));
    let is_name = |text: &str| ostler_schemas::ids::is_label(text);
    let there = is_name(namespace) && is_name(name) && dir.join(namespace).join(name).is_dir();
    there.then(|| (namespace.to_owned(), name.to_owned()))
}
