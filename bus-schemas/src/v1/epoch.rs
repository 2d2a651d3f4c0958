//! Who decided: epochs, terms, leases, fences, tokens.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::Wire;
use crate::ids::{ControllerName, ReplicaId, Revision, TxnId};

/// Who decided: the store's incarnation, the revision of the leader's term record, and a nonce drawn at takeover.
///
/// Ordered by incarnation, then term. Two epochs equal in both but with other nonces cannot both be true: a store was
/// rolled back without its incarnation being raised. Such a document is refused and alarmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// `meta.incarnation`, raised by restore and by a detected regression.
    pub incarnation: u32,
    /// Revision of `term.<c>`.
    pub term: Revision,
    /// Drawn at takeover.
    pub nonce: u32,
}

impl Epoch {
    /// What epochs are ordered by.
    #[must_use]
    pub const fn rank(&self) -> (u32, Revision) {
        (self.incarnation, self.term)
    }
}

/// `1-4711-9f3a01c2`: incarnation, term, nonce in hex.
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:08x}", self.incarnation, self.term, self.nonce)
    }
}

/// The fencing token of a process: (store incarnation, term revision, lane batch number) of the batch that bound it.
/// Its text is fixed-width hex, so that text order is age: `IIIIIIII-TTTTTTTTTTTTTTTT-BBBBBBBB` (`OSTLER_EPOCH`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Store incarnation.
    pub incarnation: u32,
    /// Revision of the scheduler's term.
    pub term: u64,
    /// Number of the batch in its lane.
    pub batch: u32,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:016x}-{:08x}", self.incarnation, self.term, self.batch)
    }
}

/// A text that is no fencing token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a fencing token: expected IIIIIIII-TTTTTTTTTTTTTTTT-BBBBBBBB in hex")]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let parts: Vec<&str> = text.split('-').collect();
        let [i, t, b] = parts.as_slice() else { return Err(InvalidToken) };
        let token = Token {
            incarnation: u32::from_str_radix(i, 16).map_err(|_| InvalidToken)?,
            term: u64::from_str_radix(t, 16).map_err(|_| InvalidToken)?,
            batch: u32::from_str_radix(b, 16).map_err(|_| InvalidToken)?,
        };
        if token.to_string() == text { Ok(token) } else { Err(InvalidToken) }
    }
}

/// Text for people; three numbers in MessagePack, because every entry of a run document has one.
impl Serialize for Token {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.collect_str(self)
        } else {
            (self.incarnation, self.term, self.batch).serialize(s)
        }
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
        } else {
            let (incarnation, term, batch) = Deserialize::deserialize(d)?;
            Ok(Token { incarnation, term, batch })
        }
    }
}

/// `lease.<c>`: who may act. Given back by writing no replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The holder; `None` when it was given back.
    pub replica: Option<ReplicaId>,
    /// Rises with every renewal, so that renewals can be seen without clocks.
    pub n: u64,
}

impl Wire for Lease {
    const KIND: &'static str = "Lease";
    const LIMIT: usize = 4096;
}

/// `term.<c>`: written once per takeover; its revision is the term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// The leader.
    pub replica: ReplicaId,
    /// Store incarnation at takeover.
    pub incarnation: u32,
    /// The nonce of its epochs.
    pub nonce: u32,
}

impl Wire for Term {
    const KIND: &'static str = "Term";
    const LIMIT: usize = 4096;
}

/// `fence.<c>`: in every batch of a leader, guarded on the term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The leader.
    pub replica: ReplicaId,
    /// Its epoch; in the takeover batch that of the new term is not known yet, there the term is 0.
    pub epoch: Epoch,
    /// Number of the batch in the lane, rising by 1 from 1 in each term; 0 in the takeover batch.
    pub batch: u32,
    /// The batch's transaction.
    pub txn: TxnId,
}

impl Wire for Fence {
    const KIND: &'static str = "Fence";
    const LIMIT: usize = 4096;
}

/// `meta.incarnation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// From 1, raised by restore and by any detected regression.
    pub n: u32,
}

impl Wire for Incarnation {
    const KIND: &'static str = "Incarnation";
    const LIMIT: usize = 4096;
}

/// A replica's sign of life on core NATS, every 250 ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// The replica.
    pub replica: ReplicaId,
    /// Rises with every beacon.
    pub n: u64,
    /// What it leads.
    pub leads: Vec<ControllerName>,
}

impl Wire for Beacon {
    const KIND: &'static str = "Beacon";
    const LIMIT: usize = 4096;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_order_of_tokens_is_their_age() {
        let old = Token { incarnation: 1, term: 999, batch: 17 };
        let young = Token { incarnation: 1, term: 1000, batch: 1 };
        assert_eq!(old.to_string(), "00000001-00000000000003e7-00000011");
        assert!(old.to_string() < young.to_string() && old < young);
        assert_eq!(old.to_string().parse(), Ok(old));
        assert!("1-3e7-11".parse::<Token>().is_err());
    }
}
