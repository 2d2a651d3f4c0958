//! `exec`: a command beside a process, attended by its caller.
//!
//! The request bears a transaction id in header `Ostler-Txn`. Under it the caller attends the answer, as any that lasts
//! (`api.<caller>.relay.<id>`), and sends [`ExecInput`] there. The answer's messages are [`ExecOutput`]s. The node asks
//! for what the caller sent, by [`RelayPoll`] to `api.<node>.relay.<id of the ask>`, and gets [`RelayInput`]: so what
//! reaches it is always an answer to its own request.
//!
//! Nothing is dropped in either direction: who does not read holds the other up.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{Kind, Namespace};

/// Bytes of one chunk of input or output.
pub const EXEC_CHUNK: usize = 32 << 10;
/// Input that waits for a node: beyond this the caller's next input is not answered until there is room.
pub const EXEC_INPUT_MAX: usize = 256 << 10;
/// Messages of output that a caller has not read yet: beyond this none is sent.
pub const EXEC_UNREAD: u64 = 64;
/// Words of a command, together: what the kernel takes for one.
pub const EXEC_COMMAND_MAX: usize = 128 << 10;

/// Runs a command beside a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecRequest {
    /// Namespace of the process.
    pub namespace: Namespace,
    /// `Process`, or the kind of an owner that has one process.
    pub kind: Kind,
    /// Its name, or the process's short uid.
    pub name: String,
    /// What is run, and how.
    pub exec: ExecCommand,
    /// Why, for the record.
    pub reason: Option<String>,
}

/// What is run, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecCommand {
    /// Its words.
    pub words: Vec<String>,
    /// Whether the caller sends input; without, the command has none.
    pub stdin: bool,
    /// A terminal of this size; none for pipes.
    pub screen: Option<ExecScreen>,
    /// The kind of the caller's terminal (`TERM`).
    pub term: Option<String>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecScreen {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// From the command to the caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExecOutput {
    /// It was asked for at the node; output follows.
    Begun,
    /// From its output, or from its terminal.
    Stdout(ByteBuf),
    /// From its error output.
    Stderr(ByteBuf),
    /// It has ended, and everything that it wrote was said.
    Ended(ExecEnded),
    /// The node does not do it.
    Refused(ExecRefused),
    /// Something that a newer node says.
    #[serde(other)]
    Unknown,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecEnded {
    /// With this code.
    pub code: Option<i32>,
    /// By this signal.
    pub signal: Option<i32>,
    /// Why it was ended, or why neither is known, for people.
    pub message: Option<String>,
}

/// Why a node does not do it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecRefused {
    /// A rule of the host forbids it, and the message names it.
    pub forbidden: bool,
    /// For people.
    pub message: String,
}

/// From the caller: what it read, and input. It is a request where there is input: the answer says that it was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecInput {
    /// Number of this input, from 1; 0 where there is none. The same again when no answer came.
    pub n: u64,
    /// How many messages of the answer were read.
    pub read: u64,
    /// In order.
    pub items: Vec<ExecItem>,
}

/// One piece of input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExecItem {
    /// For the command's input.
    Bytes(ByteBuf),
    /// The caller's terminal changed size.
    Resize(ExecScreen),
    /// A signal, by its number.
    Signal(u8),
    /// There is no more input.
    End,
    /// Something that a newer caller says.
    #[serde(other)]
    Unknown,
}

impl ExecItem {
    /// What it counts against [`EXEC_INPUT_MAX`].
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len() + 16,
            Self::Resize(_) | Self::Signal(_) | Self::End | Self::Unknown => 16,
        }
    }
}

/// From the node: what input is there? It is answered when there is some, or after a few seconds without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayPoll {
    /// The last item that it has, from 1; 0 for none.
    pub have: u64,
}

/// The answer: items after those that it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayInput {
    /// Number of the first.
    pub first: u64,
    /// In order.
    pub items: Vec<ExecItem>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn words_of_a_newer_peer_are_known_as_such() {
        #[derive(Serialize)]
        enum Newer {
            #[serde(rename = "dance")]
            Dance,
        }
        let bytes = rmp_serde::to_vec_named(&Newer::Dance).unwrap();
        assert_eq!(rmp_serde::from_slice::<ExecItem>(&bytes).unwrap(), ExecItem::Unknown);
        assert_eq!(rmp_serde::from_slice::<ExecOutput>(&bytes).unwrap(), ExecOutput::Unknown);
    }

    #[test]
    fn input_and_output_survive_the_wire() {
        let screen = ExecScreen { rows: 24, columns: 80 };
        let items = vec![
            ExecItem::Bytes(ByteBuf::from([0, 255])),
            ExecItem::Resize(screen),
            ExecItem::Signal(2),
            ExecItem::End,
        ];
        let input = ExecInput { n: 1, read: 7, items };
        assert_eq!(decode::<ExecInput>(&encode(&input).unwrap()).unwrap(), input);
        let ended = ExecEnded { code: Some(3), signal: None, message: None };
        for output in [ExecOutput::Begun, ExecOutput::Stdout(ByteBuf::from("x")), ExecOutput::Ended(ended)] {
            assert_eq!(decode::<ExecOutput>(&encode(&output).unwrap()).unwrap(), output);
        }
    }
}
