//! `rollout status`: a line for each wave, and how it ended.

use std::time::Duration;

use ostler_schemas::v1::api::ListRequest;
use ostler_schemas::v1::status::View;
use ostler_schemas::{Generation, ObjectRef};
use serde_json::json;

use super::converge::{Progress, ending, rollout_of, verdict, wave_line};
use crate::args::Global;
use crate::args::look::{Rollout, RolloutStatus};
use crate::args::target;
use crate::client::Client;
use crate::connect::{Session, session};
use crate::failure::Failure;
use crate::out::Out;
use crate::render::form::{Form, pretty};
use crate::wait::{Verdict, until};

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn run(global: &Global, args: &Rollout, out: &mut Out) -> Result<(), Failure> {
    match args {
        Rollout::Status(args) => status(&session(global).await?, args, out).await,
        Rollout::Other(words) => Err(super::other_below("rollout", words, &["status"])),
    }
}

async fn status(session: &Session, args: &RolloutStatus, out: &mut Out) -> Result<(), Failure> {
    let form = Form::parse(args.output.as_deref())?;
    let (kind, name) = target::one(&args.object, None)?;
    let object = target::object_ref(kind, &name, &session.namespace)?;
    let view = session.client.rollout(object.clone()).await?;
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
        out.line(&wave_line(view, rollout))?;
        out.line(&ending(rollout))?;
    } else {
        out.line("complete: nothing has been rolled out yet")?;
    }
    match verdict(view, Generation(0)) {
        Verdict::Failed(_) => Err(Failure::NotConverged(String::new())),
        Verdict::Reached | Verdict::NotYet(_) => Ok(()),
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
