//! The warden: notices that the store is older than what agents have already seen (restored, rolled back, made anew)
//! and raises its incarnation above every agent's. Until then no leader writes, and agents refuse what is old.

use ostler_bus::store::{Expect, Guard, Headers, Op, Txn, Write};
use ostler_controller_core::node::regression;
use ostler_schemas::v1::epoch::Incarnation;
use ostler_schemas::{Bucket, ControllerName, Key, codec};

use super::{Context, Task, task};

/// How often beats are compared with the store.
const LOOK_MS: u64 = 1000;

/// Looks for ever; acts only where this replica leads the node controller.
pub fn spawn(context: Context) -> Task {
    task(async move {
        loop {
            context.clock.sleep_ms(LOOK_MS).await;
            if context.lanes.leads(ControllerName::Node) {
                look(&context).await;
            }
        }
    })
}

async fn look(context: &Context) {
    let view = context.snapshot.view();
    let signals = context.signals.borrow().clone();
    if !view.synced || regression(&view.fleet, &signals, view.fleet.revision).is_none() {
        return;
    }
    // The snapshot may lag behind what an agent has read; the store itself, asked after the beat, cannot.
    let Ok(info) = context.store.info(Bucket::Objects).await else { return };
    let Some(n) = regression(&view.fleet, &signals, info.last) else { return };
    tracing::error!(incarnation = n, "StoreRolledBack: agents have seen more than the store holds");
    context.metrics.store_resets.inc();
    let key = Key::MetaIncarnation;
    let guard = Guard::Own(Expect::after(view.fleet.revision_of(&key)));
    let Ok(bytes) = codec::encode(&Incarnation { n }) else { return };
    let write = Write { key, op: Op::Put(bytes.into()), guard, headers: Headers::new() };
    let txn = Txn { id: context.entropy.txn(), writes: vec![write] };
    if let Err(error) = context.store.commit(&txn).await {
        tracing::warn!(%error, "the incarnation was not raised; trying again");
    }
}
