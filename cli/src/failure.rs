//! Every way in which a command can end other than well, and the exit code of each (CONTRACT.md section 5).

use ostler_schemas::manifest::{Finding, Refusal};
use ostler_schemas::v1::api::{ApiError, ApiErrorCode};

/// The table of exit codes, as `--help` shows it.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done (diff: no change; --wait: reached)
  1    error or refusal (diff: there are changes)
  2    --wait, rollout status: accepted but not converged (failed, paused, timed out); diff: error
  3    not allowed
  4    the control plane cannot be reached
  130  watching stopped by Ctrl-C, the work goes on";

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command itself cannot be carried out as it was written, or something local failed.
    #[error("{0}")]
    Message(String),
    /// The arguments make no sense: clap's own text, printed as it is.
    #[error("the arguments were refused")]
    Usage(clap::Error),
    /// Manifests were refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The API said no.
    #[error("{}", .0.message)]
    Api(Box<ApiError>),
    /// Parts of an answer are missing.
    #[error("{0}")]
    Broken(String),
    /// Nobody answered.
    #[error("{}", .0.what)]
    Unreachable(Box<Unreachable>),
    /// It was accepted, and is not so.
    #[error("{0}")]
    NotConverged(String),
    /// `diff` found changes; they have been printed.
    #[error("there are changes")]
    Different,
    /// Whoever read our output has read enough.
    #[error("the reader of the output has gone")]
    PipeClosed,
    /// A command that was run elsewhere ended so; it has said itself what there is to say.
    #[error("it ended with code {0}")]
    Exited(u8),
    /// Ctrl-C.
    #[error("stopped watching; the work goes on")]
    Interrupted,
}

/// Silence, told so that a person can end it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// What was met.
    pub what: String,
    /// What was tried.
    pub tried: String,
    /// What to do next.
    pub next: String,
}

impl Failure {
    /// A message.
    #[must_use]
    pub fn message(text: impl Into<String>) -> Self {
        Failure::Message(text.into())
    }

    /// A local act that failed: what was done, and the cause.
    #[must_use]
    pub fn local(act: &str, cause: impl std::fmt::Display) -> Self {
        Failure::Message(format!("{act}: {cause}"))
    }

    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Message(_) | Failure::Broken(_) | Failure::Different => 1,
            Failure::Usage(error) => u8::from(error.use_stderr()),
            Failure::Refused(refusal) => {
                if refusal.is_forbidden() {
                    3
                } else {
                    1
                }
            }
            Failure::Api(error) => match error.code {
                ApiErrorCode::Forbidden => 3,
                ApiErrorCode::Unavailable => 4,
                ApiErrorCode::Refused
                | ApiErrorCode::NotFound
                | ApiErrorCode::Conflict
                | ApiErrorCode::Invalid
                | ApiErrorCode::Unknown
                | ApiErrorCode::Other => 1,
            },
            Failure::Unreachable(_) => 4,
            Failure::NotConverged(_) => 2,
            Failure::PipeClosed => 0,
            Failure::Exited(code) => *code,
            Failure::Interrupted => 130,
        }
    }

    /// The exit code for `diff`, where 1 means changes and every error is 2.
    #[must_use]
    pub fn exit_code_of_diff(&self) -> u8 {
        match self {
            Failure::Different => 1,
            Failure::Message(_)
            | Failure::Broken(_)
            | Failure::Usage(_)
            | Failure::Refused(_)
            | Failure::Api(_) => {
                if self.exit_code() == 0 {
                    0
                } else {
                    2
                }
            }
            Failure::Unreachable(_)
            | Failure::NotConverged(_)
            | Failure::PipeClosed
            | Failure::Exited(_)
            | Failure::Interrupted => self.exit_code(),
        }
    }

    /// Whether the same request may be sent again without harm, because nothing came of this one.
    #[must_use]
    pub fn is_nothing_done(&self) -> bool {
        match self {
            Failure::Api(error) => error.code == ApiErrorCode::Unavailable,
            Failure::Unreachable(_) => true,
            Failure::Message(_)
            | Failure::Broken(_)
            | Failure::Usage(_)
            | Failure::Refused(_)
            | Failure::NotConverged(_)
            | Failure::Different
            | Failure::PipeClosed
            | Failure::Exited(_)
            | Failure::Interrupted => false,
        }
    }

    /// Whether it says that there is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Failure::Api(error) if error.code == ApiErrorCode::NotFound)
    }

    /// What goes to standard error; `None` if there is nothing to say.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Failure::Message(text) | Failure::Broken(text) => Some(format!("error: {text}")),
            Failure::Usage(error) => Some(error.to_string()),
            Failure::Refused(refusal) => Some(refusal.to_string()),
            Failure::Api(error) => Some(api_text(error)),
            Failure::Unreachable(silence) => {
                Some(format!("error: {}\ntried: {}\nnext:  {}", silence.what, silence.tried, silence.next))
            }
            Failure::NotConverged(text) => (!text.is_empty()).then(|| format!("not converged: {text}")),
            Failure::Different | Failure::PipeClosed | Failure::Exited(_) => None,
            Failure::Interrupted => Some("stopped watching; the work goes on".to_owned()),
        }
    }
}

fn api_text(error: &ApiError) -> String {
    let mut text = format!("error: {}", error.message);
    if let Some(txn) = &error.txn {
        text.push_str(&format!(
            "\ntxn:   {txn} (it may or may not have been done: look before you repeat it)"
        ));
    }
    if let Some(hint) = &error.hint {
        text.push_str(&format!("\nnext:  {hint}"));
    }
    text
}

impl From<ApiError> for Failure {
    /// An error that consists of findings is a refusal.
    fn from(error: ApiError) -> Self {
        if error.findings.is_empty() {
            return Failure::Api(Box::new(error));
        }
        let documents = count_documents(&error.findings);
        Failure::Refused(Refusal { refused: documents, documents, findings: error.findings })
    }
}

/// How many documents findings speak of.
#[must_use]
pub fn count_documents(findings: &[Finding]) -> usize {
    let set: std::collections::BTreeSet<_> = findings.iter().map(|f| (&f.file, &f.object)).collect();
    set.len()
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Failure::Usage(error)
    }
}
