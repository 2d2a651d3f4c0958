//! `logs`: the output of one process, as it is.

use ostler_schemas::Kind;
use ostler_schemas::v1::api::LogsRequest;

use crate::args::look::Logs;
use crate::args::target;
use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;
use crate::render::amounts::count;

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
    let request =
        LogsRequest { namespace: session.namespace.clone(), process, follow: args.follow, tail: args.tail };
    let mut replies = session.client.logs(&request).await?;
    while let Some(bytes) = replies.next().await? {
        out.bytes(&bytes)?;
    }
    if replies.lost > 0 {
        out.warn(&format!("{} of the output lost on the way", count(replies.lost, "part was", "parts were")));
    }
    Ok(())
}
