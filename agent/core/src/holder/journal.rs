//! The holder's state as it lies on disk: a snapshot, and after it what each turn of the loop changed.
//!
//! A file is [`MAGIC`], the format, then records: a mark, a length, a checksum over length and body, the body. A
//! turn's record has whole values and not differences, so a record can be read without those before it.
//!
//! Guarantees, held by the property tests below and in `machine/tests.rs`:
//! * A file that was cut after any byte of a record reads as the state before that record or after it.
//! * A damaged record costs itself alone: those behind it are found by their marks. [`Replayed::harm`] says that
//!   something is missing, and the reader must look at the host for what it cannot find here.
//! * No bytes make it panic, and none make it keep more memory than the file is long.
//!
//! Nothing here syncs or needs to: see `ostler_agent`'s `holder::state_file`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::protocol::{ExitRecord, ProcKey};
use super::state::{HolderState, ProcessRecord, STATE_FORMAT};
use super::wire::one_of;

/// How a journal begins.
pub const MAGIC: [u8; 8] = *b"OSTLERJ\n";

/// The magic and the format.
pub const HEAD: usize = MAGIC.len() + 4;

/// How a record begins: unlikely in text and in MessagePack, and easy to find again after damage.
const MARK: [u8; 4] = [0xA9, b'j', b'r', 0xC1];

/// Mark, length, checksum.
const RECORD_HEAD: usize = MARK.len() + 8;

one_of! {
    /// The body of one record.
    Entry {
        /// Everything, and nothing before it counts.
        snapshot: Snapshot(Box<HolderState>),
        /// What one turn changed.
        turn: Turn(Turn),
    }
}

/// What one turn of the loop changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Turn {
    /// The boot it was written in, so that a turn can be judged without its snapshot.
    #[serde(default)]
    pub boot_id: String,
    /// The sequence number of the next exit.
    pub next_seq: u64,
    /// In no particular order: at most one per incarnation and one per exit.
    pub changes: Vec<Change>,
}

one_of! {
    /// One thing that is different now.
    Change {
        /// An incarnation is held, like this.
        held: Held(Box<ProcessRecord>),
        /// Nothing of an incarnation is left.
        gone: Gone(ProcKey),
        /// An exit waits for its acknowledgement.
        exit: Exit(ExitRecord),
        /// The exit with this number was acknowledged.
        acknowledged: Acknowledged(u64),
    }
}

/// Why an entry cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be written as MessagePack.
    #[error("a record of the holder's state cannot be encoded")]
    Encode(#[source] rmp_serde::encode::Error),
    /// Its length does not fit.
    #[error("a record of the holder's state of {size} bytes is too long")]
    TooLong {
        /// Of how many bytes.
        size: usize,
    },
}

/// How the file begins.
#[must_use]
pub fn head() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&STATE_FORMAT.to_be_bytes());
    bytes
}

/// Appends one record.
///
/// # Errors
/// When the entry cannot be encoded; `out` is as before then.
pub fn append(entry: &Entry, out: &mut Vec<u8>) -> Result<(), JournalError> {
    let body = rmp_serde::to_vec_named(entry).map_err(JournalError::Encode)?;
    let size = body.len();
    let length = u32::try_from(size).map_err(|_| JournalError::TooLong { size })?.to_be_bytes();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(&[&length, &body]).to_be_bytes());
    out.extend_from_slice(&body);
    Ok(())
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The state after its last whole record; its format is what the file was written in.
    pub state: HolderState,
    /// How many bytes of the file are good: what follows was cut off by the end of a holder.
    pub good: usize,
    /// What is wrong with it, if anything is.
    pub harm: Option<Harm>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// The last record is not whole. That happens when a holder is killed while it writes, before it acts on it.
    TornTail,
    /// Bytes that were once good are not any more: so many, in so many places.
    Damaged {
        /// How many bytes could not be read.
        bytes: usize,
        /// In how many places.
        places: usize,
    },
}

/// Why bytes are not a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAJournal {
    /// They begin otherwise.
    #[error("not the state of a holder")]
    Magic,
    /// A newer build wrote it. Guessing at its processes could lose them.
    #[error("format {format}, this build reads up to {STATE_FORMAT}")]
    TooNew {
        /// Its format.
        format: u32,
    },
}

/// Reads a file.
///
/// # Errors
/// When it is no journal, or one of a newer build.
pub fn replay(bytes: &[u8]) -> Result<Replayed, NotAJournal> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(NotAJournal::Magic)?;
    let (format, _) = rest.split_first_chunk::<4>().ok_or(NotAJournal::Magic)?;
    let format = u32::from_be_bytes(*format);
    if format > STATE_FORMAT {
        return Err(NotAJournal::TooNew { format });
    }
    let mut tables = Tables::default();
    let (mut at, mut good) = (HEAD, HEAD);
    let (mut lost, mut places) = (0, 0);
    while at < bytes.len() {
        if let Some((entry, end)) = record(bytes, at) {
            tables.apply(entry);
            (at, good) = (end, end);
            continue;
        }
        match next_record(bytes, at + 1) {
            Some(next) => {
                lost += next - at;
                places += 1;
                at = next;
            }
            None if is_torn(&bytes[at..]) => break,
            None => {
                lost += bytes.len() - at;
                places += 1;
                break;
            }
        }
    }
    let harm = match (places, good < bytes.len()) {
        (0, false) => None,
        (0, true) => Some(Harm::TornTail),
        (places, _) => Some(Harm::Damaged { bytes: lost, places }),
    };
    Ok(Replayed { state: tables.into_state(format), good, harm })
}

/// The record at `at` and where it ends, if it is whole and means something to this build.
fn record(bytes: &[u8], at: usize) -> Option<(Entry, usize)> {
    let rest = bytes.get(at..)?.strip_prefix(&MARK)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let body = rest.get(..size)?;
    if checksum(&[length, body]) != u32::from_be_bytes(*sum) {
        return None;
    }
    Some((rmp_serde::from_slice(body).ok()?, at + RECORD_HEAD + size))
}

fn next_record(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).find(|at| bytes[*at..].starts_with(&MARK) && record(bytes, *at).is_some())
}

/// Whether `rest` can be the beginning of a record whose end was never written.
fn is_torn(rest: &[u8]) -> bool {
    let marked = rest.iter().zip(MARK).all(|(byte, mark)| *byte == mark);
    let length = rest.get(MARK.len()..MARK.len() + 4).and_then(|bytes| bytes.try_into().ok());
    let size = length.map(|bytes: [u8; 4]| u64::from(u32::from_be_bytes(bytes)));
    marked && size.is_none_or(|size| size + RECORD_HEAD as u64 > rest.len() as u64)
}

/// A state that is being read.
#[derive(Debug, Default)]
struct Tables {
    boot_id: String,
    next_seq: u64,
    processes: BTreeMap<ProcKey, ProcessRecord>,
    exits: BTreeMap<u64, ExitRecord>,
}

impl Tables {
    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Snapshot(state) => {
                self.boot_id = state.boot_id;
                self.next_seq = state.next_seq;
                self.processes = state.processes.into_iter().map(|record| (record.key, record)).collect();
                self.exits = state.exits.into_iter().map(|exit| (exit.seq, exit)).collect();
            }
            Entry::Turn(turn) => {
                self.boot_id = turn.boot_id;
                self.next_seq = self.next_seq.max(turn.next_seq);
                for change in turn.changes {
                    self.change(change);
                }
            }
            // A later build of the same format may add entries that an older one can do without.
            Entry::Unrecognised => {}
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Held(record) => drop(self.processes.insert(record.key, *record)),
            Change::Gone(key) => drop(self.processes.remove(&key)),
            Change::Exit(exit) => drop(self.exits.insert(exit.seq, exit)),
            Change::Acknowledged(seq) => drop(self.exits.remove(&seq)),
            Change::Unrecognised => {}
        }
    }

    fn into_state(self, format: u32) -> HolderState {
        HolderState {
            format,
            boot_id: self.boot_id,
            next_seq: self.next_seq.max(1),
            processes: self.processes.into_values().collect(),
            exits: self.exits.into_values().collect(),
        }
    }
}

/// CRC-32 (IEEE) over the parts in order.
fn checksum(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    !bytes.fold(u32::MAX, |sum, byte| {
        let index = (sum ^ u32::from(*byte)) & 0xFF;
        (sum >> 8) ^ TABLE[index as usize]
    })
}

/// One entry per byte.
static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut n = 0;
    while n < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "n is below 256")]
        let mut sum = n as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { 0xEDB8_8320 ^ (sum >> 1) } else { sum >> 1 };
            bit += 1;
        }
        table[n] = sum;
        n += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holder::protocol::Exit;
    use ostler_schemas::Uid;
    use proptest::prelude::*;

    fn exit(seq: u64) -> Entry {
        let key = ProcKey { uid: Uid::from_bytes([7; 16]), incarnation: seq };
        let exit = ExitRecord { key, seq, exit: Exit::Code(3), oom: false, watchdog: false, at: 1 };
        let changes = vec![Change::Exit(exit)];
        Entry::Turn(Turn { boot_id: "boot".to_owned(), next_seq: seq + 1, changes })
    }

    fn file(exits: u64) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = head();
        append(&Entry::Snapshot(Box::new(HolderState::empty("boot"))), &mut bytes).unwrap();
        let mut ends = vec![bytes.len()];
        for seq in 1..=exits {
            append(&exit(seq), &mut bytes).unwrap();
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn seqs(replayed: &Replayed) -> Vec<u64> {
        replayed.state.exits.iter().map(|exit| exit.seq).collect()
    }

    #[test]
    fn the_checksum_is_the_common_one() {
        assert_eq!(checksum(&[b"1234", b"56789"]), 0xCBF4_3926);
    }

    #[test]
    fn cut_anywhere_it_is_the_state_before_or_after() {
        let (bytes, ends) = file(4);
        for cut in HEAD..=bytes.len() {
            let replayed = replay(&bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(replayed.state.exits.len(), whole.saturating_sub(1), "cut at {cut}");
            let good = ends.iter().rev().find(|end| **end <= cut).copied().unwrap_or(HEAD);
            assert_eq!(replayed.good, good);
            let expected = (good < cut).then_some(Harm::TornTail);
            assert_eq!(replayed.harm, expected, "cut at {cut}");
        }
    }

    #[test]
    fn damage_costs_the_record_it_hits_and_is_told() {
        let (bytes, ends) = file(4);
        for at in HEAD..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let replayed = replay(&damaged).unwrap();
            assert!(replayed.harm.is_some(), "damage at {at} was not seen");
            let hit = ends.iter().filter(|end| **end <= at).count();
            let expected: Vec<u64> = (1..=4).filter(|seq| *seq != hit as u64).collect();
            assert_eq!(seqs(&replayed), expected, "damage at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let (mut bytes, _) = file(1);
        bytes[HEAD - 1] += 1;
        assert_eq!(replay(&bytes), Err(NotAJournal::TooNew { format: STATE_FORMAT + 1 }));
        assert_eq!(replay(b"OSTLER"), Err(NotAJournal::Magic));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = head();
            bytes.extend_from_slice(&tail);
            let replayed = replay(&bytes).unwrap();
            prop_assert!(replayed.good <= bytes.len());
            drop(replay(&tail));
        }
    }
}
