//! `logs` on the host itself: from the files, whoever is down.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ostler_schemas::quantity::Dur;
use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::api::LogFilter;
use ostler_schemas::v1::log_line::{LogStream, Note, Source, parse, stamp};

use crate::linux::ProcessLog;
use crate::ports::LogQuery;

/// How often a followed log is looked at.
const FOLLOW: Duration = Duration::from_millis(200);

/// Which lines, and how they are shown.
pub(super) struct Wanted<'a> {
    pub(super) follow: bool,
    pub(super) tail: Option<u64>,
    pub(super) since: Option<&'a str>,
    pub(super) until: Option<&'a str>,
    pub(super) previous: bool,
    pub(super) stream: Option<LogStream>,
    pub(super) timestamps: bool,
}

/// Shows a log. Whoever reads may stop reading: that is the end of the command, and no error.
pub(super) fn show(log: &ProcessLog, wanted: &Wanted<'_>) -> Result<ExitCode, String> {
    let filter = LogFilter {
        since: wanted.since.map(moment).transpose()?,
        until: wanted.until.map(moment).transpose()?,
        previous: wanted.previous,
        stream: wanted.stream,
    };
    let query = LogQuery { uid: None, tail: wanted.tail, filter };
    let mut reader = log.open(&query).map_err(|error| error.to_string())?;
    let mut out = io::stdout();
    loop {
        let piece = reader.next_piece().map_err(|error| error.to_string())?;
        if !piece.bytes.is_empty() {
            let shown = render(&piece.bytes, wanted.timestamps);
            if out.write_all(&shown).and_then(|()| out.flush()).is_err() {
                return Ok(ExitCode::SUCCESS);
            }
        } else if piece.at_end {
            if !wanted.follow || piece.over {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(FOLLOW);
        }
    }
}

/// A time, or so long ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago: Dur = text.parse().map_err(|_| {
        format!("{text:?} is no time: write so long ago, as 10m, or a time, as 2026-11-20T14:03:05Z")
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Ok(Timestamp(now.saturating_sub(ago.as_millis())))
}

/// Lines as the process wrote them. What the host says of the log goes to standard error.
fn render(bytes: &[u8], timestamps: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let Some(read) = parse(line) else {
            out.extend_from_slice(line);
            continue;
        };
        match read.source {
            Source::Host => match Note::parse(read.text) {
                Note::Part { .. } | Note::Begins { .. } => {}
                note @ (Note::Lost { .. } | Note::Overtaken { .. } | Note::Other(_)) => {
                    writeln!(io::stderr(), "warning: {note}").ok();
                }
            },
            Source::Process(stream) => {
                if timestamps {
                    out.extend_from_slice(&stamp(read.at_us));
                    out.extend_from_slice(format!(" {} ", stream.as_str()).as_bytes());
                }
                out.extend_from_slice(read.text);
                // With times each part is a line; without, parts are one again.
                if timestamps || !read.partial {
                    out.push(b'\n');
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_as_they_were_written() {
        let log = b"2026-11-20T10:15:00.123456Z ostler F log format=2 part=1 after=0\n\
            2026-11-20T10:15:00.123456Z stdout P on\n2026-11-20T10:15:00.123456Z stdout F e\n\
            2026-11-20T10:15:00.123Z stderr two\nplain\n";
        assert_eq!(render(log, false), b"one\ntwo\nplain\n");
        let with = "2026-11-20T10:15:00.123456Z stdout on\n2026-11-20T10:15:00.123456Z stdout e\n\
                    2026-11-20T10:15:00.123000Z stderr two\nplain\n";
        assert_eq!(String::from_utf8(render(log, true)).expect("text"), with);
        assert!(moment("10m").is_ok() && moment("2026-11-20T14:03:05Z").is_ok() && moment("soon").is_err());
    }
}
