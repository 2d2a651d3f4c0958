//! When a process is asked how it is, and what its answers mean.
//!
//! Until the first success the question is asked every second, or every period if that is shorter; then every period.
//! So many good answers in a row are a good verdict, so many bad ones a bad one; one is never enough when the
//! thresholds say otherwise, so a single slow answer takes nothing out of service.
//!
//! A probe that has never succeeded may fail for as long as `failureThreshold` periods last, however often it was
//! asked in that time: asking early must not make anybody lose patience early.

use crate::unit::Verdict;
use ostler_schemas::spec::{PortRef, Probe, ProbeAction, ProcessTemplate};
use ostler_schemas::time::Mono;
use std::collections::BTreeMap;

/// How often a probe asks until its first success (CONTRACT.md section 2).
const EAGER_MS: u64 = 1000;
/// Periods below this would be a busy loop.
const LEAST_PERIOD_MS: u64 = 50;

/// The state of one probe of one incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prober {
    probe: Probe,
    /// What its answers have come to.
    good: bool,
    /// Whether it has ever succeeded.
    proven: bool,
    goods: u32,
    bads: u32,
    /// Before this moment no failure counts: so long a probe that never succeeded may fail.
    patient_until: Mono,
    next: Mono,
    told: Option<Verdict>,
}

impl Prober {
    /// Of an incarnation that is to be asked from now on; `good` is what is believed of it until it has answered,
    /// `asked` whether it was asked before, by an agent before this one or with another probe.
    #[must_use]
    pub fn new(probe: Probe, now: Mono, (good, asked): (bool, bool)) -> Self {
        let delay = if asked { 0 } else { probe.initial_delay.as_millis() };
        let budget = probe.period.as_millis().saturating_mul(u64::from(probe.failure_threshold.max(1)));
        Self {
            probe,
            good,
            proven: asked && good,
            goods: 0,
            bads: 0,
            patient_until: now.plus_ms(delay.saturating_add(budget)),
            next: now.plus_ms(delay),
            told: None,
        }
    }

    /// When to ask next.
    #[must_use]
    pub const fn next(&self) -> Mono {
        self.next
    }

    /// The probe.
    #[must_use]
    pub const fn probe(&self) -> &Probe {
        &self.probe
    }

    /// Takes an answer, or why there is no good one; gives what the answers come to if that is news.
    pub fn answered(&mut self, now: Mono, answer: Result<(), String>) -> Option<Verdict> {
        let verdict = match answer {
            Ok(()) => {
                self.proven = true;
                self.goods = self.goods.saturating_add(1);
                self.bads = 0;
                self.good |= self.goods >= self.probe.success_threshold.max(1);
                let few = || format!("{} of {} good answers", self.goods, self.probe.success_threshold);
                if self.good { Verdict::Good } else { Verdict::NotYet(few()) }
            }
            Err(why) => {
                self.bads = self.bads.saturating_add(1);
                self.goods = 0;
                let enough = self.bads >= self.probe.failure_threshold.max(1);
                if enough && (self.proven || now >= self.patient_until) {
                    self.good = false;
                    Verdict::Bad(why)
                } else {
                    Verdict::NotYet(why)
                }
            }
        };
        let period = self.probe.period.as_millis().max(LEAST_PERIOD_MS);
        self.next = now.plus_ms(if self.proven { period } else { period.min(EAGER_MS) });
        if self.told.as_ref() == Some(&verdict) {
            return None;
        }
        self.told = Some(verdict.clone());
        Some(verdict)
    }
}

/// A question, with everything resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// `GET`.
    Http {
        /// Host.
        host: String,
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// Headers.
        headers: Vec<(String, String)>,
    },
    /// A connection.
    Tcp {
        /// Host.
        host: String,
        /// Port.
        port: u16,
    },
}

/// What a probe asks of a process with these ports on a node with this address; an error in words if it makes no sense.
///
/// # Errors
/// If it names a port that the process does not have, or an action that this version does not know.
pub fn question(
    probe: &Probe,
    template: &ProcessTemplate,
    ports: &BTreeMap<String, u16>,
    address: &str,
) -> Result<Question, String> {
    let port = |port: &PortRef| match port {
        PortRef::Number(number) => Ok(*number),
        PortRef::Name(name) => port_number(name, template, ports)
            .ok_or(format!("its probe names port {name}, which it does not have")),
    };
    let host = |host: &Option<String>| host.clone().unwrap_or_else(|| address.to_owned());
    match probe.action() {
        Some(ProbeAction::HttpGet(http)) => Ok(Question::Http {
            host: host(&http.host),
            port: port(&http.port)?,
            path: http.path.clone(),
            headers: http.http_headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect(),
        }),
        Some(ProbeAction::TcpSocket(tcp)) => {
            Ok(Question::Tcp { host: host(&tcp.host), port: port(&tcp.port)? })
        }
        Some(ProbeAction::Exec(_)) | None => {
            Err("its probe asks in a way that this version does not know".to_owned())
        }
    }
}

/// The number of a named port: as bound by the scheduler, else as fixed in the template.
#[must_use]
pub fn port_number(name: &str, template: &ProcessTemplate, ports: &BTreeMap<String, u16>) -> Option<u16> {
    let fixed = || template.ports.iter().find(|p| p.name == name).map(|p| p.port).filter(|p| *p != 0);
    ports.get(name).copied().or_else(fixed)
}

#[cfg(test)]
mod tests {
    use ostler_schemas::quantity::Dur;

    use super::*;

    fn probe() -> Probe {
        Probe {
            http_get: None,
            tcp_socket: None,
            exec: None,
            initial_delay: Dur::ZERO,
            period: Dur::from_secs(10),
            timeout: Dur::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
        }
    }

    fn no() -> Result<(), String> {
        Err("no".to_owned())
    }

    fn not_yet() -> Option<Verdict> {
        Some(Verdict::NotYet("no".to_owned()))
    }

    #[test]
    fn eager_until_the_first_success_then_by_period() {
        let mut p = Prober::new(probe(), Mono(0), (false, false));
        assert_eq!(p.answered(Mono(0), no()), not_yet());
        assert_eq!(p.next(), Mono(1000));
        assert_eq!(p.answered(Mono(1000), Ok(())), Some(Verdict::Good));
        assert_eq!(p.next(), Mono(11_000));
    }

    #[test]
    fn one_bad_answer_takes_nothing_out_of_service() {
        let mut p = Prober::new(probe(), Mono(0), (false, false));
        assert_eq!(p.answered(Mono(0), Ok(())), Some(Verdict::Good));
        assert_eq!(p.answered(Mono(1), no()), not_yet());
        assert_eq!(p.answered(Mono(2), no()), None);
        assert_eq!(p.answered(Mono(3), Ok(())), Some(Verdict::Good));
        for n in 4..6 {
            assert!(p.answered(Mono(n), no()).is_none_or(|v| v == Verdict::NotYet("no".to_owned())));
        }
        assert_eq!(p.answered(Mono(7), no()), Some(Verdict::Bad("no".to_owned())));
    }

    #[test]
    fn what_never_succeeded_has_its_whole_budget() {
        let mut p = Prober::new(probe(), Mono(0), (true, false));
        for second in 0..30 {
            assert_ne!(
                p.answered(Mono(second * 1000), no()),
                Some(Verdict::Bad("no".to_owned())),
                "{second}"
            );
        }
        assert_eq!(p.answered(Mono(30_000), no()), Some(Verdict::Bad("no".to_owned())));
    }

    #[test]
    fn several_good_answers_when_that_is_asked_for() {
        let mut p = Prober::new(Probe { success_threshold: 2, ..probe() }, Mono(0), (false, false));
        assert_eq!(p.answered(Mono(0), Ok(())), Some(Verdict::NotYet("1 of 2 good answers".to_owned())));
        assert_eq!(p.answered(Mono(1), Ok(())), Some(Verdict::Good));
    }
}
