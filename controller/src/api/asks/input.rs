//! What a caller sends to the command that it attends, on its way to the node.
//!
//! The caller sends one numbered input after the other, each when the one before was answered; the node polls, and its
//! poll says what it has. So nothing is lost, nothing comes twice, and a caller that sends faster than the command
//! reads is held up here.

use std::collections::VecDeque;

use ostler_schemas::time::Mono;
use ostler_schemas::v1::api::{EXEC_INPUT_MAX, ExecInput, ExecItem, RelayInput};
use ostler_schemas::{Name, TxnId};

use crate::api::reply::Responder;

/// How long a poll without input waits: well below the silence that means that a node is gone.
const POLL_MS: u64 = 3_000;

/// An answer to send.
pub(in crate::api) enum Answer<R = Responder> {
    /// To the caller: its input was taken.
    Taken(R),
    /// To the caller: its input does not follow on what was taken.
    Gap(R),
    /// To the node.
    Items(R, RelayInput),
}

/// Input of one order.
pub(in crate::api) struct Input<R = Responder> {
    pub(super) caller: Name,
    pub(super) session: TxnId,
    items: VecDeque<ExecItem>,
    /// Number of the first item that is kept.
    first: u64,
    weight: usize,
    /// Number of the last input that was taken.
    taken: u64,
    /// A caller's input that is answered once there is room.
    held_up: Option<R>,
    poll: Option<(R, Mono)>,
    /// When the node polled last.
    pub(super) heard: Option<Mono>,
    /// How many messages of the answer the caller has read.
    pub(super) read: u64,
}

impl<R> Input<R> {
    /// Nothing yet, for the session that a caller attends under an id.
    pub(in crate::api) fn new(caller: Name, session: TxnId) -> Self {
        Self {
            caller,
            session,
            items: VecDeque::new(),
            first: 1,
            weight: 0,
            taken: 0,
            held_up: None,
            poll: None,
            heard: None,
            read: 0,
        }
    }

    /// The caller says something.
    pub(super) fn said(&mut self, input: ExecInput, to: Option<R>) -> Vec<Answer<R>> {
        let mut answers = Vec::new();
        self.read = self.read.max(input.read);
        if input.n == self.taken + 1 {
            self.taken = input.n;
            self.weight += input.items.iter().map(ExecItem::weight).sum::<usize>();
            self.items.extend(input.items);
            self.held_up = to;
            self.hand_over(&mut answers);
            self.make_room(&mut answers);
        } else if input.n == self.taken && self.held_up.is_some() {
            self.held_up = to;
        } else if let Some(to) = to {
            answers.push(if input.n <= self.taken { Answer::Taken(to) } else { Answer::Gap(to) });
        }
        answers
    }

    /// The node asks for what comes after the items that it has.
    pub(super) fn polled(&mut self, now: Mono, have: u64, to: R) -> Vec<Answer<R>> {
        let mut answers = Vec::new();
        self.heard = Some(now);
        while self.first <= have
            && let Some(item) = self.items.pop_front()
        {
            self.first += 1;
            self.weight = self.weight.saturating_sub(item.weight());
        }
        if let Some((old, _)) = self.poll.replace((to, now)) {
            answers.push(self.nothing(old));
        }
        self.hand_over(&mut answers);
        self.make_room(&mut answers);
        answers
    }

    /// A poll that has waited for long enough is answered without input.
    pub(super) fn tick(&mut self, now: Mono) -> Vec<Answer<R>> {
        match self.poll.take_if(|(_, since)| now.since_ms(*since) >= POLL_MS) {
            Some((to, _)) => vec![self.nothing(to)],
            None => Vec::new(),
        }
    }

    /// Whoever waits for an answer, when there is none any more.
    pub(super) fn end(self) -> impl Iterator<Item = R> {
        self.held_up.into_iter().chain(self.poll.map(|(to, _)| to))
    }

    fn nothing(&self, to: R) -> Answer<R> {
        Answer::Items(to, RelayInput { first: self.first, items: Vec::new() })
    }

    fn hand_over(&mut self, answers: &mut Vec<Answer<R>>) {
        if !self.items.is_empty()
            && let Some((to, _)) = self.poll.take()
        {
            let items = self.items.iter().cloned().collect();
            answers.push(Answer::Items(to, RelayInput { first: self.first, items }));
        }
    }

    fn make_room(&mut self, answers: &mut Vec<Answer<R>>) {
        if self.weight < EXEC_INPUT_MAX
            && let Some(to) = self.held_up.take()
        {
            answers.push(Answer::Taken(to));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::*;

    fn input() -> Input<&'static str> {
        Input::new("anna".parse().expect("a name"), TxnId::from_bytes([1; 16]))
    }

    fn bytes(n: u64, size: usize) -> ExecInput {
        ExecInput { n, read: n, items: vec![ExecItem::Bytes(ByteBuf::from(vec![b'x'; size]))] }
    }

    fn told(answers: &[Answer<&'static str>]) -> Vec<String> {
        let words = |answer: &Answer<&'static str>| match answer {
            Answer::Taken(to) => format!("{to} taken"),
            Answer::Gap(to) => format!("{to} gap"),
            Answer::Items(to, input) => format!("{to} {}+{}", input.first, input.items.len()),
        };
        answers.iter().map(words).collect()
    }

    #[test]
    fn input_goes_to_the_poll_that_waits_and_is_kept_until_it_is_had() {
        let mut input = input();
        assert!(told(&input.polled(Mono(0), 0, "p1")).is_empty());
        assert_eq!(told(&input.said(bytes(1, 3), Some("c1"))), ["p1 1+1", "c1 taken"]);
        assert_eq!(told(&input.said(bytes(1, 3), Some("again"))), ["again taken"], "not twice");
        assert_eq!(told(&input.polled(Mono(0), 0, "p2")), ["p2 1+1"], "the answer was lost");
        assert!(told(&input.polled(Mono(0), 1, "p3")).is_empty());
        assert_eq!(told(&input.polled(Mono(5), 1, "p4")), ["p3 2+0"], "one poll at a time");
        assert!(told(&input.tick(Mono(5 + POLL_MS - 1))).is_empty());
        assert_eq!(told(&input.tick(Mono(5 + POLL_MS))), ["p4 2+0"]);
        assert_eq!(told(&input.said(bytes(3, 1), Some("c3"))), ["c3 gap"]);
        assert_eq!(input.read, 3);
    }

    #[test]
    fn a_caller_that_sends_too_fast_is_held_up() {
        let mut input = input();
        assert!(told(&input.said(bytes(1, EXEC_INPUT_MAX), Some("c1"))).is_empty());
        assert!(told(&input.said(bytes(1, EXEC_INPUT_MAX), Some("c1 again"))).is_empty());
        assert_eq!(told(&input.polled(Mono(0), 0, "p1")), ["p1 1+1"]);
        assert_eq!(told(&input.polled(Mono(0), 1, "p2")), ["c1 again taken"]);
        assert_eq!(input.end().collect::<Vec<_>>(), ["p2"]);
    }
}
