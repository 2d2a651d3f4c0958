//! Status of a Secret: what it has, never what that is.

use ostler_schemas::ObjectRef;
use ostler_schemas::spec::{SecretSpec, SecretValue};
use ostler_schemas::v1::object::Object;
use ostler_schemas::v1::status::{SecretKeyStatus, SecretStatus};

use super::Lens;
use crate::fleet::Stored;

pub(super) fn status(
    lens: &Lens<'_>,
    name: &ObjectRef,
    stored: &Stored<Object>,
    spec: &SecretSpec,
) -> SecretStatus {
    let key = |(name, value): (&String, &SecretValue)| SecretKeyStatus {
        name: name.clone(),
        size: value.size,
        since: value.since,
    };
    SecretStatus {
        version: stored.metadata.version,
        keys: spec.values.iter().map(key).collect(),
        used_by: crate::secret::users(lens.fleet, name),
    }
}
