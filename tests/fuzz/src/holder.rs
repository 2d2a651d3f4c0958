//! What the holder reads: frames from its socket, and the journal that a former holder left.

use ostler_agent_core::holder::frame::{self, FRAME_MAX, FrameBuffer};
use ostler_agent_core::holder::journal::{self, Entry};
use ostler_agent_core::holder::protocol::{Call, Message};

/// Takes `data` as what came over a connection, in one piece and in small ones. The same frames come out of both;
/// what is a call or a message is written and read again to the same.
pub fn holder_frames(data: &[u8]) {
    let whole = bodies(data, data.len().max(1));
    let step = 1 + data.len() % 7;
    assert!(whole == bodies(data, step), "frames do not depend on how they are cut");
    for body in whole {
        assert!(body.len() <= FRAME_MAX, "no frame is larger than any may be");
        if let Ok(call) = frame::decode::<Call>(&body) {
            again(&call, |body| frame::decode::<Call>(body).is_ok_and(|read| read == call));
        }
        if let Ok(message) = frame::decode::<Message>(&body) {
            again(&message, |body| frame::decode::<Message>(body).is_ok_and(|read| read == message));
        }
    }
}

fn bodies(data: &[u8], step: usize) -> Vec<Vec<u8>> {
    let (mut buffer, mut found) = (FrameBuffer::new(), Vec::new());
    for piece in data.chunks(step) {
        buffer.push(piece);
        loop {
            match buffer.next_body() {
                Ok(Some(body)) => found.push(body),
                Ok(None) => break,
                // The connection ends here.
                Err(_) => return found,
            }
        }
    }
    found
}

/// What does not fit into a frame any more is an answer too.
fn again<T: serde::Serialize>(value: &T, same: impl Fn(&[u8]) -> bool) {
    if let Ok(written) = frame::encode(value) {
        assert!(written.get(4..).is_some_and(same), "what was written reads back");
    }
}

/// Takes `data` as a journal. What can be read of it is written as a snapshot and reads back whole.
pub fn holder_journal(data: &[u8]) {
    let Ok(read) = journal::replay(data) else { return };
    assert!(read.good <= data.len(), "no more is good than there is");
    assert!(read.harm.is_some() || read.good == data.len(), "what is not good is said");
    let mut bytes = journal::head();
    if journal::append(&Entry::Snapshot(Box::new(read.state.clone())), &mut bytes).is_err() {
        return;
    }
    let again = journal::replay(&bytes);
    let same = again.is_ok_and(|again| {
        again.harm.is_none()
            && again.state.processes == read.state.processes
            && again.state.exits == read.state.exits
            && again.state.next_seq == read.state.next_seq
    });
    assert!(same, "what was written reads back");
}
