//! Files of this host as an order of the control plane: what could be taken over, and what was there before.
//!
//! Guarantees: only what may be managed here is read (the rules and vetoes of the host hold for reading as for writing);
//! nothing is told of what has a secret in it; links are not followed.

use ostler_agent_core::file::{Original, in_folder};
use ostler_schemas::hash::sha256;
use ostler_schemas::manifest::MAX_CONTENT;
use ostler_schemas::v1::api::{HostFile, HostFileAsk};
use ostler_schemas::{Uid, codec};
use serde_bytes::ByteBuf;

use super::Chunks;
use crate::context::{Shared, lock};
use crate::ports::ReadFile;

/// Carries out an order for a file.
pub(super) async fn carry_out(context: &Shared, ask: HostFileAsk, chunks: &mut Chunks) -> Result<(), String> {
    let found = match (&ask.path, &ask.original) {
        (Some(path), None) => at_path(context, path).await?,
        (None, Some((uid, part))) => original(context, *uid, part).await?,
        (_, _) => return Err("the order names no file, or two".to_owned()),
    };
    let file = found.map(|read| described(read, ask.content)).unwrap_or_default();
    let bytes = codec::encode(&file).map_err(|error| error.to_string())?;
    chunks.send(&bytes).await
}

fn described(read: ReadFile, with_bytes: bool) -> HostFile {
    HostFile {
        sha256: Some(sha256(&read.bytes)),
        size: read.bytes.len() as u64,
        mode: Some(read.mode),
        owner: read.owner,
        group: read.group,
        bytes: with_bytes.then(|| ByteBuf::from(read.bytes.to_vec())),
    }
}

async fn at_path(context: &Shared, path: &str) -> Result<Option<ReadFile>, String> {
    let (rules, files) = (context.rules(), &context.deps.files);
    if let Some(why) = rules.refusal(path, None) {
        return Err(why);
    }
    let on_host = rules.on_host(path);
    let has_secret = context.board().files.values().any(|view| view.secret && view.report.path == on_host);
    if has_secret {
        return Err("it has a secret in it".to_owned());
    }
    let Some(dir) = files.real_dir(on_host.clone()).await? else { return Ok(None) };
    if let Some(why) = rules.refusal(path, Some(&dir)) {
        return Err(why);
    }
    files.read(in_folder(&dir, &on_host), MAX_CONTENT).await
}

async fn original(context: &Shared, uid: Uid, part: &str) -> Result<Option<ReadFile>, String> {
    if context.board().files.get(&uid).is_some_and(|view| view.secret) {
        return Err("it has a secret in it".to_owned());
    }
    let kept = lock(&context.memory).file_records.get(&uid).map(|record| record.original_of(part).clone());
    match kept {
        None | Some(Original::Unseen) => Err("nothing of it was written here yet".to_owned()),
        Some(Original::Absent) => Ok(None),
        Some(Original::Kept { at, mode, .. }) => {
            let read = context.deps.files.read(at, MAX_CONTENT).await?;
            let read = read.ok_or_else(|| "what was kept of it is not there any more".to_owned())?;
            // The copy is the agent's own; what it is a copy of was not.
            Ok(Some(ReadFile { mode, ..read }))
        }
    }
}
