//! A dry run of a file, as an order of the control plane.

use bytes::Bytes;
use ostler_schemas::codec;
use ostler_schemas::v1::api::FileTrial;

use super::Chunks;
use crate::actors::file::try_out;
use crate::context::Shared;

/// Carries out an order to try a version of a file.
pub(super) async fn carry_out(context: &Shared, trial: FileTrial, chunks: &mut Chunks) -> Result<(), String> {
    // Validators take their time: that it has begun is said at once.
    chunks.one(Bytes::new(), None).await?;
    let answer = try_out(context, trial).await;
    let bytes = codec::encode(&answer).map_err(|error| error.to_string())?;
    chunks.send(&bytes).await
}
