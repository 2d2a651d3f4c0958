//! When readiness is asked, and what the answers mean.
//!
//! Until the first success the question is asked every second, or every period if that is shorter; then every period.
//! So many good answers in a row make a process ready, so many bad ones make it not ready; one is never enough when
//! the thresholds say otherwise, so a single slow answer takes nothing out of service.

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
    ready: bool,
    succeeded_once: bool,
    good: u32,
    bad: u32,
    next: Mono,
}

impl Prober {
    /// Of an incarnation that started (or was found) now.
    #[must_use]
    pub fn new(probe: Probe, now: Mono, ready: bool) -> Self {
        let next = now.plus_ms(if ready { 0 } else { probe.initial_delay.as_millis() });
        Self { probe, ready, succeeded_once: ready, good: 0, bad: 0, next }
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

    /// Whether the process is ready.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    /// Takes an answer; `Some` if readiness changed.
    pub fn answered(&mut self, now: Mono, good: bool) -> Option<bool> {
        if good {
            self.succeeded_once = true;
            self.good = self.good.saturating_add(1);
            self.bad = 0;
        } else {
            self.bad = self.bad.saturating_add(1);
            self.good = 0;
        }
        let period = self.probe.period.as_millis().max(LEAST_PERIOD_MS);
        self.next = now.plus_ms(if self.succeeded_once { period } else { period.min(EAGER_MS) });
        let next = match self.ready {
            false => self.good >= self.probe.success_threshold.max(1),
            true => self.bad < self.probe.failure_threshold.max(1),
        };
        let changed = next != self.ready;
        self.ready = next;
        changed.then_some(next)
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

    #[test]
    fn eager_until_the_first_success_then_by_period() {
        let mut p = Prober::new(probe(), Mono(0), false);
        assert_eq!(p.answered(Mono(0), false), None);
        assert_eq!(p.next(), Mono(1000));
        assert_eq!(p.answered(Mono(1000), true), Some(true));
        assert_eq!(p.next(), Mono(11_000));
    }

    #[test]
    fn one_bad_answer_takes_nothing_out_of_service() {
        let mut p = Prober::new(probe(), Mono(0), false);
        assert_eq!(p.answered(Mono(0), true), Some(true));
        assert_eq!(p.answered(Mono(1), false), None);
        assert_eq!(p.answered(Mono(2), false), None);
        assert_eq!(p.answered(Mono(3), true), None);
        for n in 4..6 {
            assert_eq!(p.answered(Mono(n), false), None);
        }
        assert_eq!(p.answered(Mono(7), false), Some(false));
        assert!(!p.is_ready());
    }
}
