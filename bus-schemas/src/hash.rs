//! SHA-256 (FIPS 180-4) of stored bytes, the name of everything immutable.

use sha2::{Digest, Sha256 as Hasher};

use crate::ids::Sha256;

/// The hash of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256::from_bytes(Hasher::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_input_has_the_published_hash() {
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b"").to_string(), expected);
    }
}
