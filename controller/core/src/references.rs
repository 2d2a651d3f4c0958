//! References to `t.` keys, so that garbage collection never takes away what is just being referred to.
//!
//! A template that nothing refers to is collected once it is an hour old. A writer that begins to refer to an old one
//! writes it again in the same batch ("touch"): then either the collector's guard on it fails, or the writer's does
//! and it plans again. Between the two ages lies more time than any transaction may take.

use ostler_schemas::codec::EncodeError;
use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::time::Now;
use ostler_schemas::v1::document::{FileSpec, FileVars};
use ostler_schemas::{Key, Sha256};

use crate::fleet::Fleet;
use crate::plan::{Body, Plan};

/// Unreferenced templates younger than this are kept: a writer may be about to refer to them.
pub const COLLECT_AGE_MS: u64 = 3_600_000;
/// New references to templates older than this touch them. Half of [`COLLECT_AGE_MS`]: the other half is the time that
/// a transaction may take.
const TOUCH_AGE_MS: u64 = COLLECT_AGE_MS / 2;

/// Stores a process template for a new reference and returns its hash.
///
/// # Errors
/// If it is too large to be stored.
pub fn process_template(
    plan: &mut Plan,
    fleet: &Fleet,
    template: &ProcessTemplate,
    now: Now,
) -> Result<Sha256, EncodeError> {
    let hash = plan.template(fleet, template)?;
    touch(plan, fleet, hash, now, || Body::Template(Box::new(template.clone())));
    Ok(hash)
}

/// Stores a file spec for a new reference and returns its hash.
///
/// # Errors
/// If it is too large to be stored.
pub fn file_spec(plan: &mut Plan, fleet: &Fleet, spec: &FileSpec, now: Now) -> Result<Sha256, EncodeError> {
    let hash = plan.file_spec(fleet, spec)?;
    touch(plan, fleet, hash, now, || Body::FileSpec(Box::new(spec.clone())));
    Ok(hash)
}

/// Stores the values of a file for a new reference and returns their hash.
///
/// # Errors
/// If they are too large to be stored.
pub fn file_vars(plan: &mut Plan, fleet: &Fleet, vars: &FileVars, now: Now) -> Result<Sha256, EncodeError> {
    let hash = plan.file_vars(fleet, vars)?;
    touch(plan, fleet, hash, now, || Body::FileVars(Box::new(vars.clone())));
    Ok(hash)
}

fn touch(plan: &mut Plan, fleet: &Fleet, hash: Sha256, now: Now, body: impl FnOnce() -> Body) {
    let key = Key::Template(hash);
    let old = fleet.template_times.get(&hash).is_some_and(|at| now.wall.since_ms(*at) >= TOUCH_AGE_MS);
    if old && !plan.steps.iter().any(|s| s.key == key) {
        plan.put(fleet, key, body());
    }
}
