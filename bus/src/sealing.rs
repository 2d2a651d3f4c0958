//! Sealing: X25519 and XSalsa20-Poly1305, in the form of libsodium's sealed boxes.
//!
//! A box is sealed to a public key by an ephemeral key that is thrown away, so only the holder of the secret half can
//! open it, not even who sealed it. What is sealed begins with what it is for ([`ostler_schemas::sealing`] has the
//! words), and opening compares: a box that was moved elsewhere does not open.
//!
//! Guarantees: secret keys and what was opened are wiped when dropped, and neither is ever printed. A file of keys that
//! anybody may read is refused.
//!
//! Not here: who gets which key, and where boxes are stored.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use crypto_box::SecretKey;
use crypto_box::aead::rand_core::{CryptoRng, Error as RandomError, RngCore};
use ostler_schemas::sealing::{Hidden, PublicKey, Sealed, from_hex};
use zeroize::{Zeroize as _, Zeroizing};

use crate::entropy::{Entropy, EntropyRef};

/// Between what a box is for and what is in it: no purpose has a NUL.
const END_OF_PURPOSE: u8 = 0;
/// Access that others must not have to a file of keys. A group may read it: a controller's own, of a file of root's.
const OTHERS: u32 = 0o027;

/// The entropy port, as the cipher asks for it.
struct Random<'a>(&'a dyn Entropy);

impl RngCore for Random<'_> {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl CryptoRng for Random<'_> {}

/// Why a box was not made or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No key at hand is the one that it was sealed to.
    #[error("it is sealed to key {}, which is not among the keys here", .0.short())]
    NoKey(PublicKey),
    /// It was changed, or never was a box.
    #[error("it is not what was sealed")]
    Broken,
    /// It was sealed for something else.
    #[error("it was sealed for something else")]
    OtherPurpose,
    /// It could not be made: the key is none.
    #[error("it cannot be sealed to that key")]
    BadKey,
}

/// Seals bytes to a key, for one purpose.
///
/// # Errors
/// [`SealError::BadKey`].
pub fn seal(entropy: &EntropyRef, to: PublicKey, purpose: &str, plain: &[u8]) -> Result<Sealed, SealError> {
    let mut whole = Zeroizing::new(Vec::with_capacity(purpose.len() + 1 + plain.len()));
    whole.extend_from_slice(purpose.as_bytes());
    whole.push(END_OF_PURPOSE);
    whole.extend_from_slice(plain);
    let key = crypto_box::PublicKey::from(*to.as_bytes());
    let bytes = key.seal(&mut Random(&**entropy), &whole).map_err(|_| SealError::BadKey)?;
    Ok(Sealed { to, bytes })
}

/// A key pair.
#[derive(Clone)]
pub struct KeyPair(SecretKey);

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the key pair of {}", self.public().short())
    }
}

impl KeyPair {
    /// A fresh one.
    #[must_use]
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        let pair = Self(SecretKey::from_bytes(bytes));
        bytes.zeroize();
        pair
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(*self.0.public_key().as_bytes())
    }

    /// The secret half as it stands in a file.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(self.0.to_bytes());
        Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn open(&self, sealed: &Sealed, purpose: &str) -> Result<Hidden, SealError> {
        let mut whole = self.0.unseal(&sealed.bytes).map_err(|_| SealError::Broken)?;
        let head = purpose.len();
        let fits =
            whole.len() > head && whole[..head] == *purpose.as_bytes() && whole[head] == END_OF_PURPOSE;
        let plain =
            if fits { Ok(Hidden::new(whole[head + 1..].to_vec())) } else { Err(SealError::OtherPurpose) };
        whole.zeroize();
        plain
    }
}

/// Keys, the newest first: that one seals, all of them open.
#[derive(Debug, Clone, Default)]
pub struct KeyRing(Vec<KeyPair>);

impl KeyRing {
    /// Of these.
    #[must_use]
    pub const fn new(keys: Vec<KeyPair>) -> Self {
        Self(keys)
    }

    /// What is to be sealed to it from now on; none if there is no key.
    #[must_use]
    pub fn newest(&self) -> Option<PublicKey> {
        self.0.first().map(KeyPair::public)
    }

    /// The public halves, the newest first.
    #[must_use]
    pub fn public_keys(&self) -> Vec<PublicKey> {
        self.0.iter().map(KeyPair::public).collect()
    }

    /// Opens a box that was sealed to one of them.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open(&self, sealed: &Sealed, purpose: &str) -> Result<Hidden, SealError> {
        let key = self.0.iter().find(|key| key.public() == sealed.to).ok_or(SealError::NoKey(sealed.to))?;
        key.open(sealed, purpose)
    }

    /// With a fresh key in front.
    pub fn rotate(&mut self, entropy: &dyn Entropy) -> PublicKey {
        self.0.insert(0, KeyPair::generate(entropy));
        self.0[0].public()
    }

    /// Forgets all but the newest so many.
    pub fn keep(&mut self, most: usize) {
        self.0.truncate(most);
    }

    /// As it stands in a file: one secret key a line, the newest first, each below its public half.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::from(
            "# Secret keys of Ostler, the newest first: that one seals, all of them open. Keep this file to yourself.\n",
        ));
        for key in &self.0 {
            text.push_str(&format!("# {}\n", key.public()));
            text.push_str(&key.to_text());
            text.push('\n');
        }
        text
    }

    /// From such a text.
    ///
    /// # Errors
    /// The number of the line that is no key.
    pub fn from_text(text: &str) -> Result<Self, KeyFileError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = Zeroizing::new(from_hex(line).ok_or(KeyFileError::Line(index + 1))?);
            keys.push(KeyPair(SecretKey::from_bytes(*bytes)));
        }
        Ok(Self(keys))
    }

    /// Reads a file of keys.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let mode = fs::metadata(path).map_err(KeyFileError::Read)?.mode();
        if mode & OTHERS != 0 {
            return Err(KeyFileError::Open(mode & 0o777));
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(KeyFileError::Read)?);
        Self::from_text(&text)
    }

    /// Writes a file of keys that its owner alone may read, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        // What a crash left behind may be anybody's to read.
        match fs::remove_file(&beside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(self.to_text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        if let Some(folder) = path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

/// Why a file of keys cannot be used. Nothing of what is in it is said.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("the file of keys cannot be read")]
    Read(#[source] io::Error),
    /// Others may read it.
    #[error("others may read the file of keys (mode {0:o}): take that away with chmod 640 or 600")]
    Open(u32),
    /// A line is no key.
    #[error("line {0} of the file of keys is no key (64 hex digits)")]
    Line(usize),
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::entropy::SeededEntropy;

    fn entropy(seed: u64) -> EntropyRef {
        Arc::new(SeededEntropy::from_number(seed))
    }

    fn ring(keys: usize) -> KeyRing {
        let entropy = entropy(1);
        KeyRing::new((0..keys).map(|_| KeyPair::generate(&*entropy)).collect())
    }

    #[test]
    fn a_box_opens_with_its_key_for_its_purpose_only() {
        let (ring, other) = (ring(1), KeyRing::new(vec![KeyPair::generate(&*entropy(9))]));
        let to = ring.newest().expect("a key");
        let sealed = seal(&entropy(2), to, "a", b"correct-horse").expect("seals");
        assert_eq!(ring.open(&sealed, "a").expect("opens").reveal(), b"correct-horse");
        assert_eq!(ring.open(&sealed, "b"), Err(SealError::OtherPurpose));
        assert_eq!(ring.open(&sealed, ""), Err(SealError::OtherPurpose));
        assert_eq!(other.open(&sealed, "a"), Err(SealError::NoKey(to)));
        let again = seal(&entropy(3), to, "a", b"correct-horse").expect("seals");
        assert_ne!(again, sealed, "two boxes do not tell that they hold the same");
        for at in 0..sealed.bytes.len() {
            let mut broken = sealed.clone();
            broken.bytes[at] ^= 1;
            assert!(ring.open(&broken, "a").is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_newest_seals_and_all_open() {
        let mut ring = ring(1);
        let old = seal(&entropy(2), ring.newest().expect("a key"), "a", b"x").expect("seals");
        let before = ring.newest();
        ring.rotate(&*entropy(3));
        assert_ne!(ring.newest(), before);
        assert!(ring.open(&old, "a").is_ok());
    }

    #[test]
    fn files_of_keys_are_their_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let ring = ring(2);
        ring.store(&path).expect("writes");
        ring.store(&path).expect("writes again");
        assert_eq!(KeyRing::load(&path).expect("reads").public_keys(), ring.public_keys());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(KeyRing::load(&path), Err(KeyFileError::Open(0o644))));
        assert!(matches!(KeyRing::from_text("# x\n\nnonsense"), Err(KeyFileError::Line(3))));
        assert!(!format!("{ring:?}").contains(ring.to_text().lines().last().expect("a key")));
    }

    proptest! {
        #[test]
        fn garbage_opens_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let ring = ring(1);
            let sealed = Sealed { to: ring.newest().expect("a key"), bytes };
            prop_assert!(ring.open(&sealed, "a").is_err());
        }
    }
}
