//! Contents of files in the blob store, by hash, in chunks.
//!
//! A chunk may be uploaded by anybody who may push, under any hash; nothing refers to a content before its whole was
//! seen to have its hash, and a content that has it cannot be spoiled any more: its chunks are only replaced while the
//! whole does not verify.

use bytes::Bytes;
use ostler_bus::store::{CommitError, Expect, Guard, Headers, Op, Read, Txn, Write};
use ostler_controller_core::admission::{NeededContent, invalid, refused, unavailable};
use ostler_schemas::hash::sha256;
use ostler_schemas::manifest::MAX_CONTENT;
use ostler_schemas::spec::ContentRef;
use ostler_schemas::v1::api::{ApiError, CHUNK, DOCUMENTS_MAX, ManifestDocuments};
use ostler_schemas::{Key, headers};

use super::server::Shared;

/// Attempts to store one chunk: a lost answer, or another upload of the same content, is met by looking again.
const ATTEMPTS: u32 = 6;
/// Pause between attempts.
const PAUSE_MS: u64 = 100;

fn chunks(content: ContentRef) -> u32 {
    u32::try_from(content.size.div_ceil(CHUNK as u64)).unwrap_or(u32::MAX)
}

fn check_size(content: ContentRef, limit: usize) -> Result<(), ApiError> {
    if content.size > limit as u64 {
        return Err(invalid(format!("the content has {} bytes, the limit is {limit}", content.size)));
    }
    Ok(())
}

/// Stores one uploaded chunk.
///
/// # Errors
/// If it cannot be a chunk of that content, or the store does not take it.
pub(super) async fn put(
    shared: &Shared,
    content: ContentRef,
    chunk: u32,
    bytes: &[u8],
) -> Result<(), ApiError> {
    // What it will be used for is not known yet; whoever refers to it checks the limit of that.
    check_size(content, DOCUMENTS_MAX)?;
    let count = chunks(content);
    if chunk >= count {
        return Err(invalid(format!("a content of {} bytes has no chunk {chunk}", content.size)));
    }
    let begin = u64::from(chunk) * CHUNK as u64;
    let expected = (content.size - begin).min(CHUNK as u64);
    if bytes.len() as u64 != expected {
        return Err(invalid(format!("chunk {chunk} has {} bytes, expected {expected}", bytes.len())));
    }
    store(shared, content, chunk, bytes).await?;
    if chunk + 1 == count && whole(shared, content, DOCUMENTS_MAX).await?.is_none() {
        return Err(invalid(
            "the chunks do not make up the content that the hash names: send them all again",
        ));
    }
    Ok(())
}

async fn store(shared: &Shared, content: ContentRef, chunk: u32, bytes: &[u8]) -> Result<(), ApiError> {
    let deps = &shared.deps;
    let key = Key::BlobChunk(content.sha256, chunk);
    for _ in 0..ATTEMPTS {
        let present = deps.store.get(&key, Read::Leader).await.map_err(|e| unreadable(&e))?;
        if present.as_ref().and_then(|e| e.value()).is_some_and(|known| known.as_ref() == bytes) {
            return Ok(());
        }
        if present.as_ref().is_some_and(|e| e.value().is_some()) && verified(shared, content).await? {
            return Err(invalid(format!("chunk {chunk} is not of the content that the hash names")));
        }
        let write = Write {
            key: key.clone(),
            op: Op::Put(Bytes::copy_from_slice(bytes)),
            guard: Guard::Own(Expect::after(present.map(|e| e.revision))),
            headers: Headers::new().with(headers::CONTENT_TYPE, "application/octet-stream"),
        };
        let txn = Txn { id: deps.entropy.txn(), writes: vec![write] };
        match deps.store.commit(&txn).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Refused { reason, retryable: false }) => {
                return Err(invalid(format!("the store refused the content: {reason}")));
            }
            // Another upload was faster, or the answer was lost: the next look tells.
            Err(CommitError::Conflict | CommitError::Unknown { .. } | CommitError::Refused { .. }) => {
                deps.clock.sleep_ms(PAUSE_MS).await;
            }
        }
    }
    Err(unavailable("the content could not be stored; try again"))
}

fn unreadable(error: &ostler_bus::store::ReadError) -> ApiError {
    unavailable(format!("{error}; try again"))
}

/// The whole content, if it is there and has its hash.
///
/// # Errors
/// If the store cannot be read.
pub(super) async fn read(shared: &Shared, content: ContentRef) -> Result<Option<Vec<u8>>, ApiError> {
    whole(shared, content, MAX_CONTENT).await
}

/// The documents of an apply that were sent ahead.
///
/// # Errors
/// They are too large, not there, or the store cannot be read.
pub(super) async fn read_request(shared: &Shared, content: ContentRef) -> Result<Vec<u8>, ApiError> {
    if content.size > DOCUMENTS_MAX as u64 {
        return Err(refused(&ManifestDocuments::too_large(content.size)));
    }
    whole(shared, content, DOCUMENTS_MAX).await?.ok_or_else(|| missing(content))
}

fn missing(content: ContentRef) -> ApiError {
    let short = content.sha256.short();
    invalid(format!("content {short}… was not sent ahead, or not all of it: send it by blob first"))
}

async fn whole(shared: &Shared, content: ContentRef, limit: usize) -> Result<Option<Vec<u8>>, ApiError> {
    check_size(content, limit)?;
    // Not reserved at once: the size is only what somebody says.
    let mut whole = Vec::new();
    for chunk in 0..chunks(content) {
        let key = Key::BlobChunk(content.sha256, chunk);
        match shared.deps.store.get(&key, Read::Leader).await.map_err(|e| unreadable(&e))? {
            Some(entry) => match entry.value() {
                Some(bytes) if whole.len() + bytes.len() <= limit => whole.extend_from_slice(bytes),
                Some(_) | None => return Ok(None),
            },
            None => return Ok(None),
        }
    }
    Ok((whole.len() as u64 == content.size && sha256(&whole) == content.sha256).then_some(whole))
}

async fn verified(shared: &Shared, content: ContentRef) -> Result<bool, ApiError> {
    Ok(read(shared, content).await?.is_some())
}

/// Makes sure that contents lie in the store whole before anything refers to them.
pub(super) async fn ensure(shared: &Shared, contents: &[NeededContent]) -> Result<(), ApiError> {
    for needed in contents {
        if let Some(bytes) = &needed.bytes {
            let parts: Vec<&[u8]> = if bytes.is_empty() { Vec::new() } else { bytes.chunks(CHUNK).collect() };
            for (chunk, part) in (0u32..).zip(parts) {
                store(shared, needed.content, chunk, part).await?;
            }
        } else if !verified(shared, needed.content).await? {
            return Err(missing(needed.content));
        }
    }
    Ok(())
}
