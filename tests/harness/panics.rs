//! A panic inside an actor is caught by the actor's framework and would pass unseen: a hook keeps it for the test.
//!
//! The simulation runs on one thread, so what panics on a thread belongs to the world of that thread.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Collects the panics of this thread from now on.
pub fn collect() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            SEEN.with_borrow_mut(|seen| {
                if let Some(seen) = seen {
                    seen.push(info.to_string());
                }
            });
            before(info);
        }));
    });
    SEEN.with_borrow_mut(|seen| *seen = Some(Vec::new()));
}

/// What panicked since the last call.
#[must_use]
pub fn take() -> Vec<String> {
    SEEN.with_borrow_mut(|seen| seen.as_mut().map(std::mem::take).unwrap_or_default())
}
