//! What the API does without being asked: finishes deletions, makes namespace `default`, and seals Secrets anew that are
//! sealed to an older key. Done by the replica that
//! leads `garbage`, so that several do not race; each write is guarded, so a race would do no harm.

use std::sync::Arc;

use ostler_controller_core::admission::{Decision, Verdict, bootstrap, reap, reseal};
use ostler_controller_core::fleet::Fleet;
use ostler_schemas::sealing::PublicKey;
use ostler_schemas::subject::Verb;
use ostler_schemas::{Actor, ControllerName, Name};

use super::commit::{Asking, change, never};
use super::server::Shared;

/// Changes are looked at no more often than this: a burst of them needs one look.
const PAUSE_MS: u64 = 50;
/// A look even if nothing has changed, in case a write failed.
const RESYNC_MS: u64 = 5_000;

pub(super) async fn run(shared: Arc<Shared>) {
    let deps = &shared.deps;
    let mut views = deps.snapshot.subscribe();
    loop {
        tokio::select! {
            biased;
            changed = views.changed() => if changed.is_err() { return },
            () = deps.lanes.moved(ControllerName::Garbage) => {}
            () = deps.clock.sleep_ms(RESYNC_MS) => {}
        }
        if deps.lanes.leads(ControllerName::Garbage) && deps.snapshot.view().synced {
            round(&shared).await;
        }
        deps.clock.sleep_ms(PAUSE_MS).await;
    }
}

/// One look at the snapshot.
pub(super) async fn round(shared: &Shared) {
    let fleet = shared.deps.snapshot.fleet();
    let due = reap(&fleet).len();
    for _ in 0..due {
        // Decided anew each time: what was clean a moment ago may have been remade.
        commit(shared, |fleet| reap(fleet).into_iter().next()).await;
    }
    if let Some(newest) = shared.deps.vault.newest() {
        seal_anew(shared, newest).await;
    }
    let missing = !fleet
        .objects
        .keys()
        .any(|o| o.kind == ostler_schemas::Kind::Namespace && o.name.as_str() == "default");
    if missing {
        let Some(asking) = asking() else { return };
        let made = change(shared, asking.borrow(), never, |world, ids| {
            let decision = bootstrap(world, ids).unwrap_or_default();
            Ok(Verdict { decision, reply: () })
        });
        if let Err(error) = made.await {
            tracing::warn!(error = error.message, "namespace default could not be made");
        }
    }
}

/// One Secret a round: there is no hurry, and each of them makes the next round.
async fn seal_anew(shared: &Shared, newest: PublicKey) {
    let vault = &shared.deps.vault;
    let pick = |fleet: &Fleet| reseal(fleet, newest, &|name, key, value| vault.reseal(name, key, value));
    if pick(&shared.deps.snapshot.fleet()).is_some() {
        commit(shared, pick).await;
    }
}

async fn commit(shared: &Shared, pick: impl Fn(&Fleet) -> Option<Decision> + Send + Sync) {
    let Some(asking) = asking() else { return };
    let done = change(shared, asking.borrow(), never, |world, _| {
        Ok(Verdict { decision: pick(world.fleet).unwrap_or_default(), reply: () })
    });
    if let Err(error) = done.await {
        tracing::warn!(
            error = error.message,
            "a deletion could not be finished, or a Secret not sealed anew"
        );
    }
}

struct Chore(Name);

impl Chore {
    fn borrow(&self) -> Asking<'_> {
        let actor = Actor::Controller(ControllerName::Garbage);
        Asking::own(&self.0, actor, Verb::Delete)
    }
}

/// How audit names this module.
fn asking() -> Option<Chore> {
    "controller".parse().ok().map(Chore)
}
