//! The agent's side of Secrets: its keys, and opening what it was given.
//!
//! Guarantee: values exist from just before a start until it is handed over, in memory alone; the ledger keeps them
//! sealed, so a start needs no bus.

use std::path::Path;

use ostler_agent_core::secrets::{Opened, entry};
use ostler_bus::entropy::Entropy;
use ostler_bus::sealing::{KeyFileError, KeyRing};
use ostler_schemas::Namespace;
use ostler_schemas::sealing::node_purpose;
use ostler_schemas::spec::ProcessTemplate;
use ostler_schemas::v1::secret::Values;
use zeroize::Zeroize as _;

use crate::context::{Context, lock};

/// The file of this node's keys in the agent's state folder.
pub const KEY_FILE: &str = "secrets.key";
/// Keys that are kept: the newest, and the one before it until everything was sealed anew.
const KEPT: usize = 2;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file is there and cannot be used.
    #[error("the keys of this node cannot be read")]
    File(#[source] KeyFileError),
    /// It cannot be written.
    #[error("the keys of this node cannot be written")]
    Write(#[source] std::io::Error),
}

/// The keys of this node, made at the first start. Without the file there are new ones, and everything is sealed anew.
///
/// # Errors
/// [`KeysError`].
pub fn keys(state_dir: &Path, entropy: &dyn Entropy) -> Result<KeyRing, KeysError> {
    let path = state_dir.join(KEY_FILE);
    if path.exists() {
        let ring = KeyRing::load(&path).map_err(KeysError::File)?;
        if ring.newest().is_some() {
            return Ok(ring);
        }
    }
    rotate(state_dir, entropy)
}

/// Puts a fresh key in front; the one before it still opens what has not been sealed anew.
///
/// # Errors
/// [`KeysError`].
pub fn rotate(state_dir: &Path, entropy: &dyn Entropy) -> Result<KeyRing, KeysError> {
    let path = state_dir.join(KEY_FILE);
    let mut ring =
        if path.exists() { KeyRing::load(&path).map_err(KeysError::File)? } else { KeyRing::default() };
    ring.rotate(entropy);
    ring.keep(KEPT);
    ring.store(&path).map_err(KeysError::Write)?;
    Ok(ring)
}

impl Context {
    /// The values that a process is given now. What is optional and not there is left out.
    ///
    /// # Errors
    /// What is missing or cannot be opened, in words for people.
    pub(crate) fn open_secrets(
        &self,
        namespace: &Namespace,
        template: &ProcessTemplate,
    ) -> Result<Opened, String> {
        let mut opened = Opened::new();
        let asked = template.secrets();
        if asked.is_empty() {
            return Ok(opened);
        }
        let keys = self.deps.keys.public_keys();
        let document = lock(&self.memory).secrets.document.clone();
        if let Some(why) = ostler_agent_core::secrets::unmet(template, namespace, document.as_ref(), &keys) {
            return Err(why);
        }
        for (name, wanted) in asked {
            let found = document.as_ref().and_then(|document| entry(document, namespace, &name));
            let Some((found, sealed)) = found.and_then(|f| Some((f, f.sealed.as_ref()?))) else { continue };
            let purpose = node_purpose(&self.node, &found.object_ref());
            let whole = self.deps.keys.open(sealed, &purpose).map_err(|e| format!("secret/{name}: {e}"))?;
            let values: Values = rmp_serde::from_slice(whole.reveal())
                .map_err(|_| format!("secret/{name}: its values are not what this version reads"))?;
            for (key, mut value) in values {
                if wanted.contains(&key) {
                    let bytes = std::mem::take(&mut *value);
                    opened.insert((name.clone(), key), ostler_schemas::sealing::Hidden::new(bytes));
                } else {
                    value.zeroize();
                }
            }
        }
        Ok(opened)
    }
}
