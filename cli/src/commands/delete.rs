//! `delete`: marks objects for deletion and waits until they are gone.

use ostler_schemas::v1::api::{DeleteRequest, ListRequest};
use ostler_schemas::v1::status::{Status, View};
use ostler_schemas::{Kind, ObjectRef};
use std::collections::BTreeSet;

use super::get;
use crate::args::change::{Delete, Sources};
use crate::args::look::Selection;
use crate::args::target;
use crate::connect::Session;
use crate::failure::Failure;
use crate::manifests;
use crate::out::Out;
use crate::render::amounts::count;
use crate::wait::{Verdict, until};

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well; the first failure of several, after all were tried.
pub async fn run(session: &Session, args: &Delete, out: &mut Out) -> Result<(), Failure> {
    let mut failed: Option<Failure> = None;
    let objects = objects(session, args, &mut failed, out).await?;
    let mut waiting: Vec<ObjectRef> = Vec::new();
    for object in objects {
        let request =
            DeleteRequest { object: object.clone(), force: args.force, reason: args.reason.clone() };
        match session.client.delete(&request).await {
            Ok(reply) => {
                let word = if reply.gone { "deleted" } else { "deletion accepted" };
                if reply.gone || !args.wait {
                    out.line(&format!("{} {word}", object.short()))?;
                } else {
                    waiting.push(object);
                }
            }
            Err(failure) if failure.is_not_found() && args.ignore_not_found => {}
            Err(failure) => note(&mut failed, failure, out),
        }
    }
    if args.wait {
        gone(session, &waiting, args.timeout.to_std(), out).await?;
    }
    failed.map_or(Ok(()), Err)
}

/// Keeps the first failure, which is told at the end, and tells the others.
fn note(failed: &mut Option<Failure>, failure: Failure, out: &mut Out) {
    if let (Some(text), Some(_)) = (failure.text(), &failed) {
        out.say(&text);
    }
    failed.get_or_insert(failure);
}

/// What is to be deleted. A name that is not there is noted in `failed` and keeps no other from being deleted.
async fn objects(
    session: &Session,
    args: &Delete,
    failed: &mut Option<Failure>,
    out: &mut Out,
) -> Result<Vec<ObjectRef>, Failure> {
    if !args.filename.is_empty() {
        let sources = Sources { files: args.filename.clone(), recursive: false };
        let mut objects = manifests::read(&sources, &session.namespace)?.objects();
        // What was applied first may be needed by what was applied later.
        objects.reverse();
        return Ok(objects);
    }
    let mut objects = Vec::new();
    for target in target::targets(&args.what, None)? {
        match target.name {
            Some(name) => match get::resolve(session, target.kind, &name).await {
                Ok(object) => objects.push(object),
                Err(failure) if failure.is_not_found() && args.ignore_not_found => {}
                Err(failure) if failure.is_not_found() => note(failed, failure, out),
                Err(failure) => return Err(failure),
            },
            None if args.all || args.selector.is_some() => {
                let selection = Selection { selector: args.selector.clone(), ..Selection::default() };
                let list = get::request(target.kind, Vec::new(), &selection, &session.namespace)?;
                let page = session.client.list(&list).await?;
                out.warnings(&page.warnings);
                if page.items.is_empty() {
                    out.say(&format!("no {} match", target.kind.plural()));
                }
                objects.extend(page.items.iter().map(|view| view.object().object_ref()));
            }
            None => {
                return Err(Failure::message(format!(
                    "which {}? Name them, or give -l SELECTOR or --all",
                    target.kind.plural()
                )));
            }
        }
    }
    Ok(objects)
}

/// Waits until objects are gone, kind by kind, saying how many are left.
///
/// # Errors
/// [`Failure::NotConverged`] when they are not in time.
pub async fn gone(
    session: &Session,
    objects: &[ObjectRef],
    timeout: std::time::Duration,
    out: &mut Out,
) -> Result<(), Failure> {
    let groups: BTreeSet<(Kind, Option<ostler_schemas::Namespace>)> =
        objects.iter().map(|o| (o.kind, o.namespace.clone())).collect();
    for (kind, namespace) in groups {
        let group: Vec<&ObjectRef> =
            objects.iter().filter(|o| o.kind == kind && o.namespace == namespace).collect();
        let names = group.iter().map(|o| o.name.to_string()).collect();
        let list = ListRequest { kind, namespace, labels: Vec::new(), names };
        let mut told: BTreeSet<ObjectRef> = BTreeSet::new();
        let mut left_before = group.len() + 1;
        let mut held_before: BTreeSet<String> = BTreeSet::new();
        until(&session.client, list, timeout, out, |seen, out| {
            let left: Vec<&&ObjectRef> = group.iter().filter(|o| seen.contains_key(**o)).collect();
            for object in &group {
                if !seen.contains_key(*object) && told.insert((*object).clone()) {
                    out.line(&format!("{} deleted", object.short()))?;
                }
            }
            if left.is_empty() {
                return Ok(Verdict::Reached);
            }
            let names: Vec<String> = left.iter().take(5).map(|o| o.short()).collect();
            let more = if left.len() > 5 { ", …" } else { "" };
            if left.len() < left_before {
                left_before = left.len();
                let number = count(left.len() as u64, "object is", "objects are");
                out.say(&format!("waiting until {number} gone: {}{more}", names.join(", ")));
            }
            let held: BTreeSet<String> =
                left.iter().filter_map(|o| seen.get(**o)).filter_map(held_up).collect();
            for why in held.difference(&held_before) {
                out.say(why);
            }
            let why = held.first().map(|why| format!("; {why}")).unwrap_or_default();
            held_before = held;
            Ok(Verdict::NotYet(format!("still there: {}{more}{why}", names.join(", "))))
        })
        .await?;
    }
    Ok(())
}

/// Which nodes a deletion waits for that do not answer, if that is what it waits for: `configfile/x waits for …`.
fn held_up(view: &View) -> Option<String> {
    let Status::ConfigFile(status) = &view.status else { return None };
    let condition = status.conditions.iter().find(|c| c.kind == "Deleting" && c.reason == "WaitsForNodes")?;
    Some(format!("{} {}", view.object().object_ref().short(), condition.message))
}
