//! The edge at which values of Secrets are opened and sealed: everything behind it sees sealed bytes only.
//!
//! Guarantees: a value that was given is sealed before anything is decided, logged, audited or stored; a value that is
//! what is stored already stays as it is stored, so that "unchanged" needs no comparison of plaintext anywhere else; what
//! was opened is wiped as soon as it was compared or sealed.
//!
//! Not here: which node gets what (`ostler_controller_core::secret`), and who may ask (`crate::api`).

use std::collections::BTreeMap;
use std::sync::Arc;

use ostler_bus::EntropyRef;
use ostler_bus::sealing::{KeyRing, seal};
use ostler_controller_core::fleet::Fleet;
use ostler_controller_core::secret::{Sealer, find};
use ostler_schemas::manifest::{GivenValue, Manifest, ManifestBody};
use ostler_schemas::sealing::{Hidden, PublicKey, Sealed, node_purpose, value_purpose};
use ostler_schemas::spec::SecretValue;
use ostler_schemas::{NodeName, ObjectRef, Version};
use zeroize::Zeroize as _;

/// A shared vault.
pub type VaultRef = Arc<Vault>;

/// The control plane's keys.
#[derive(Clone)]
pub struct Vault {
    ring: KeyRing,
    entropy: EntropyRef,
}

impl Vault {
    /// With these keys; without any, Secrets are refused.
    #[must_use]
    pub const fn new(ring: KeyRing, entropy: EntropyRef) -> Self {
        Self { ring, entropy }
    }

    /// What is sealed from now on is sealed to this key.
    #[must_use]
    pub fn newest(&self) -> Option<PublicKey> {
        self.ring.newest()
    }

    /// The manifests with every value sealed, as far as there is a key. Values that the stored Secret has already are
    /// taken from it.
    #[must_use]
    pub fn seal_manifests(&self, fleet: &Fleet, manifests: &[Manifest]) -> Vec<Manifest> {
        manifests.iter().map(|manifest| self.seal_manifest(fleet, manifest)).collect()
    }

    fn seal_manifest(&self, fleet: &Fleet, manifest: &Manifest) -> Manifest {
        let mut manifest = manifest.clone();
        let (kind, namespace, name) = (manifest.kind, manifest.namespace.clone(), manifest.name.clone());
        let secret = ObjectRef { kind, namespace, name };
        let ManifestBody::Secret(body) = &mut manifest.body else { return manifest };
        let stored = find(fleet, &secret).map(|(_, spec)| spec);
        for (key, given) in body.values.iter_mut().flat_map(|wish| &mut wish.given) {
            let GivenValue::Plain(plain) = given else { continue };
            let same = stored.and_then(|spec| spec.values.get(key)).filter(|value| {
                let opened = value.sealed.as_ref().map(|s| self.ring.open(s, &value_purpose(&secret, key)));
                matches!(opened, Some(Ok(opened)) if opened == *plain)
            });
            let sealed = same.cloned().or_else(|| self.seal_value(&secret, key, plain));
            if let Some(sealed) = sealed {
                *given = GivenValue::Sealed(sealed);
            }
        }
        manifest
    }

    fn seal_value(&self, secret: &ObjectRef, key: &str, plain: &Hidden) -> Option<SecretValue> {
        let to = self.ring.newest()?;
        let sealed = seal(&self.entropy, to, &value_purpose(secret, key), plain.reveal()).ok()?;
        Some(SecretValue { size: plain.size(), since: Version(0), sealed: Some(sealed) })
    }

    /// A stored value sealed to the newest key; none if it cannot be opened.
    #[must_use]
    pub fn reseal(&self, secret: &ObjectRef, key: &str, value: &SecretValue) -> Option<SecretValue> {
        let plain = self.ring.open(value.sealed.as_ref()?, &value_purpose(secret, key)).ok()?;
        let fresh = self.seal_value(secret, key, &plain)?;
        Some(SecretValue { since: value.since, ..fresh })
    }
}

impl Sealer for Vault {
    fn give(
        &self,
        secret: &ObjectRef,
        values: &BTreeMap<&str, &SecretValue>,
        (node, to): (&NodeName, PublicKey),
    ) -> Result<Sealed, String> {
        let mut plain: BTreeMap<&str, serde_bytes::ByteBuf> = BTreeMap::new();
        let mut opened = Ok(());
        for (key, value) in values {
            let sealed = value.sealed.as_ref().ok_or_else(|| format!("value {key:?} is not stored"));
            let value = sealed.and_then(|sealed| {
                self.ring.open(sealed, &value_purpose(secret, key)).map_err(|e| format!("value {key:?}: {e}"))
            });
            match value {
                Ok(value) => {
                    plain.insert(key, serde_bytes::ByteBuf::from(value.reveal()));
                }
                Err(why) => opened = Err(why),
            }
        }
        let encoded = opened.and_then(|()| rmp_serde::to_vec_named(&plain).map_err(|e| e.to_string()));
        plain.values_mut().for_each(|value| value.as_mut().zeroize());
        let encoded = Hidden::new(encoded?);
        let purpose = node_purpose(node, secret);
        seal(&self.entropy, to, &purpose, encoded.reveal()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use ostler_bus::entropy::SeededEntropy;
    use ostler_bus::sealing::KeyPair;
    use ostler_schemas::v1::secret::Values;

    use super::*;

    #[test]
    fn a_node_opens_what_it_is_given_and_nobody_else_does() {
        let entropy: EntropyRef = Arc::new(SeededEntropy::from_number(1));
        let ring = |n: usize| KeyRing::new((0..n).map(|_| KeyPair::generate(&*entropy)).collect());
        let vault = Vault::new(ring(2), entropy.clone());
        let secret = ObjectRef {
            kind: ostler_schemas::Kind::Secret,
            namespace: Some(ostler_schemas::Namespace::default_namespace()),
            name: "db".parse().expect("a name"),
        };
        let stored =
            vault.seal_value(&secret, "password", &Hidden::new(b"correct-horse".to_vec())).expect("seals");
        let (node, to) = (ring(1), "n1".parse::<NodeName>().expect("a name"));
        let key = node.newest().expect("a key");
        let given = vault.give(&secret, &[("password", &stored)].into(), (&to, key)).expect("gives");
        let opened = node.open(&given, &node_purpose(&to, &secret)).expect("opens");
        let values: Values = rmp_serde::from_slice(opened.reveal()).expect("decodes");
        assert_eq!(&values["password"][..], b"correct-horse");
        assert!(vault.ring.open(&given, &node_purpose(&to, &secret)).is_err());
        let elsewhere = [("other", &stored)].into();
        let why = vault.give(&secret, &elsewhere, (&to, key)).expect_err("another value's box");
        assert!(why.contains("sealed for something else") && !why.contains("horse"), "{why}");
        let resealed = Vault::new(ring(1), entropy.clone()).reseal(&secret, "password", &stored);
        assert!(resealed.is_none(), "without the key nothing is opened");
    }
}
