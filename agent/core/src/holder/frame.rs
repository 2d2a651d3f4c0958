//! Frames: a length of four bytes (big endian), then one MessagePack value with named fields.
//!
//! The length is checked before a byte of the body is kept, so a hostile or lost peer can cost at most
//! [`FRAME_MAX`] of memory, and decoding never panics: a frame is a message or the end of that connection.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest body. The largest honest message is a start with a full environment; the kernel allows about
/// 2 MiB of those and users come nowhere near, while a listing is cut into pages.
pub const FRAME_MAX: usize = 1 << 20;

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame is larger than any message may be.
    #[error("a frame of {size} bytes, the limit is {FRAME_MAX}")]
    TooLarge {
        /// Its announced or encoded size.
        size: usize,
    },
    /// The body is not the message that was expected.
    #[error("a frame that is not a message of this protocol")]
    Decode(#[source] rmp_serde::decode::Error),
    /// The value cannot be written as MessagePack.
    #[error("a message that cannot be encoded")]
    Encode(#[source] rmp_serde::encode::Error),
}

/// One whole frame with its length in front.
///
/// # Errors
/// When the value is larger than [`FRAME_MAX`] or cannot be encoded.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let body = rmp_serde::to_vec_named(message).map_err(FrameError::Encode)?;
    let size = body.len();
    let length =
        u32::try_from(size).ok().filter(|_| size <= FRAME_MAX).ok_or(FrameError::TooLarge { size })?;
    let mut frame = Vec::with_capacity(size + 4);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// A frame's body as a value.
///
/// # Errors
/// When the bytes are something else.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    rmp_serde::from_slice(body).map_err(FrameError::Decode)
}

/// Collects bytes as they come and gives back whole bodies.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    taken: usize,
}

impl FrameBuffer {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole body, if there is one.
    ///
    /// # Errors
    /// When the peer announces more than [`FRAME_MAX`]; the stream cannot be used any further.
    pub fn next_body(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let rest = &self.bytes[self.taken..];
        let Some((head, rest)) = rest.split_first_chunk::<4>() else {
            self.compact();
            return Ok(None);
        };
        let size = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if size > FRAME_MAX {
            return Err(FrameError::TooLarge { size });
        }
        let Some(body) = rest.get(..size) else {
            self.compact();
            return Ok(None);
        };
        let body = body.to_vec();
        self.taken += 4 + size;
        Ok(Some(body))
    }

    /// Drops what was given back. An idle connection keeps no memory.
    fn compact(&mut self) {
        if self.taken == self.bytes.len() {
            self.bytes = Vec::new();
        } else {
            self.bytes.drain(..self.taken);
        }
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holder::protocol::{Call, Done, Hello, Message, Reply, Request};
    use proptest::prelude::*;

    fn hello(id: u64) -> Call {
        Call {
            id,
            request: Request::Hello(Hello { protocol: 1, client: "test".to_owned(), subscribe: true }),
        }
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let stream: Vec<u8> = (0..5).flat_map(|id| encode(&hello(id)).unwrap()).collect();
        for step in 1..stream.len() {
            let mut buffer = FrameBuffer::new();
            let mut seen = Vec::new();
            for part in stream.chunks(step) {
                buffer.push(part);
                while let Some(body) = buffer.next_body().unwrap() {
                    seen.push(decode::<Call>(&body).unwrap());
                }
            }
            assert_eq!(seen, (0..5).map(hello).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_announced_giant_is_refused_from_its_length_alone() {
        let mut buffer = FrameBuffer::new();
        buffer.push(&u32::MAX.to_be_bytes());
        assert!(matches!(buffer.next_body(), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn requests_and_fields_of_another_version_are_recognised_as_such() {
        #[derive(Serialize)]
        struct Later {
            id: u64,
            request: std::collections::BTreeMap<&'static str, u8>,
            colour: &'static str,
        }
        let later = Later { id: 7, request: [("freeze", 1)].into(), colour: "green" };
        let frame = encode(&later).unwrap();
        assert_eq!(decode::<Call>(&frame[4..]).unwrap(), Call { id: 7, request: Request::Unrecognised });
    }

    #[test]
    fn messages_survive_the_round_trip() {
        let message = Message::Answer(crate::holder::protocol::Answer { id: 3, reply: Reply::Done(Done {}) });
        let frame = encode(&message).unwrap();
        assert_eq!(decode::<Message>(&frame[4..]).unwrap(), message);
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut buffer = FrameBuffer::new();
            buffer.push(&bytes);
            while let Ok(Some(body)) = buffer.next_body() {
                drop(decode::<Call>(&body));
                drop(decode::<Message>(&body));
            }
            drop(decode::<Call>(&bytes));
        }
    }
}
