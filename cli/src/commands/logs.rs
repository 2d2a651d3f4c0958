//! `logs`: the output of processes, as they wrote it; of many, each line after its process's name.
//!
//! What is said about the output (losses, who did not answer, who joins and leaves) goes to standard error. A followed
//! answer that breaks is asked for again from where it stopped: no line is told twice, and none is left out that its
//! host still has.

use std::collections::BTreeMap;

use ostler_bus::topic::Message;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::api::{LogFilter, LogsOf, LogsRequest};
use ostler_schemas::v1::log_line::{Note, stamp};
use ostler_schemas::{Kind, headers};

use crate::args::look::Logs;
use crate::args::target;
use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;
use crate::render::amounts::{Moments, count};
use crate::render::lines::{Lines, Piece, Text};

/// Lines of each of many processes when nothing is said.
const TAIL: u64 = 10;
/// Names on a terminal, in turn: cyan, green, magenta, yellow, blue, and the bright ones of the first two.
const COLOURS: [&str; 7] = ["36", "32", "35", "33", "34", "96", "92"];
/// How long a followed answer that broke is left alone.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn run(session: &Session, args: &Logs, out: &mut Out) -> Result<(), Failure> {
    let mut request = request(session, args)?;
    let is_one = request.of == LogsOf::Process;
    let mut shown = Shown {
        prefix: !args.no_prefix && (args.prefix || !is_one),
        timestamps: args.timestamps,
        follow: args.follow,
        voices: BTreeMap::new(),
        mid_line: false,
    };
    loop {
        match shown.read(session, &request, out).await {
            Err(Failure::Unreachable(silence)) if args.follow && shown.since_us() > 0 => {
                out.warn(&format!("{}; trying again", silence.what));
                tokio::time::sleep(PAUSE).await;
                request.tail = None;
                request.filter.since = Some(Timestamp(shown.since_us() / 1_000));
                shown.go_on();
            }
            other => return other,
        }
    }
}

fn request(session: &Session, args: &Logs) -> Result<LogsRequest, Failure> {
    let now = Moments::now(false).now;
    let filter = LogFilter {
        since: args.since.map(|since| since.seen_from(now)),
        until: args.until.map(|until| until.seen_from(now)),
        previous: args.previous,
        stream: args.stream,
    };
    let (of, process) = match &args.selector {
        Some(text) => (LogsOf::Selected(target::selector(text)?), String::new()),
        None => one(args)?,
    };
    let says_how_much =
        args.tail.is_some() || filter.since.is_some() || filter.until.is_some() || args.previous;
    let tail = if of == LogsOf::Process || says_how_much { args.tail } else { Some(TAIL) };
    Ok(LogsRequest {
        namespace: session.namespace.clone(),
        process,
        follow: args.follow,
        tail,
        of,
        filter,
        max_processes: Some(args.max_processes),
        paced: true,
    })
}

/// One process, or one owner of processes.
fn one(args: &Logs) -> Result<(LogsOf, String), Failure> {
    let words = match args.process.as_slice() {
        [first, rest @ ..] if !rest.is_empty() && !first.contains('/') => match Kind::by_any_name(first) {
            Some(kind) => &[&[format!("{}/{}", kind.lower(), rest[0])], &rest[1..]].concat(),
            None => &args.process,
        },
        all => all,
    };
    let (kind, name) = target::one(words, Some(Kind::Process))?;
    match kind {
        Kind::Process => Ok((LogsOf::Process, name)),
        Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Job | Kind::CronJob => {
            Ok((LogsOf::Owner(kind), name))
        }
        Kind::Node
        | Kind::Namespace
        | Kind::ConfigFile
        | Kind::Secret
        | Kind::Service
        | Kind::ResourceQuota
        | Kind::Role
        | Kind::RoleBinding
        | Kind::PriorityClass => Err(Failure::message(format!(
            "{}/{name} has no output: logs are those of processes, of their owners, or of a selection with -l",
            kind.lower()
        ))),
    }
}

/// One process's part of the answer.
struct Voice {
    lines: Lines,
    /// Its name as it is shown before its lines.
    name: String,
    /// The time of its last line, and how many lines of that time there were.
    last: (u64, u64),
    /// Lines of that time that were told before the answer broke.
    skip: u64,
}

struct Shown {
    prefix: bool,
    timestamps: bool,
    follow: bool,
    voices: BTreeMap<String, Voice>,
    /// The last output had no newline yet.
    mid_line: bool,
}

impl Shown {
    async fn read(&mut self, session: &Session, request: &LogsRequest, out: &mut Out) -> Result<(), Failure> {
        let mut replies = session.client.logs(request).await?;
        while let Some(message) = replies.next_message().await? {
            self.message(&message, out)?;
        }
        for (key, mut voice) in std::mem::take(&mut self.voices) {
            let mut pieces = Vec::new();
            voice.lines.finish(|piece| {
                if let Piece::Text(text) = piece {
                    pieces.push(text.text.to_vec());
                }
                Ok::<(), Failure>(())
            })?;
            self.voices.insert(key.clone(), voice);
            for text in pieces {
                self.text(&key, Text { at_us: None, stream: None, text: &text, ends: false }, out)?;
            }
        }
        if replies.lost > 0 {
            out.warn(&format!(
                "{} in all",
                count(replies.lost, "line or part was lost", "lines or parts were lost")
            ));
        }
        Ok(())
    }

    fn message(&mut self, message: &Message, out: &mut Out) -> Result<(), Failure> {
        if let Some(note) = message.headers.get(headers::MESSAGE) {
            out.warn(note);
        }
        if message.body.is_empty() {
            return Ok(());
        }
        let key = message.headers.get(headers::OBJECT).unwrap_or_default().to_owned();
        let place = self.voices.len();
        let colour = out.colour.then(|| COLOURS[place % COLOURS.len()]);
        let voice = self.voices.entry(key.clone()).or_insert_with(|| Voice::new(&key, colour));
        let mut lines = std::mem::take(&mut voice.lines);
        let result = lines.push(&message.body, |piece| match piece {
            Piece::Text(text) => self.text(&key, text, out),
            Piece::Note(note) => {
                self.note(&key, &note, out);
                Ok(())
            }
        });
        if let Some(voice) = self.voices.get_mut(&key) {
            voice.lines = lines;
        }
        result
    }

    fn text(&mut self, key: &str, text: Text<'_>, out: &mut Out) -> Result<(), Failure> {
        let Some(voice) = self.voices.get_mut(key) else { return Ok(()) };
        if voice.was_told(&text) {
            return Ok(());
        }
        let mut line = Vec::with_capacity(text.text.len() + 64);
        if !self.mid_line {
            if self.prefix {
                line.extend_from_slice(voice.name.as_bytes());
            }
            if let Some((at_us, stream)) = text.at_us.zip(text.stream).filter(|_| self.timestamps) {
                line.extend_from_slice(&stamp(at_us));
                line.extend_from_slice(format!(" {} ", stream.as_str()).as_bytes());
            }
        }
        line.extend_from_slice(text.text);
        // Of many, each piece is a line: the next may be another's.
        let ends = text.ends || self.prefix;
        if ends {
            line.push(b'\n');
        }
        self.mid_line = !ends;
        out.bytes(&line)
    }

    fn note(&mut self, key: &str, note: &Note, out: &mut Out) {
        let name = name_of(key);
        match note {
            Note::Part { .. } => {}
            Note::Begins { incarnation, .. } if self.follow && *incarnation > 1 => {
                out.say(&format!("note: {name} starts again (incarnation {incarnation})"));
            }
            Note::Begins { .. } => {}
            Note::Lost { .. } | Note::Overtaken { .. } | Note::Other(_) => {
                out.warn(&format!("{name}: {note}"));
            }
        }
    }

    /// From here on something may not have been told: one process's lines may have been held up while another's went on.
    fn since_us(&self) -> u64 {
        self.voices.values().map(|voice| voice.last.0).filter(|us| *us > 0).min().unwrap_or(0)
    }

    /// What comes next begins with lines that were told already.
    fn go_on(&mut self) {
        for voice in self.voices.values_mut() {
            voice.lines = Lines::default();
            voice.skip = voice.last.1;
        }
    }
}

impl Voice {
    fn new(key: &str, colour: Option<&str>) -> Self {
        let name = name_of(key);
        let name = match colour {
            Some(colour) => format!("\x1b[{colour}m{name} |\x1b[0m "),
            None => format!("{name} | "),
        };
        Self { lines: Lines::default(), name, last: (0, 0), skip: 0 }
    }

    /// Whether a line was told before the answer broke; remembers it if not.
    fn was_told(&mut self, text: &Text<'_>) -> bool {
        let Some(at_us) = text.at_us else { return false };
        let (last, _) = self.last;
        if at_us == last && self.skip > 0 {
            self.skip -= 1;
            return true;
        }
        if at_us < last && self.skip > 0 {
            return true;
        }
        self.skip = 0;
        self.last = if at_us == last { (last, self.last.1 + 1) } else { (at_us, 1) };
        false
    }
}

/// The name in `process/NAMESPACE/NAME`.
fn name_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}
