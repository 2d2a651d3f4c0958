//! Frames and state as the first version wrote them: every later version must go on reading them.
//!
//! The files were made by that version and are never made again. A frame of a later meaning gets a folder of its
//! own, with the number of its protocol.

use super::frame::{self, FrameBuffer};
use super::journal::{self, Entry};
use super::protocol::{
    Answer, Call, Event, Exit, KillMode, Message, PROTOCOL, ProcKey, RefusalCode, Reply, Request,
};
use super::state::HolderState;
use ostler_schemas::Uid;

/// A file of protocol 1.
macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/holder-1/", $name))
    };
}

fn key() -> ProcKey {
    ProcKey { uid: Uid::from_bytes([0xab; 16]), incarnation: 7 }
}

fn body(frame: &[u8]) -> Vec<u8> {
    let mut buffer = FrameBuffer::new();
    buffer.push(frame);
    buffer.next_body().unwrap().unwrap()
}

fn request(frame: &[u8]) -> Request {
    let call: Call = frame::decode(&body(frame)).unwrap();
    let again = frame::encode(&call).unwrap();
    assert_eq!(frame::decode::<Call>(&body(&again)).unwrap(), call);
    call.request
}

fn message(frame: &[u8]) -> Message {
    let message: Message = frame::decode(&body(frame)).unwrap();
    let again = frame::encode(&message).unwrap();
    assert_eq!(frame::decode::<Message>(&body(&again)).unwrap(), message);
    message
}

fn reply(frame: &[u8]) -> Reply {
    match message(frame) {
        Message::Answer(Answer { reply, .. }) => reply,
        other @ (Message::Event(_) | Message::Unrecognised) => panic!("{other:?} is no answer"),
    }
}

#[test]
fn requests_of_protocol_1_are_understood() {
    assert_eq!(PROTOCOL, 1, "a new protocol gets files of its own beside these");
    assert!(matches!(request(golden!("call-hello")), Request::Hello(hello) if hello.subscribe));
    let Request::Spawn(spawn) = request(golden!("call-spawn")) else { panic!("no start") };
    assert_eq!((spawn.key, spawn.argv.len(), spawn.umask, spawn.grace_ms), (key(), 2, 0o027, 12_345));
    assert_eq!(spawn.user.map(|user| (user.uid, user.groups)), Some((1_000, vec![4, 5])));
    assert_eq!((spawn.kill_mode, spawn.limits.memory_max), (KillMode::ControlGroup, Some(1 << 20)));
    assert!(matches!(request(golden!("call-signal")), Request::Signal(signal) if signal.whole_tree));
    assert_eq!(request(golden!("call-kill-tree")), Request::KillTree(key()));
    assert!(matches!(request(golden!("call-stop")), Request::Stop(stop) if stop.signal == Some(3)));
    assert!(matches!(request(golden!("call-set-rlimit")), Request::SetRlimit(set) if set.limits.len() == 1));
    assert!(matches!(request(golden!("call-list")), Request::List(list) if list.after_exit == 9));
    assert!(matches!(request(golden!("call-ack-exit")), Request::AckExit(ack) if ack.seq == 77));
    assert!(matches!(request(golden!("call-stop-all")), Request::StopAll(stop) if stop.grace_ms == Some(1)));
}

#[test]
fn messages_of_protocol_1_are_understood() {
    assert!(matches!(reply(golden!("message-done")), Reply::Done(_)));
    assert!(matches!(reply(golden!("message-welcome")), Reply::Welcome(welcome) if welcome.pid == 4_242));
    assert!(matches!(reply(golden!("message-spawned")), Reply::Spawned(spawned) if spawned.pid == 9));
    let Reply::Listing(listing) = reply(golden!("message-listing")) else { panic!("no listing") };
    let exits: Vec<Exit> = listing.exits.into_iter().map(|exit| exit.exit).collect();
    assert_eq!(exits, [Exit::Code(3), Exit::Signal(9), Exit::Unknown("why".to_owned())]);
    assert!(listing.more && listing.processes[0].log.lost == 3);
    assert!(
        matches!(reply(golden!("message-refused")), Reply::Refused(no) if no.code == RefusalCode::StartFailed)
    );
    assert!(matches!(message(golden!("message-started")), Message::Event(Event::Started(_))));
    assert!(matches!(message(golden!("message-exited")), Message::Event(Event::Exited(exit)) if exit.oom));
    assert_eq!(message(golden!("message-tree-empty")), Message::Event(Event::TreeEmpty(key())));
}

#[test]
fn the_state_of_format_1_is_read_and_goes_on_as_a_journal() {
    let state: HolderState = rmp_serde::from_slice(golden!("state-format-1")).unwrap();
    assert_eq!((state.format, state.next_seq, state.exits.len()), (1, 4, 1));
    assert_eq!((state.processes[0].pid, state.processes[0].kill_at), (4, Some(99)));
    let mut bytes = journal::head();
    journal::append(&Entry::Snapshot(Box::new(state.clone())), &mut bytes).unwrap();
    let again = journal::replay(&bytes).unwrap();
    assert_eq!((again.state.processes, again.state.exits), (state.processes, state.exits));
    assert_eq!(again.harm, None);
}
