//! A ledger on a simulated disk: what was saved is there after every crash, what was not is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use ostler_bus::clock::ClockRef;
use ostler_schemas::Sha256;

use crate::context::lock;
use crate::ports::LedgerStore;

#[derive(Default)]
struct Inner {
    record: Option<Bytes>,
    objects: BTreeMap<Sha256, Bytes>,
    saves: u64,
    failing: Option<String>,
    delay_ms: u64,
}

/// A ledger that outlives agents.
pub struct SimLedger {
    clock: ClockRef,
    inner: Mutex<Inner>,
}

impl SimLedger {
    /// An empty one.
    #[must_use]
    pub fn new(clock: ClockRef) -> Arc<Self> {
        Arc::new(Self { clock, inner: Mutex::default() })
    }

    /// From now on saves fail with these words, or work again.
    pub fn set_failing(&self, words: Option<&str>) {
        lock(&self.inner).failing = words.map(str::to_owned);
    }

    /// How long a save takes. An agent that dies meanwhile has not saved.
    pub fn set_delay_ms(&self, ms: u64) {
        lock(&self.inner).delay_ms = ms;
    }

    /// How many saves there were.
    #[must_use]
    pub fn saves(&self) -> u64 {
        lock(&self.inner).saves
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&self) {
        let mut inner = lock(&self.inner);
        inner.record = None;
        inner.objects.clear();
    }
}

impl LedgerStore for SimLedger {
    fn load(&self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        std::future::ready(Ok(lock(&self.inner).record.clone())).boxed()
    }

    fn save(&self, record: Bytes) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let (failing, delay_ms) = {
                let inner = lock(&self.inner);
                (inner.failing.clone(), inner.delay_ms)
            };
            if delay_ms > 0 {
                self.clock.sleep_ms(delay_ms).await;
            }
            if let Some(words) = failing {
                return Err(words);
            }
            let mut inner = lock(&self.inner);
            inner.saves += 1;
            inner.record = Some(record);
            Ok(())
        }
        .boxed()
    }

    fn put(&self, hash: Sha256, bytes: Bytes) -> BoxFuture<'_, Result<(), String>> {
        let mut inner = lock(&self.inner);
        let result = match &inner.failing {
            Some(words) => Err(words.clone()),
            None => {
                inner.objects.insert(hash, bytes);
                Ok(())
            }
        };
        std::future::ready(result).boxed()
    }

    fn get(&self, hash: Sha256) -> BoxFuture<'_, Option<Bytes>> {
        std::future::ready(lock(&self.inner).objects.get(&hash).cloned()).boxed()
    }

    fn retain(&self, used: BTreeSet<Sha256>) -> BoxFuture<'_, Result<(), String>> {
        lock(&self.inner).objects.retain(|hash, _| used.contains(hash));
        std::future::ready(Ok(())).boxed()
    }
}
