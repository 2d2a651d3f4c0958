//! Usage of processes, as an order of the control plane.

use ostler_schemas::codec;
use ostler_schemas::v1::usage::UsageAnswer;
use tokio::sync::oneshot;

use super::Chunks;
use crate::actors::pressure;
use crate::context::Shared;

/// Carries out an order for what each process takes.
pub(super) async fn carry_out(context: &Shared, chunks: &mut Chunks) -> Result<(), String> {
    let (asker, answer) = oneshot::channel();
    let again = "the agent is starting again what measures; try again";
    if !context.pressure.cast(pressure::Msg::Ask(asker)) {
        return Err(again.to_owned());
    }
    let processes = answer.await.map_err(|_| again.to_owned())?;
    let bytes = codec::encode(&UsageAnswer { processes }).map_err(|error| error.to_string())?;
    chunks.send(&bytes).await
}
