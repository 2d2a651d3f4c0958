//! `diff`: what an apply would change, as a unified diff of the YAML that users write.

use ostler_schemas::manifest::{Finding, FindingCode, Refusal, to_yaml};
use ostler_schemas::spec::Spec;
use ostler_schemas::v1::api::{ApplyResult, content_ref};
use ostler_schemas::v1::object::Object;

use super::apply::{Manner, send};
use crate::args::change::Diff;
use crate::connect::Session;
use crate::failure::Failure;
use crate::manifests::{self, Manifests};
use crate::out::Out;
use crate::render::amounts::count;
use crate::render::diff::unified;
use crate::render::object::asked;

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
        let before = before(session, result).await?;
        let after = after(&manifests, result, before.as_deref()).unwrap_or_default();
        let name = result.object.short();
        let old = if before.is_some() { format!("{name} (now)") } else { "/dev/null".to_owned() };
        let colour = out.colour;
        let text =
            unified(&before.unwrap_or_default(), &after, (&old, &format!("{name} (after apply)")), colour);
        different |= !text.is_empty();
        out.data(&text)?;
    }
    if different { Err(Failure::Different) } else { Ok(()) }
}

/// Whether it is refused only because somebody else changed the same: this is what the refusal sends its reader here
/// for, so it is shown.
fn is_conflict(refusal: &Refusal) -> bool {
    refusal.findings.iter().all(|finding| finding.code == FindingCode::Conflict)
}

async fn before(session: &Session, result: &ApplyResult) -> Result<Option<String>, Failure> {
    let Some(object) = &result.before else { return Ok(None) };
    let content = match stored_content(object) {
        true => Some(session.client.content(&result.object, None).await?),
        false => None,
    };
    if let Some(masked) = masked(object) {
        return Ok(Some(masked));
    }
    Ok(Some(to_yaml(&asked(object, content.as_deref()))))
}

/// A Secret as it may be compared: which values there are, how large, and which version brought them.
fn masked(object: &Object) -> Option<String> {
    let Spec::Secret(spec) = &object.spec else { return None };
    let value = |(key, value): (&String, &ostler_schemas::spec::SecretValue)| {
        (key.clone(), format!("{} of version {}", count(u64::from(value.size), "byte", "bytes"), value.since).into())
    };
    let values: serde_json::Map<String, serde_json::Value> = spec.values.iter().map(value).collect();
    let mut shown = asked(object, None);
    shown["spec"] = serde_json::json!({ "immutable": spec.immutable, "values": values });
    Some(to_yaml(&shown))
}

fn stored_content(object: &Object) -> bool {
    matches!(&object.spec, Spec::ConfigFile(spec) if spec.content.is_some())
}

/// The content comes from the manifest; a manifest without one keeps what is there.
fn after(manifests: &Manifests, result: &ApplyResult, before: Option<&str>) -> Option<String> {
    let object = result.after.as_ref()?;
    if let Some(masked) = masked(object) {
        return Some(masked);
    }
    let Spec::ConfigFile(spec) = &object.spec else { return Some(to_yaml(&asked(object, None))) };
    let given = manifests.content_of(&result.object);
    if let Some(bytes) = given.filter(|bytes| spec.content.is_some_and(|c| c == content_ref(bytes))) {
        return Some(to_yaml(&asked(object, Some(bytes))));
    }
    // Kept: the part of the text that shows it is the same on both sides.
    let mut kept = asked(object, None);
    let old: Option<serde_json::Value> = before.and_then(yaml_value);
    for field in ["content", "contentBase64"] {
        if let Some(value) = old.as_ref().and_then(|o| o["spec"].get(field)) {
            kept["spec"][field] = value.clone();
        }
    }
    Some(to_yaml(&kept))
}

fn yaml_value(text: &str) -> Option<serde_json::Value> {
    ostler_schemas::manifest::read_documents(None, text.as_bytes())
        .first()
        .map(|document| document.root.to_json())
}
