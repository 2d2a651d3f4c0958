//! The one suite that every bus must pass: the model in memory, one server, three servers. It ties them together, so
//! that what is tested on the model means something.
//!
//! Each case states one guarantee of [`crate::store`], [`crate::topic`] or DESIGN.md 3.10. Cases run one after the
//! other on one bus, make their own keys and expect no empty store, so a bus may be used again. No case relies on how
//! long something takes; each has a generous limit after which it has failed.
//!
//! The bus must know the identities of [`NODES`] and [`OPERATOR`], and nobody else may be active on it: no
//! controllers, no agents.

mod context;
mod crossing;
mod guards;
mod narrative;
mod reading;
mod services;
mod watching;

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use ostler_schemas::{Name, NodeName};

pub use self::context::Context;
use crate::clock::ClockRef;
use crate::entropy::EntropyRef;
use crate::store::StoreRef;
use crate::topic::TopicRef;

/// The nodes that the suite connects as.
pub const NODES: [&str; 2] = ["conform-a", "conform-b"];
/// The operator that the suite connects as.
pub const OPERATOR: &str = "conform-op";

/// The bus under test.
pub trait Subject: Send + Sync {
    /// A new connection of a controller.
    fn controller(&self) -> BoxFuture<'_, (StoreRef, TopicRef)>;

    /// A new connection of a node's agent.
    fn agent<'a>(&'a self, node: &'a NodeName) -> BoxFuture<'a, TopicRef>;

    /// A new connection of an operator.
    fn operator<'a>(&'a self, user: &'a Name) -> BoxFuture<'a, TopicRef>;

    /// The clock of all these parties.
    fn clock(&self) -> ClockRef;

    /// For fresh keys.
    fn entropy(&self) -> EntropyRef;
}

/// How a case ended: nothing, or what was not as it should be.
pub type Verdict = Result<(), String>;

/// One guarantee.
#[derive(Clone, Copy)]
pub struct Case {
    /// Names it.
    pub name: &'static str,
    run: for<'a> fn(&'a Context) -> BoxFuture<'a, Verdict>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Builds the list of a module's cases from the names of their functions.
macro_rules! list_cases {
    ($($name:ident),* $(,)?) => {
        pub(super) const CASES: &[super::Case] =
            &[$(super::Case { name: stringify!($name), run: |context| Box::pin($name(context)) }),*];
    };
}
use list_cases;

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
use ensure;

/// Fails the case unless both are equal.
macro_rules! ensure_eq {
    ($found:expr, $expected:expr, $what:expr) => {
        match (&$found, &$expected) {
            (found, expected) if found == expected => {}
            (found, expected) => {
                return Err(format!("{}: found {found:?}, expected {expected:?}", $what));
            }
        }
    };
}
use ensure_eq;

/// A result's value, or the case has failed.
fn must<T, E: fmt::Debug>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error:?}"))
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    [guards::CASES, reading::CASES, watching::CASES, crossing::CASES, services::CASES, narrative::CASES]
        .concat()
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Cases that passed.
    pub passed: Vec<&'static str>,
    /// Cases that failed, and why.
    pub failed: Vec<(&'static str, String)>,
}

impl Report {
    /// Whether all passed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failed.is_empty() && !self.passed.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} passed, {} failed", self.passed.len(), self.failed.len())?;
        for (name, why) in &self.failed {
            writeln!(f, "  {name}: {why}")?;
        }
        Ok(())
    }
}

/// A case that takes longer has failed. A real cluster may elect a leader meanwhile, which takes up to ten seconds.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// Runs every case.
pub async fn run(subject: &dyn Subject) -> Report {
    let mut report = Report::default();
    for case in cases() {
        match run_case(subject, case).await {
            Ok(()) => report.passed.push(case.name),
            Err(why) => report.failed.push((case.name, why)),
        }
    }
    report
}

/// Runs one case, with connections of its own.
///
/// # Errors
/// What was not as it should be.
pub async fn run_case(subject: &dyn Subject, case: Case) -> Verdict {
    let whole = async {
        let context = Context::connect(subject).await?;
        (case.run)(&context).await
    };
    match tokio::time::timeout(CASE_LIMIT, whole).await {
        Ok(verdict) => verdict,
        Err(_) => Err(format!("not done after {} s", CASE_LIMIT.as_secs())),
    }
}
