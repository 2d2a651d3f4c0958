//! `rollout`: a line for each wave and how it ended; pause, resume, abort, undo; the versions that are kept.

use std::time::Duration;

use ostler_schemas::v1::api::{ListRequest, RolloutOp, RolloutRequest};
use ostler_schemas::v1::state::RolloutPhase;
use ostler_schemas::v1::status::View;
use ostler_schemas::{Generation, ObjectRef, Version};
use serde_json::json;

use super::converge::{Progress, ending, past_lines, rollout_of, verdict, wave_line};
use crate::args::Global;
use crate::args::look::{Rollout, RolloutChange, RolloutHistory, RolloutStatus};
use crate::args::target;
use crate::client::Client;
use crate::connect::{Session, session};
use crate::failure::Failure;
use crate::out::Out;
use crate::render::amounts::Moments;
use crate::render::form::{self, Form, pretty};
use crate::render::table::{Table, dash};
use crate::wait::{Verdict, until};

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn run(global: &Global, args: &Rollout, out: &mut Out) -> Result<(), Failure> {
    match args {
        Rollout::Status(args) => status(&session(global).await?, args, out).await,
        Rollout::Pause(args) => change(&session(global).await?, args, RolloutOp::Pause, out).await,
        Rollout::Resume(args) => change(&session(global).await?, args, RolloutOp::Resume, out).await,
        Rollout::Abort(args) => change(&session(global).await?, args, RolloutOp::Abort, out).await,
        Rollout::Undo(args) => {
            let op = RolloutOp::Undo { to_version: args.to_version.map(Version) };
            change(&session(global).await?, &args.change, op, out).await
        }
        Rollout::History(args) => history(&session(global).await?, args, out).await,
        Rollout::Other(words) => {
            let known = ["status", "pause", "resume", "abort", "undo", "history"];
            Err(super::other_below("rollout", words, &known))
        }
    }
}

async fn status(session: &Session, args: &RolloutStatus, out: &mut Out) -> Result<(), Failure> {
    let form = Form::parse(args.output.as_deref())?;
    let (kind, name) = target::one(&args.object, None)?;
    let object = target::object_ref(kind, &name, &session.namespace)?;
    let view = session.client.rollout(object.clone(), RolloutOp::Status).await?.view;
    if args.no_watch || form == Form::Json {
        return now(&view, &form, out);
    }
    follow(&session.client, &object, Generation(0), args.timeout.to_std(), out).await
}

fn now(view: &View, form: &Form, out: &mut Out) -> Result<(), Failure> {
    let rollout = rollout_of(view);
    if *form == Form::Json {
        out.data(&pretty(&json!(rollout)))?;
    } else if let Some(rollout) = rollout {
        for line in past_lines(view, rollout) {
            out.line(&line)?;
        }
        if rollout.state != RolloutPhase::Complete || rollout.past.is_empty() {
            out.line(&wave_line(view, rollout))?;
        }
        out.line(&ending(rollout))?;
    } else {
        out.line("complete: nothing has been rolled out yet")?;
    }
    match verdict(view, Generation(0)) {
        Verdict::Failed(_) => Err(Failure::NotConverged(String::new())),
        Verdict::Reached | Verdict::NotYet(_) => Ok(()),
    }
}

async fn change(
    session: &Session,
    args: &RolloutChange,
    op: RolloutOp,
    out: &mut Out,
) -> Result<(), Failure> {
    let (kind, name) = target::one(&args.object, None)?;
    let object = target::object_ref(kind, &name, &session.namespace)?;
    let request = RolloutRequest { object: object.clone(), op, reason: args.reason.clone() };
    let reply = session.client.change_rollout(&request).await?;
    if let Some(change) = &reply.change {
        out.line(&change.message)?;
    }
    if !args.wait {
        return Ok(());
    }
    follow(&session.client, &object, reply.view.metadata.generation, args.timeout.to_std(), out).await
}

async fn history(session: &Session, args: &RolloutHistory, out: &mut Out) -> Result<(), Failure> {
    let form = Form::parse(args.output.output.as_deref())?;
    let (kind, name) = target::one(&args.object, None)?;
    let object = target::object_ref(kind, &name, &session.namespace)?;
    let versions = session.client.rollout(object, RolloutOp::History).await?.history;
    match form {
        Form::Json | Form::Yaml | Form::JsonPath(_) => {
            let items = versions.iter().map(|version| json!(version)).collect();
            out.data(&form.write(&form::list(items, true))?)
        }
        Form::Table | Form::Wide | Form::Name => {
            let moments = Moments::now(args.output.timestamps);
            let mut table = Table::new(vec!["VERSION", "STATE", "TIME", "BY", "CHANGE", "REASON"]);
            for version in versions {
                let mark = if version.current { "*" } else { "" };
                let change = Some(version.change.join(",")).filter(|change| !change.is_empty());
                table.push(vec![
                    format!("{}{mark}", version.version),
                    version.state,
                    moments.time(version.at),
                    version.by.actor.to_string(),
                    dash(change),
                    dash(version.by.reason),
                ]);
            }
            let colour = out.colour;
            out.data(&table.text(!args.output.no_headers, colour))
        }
    }
}

/// Follows a rollout to its end and says how it ended.
///
/// # Errors
/// [`Failure::NotConverged`] when it failed, was rolled back, paused, or did not end in time.
pub async fn follow(
    client: &Client,
    object: &ObjectRef,
    goal: Generation,
    timeout: Duration,
    out: &mut Out,
) -> Result<(), Failure> {
    let list = ListRequest {
        kind: object.kind,
        namespace: object.namespace.clone(),
        labels: Vec::new(),
        names: vec![object.name.to_string()],
    };
    let mut progress = Progress::data(out.colour);
    let mut last: Option<View> = None;
    let result = until(client, list, timeout, out, |seen, out| {
        let Some(view) = seen.get(object) else {
            return Ok(Verdict::Failed(format!("{} is gone", object.short())));
        };
        last = Some(view.clone());
        let verdict = verdict(view, goal);
        let is_seen = view.metadata.generation >= goal;
        if is_seen {
            progress.step(view, out)?;
        }
        Ok(verdict)
    })
    .await;
    progress.end(out)?;
    let rollout = last.as_ref().and_then(rollout_of);
    match result {
        Ok(()) => out.line("complete"),
        Err(Failure::NotConverged(why)) => {
            let why = match rollout {
                Some(rollout) if why == ending(rollout) => ending(rollout),
                Some(_) | None => why,
            };
            let next = if object.kind == ostler_schemas::Kind::ConfigFile {
                let version = rollout.map(|r| format!(" --version {}", r.to_version)).unwrap_or_default();
                format!("ostler config status {}{version}", object.name)
            } else {
                format!("ostler describe {}", object.short())
            };
            out.line(&format!("{why}. Next: {next}"))?;
            Err(Failure::NotConverged(String::new()))
        }
        Err(other) => Err(other),
    }
}
