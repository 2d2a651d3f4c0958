//! Waiting for a level: what matters is how things stand, not which changes led there.
//!
//! A watch is opened, and opened again whenever it breaks; the judge sees the whole set of objects each time, so a
//! change that was missed is no loss. While no controller answers the wait goes on, and says so once.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use ostler_schemas::ObjectRef;
use ostler_schemas::v1::api::{ListRequest, WatchChange, WatchMessage};
use ostler_schemas::v1::status::View;
use tokio::time::Instant;

use crate::client::{Client, decode};
use crate::failure::Failure;
use crate::out::Out;

/// Between two attempts to open a watch.
const PAUSE: Duration = Duration::from_millis(500);

/// Objects by identity, as last seen.
pub type Seen = BTreeMap<ObjectRef, View>;

/// What the judge says of how things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is so.
    Reached,
    /// It will not become so by itself: why.
    Failed(String),
    /// Not yet: what is missing.
    NotYet(String),
}

/// Waits until `judge` is content.
///
/// # Errors
/// [`Failure::NotConverged`] when it fails or time runs out; refusals of the API as they are.
pub async fn until<J>(
    client: &Client,
    list: ListRequest,
    timeout: Duration,
    out: &mut Out,
    judge: J,
) -> Result<(), Failure>
where
    J: FnMut(&Seen, &mut Out) -> Result<Verdict, Failure>,
{
    let deadline = Instant::now() + timeout;
    let mut state = Waiting { missing: "nothing is known yet".to_owned(), judge };
    let mut told = false;
    loop {
        match before(deadline, state.follow(client, list.clone(), out)).await {
            None => break,
            Some(Ok(())) => return Ok(()),
            Some(Err(failure)) if is_passing(&failure) => {
                if !told {
                    out.warn(&format!("{failure}; still waiting"));
                    told = true;
                }
                if before(deadline, tokio::time::sleep(PAUSE)).await.is_none() {
                    break;
                }
            }
            Some(Err(failure)) => return Err(failure),
        }
    }
    // The caller may have spent a moment of it already: 30s that were asked for are told as 30s.
    let seconds = (timeout + Duration::from_millis(500)).as_secs();
    Err(Failure::NotConverged(format!("timed out after {seconds}s: {}", state.missing)))
}

async fn before<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(deadline, work).await.ok()
}

/// Whether the wait goes on in spite of it.
fn is_passing(failure: &Failure) -> bool {
    failure.is_nothing_done() || matches!(failure, Failure::Broken(_))
}

struct Waiting<J> {
    missing: String,
    judge: J,
}

impl<J> Waiting<J>
where
    J: FnMut(&Seen, &mut Out) -> Result<Verdict, Failure>,
{
    async fn follow(&mut self, client: &Client, list: ListRequest, out: &mut Out) -> Result<(), Failure> {
        let mut replies = client.watch(list).await?;
        let mut seen = Seen::new();
        let mut whole = false;
        while let Some(body) = replies.next().await? {
            let message: WatchMessage = decode(&body)?;
            whole |= !note(&mut seen, message);
            if whole && self.judged(&seen, out)? {
                return Ok(());
            }
        }
        Err(Failure::Broken("the server ended the watch".to_owned()))
    }

    fn judged(&mut self, seen: &Seen, out: &mut Out) -> Result<bool, Failure> {
        match (self.judge)(seen, out)? {
            Verdict::Reached => Ok(true),
            Verdict::Failed(why) => Err(Failure::NotConverged(why)),
            Verdict::NotYet(missing) => {
                self.missing = missing;
                Ok(false)
            }
        }
    }
}

/// Takes a change in; false if it is the mark that everything present has been sent, or a keep-alive.
fn note(seen: &mut Seen, message: WatchMessage) -> bool {
    let (Some(change), Some(view)) = (message.change, message.view) else { return false };
    let object = view.object().object_ref();
    match change {
        WatchChange::Added | WatchChange::Modified => {
            seen.insert(object, view);
        }
        WatchChange::Deleted => {
            seen.remove(&object);
        }
    }
    true
}

#[cfg(test)]
mod tests;
