//! The streams: where each fact lives, with which limits, and the JSON by which the server knows them.

use ostler_schemas::Bucket;
use ostler_schemas::subject::{ALL_AUDIT, ALL_EVENTS, ALL_LOGS, AUDIT_STREAM, EVENTS_STREAM, LOGS_STREAM};
use serde_json::{Value, json};

/// The shortest window that the server takes. Nobody relies on `Nats-Msg-Id`; with a longer window an agent could make
/// another's write vanish as a duplicate.
const DUPLICATE_WINDOW_MS: u64 = 100;
/// Informers of at most five replicas, one per bucket and one more while the old one is not yet gone, and readers of
/// records.
const MAX_CONSUMERS: u32 = 100;
/// Events are a narrative, not a record: a week is what people look back.
const EVENTS_AGE_MS: u64 = 7 * 24 * 3_600_000;
/// Audit records are kept a quarter.
const AUDIT_AGE_MS: u64 = 92 * 24 * 3_600_000;
/// Shipped output is kept for a week, like the files of a process that has gone.
const LOGS_AGE_MS: u64 = 7 * 24 * 3_600_000;
/// Most bytes of one message of shipped output.
pub const LOG_BYTES_MAX: usize = 64 << 10;
/// Room for headers beside a body, in the limit of one message.
const HEADER_ROOM: u32 = 16 << 10;
/// The largest body of ours (one envelope), in objects.
const BODY_MAX: u32 = 1 << 20;
/// A report of one node is at most this large.
const REPORT_MAX: u32 = 512 << 10;
/// A chunk of a blob.
const CHUNK_MAX: u32 = 512 << 10;
/// An event or an audit record: a few lines.
const NARRATIVE_MAX: u32 = 32 << 10;
/// A grant: a few numbers.
const GRANT_MAX: u32 = 4 << 10;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Byte limits of the streams. Reserved when a stream is created, not allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Objects.
    pub objects: u64,
    /// Reports and statuses (memory).
    pub observed: u64,
    /// Grants.
    pub grants: u64,
    /// File contents.
    pub blobs: u64,
    /// Events.
    pub events: u64,
    /// Audit records.
    pub audit: u64,
    /// Shipped output of processes.
    pub logs: u64,
    /// How long it is kept, in milliseconds.
    pub logs_age_ms: u64,
}

impl Default for Sizes {
    /// For a few thousand hosts: 100,000 objects of 1 KiB with their revisions need a tenth of it.
    fn default() -> Self {
        Self {
            objects: 2 * GIB,
            observed: GIB,
            grants: 64 * MIB,
            blobs: 4 * GIB,
            events: GIB,
            audit: GIB,
            logs: GIB,
            logs_age_ms: LOGS_AGE_MS,
        }
    }
}

impl Sizes {
    /// Memory that a server must be allowed: the observed stream, and as much again for consumers and batches.
    #[must_use]
    pub const fn server_memory(&self) -> u64 {
        2 * self.observed
    }

    /// Disk space that a server must be allowed: all streams, and an eighth for staged batches.
    #[must_use]
    pub const fn server_file(&self) -> u64 {
        let all = self.objects + self.grants + self.blobs + self.events + self.audit + self.logs;
        all + all / 8
    }
}

/// How large, on how many servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Copies of each stream: 1, 3 or 5.
    pub replicas: u8,
    /// Byte limits.
    pub sizes: Sizes,
}

/// The replicas that `servers` servers carry: 1, 3 or 5. An even number adds nothing: it tolerates no more failures
/// than the odd one below it.
#[must_use]
pub const fn replicas_for(servers: usize) -> u8 {
    match servers {
        0..=2 => 1,
        3 | 4 => 3,
        5.. => 5,
    }
}

/// Where messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// On disk.
    File,
    /// In memory.
    Memory,
}

/// What a full stream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// Refuses new messages.
    New,
    /// Drops the oldest.
    Old,
}

/// What the server publishes again when it has stored a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Republish {
    /// Which messages.
    pub from: &'static str,
    /// Under which subject.
    pub to: &'static str,
    /// Whether the body is left out.
    pub headers_only: bool,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    /// Its name.
    pub name: &'static str,
    /// One line for people.
    pub description: &'static str,
    /// What it stores.
    pub subjects: Vec<String>,
    /// Where.
    pub storage: Storage,
    /// Copies.
    pub replicas: u8,
    /// Byte limit.
    pub max_bytes: u64,
    /// Age limit, if any.
    pub max_age_ms: Option<u64>,
    /// Limit of one message with its headers.
    pub max_msg_size: u32,
    /// Whether only the last message of a subject is kept.
    pub last_only: bool,
    /// What it does when it is full.
    pub discard: Discard,
    /// Whether atomic batches are taken.
    pub atomic: bool,
    /// Whether it is compressed on disk (s2).
    pub compressed: bool,
    /// Whether purging is refused.
    pub deny_purge: bool,
    /// What is published again.
    pub republish: Option<Republish>,
}

impl StreamSpec {
    /// The configuration as the server takes and reports it. Every flag that matters is named, also where it is the
    /// server's default, because drift is judged by these fields.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut config = json!({
            "name": self.name,
            "description": self.description,
            "subjects": self.subjects,
            "duplicate_window": DUPLICATE_WINDOW_MS * 1_000_000,
            "retention": "limits",
            "storage": match self.storage { Storage::File => "file", Storage::Memory => "memory" },
            "num_replicas": self.replicas,
            "max_consumers": MAX_CONSUMERS,
            "max_msgs": -1,
            "max_bytes": self.max_bytes,
            "max_age": self.max_age_ms.unwrap_or(0) * 1_000_000,
            "max_msgs_per_subject": if self.last_only { 1 } else { -1 },
            "max_msg_size": self.max_msg_size,
            "discard": match self.discard { Discard::New => "new", Discard::Old => "old" },
            "allow_direct": true,
            "sealed": false,
            "deny_delete": true,
            "deny_purge": self.deny_purge,
            "allow_rollup_hdrs": false,
            "allow_msg_ttl": false,
            "allow_atomic": self.atomic,
            "allow_batched": false,
            "allow_msg_counter": false,
            "allow_msg_schedules": false,
        });
        if self.compressed {
            config["compression"] = json!("s2");
        }
        if let Some(r) = &self.republish {
            config["republish"] = json!({"src": r.from, "dest": r.to, "headers_only": r.headers_only});
        }
        config
    }
}

fn bucket(bucket: Bucket, scale: Scale) -> StreamSpec {
    let sizes = scale.sizes;
    let (description, max_bytes, body) = match bucket {
        Bucket::Objects => ("Ostler: decisions", sizes.objects, BODY_MAX),
        Bucket::Observed => ("Ostler: reports and statuses", sizes.observed, REPORT_MAX),
        Bucket::Grants => ("Ostler: rights to run fenced work", sizes.grants, GRANT_MAX),
        Bucket::Blobs => ("Ostler: file contents", sizes.blobs, CHUNK_MAX),
    };
    let storage = match bucket {
        Bucket::Observed => Storage::Memory,
        Bucket::Objects | Bucket::Grants | Bucket::Blobs => Storage::File,
    };
    // Agents publish into observed and grants through imports, and headers pass an import unchanged.
    let atomic = match bucket {
        Bucket::Objects | Bucket::Blobs => true,
        Bucket::Observed | Bucket::Grants => false,
    };
    let republish = match bucket {
        Bucket::Objects => {
            let to = "push.{{wildcard(1)}}.{{wildcard(2)}}";
            Some(Republish { from: "$KV.ostler.n.*.*", to, headers_only: true })
        }
        Bucket::Observed | Bucket::Grants | Bucket::Blobs => None,
    };
    StreamSpec {
        name: bucket.stream(),
        description,
        subjects: vec![format!("{}>", bucket.subject_prefix())],
        storage,
        replicas: scale.replicas,
        max_bytes,
        max_age_ms: None,
        max_msg_size: body + HEADER_ROOM,
        last_only: true,
        discard: Discard::New,
        atomic,
        compressed: false,
        // Garbage purges markers of deletions, by subject and sequence.
        deny_purge: false,
        republish,
    }
}

fn narrative(name: &'static str, scale: Scale) -> StreamSpec {
    let audit = name == AUDIT_STREAM;
    let (from, to) = if audit { (ALL_AUDIT, "feed.audit.>") } else { (ALL_EVENTS, "feed.event.>") };
    StreamSpec {
        name,
        description: if audit { "Ostler: who asked for what" } else { "Ostler: what happened" },
        subjects: vec![from.to_owned()],
        storage: Storage::File,
        replicas: scale.replicas,
        max_bytes: if audit { scale.sizes.audit } else { scale.sizes.events },
        max_age_ms: Some(if audit { AUDIT_AGE_MS } else { EVENTS_AGE_MS }),
        max_msg_size: NARRATIVE_MAX + HEADER_ROOM,
        last_only: false,
        discard: Discard::Old,
        atomic: false,
        compressed: false,
        deny_purge: true,
        // For those who look live from VIEW: what came through an import is not exported again, so a node's events
        // would be missing there. What is republished comes from the stream.
        republish: Some(Republish { from, to, headers_only: false }),
    }
}

/// Output of processes, from their nodes. A full stream drops the oldest, whoever it is of. It may be purged: what a
/// program should not have written must be removable. It is not republished: whoever reads it asks the API.
fn logs(scale: Scale) -> StreamSpec {
    StreamSpec {
        name: LOGS_STREAM,
        description: "Ostler: output of processes in namespaces that ship it",
        subjects: vec![ALL_LOGS.to_owned()],
        storage: Storage::File,
        replicas: scale.replicas,
        max_bytes: scale.sizes.logs,
        max_age_ms: Some(scale.sizes.logs_age_ms),
        max_msg_size: u32::try_from(LOG_BYTES_MAX).unwrap_or(u32::MAX) + HEADER_ROOM,
        last_only: false,
        discard: Discard::Old,
        atomic: false,
        compressed: true,
        deny_purge: false,
        republish: None,
    }
}

/// The streams of account CP.
#[must_use]
pub fn streams(scale: Scale) -> Vec<StreamSpec> {
    let mut all: Vec<StreamSpec> = Bucket::ALL.into_iter().map(|b| bucket(b, scale)).collect();
    all.push(narrative(EVENTS_STREAM, scale));
    all.push(narrative(AUDIT_STREAM, scale));
    all.push(logs(scale));
    all
}
