//! What runs as a process, and why.

use ostler_agent_core::documents::run_items;
use ostler_schemas::time::{Timestamp, age};
use ostler_schemas::v1::beat::HeldDocument;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::report::ExitReport;
use ostler_schemas::{Sha256, Uid, Version};
use serde::{Deserialize, Serialize};

use super::find;
use crate::context::{Shared, lock};
use crate::status::LocalProcess;

/// Exits that are told.
const EXITS: usize = 5;

/// What runs, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// How it is.
    pub process: LocalProcess,
    /// Its owner: `deployment/web`.
    pub owner: Option<String>,
    /// The tightest goal that this agent has seen.
    pub goal: Goal,
    /// What the document asks for; none if it has no entry.
    pub asked: Option<Asked>,
    /// The latest exits, oldest first.
    pub exits: Vec<ExitReport>,
    /// By whom it is held, until when and why.
    pub held: Option<String>,
    /// The run document that this follows from.
    pub run: HeldDocument,
    /// When it was taken.
    pub documents_at: Option<Timestamp>,
    /// Now, by the agent's clock.
    pub now: Timestamp,
}

/// What the document asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// What should become of it.
    pub goal: Goal,
    /// The owner's version.
    pub version: Version,
    /// Its template.
    pub template: Sha256,
    /// Its command; empty while the template is not here.
    pub command: Vec<String>,
    /// Its user, if it names one.
    pub user: Option<String>,
    /// What it needs.
    pub needs: Vec<String>,
    /// Whether it is started again.
    pub restart: Option<String>,
}

impl Why {
    pub(crate) async fn of(context: &Shared, asked: &str) -> Result<Self, String> {
        let (uid, process, goal, owner, exits, run, documents_at) = {
            let board = context.board();
            let all = board.processes.iter().map(|(u, v)| (*u, v.namespace.to_string(), v.name.to_string()));
            let (uid, ..) = find(asked, all)?;
            let Some(view) = board.processes.get(&uid) else { return Err(format!("no process {asked}")) };
            let process = LocalProcess {
                namespace: view.namespace.clone(),
                name: view.name.clone(),
                report: view.report.clone(),
                last_exit: view.exits.last().cloned(),
            };
            let owner =
                view.owner.as_ref().map(|o| format!("{}/{}", o.kind.to_string().to_lowercase(), o.name));
            let surplus = view.exits.len().saturating_sub(EXITS);
            let exits = view.exits.get(surplus..).unwrap_or_default().to_vec();
            (uid, process, view.goal, owner, exits, board.run, board.documents_at)
        };
        let held = context.holds().process(uid).map(|held| held.message);
        let asked = Self::asked(context, uid).await;
        let now = context.deps.clock.wall();
        Ok(Self { process, owner, goal, asked, exits, held, run, documents_at, now })
    }

    async fn asked(context: &Shared, uid: Uid) -> Option<Asked> {
        let item = {
            let memory = lock(&context.memory);
            run_items(memory.run.document.as_ref()?).items.remove(&uid)?
        };
        let template = context.kept_template(item.template).await;
        let command = template.as_ref().map(|t| t.command.iter().chain(&t.args).cloned().collect());
        Some(Asked {
            goal: item.goal,
            version: item.version,
            template: item.template,
            command: command.unwrap_or_default(),
            user: template.as_ref().and_then(|t| t.user.clone()),
            needs: template
                .as_ref()
                .map(|t| t.needs.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            restart: template.as_ref().map(|t| word(&t.restart)),
        })
    }

    /// For people, one thing a line.
    #[must_use]
    pub fn text(&self) -> String {
        let report = &self.process.report;
        let mut rows: Vec<(&str, String)> = Vec::new();
        rows.push(("process", format!("{}/{}", self.process.namespace, self.process.name)));
        rows.push(("uid", report.u.to_string()));
        rows.push(("owner", self.owner.clone().unwrap_or_else(|| "-".to_owned())));
        let reason = report.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        let ready = if report.ready { ", ready" } else { "" };
        rows.push(("state", format!("{}{reason}{ready}", report.phase.as_str())));
        if let Some(message) = &report.message {
            rows.push(("because", message.clone()));
        }
        if let Some(held) = &self.held {
            rows.push(("held", held.clone()));
        }
        self.incarnation(&mut rows);
        self.wanted(&mut rows);
        let taken = self.documents_at.map_or_else(
            || "before this agent started".to_owned(),
            |at| format!("{} ago", age(self.now.since_ms(at))),
        );
        let document = format!("run revision {}, epoch {}, taken {taken}", self.run.revision, self.run.epoch);
        rows.push(("document", document));
        for exit in &self.exits {
            rows.push(("exit", exit_text(exit)));
        }
        rows.into_iter().map(|(key, value)| format!("{key:<12}{value}\n")).collect()
    }

    fn incarnation(&self, rows: &mut Vec<(&str, String)>) {
        let report = &self.process.report;
        let pid = report.pid.map_or_else(String::new, |pid| format!(", pid {pid}"));
        let since = report.started_at.map_or_else(String::new, |at| format!(", since {at}"));
        rows.push(("incarnation", format!("{}{pid}{since}", report.i)));
        rows.push(("restarts", format!("{}, {} exits", report.restarts, report.exits)));
        if let Some(template) = report.t {
            rows.push(("runs", format!("version {}, template {}", report.v, template.short())));
        }
    }

    fn wanted(&self, rows: &mut Vec<(&str, String)>) {
        rows.push(("goal", word(&self.goal)));
        let Some(asked) = &self.asked else {
            rows.push(("asked", "no entry in the document: it is kept until one says what to do".to_owned()));
            return;
        };
        let template = asked.template.short();
        rows.push((
            "asked",
            format!("{}, version {}, template {template}", word(&asked.goal), asked.version),
        ));
        if !asked.command.is_empty() {
            rows.push(("command", asked.command.join(" ")));
        }
        if let Some(user) = &asked.user {
            rows.push(("user", user.clone()));
        }
        if !asked.needs.is_empty() {
            rows.push(("needs", asked.needs.join(", ")));
        }
        if let Some(restart) = &asked.restart {
            rows.push(("restart", restart.clone()));
        }
    }
}

/// A choice as it is written in manifests and reports.
fn word<T: Serialize>(choice: &T) -> String {
    let value = serde_json::to_value(choice).ok();
    value.and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

fn exit_text(exit: &ExitReport) -> String {
    let how = match (exit.code, &exit.signal) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    };
    let why = exit.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    format!("incarnation {}: {how}, {} at {}{why}", exit.i, word(&exit.reason), exit.at)
}
