//! What JetStream answers in account CP to plain messages: direct gets by subject, and publishes into streams with
//! guards and acknowledgements. Agents reach these through imports; controllers use the store.

use bytes::Bytes;
use ostler_schemas::headers as names;
use tokio::time::Instant;

use super::Logged;
use super::router::Packet;
use super::state::State;
use super::stream::{BATCH_DISABLED, Draft, ROLLUP_DENIED, Refusal, Stored, TTL_DENIED};
use crate::layout::Account;
use crate::store::Headers;

const DIRECT_GET: &str = "$JS.API.DIRECT.GET.";
/// Kept off every stream that agents can publish to: it would wipe others' keys.
const ROLLUP: &str = "Nats-Rollup";
/// Off likewise.
const TTL: &str = "Nats-TTL";
/// On republished messages: the last sequence of the subject before this one.
const LAST_SEQUENCE: &str = "Nats-Last-Sequence";
/// On republished and directly got messages: the stream.
const STREAM: &str = "Nats-Stream";
/// On republished messages without body: the size that it had.
const MESSAGE_SIZE: &str = "Nats-Msg-Size";

impl State {
    /// 1 if JetStream takes the message.
    pub(super) fn serve_jetstream(&mut self, packet: &Packet) -> usize {
        if let Some(rest) = packet.subject.strip_prefix(DIRECT_GET) {
            let Some((stream, subject)) = rest.split_once('.') else { return 0 };
            return self.serve_direct_get(stream, subject, packet);
        }
        self.serve_publish(packet)
    }

    fn serve_direct_get(&mut self, stream: &str, subject: &str, packet: &Packet) -> usize {
        let Some(stream) = self.streams.get(stream) else { return 0 };
        let Some(reply) = packet.reply.clone() else { return 1 };
        let lag_ms = self.faults.stale_lag_ms(None);
        let found = stream.stale_last_of(subject, Instant::now(), lag_ms).cloned();
        let answer = match found {
            Some(stored) => {
                let headers = stored
                    .headers
                    .clone()
                    .with(STREAM, stream.spec.name)
                    .with(names::NATS_SUBJECT, stored.subject)
                    .with(names::NATS_SEQUENCE, stored.seq.to_string())
                    .with(names::NATS_TIME_STAMP, stored.at.to_string());
                Packet::of_server(Account::Cp, reply, headers, stored.body)
            }
            None => Packet {
                status: Some(404),
                ..Packet::of_server(Account::Cp, reply, Headers::new(), Bytes::new())
            },
        };
        self.route(&answer);
        1
    }

    fn serve_publish(&mut self, packet: &Packet) -> usize {
        let Some(stream) = self.stream_of(&packet.subject) else { return 0 };
        let stream = stream.spec.name;
        let outcome = guard_of(packet).and_then(|guard| {
            let draft = Draft {
                subject: packet.subject.clone(),
                headers: packet.headers.clone(),
                body: packet.body.clone(),
                guard,
            };
            self.store(stream, vec![draft], None)
        });
        if let Some(reply) = packet.reply.clone() {
            let ack = match outcome {
                Ok(seq) => serde_json::json!({ "stream": stream, "seq": seq }),
                Err(refusal) => serde_json::json!({
                    "stream": stream,
                    "seq": 0,
                    "error": { "code": 400, "err_code": refusal.code, "description": refusal.text },
                }),
            };
            let body = Bytes::from(ack.to_string());
            self.route(&Packet::of_server(Account::Cp, reply, Headers::new(), body));
        }
        1
    }

    /// Stores messages as one and tells the agents whose documents changed.
    pub(super) fn store(
        &mut self,
        stream: &str,
        drafts: Vec<Draft>,
        batch: Option<&str>,
    ) -> Result<u64, Refusal> {
        let moment = (self.wall(), Instant::now());
        let count = drafts.len() as u64;
        let Some(stream) = self.streams.get_mut(stream) else {
            return Err(Refusal::new(super::stream::INSUFFICIENT, "no such stream"));
        };
        let before: Vec<u64> =
            drafts.iter().map(|d| stream.last_of(&d.subject).map_or(0, |m| m.seq)).collect();
        let txns: Vec<String> =
            drafts.iter().filter_map(|d| d.headers.get(names::TXN)).map(str::to_owned).collect();
        let kept = if self.log.is_some() { drafts.clone() } else { Vec::new() };
        let last = stream.store(drafts, batch, moment)?;
        let name = stream.spec.name;
        let hints: Vec<Packet> = before
            .into_iter()
            .zip(last + 1 - count..)
            .filter_map(|(before, seq)| hint(name, stream.at_or_after(seq)?, seq, before))
            .collect();
        if let Some(journal) = &mut self.journal {
            journal.extend(txns);
        }
        if let Some(log) = &mut self.log {
            let numbered = kept.into_iter().zip(last + 1 - count..);
            log.extend(numbered.map(|(draft, sequence)| Logged {
                stream: name,
                sequence,
                subject: draft.subject,
                at: moment.0,
                headers: draft.headers,
                body: draft.body,
                ends: sequence == last,
            }));
        }
        for hint in &hints {
            self.route(hint);
        }
        Ok(last)
    }
}

/// `$KV.ostler.n.<node>.<doc>` is republished without its body as `push.<node>.<doc>`.
fn hint(stream: &str, stored: &Stored, seq: u64, before: u64) -> Option<Packet> {
    let rest = stored.subject.strip_prefix("$KV.ostler.n.")?;
    let (node, document) = rest.split_once('.')?;
    // Replaced within its own batch: the later message tells.
    if stored.seq != seq || document.contains('.') {
        return None;
    }
    let headers = stored
        .headers
        .clone()
        .with(STREAM, stream)
        .with(names::NATS_SUBJECT, stored.subject.clone())
        .with(names::NATS_SEQUENCE, seq.to_string())
        .with(names::NATS_TIME_STAMP, stored.at.to_string())
        .with(LAST_SEQUENCE, before.to_string())
        .with(MESSAGE_SIZE, stored.body.len().to_string());
    Some(Packet::of_server(Account::Cp, format!("push.{node}.{document}"), headers, Bytes::new()))
}

/// The guard in the headers of a plain publish; an error for headers that are switched off.
fn guard_of(packet: &Packet) -> Result<Option<(String, u64)>, Refusal> {
    let headers = &packet.headers;
    if headers.get(ROLLUP).is_some() {
        return Err(Refusal::new(ROLLUP_DENIED, "rollup not permitted"));
    }
    if headers.get(TTL).is_some() {
        return Err(Refusal::new(TTL_DENIED, "per-message TTL is disabled"));
    }
    if headers.get(names::NATS_BATCH_ID).is_some() {
        return Err(Refusal::new(BATCH_DISABLED, "batch publish is disabled"));
    }
    let Some(expected) = headers.get(names::NATS_EXPECTED) else { return Ok(None) };
    let Ok(expected) = expected.parse() else {
        return Err(Refusal::new(400, "bad expected last subject sequence"));
    };
    let subject = headers.get(names::NATS_EXPECTED_SUBJECT).unwrap_or(&packet.subject);
    Ok(Some((subject.to_owned(), expected)))
}
