//! `logs`: the output of one process, as it wrote it; with `--timestamps` as its host keeps it.

use ostler_schemas::Kind;
use ostler_schemas::v1::api::{LogFilter, LogsOf, LogsRequest};

use crate::args::look::Logs;
use crate::args::target;
use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;
use crate::render::amounts::count;
use crate::render::lines::{Lines, Piece};

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn run(session: &Session, args: &Logs, out: &mut Out) -> Result<(), Failure> {
    let words = match args.process.as_slice() {
        [first, rest @ ..] if !rest.is_empty() && Kind::by_any_name(first) == Some(Kind::Process) => rest,
        all => all,
    };
    let (kind, process) = target::one(words, Some(Kind::Process))?;
    if kind != Kind::Process {
        return Err(Failure::message(format!(
            "logs are those of one process: choose one of \"ostler get ps\" ({} has no output of its own)",
            kind.lower()
        )));
    }
    let request = LogsRequest {
        namespace: session.namespace.clone(),
        process,
        follow: args.follow,
        tail: args.tail,
        of: LogsOf::Process,
        filter: LogFilter::default(),
        max_processes: None,
    };
    let mut replies = session.client.logs(&request).await?;
    let mut lines = Lines::default();
    while let Some(bytes) = replies.next().await? {
        if args.timestamps {
            out.bytes(&bytes)?;
        } else {
            lines.push(&bytes, |piece| show(&piece, out))?;
        }
    }
    lines.finish(|piece| show(&piece, out))?;
    if replies.lost > 0 {
        out.warn(&format!("{} of the output lost on the way", count(replies.lost, "part was", "parts were")));
    }
    Ok(())
}

fn show(piece: &Piece<'_>, out: &mut Out) -> Result<(), Failure> {
    match piece {
        Piece::Text(text) => out.bytes(text),
        Piece::Note(text) => {
            out.warn(&String::from_utf8_lossy(text));
            Ok(())
        }
    }
}
