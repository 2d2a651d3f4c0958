//! The last hop: how far the answer may be ahead of a caller that says how much it has read.
//!
//! Without it a terminal that is slow, or a pager that waits, would have the bus keep everything in between, until it
//! cuts the caller off. What is held back here holds the credit of its nodes back.

use ostler_schemas::v1::api::LOGS_WINDOW;
use tokio::sync::watch;

/// The pace of one caller.
pub(super) struct Pace(Option<watch::Receiver<u64>>);

impl Pace {
    /// Of a caller that says how far it is; none is held back.
    pub(super) const fn new(read: Option<watch::Receiver<u64>>) -> Self {
        Self(read)
    }

    /// Whether it may be sent more, after so many messages.
    pub(super) fn may_send(&mut self, sent: u64) -> bool {
        match &mut self.0 {
            Some(read) => sent.saturating_sub(*read.borrow_and_update()) < LOGS_WINDOW,
            None => true,
        }
    }

    /// Done when it has read more.
    pub(super) async fn moved(&mut self) {
        let over = match &mut self.0 {
            Some(read) => read.changed().await.is_err(),
            None => true,
        };
        if over {
            // The stream ends with its caller, or there is nothing to wait for.
            std::future::pending::<()>().await;
        }
    }
}
