//! `config render`: what becomes of a file on a node, printed as it would be written.

use ostler_schemas::Version;
use ostler_schemas::v1::api::{ConfigOp, ConfigRender, ConfigReply};

use super::{ask, file};
use crate::args::change::{self, Sources};
use crate::connect::Session;
use crate::failure::Failure;
use crate::manifests;
use crate::out::Out;

/// Runs it.
///
/// # Errors
/// It cannot be rendered, or whatever keeps it from being told.
pub(super) async fn run(
    session: &Session,
    args: &change::ConfigRender,
    out: &mut Out,
) -> Result<(), Failure> {
    let object = file(&args.name, &session.namespace)?;
    let node = args.node.strip_prefix("node/").unwrap_or(&args.node);
    let node = node.parse().map_err(|error| Failure::message(format!("{error}")))?;
    let manifest = match &args.manifest {
        None => None,
        Some(path) => {
            let sources = Sources { files: vec![path.clone()], recursive: false };
            let read = manifests::read(&sources, &session.namespace)?;
            let Some(document) = read.document_of(&object, &session.namespace) else {
                let message = format!("{} has no manifest of {}", path.display(), object.short());
                return Err(Failure::message(message));
            };
            Some(document)
        }
    };
    let wish = ConfigRender { node, version: args.version.map(Version), manifest };
    let files = collect(ask(session, &object, ConfigOp::Render(Box::new(wish))).await?);
    match (&args.part, files.as_slice()) {
        (Some(part), files) => match files.iter().find(|(name, _)| name == part) {
            Some((_, bytes)) => out.bytes(bytes),
            None => Err(Failure::message(format!("{} has no file {part}", object.short()))),
        },
        (None, [(_, bytes)]) => out.bytes(bytes),
        (None, files) => {
            for (name, bytes) in files {
                out.line(&format!("==> {name} <=="))?;
                out.bytes(bytes)?;
            }
            Ok(())
        }
    }
}

/// The files in the order of the answer, each put together of its parts.
pub(super) fn collect(replies: Vec<ConfigReply>) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for reply in replies {
        let ConfigReply::Rendered { name, bytes } = reply else { continue };
        match files.last_mut().filter(|(last, _)| *last == name) {
            Some((_, known)) => known.extend_from_slice(&bytes),
            None => files.push((name, bytes.into_vec())),
        }
    }
    files
}
