//! `diff`: what an apply would change, as a unified diff of the YAML that users write.

use ostler_schemas::manifest::{Finding, FindingCode, Refusal, to_yaml};
use ostler_schemas::spec::{SecretSpec, SecretValue, Spec};
use ostler_schemas::v1::object::Object;
use serde_json::{Map, Value, json};

use super::apply::{Manner, send};
use crate::args::change::Diff;
use crate::connect::Session;
use crate::failure::Failure;
use crate::manifests;
use crate::out::Out;
use crate::render::amounts::count;
use crate::render::diff::unified;
use crate::render::object::{Contents, asked};

/// Runs it.
///
/// # Errors
/// [`Failure::Different`] if there are changes; whatever keeps it from telling.
pub async fn run(session: &Session, args: &Diff, out: &mut Out) -> Result<(), Failure> {
    let manifests = manifests::read(&args.sources, &session.namespace)?;
    let manner = Manner { force: args.force, dry_run: true, ..Manner::default() };
    let reply = match send(&session.client, &manifests, &session.namespace, &manner).await {
        Err(Failure::Refused(refusal)) if is_conflict(&refusal) => {
            for finding in &refusal.findings {
                out.warn(&Finding { hint: None, ..finding.clone() }.to_string());
            }
            out.say("apply refuses this; with --force it would change:");
            let forced = Manner { force: true, ..manner };
            send(&session.client, &manifests, &session.namespace, &forced).await?
        }
        other => other?,
    };
    let mut different = false;
    for result in &reply.results {
        for warning in &result.warnings {
            out.warn(&format!("{}: {warning}", result.object.short()));
        }
        // What the manifest leaves out is kept, and stands in the text of both sides.
        let mut contents = match &result.before {
            Some(object) => session.client.contents(object).await?,
            None => Contents::new(),
        };
        let before = result.before.as_ref().map(|object| text(object, &contents));
        contents.extend(manifests.contents_of(&result.object));
        let after = result.after.as_ref().map(|object| text(object, &contents));
        let name = result.object.short();
        let old = if before.is_some() { format!("{name} (now)") } else { "/dev/null".to_owned() };
        let (before, after, colour) = (before.unwrap_or_default(), after.unwrap_or_default(), out.colour);
        let changes = unified(&before, &after, (&old, &format!("{name} (after apply)")), colour);
        different |= !changes.is_empty();
        out.data(&changes)?;
    }
    if different { Err(Failure::Different) } else { Ok(()) }
}

fn text(object: &Object, contents: &Contents) -> String {
    let mut shown = asked(object, contents);
    if let Spec::Secret(spec) = &object.spec {
        shown["spec"] = masked(spec);
    }
    to_yaml(&shown)
}

/// A Secret as it may be compared: which values there are, how large, and which version brought them.
fn masked(spec: &SecretSpec) -> Value {
    let value = |(key, value): (&String, &SecretValue)| {
        let size = count(u64::from(value.size), "byte", "bytes");
        (key.clone(), Value::from(format!("{size}, of version {}", value.since)))
    };
    let values: Map<String, Value> = spec.values.iter().map(value).collect();
    json!({ "immutable": spec.immutable, "values": values })
}

/// Whether it is refused only because somebody else changed the same: this is what the refusal sends its reader here
/// for, so it is shown.
fn is_conflict(refusal: &Refusal) -> bool {
    refusal.findings.iter().all(|finding| finding.code == FindingCode::Conflict)
}
