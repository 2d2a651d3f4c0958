//! The answer to one request: messages numbered from 1, the last of them marked by header `Ostler-End`.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use ostler_bus::topic::Message;
use ostler_schemas::v1::api::ApiError;
use ostler_schemas::{TxnId, headers};

use super::attend::Attended;
use crate::failure::{Failure, Unreachable};

/// Status of the bus's own answer when nobody serves a subject.
const NO_RESPONDERS: u16 = 503;
/// The bus's own answer takes one round trip; this is long for any network that a fleet is run over.
const BUS_ANSWERS: Duration = Duration::from_secs(2);

/// An answer as it arrives.
pub struct Replies {
    stream: BoxStream<'static, Message>,
    place: String,
    patience: Option<Duration>,
    ahead: Option<Message>,
    seen: u64,
    ended: bool,
    /// The transaction of what was sent, if it may change something.
    changes: Option<TxnId>,
    /// Tells the answering side that this is read, for as long as it is.
    attended: Option<Attended>,
    /// How many parts the answering side itself says were lost.
    pub lost: u64,
}

impl std::fmt::Debug for Replies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replies")
            .field("place", &self.place)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Replies {
    /// An answer to what was sent to `place`.
    #[must_use]
    pub fn new(stream: BoxStream<'static, Message>, place: String) -> Self {
        Self {
            stream,
            place,
            patience: None,
            ahead: None,
            seen: 0,
            ended: false,
            changes: None,
            attended: None,
            lost: 0,
        }
    }

    /// Silence longer than this is a failure.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// What was sent may change something, in this transaction.
    #[must_use]
    pub(super) fn changing(mut self, txn: Option<TxnId>) -> Self {
        self.changes = txn;
        self
    }

    /// Attended for as long as this is not dropped.
    #[must_use]
    pub(super) fn attended(mut self, attended: Attended) -> Self {
        self.attended = Some(attended);
        self
    }

    /// Whether the bus says that nobody serves the subject; else the first message is kept for [`Replies::next`].
    ///
    /// The bus says so at once; whoever is silent for longer listens, and has its own time to answer.
    pub(super) async fn nobody_listens(&mut self) -> bool {
        if let Ok(Some(message)) = tokio::time::timeout(BUS_ANSWERS, self.stream.next()).await {
            let nobody = message.status == Some(NO_RESPONDERS);
            self.ahead = Some(message);
            return nobody;
        }
        false
    }

    /// Whether the answer begins with an error.
    pub(super) async fn peek(&mut self) -> Result<(), Failure> {
        if self.ahead.is_none() {
            self.ahead = Some(self.receive().await?);
        }
        match &self.ahead {
            Some(message) if message.headers.get(headers::END) == Some("error") => {
                self.next().await.map(|_| ())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How many messages came so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The next body; `None` at the end. Empty bodies are keep-alives and are passed over.
    ///
    /// # Errors
    /// The API's error, a lost part, or silence.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while let Some(message) = self.next_message().await? {
            if !message.body.is_empty() {
                return Ok(Some(message.body));
            }
        }
        Ok(None)
    }

    /// The next message with a body, or with something to say about the answer; `None` at the end.
    ///
    /// # Errors
    /// As [`Replies::next`].
    pub async fn next_message(&mut self) -> Result<Option<Message>, Failure> {
        while !self.ended {
            let message = match self.ahead.take() {
                Some(message) => message,
                None => self.receive().await?,
            };
            self.count(&message)?;
            match message.headers.get(headers::END) {
                None => {}
                Some("error") => {
                    self.ended = true;
                    let error: ApiError = super::decode(&message.body)?;
                    return Err(Failure::from(error));
                }
                Some(end) => {
                    self.ended = true;
                    self.lost = end.strip_prefix("lost=").and_then(|n| n.parse().ok()).unwrap_or(0);
                }
            }
            if !message.body.is_empty() || message.headers.get(headers::MESSAGE).is_some() {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn count(&mut self, message: &Message) -> Result<(), Failure> {
        self.seen += 1;
        if let Some(attended) = &self.attended {
            attended.has_read(self.seen);
        }
        let number: Option<u64> = message.headers.get(headers::SEQ).and_then(|n| n.parse().ok());
        match number {
            Some(number) if number != self.seen => Err(Failure::Broken(format!(
                "parts of the answer were lost (part {} came after part {}); try again",
                number,
                self.seen - 1
            ))),
            Some(_) | None => Ok(()),
        }
    }

    async fn receive(&mut self) -> Result<Message, Failure> {
        let next = match self.patience {
            Some(patience) => tokio::time::timeout(patience, self.stream.next()).await,
            None => Ok(self.stream.next().await),
        };
        match next {
            Ok(Some(message)) if message.status == Some(NO_RESPONDERS) && self.seen > 0 => {
                Err(self.silence("the controller that answered is gone"))
            }
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(self.silence("the connection to the bus ended")),
            Err(_elapsed) => {
                let seconds = self.patience.unwrap_or_default().as_secs();
                Err(self.silence(&format!("no answer within {seconds}s")))
            }
        }
    }

    fn silence(&self, what: &str) -> Failure {
        let next = match (self.seen, self.changes) {
            (0, Some(txn)) => format!(
                "it may or may not have been done (transaction {txn}): look before you repeat it; see also that \
                 your credentials are those of this caller"
            ),
            (0, None) => "try again; if it stays so, see that the controllers are well and that your \
                          credentials are those of this caller"
                .to_owned(),
            (_, _) => "try again".to_owned(),
        };
        Failure::Unreachable(Box::new(Unreachable { what: what.to_owned(), tried: self.place.clone(), next }))
    }
}
