//! Questions that are asked of a process, each by a task of its own, for as long as the machine wants them asked.

use ostler_agent_core::probe::{Prober, Question, question};
use ostler_agent_core::unit::{Event, ProbeKind};
use ostler_schemas::spec::{Probe, ProbeAction};
use ractor::ActorRef;

use super::hooks::{self, ExecQuestion};
use super::start::Who;
use super::{Msg, State, cast};
use crate::context::{Shared, Task};

/// A prober at work: whom it asks, and what.
pub(super) struct Probing {
    incarnation: u64,
    probe: Probe,
    _task: Task,
}

/// A question with everything resolved.
enum Asked {
    Network(Question),
    Exec(Box<ExecQuestion>),
    /// It makes no sense, and why.
    Nonsense(String),
}

impl State {
    /// As many probers as the machine names, for the incarnation and the probes that it names.
    pub(super) fn probe(&mut self, me: &ActorRef<Msg>) {
        let wanted: Vec<_> = self
            .unit
            .probing()
            .into_iter()
            .map(|asking| (asking.incarnation, asking.kind, asking.probe.clone(), asking.good))
            .collect();
        self.probers.retain(|kind, at_work| {
            wanted.iter().any(|(i, k, p, _)| k == kind && *i == at_work.incarnation && *p == at_work.probe)
        });
        for (incarnation, kind, probe, good) in wanted {
            if self.probers.contains_key(&kind) {
                continue;
            }
            let asked = self.resolve(&probe);
            // Readiness that was found good was asked for before, by this agent or by one before it.
            let believed = (good, kind == ProbeKind::Readiness && good);
            let prober = Prober::new(probe.clone(), self.context.deps.clock.mono(), believed);
            let who = Who { uid: self.unit.record().uid, object: self.object() };
            let (context, me) = (self.context.clone(), me.clone());
            let task = Task::spawn(async move {
                ask_on(&context, &who, (prober, asked), |verdict| {
                    cast(&me, Event::Probed { incarnation, kind, verdict });
                })
                .await;
            });
            self.probers.insert(kind, Probing { incarnation, probe, _task: task });
        }
    }

    fn resolve(&self, probe: &Probe) -> Asked {
        let Some(start) = self.unit.started_as() else {
            return Asked::Nonsense("its template is not here".to_owned());
        };
        if let Some(ProbeAction::Exec(exec)) = probe.action() {
            let timeout_ms = probe.timeout.as_millis();
            return Asked::Exec(Box::new(ExecQuestion::new(start, &exec.command, timeout_ms)));
        }
        let address = self.context.board().facts.address.clone();
        question(probe, &start.template, &start.ports, &address).map_or_else(Asked::Nonsense, Asked::Network)
    }
}

/// Asks for as long as this is waited for; one question at a time.
async fn ask_on(
    context: &Shared,
    who: &Who,
    (mut prober, asked): (Prober, Asked),
    tell: impl Fn(ostler_agent_core::unit::Verdict),
) {
    let clock = context.deps.clock.clone();
    loop {
        clock.sleep_until(prober.next()).await;
        let timeout_ms = prober.probe().timeout.as_millis();
        let answer = match &asked {
            Asked::Network(question) => context.deps.host.ask(question.clone(), timeout_ms).await,
            Asked::Exec(question) => hooks::ask(context, who, (**question).clone()).await,
            Asked::Nonsense(why) => Err(why.clone()),
        };
        if let Some(verdict) = prober.answered(clock.mono(), answer) {
            tell(verdict);
        }
    }
}
