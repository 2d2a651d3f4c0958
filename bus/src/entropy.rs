//! The entropy port. Product code never asks the operating system for random numbers.

use std::sync::{Arc, Mutex, PoisonError};

use ostler_schemas::{TxnId, Uid};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A shared source.
pub type EntropyRef = Arc<dyn Entropy>;

/// Random bytes.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

impl dyn Entropy {
    /// A random number.
    #[must_use]
    pub fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random number below `bound`; 0 if `bound` is 0. The bias is below 2^-32 for every bound that we use.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.number() % bound }
    }

    /// A fresh uid.
    #[must_use]
    pub fn uid(&self) -> Uid {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        Uid::from_bytes(bytes)
    }

    /// A fresh transaction id.
    #[must_use]
    pub fn txn(&self) -> TxnId {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        TxnId::from_bytes(bytes)
    }
}

/// A seeded source: ChaCha20, cryptographically strong if its seed is.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<ChaCha20Rng>);

impl SeededEntropy {
    /// From a small seed, for simulations.
    #[must_use]
    pub fn from_number(seed: u64) -> Self {
        Self(Mutex::new(ChaCha20Rng::seed_from_u64(seed)))
    }

    /// Seeded by the operating system, for daemons.
    ///
    /// # Errors
    /// If `/dev/urandom` cannot be read.
    pub fn from_system() -> std::io::Result<Self> {
        let mut seed = [0; 32];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut seed)?;
        Ok(Self(Mutex::new(ChaCha20Rng::from_seed(seed))))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}
