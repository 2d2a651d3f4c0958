//! Chunks of a relay in the order of their numbers: they travel as requests of their own and may overtake each other.

use std::collections::BTreeMap;

use ostler_schemas::v1::api::RELAY_WINDOW;

use crate::api::asks::Chunk;

/// Puts chunks in order, and counts those that will not come.
pub(super) struct InOrder {
    next: u64,
    waiting: BTreeMap<u64, Chunk>,
    pub(super) lost: u64,
}

impl InOrder {
    pub(super) fn new() -> Self {
        Self { next: 1, waiting: BTreeMap::new(), lost: 0 }
    }

    /// A chunk that was passed on already is given back; one too many means that an earlier one will not come.
    pub(super) fn take(&mut self, chunk: Chunk) -> Option<Chunk> {
        if chunk.seq < self.next {
            return Some(chunk);
        }
        self.waiting.insert(chunk.seq, chunk);
        if self.waiting.len() > RELAY_WINDOW {
            self.skip_gap();
        }
        None
    }

    pub(super) fn ready(&mut self) -> Option<Chunk> {
        let chunk = self.waiting.remove(&self.next)?;
        self.next += 1;
        Some(chunk)
    }

    /// Gives up what has not come before the first chunk that waits, and counts it.
    pub(super) fn skip_gap(&mut self) {
        if let Some(first) = self.waiting.keys().next().copied() {
            self.lost = self.lost.saturating_add(first.saturating_sub(self.next));
            self.next = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn chunk(seq: u64) -> Chunk {
        Chunk { seq, bytes: Bytes::new(), end: None, message: None, credit: None }
    }

    fn drain(line: &mut InOrder) -> Vec<u64> {
        std::iter::from_fn(|| line.ready()).map(|c| c.seq).collect()
    }

    #[test]
    fn chunks_are_put_in_order_and_losses_counted() {
        let mut line = InOrder::new();
        for seq in [2, 1, 1, 4] {
            line.take(chunk(seq));
        }
        assert_eq!(drain(&mut line), [1, 2]);
        line.skip_gap();
        assert_eq!((drain(&mut line), line.lost), (vec![4], 1));
        line.take(chunk(3));
        assert_eq!(drain(&mut line), Vec::<u64>::new(), "too late: it was counted as lost");
        for seq in 6..6 + 17 {
            line.take(chunk(seq));
        }
        assert_eq!((drain(&mut line).len(), line.lost), (17, 2), "a full window waits for nothing");
        line.take(chunk(u64::MAX));
        line.skip_gap();
        assert_eq!(line.lost, u64::MAX - 23 + 2);
    }
}
