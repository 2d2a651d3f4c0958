//! Processes with everything that templates have, and what they do of themselves: come up late or never, crash, hang,
//! ignore signals, fall silent, leave others behind; hooks that fail or hang; artifacts that are slow or wrong.
//!
//! Each is a bare Process, so that another template is had by a restart of what runs, not by another process.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ostler_agent::sim::{Program, Source};
use ostler_agent_core::artifacts::set_id;
use ostler_bus::EntropyRef;
use ostler_schemas::Sha256;
use ostler_schemas::quantity::Mode;
use ostler_schemas::spec::{Artifact, ProcessType, Unpack};

use crate::operator::Answer;
use crate::seeds::{between, child, pick};
use crate::world::World;

/// Short, so that crash loops are quickly told: the first delay, and the longest.
pub const RESTART_MS: (u64, u64) = (1_000, 8_000);
/// From a start until it must be up.
pub const START_MS: u64 = 10_000;
/// Three failures of a probe, a second apart.
pub const PROBE_MS: (u64, u64) = (1_000, 3);
/// How long a hook may take.
const HOOK_SEC: u64 = 2;
/// How often it must say that it is alive.
const WATCHDOG_MS: u64 = 2_000;

/// What of a template the checkers judge by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// How it says that it is up.
    pub kind: ProcessType,
    /// Whether it is probed for readiness, at its start, and for life.
    pub readiness: bool,
    /// Likewise.
    pub startup: bool,
    /// Likewise.
    pub liveness: bool,
    /// Hooks before the start.
    pub pre: u64,
    /// Whether a hook stops it.
    pub stop: bool,
    /// Whether a hook cleans up after it.
    pub post: bool,
    /// Whether it is started from an artifact of its own.
    pub artifact: bool,
    /// Whether it is watched.
    pub watchdog: bool,
    /// Whether those who use it get a second to notice that it goes.
    pub delay: bool,
    /// How long a stop may take.
    pub grace_ms: u64,
}

impl Form {
    /// Nothing but a program.
    #[must_use]
    pub const fn plain() -> Self {
        Self {
            kind: ProcessType::Exec,
            readiness: false,
            startup: false,
            liveness: false,
            pre: 0,
            stop: false,
            post: false,
            artifact: false,
            watchdog: false,
            delay: false,
            grace_ms: 3_000,
        }
    }

    fn drawn(entropy: &EntropyRef) -> Self {
        let chance = |percent: u64| entropy.below(100) < percent;
        let kind = match entropy.below(10) {
            0..5 => ProcessType::Exec,
            5..9 => ProcessType::Notify,
            _ => ProcessType::Oneshot,
        };
        Self {
            kind,
            readiness: kind != ProcessType::Oneshot && chance(40),
            startup: kind == ProcessType::Exec && chance(50),
            liveness: kind != ProcessType::Oneshot && chance(50),
            pre: entropy.below(3),
            stop: chance(40),
            post: chance(50),
            artifact: chance(50),
            watchdog: kind == ProcessType::Notify && chance(40),
            delay: chance(30),
            grace_ms: between(entropy, 1, 5) * 1_000,
        }
    }

    /// The set of its artifacts, if it has any.
    #[must_use]
    pub fn set(&self, rev: u64) -> Option<Sha256> {
        let sha256 = format!("{rev:064x}").parse().expect("a hash");
        let artifact = Artifact {
            source: String::new(),
            sha256,
            path: "bin/app".to_owned(),
            mode: Mode::from_bits(0o755),
            unpack: Unpack::None,
        };
        self.artifact.then(|| set_id(&[artifact]))
    }

    /// The manifest of a process of this form.
    #[must_use]
    pub fn manifest(&self, name: &str, rev: u64) -> String {
        let mut text = format!(
            "apiVersion: ostler/v1\nkind: Process\nmetadata: {{name: {name}}}\nspec:\n  command: [/bin/{name}]\n  \
             ports: [{{name: http}}, {{name: live}}, {{name: start}}]\n  startLimitBurst: 1000000\n  \
             restartSec: {}ms\n  restartMaxDelaySec: {}ms\n  timeoutStartSec: {START_MS}ms\n  timeoutStopSec: {}ms\n",
            RESTART_MS.0, RESTART_MS.1, self.grace_ms
        );
        let mut line = |text_of: String| {
            writeln!(text, "  {text_of}").expect("a string takes everything");
        };
        let hook = |which: &str| format!("{{command: [/hook/{name}/{which}], timeout: {HOOK_SEC}s}}");
        let probe = |port: &str| {
            format!(
                "{{tcpSocket: {{port: {port}}}, period: {}ms, failureThreshold: {}}}",
                PROBE_MS.0, PROBE_MS.1
            )
        };
        match self.kind {
            ProcessType::Exec => {}
            ProcessType::Notify => line("type: notify".to_owned()),
            ProcessType::Oneshot => line("type: oneshot\n  restart: on-failure".to_owned()),
        }
        line(if self.artifact {
            format!("args: [--rev, \"{rev}\", --from, $(OSTLER_ARTIFACTS)]")
        } else {
            format!("args: [--rev, \"{rev}\"]")
        });
        if self.artifact {
            let source = source_of(name);
            line(format!("artifacts: [{{source: \"{source}\", sha256: {rev:064x}, path: bin/app}}]"));
        }
        if self.pre > 0 {
            let hooks: Vec<String> = (1..=self.pre).map(|n| hook(&format!("pre{n}"))).collect();
            line(format!("execStartPre: [{}]", hooks.join(", ")));
        }
        let parts = [
            (self.stop, "execStop", hook("stop")),
            (self.post, "execStopPost", hook("post")),
            (self.readiness, "readinessProbe", probe("http")),
            (self.startup, "startupProbe", probe("start")),
            (self.liveness, "livenessProbe", probe("live")),
            (self.watchdog, "watchdogSec", format!("{WATCHDOG_MS}ms")),
            (self.delay, "preStopDelay", "1s".to_owned()),
        ];
        for (_, field, value) in parts.into_iter().filter(|(has, ..)| *has) {
            line(format!("{field}: {value}"));
        }
        text
    }
}

/// Where a process's artifacts come from.
#[must_use]
pub fn source_of(name: &str) -> String {
    format!("https://repo.example.net/{name}/app")
}

/// What serves, as everybody would wish.
#[must_use]
pub fn healthy(form: &Form) -> Program {
    let exits = (form.kind == ProcessType::Oneshot).then_some((700, 0));
    Program { exits, stops_in_ms: Some(20), ready_after_ms: 200, starts_in_ms: 5, ..Program::default() }
}

/// A hook that does its work.
#[must_use]
pub fn good_hook() -> Program {
    Program { exits: Some((100, 0)), ..Program::default() }
}

/// Everything that happens to a few processes, drawn from the seed.
pub struct Life {
    entropy: EntropyRef,
    forms: BTreeMap<String, (u64, Form)>,
    names: Vec<String>,
    rev: u64,
    next_ms: u64,
}

impl Life {
    /// Of so many processes.
    #[must_use]
    pub fn new(seed: u64, processes: u64) -> Self {
        let names = (1..=processes).map(|n| format!("w-{n}")).collect();
        Self { entropy: child(seed, "life"), forms: BTreeMap::new(), names, rev: 0, next_ms: 0 }
    }

    /// Makes all of them, each of a form of its own.
    pub async fn begin(&mut self, world: &mut World) {
        for name in self.names.clone() {
            let form = Form::drawn(&self.entropy);
            self.apply(world, &name, form).await;
        }
    }

    /// Asks for another version of one. Whatever is answered, it may come to be.
    pub async fn apply(&mut self, world: &mut World, name: &str, form: Form) {
        self.rev += 1;
        self.send(world, name, self.rev, form).await;
    }

    async fn send(&mut self, world: &mut World, name: &str, rev: u64, form: Form) {
        if !self.forms.contains_key(name) {
            calm_down(world, name, &form);
        }
        world.checks.life.know(name, rev, &form);
        world.tell(format!("{name} is to be {rev}: {form:?}"));
        let manifest = form.manifest(name, rev);
        self.forms.insert(name.to_owned(), (rev, form));
        if let Answer::Refused(error) = world.operator.apply(&manifest).await {
            assert!(error.findings.is_empty(), "no manifest: {error:?}\n{manifest}");
            world.tell(format!("refused: {}", error.message));
        }
    }

    /// Something happens now and then. To be called each time the checkers have looked.
    pub async fn act(&mut self, world: &mut World) {
        let now = world.now_ms();
        if now < self.next_ms {
            return;
        }
        self.next_ms = now + between(&self.entropy, 250, 2_500);
        let Some(name) = pick(&self.entropy, &self.names).cloned() else { return };
        let Some((rev, form)) = self.forms.get(&name).cloned() else { return };
        match self.entropy.below(100) {
            0..45 => self.mood(world, &name, &form),
            45..60 => self.hook(world, &name),
            60..75 => self.source(world, &name),
            75..92 => self.apply(world, &name, Form::drawn(&self.entropy)).await,
            _ if form.kind == ProcessType::Oneshot => {}
            // What can be had without a restart.
            _ => self.send(world, &name, rev, Form { liveness: !form.liveness, ..form }).await,
        }
    }

    fn mood(&self, world: &mut World, name: &str, form: &Form) {
        let good = healthy(form);
        let ms = between(&self.entropy, 0, 4_000);
        let program = match self.entropy.below(12) {
            0..3 => good,
            3 => Program { exits: Some((ms, 1)), ..good },
            4 => Program { exits: Some((ms, 0)), ..good },
            5 => Program { mute: true, ..good },
            6 => Program { ready_after_ms: 3 * ms, ..good },
            7 => Program { stops_in_ms: None, ..good },
            8 => Program { broken: Some("no such file".to_owned()), ..good },
            9 => Program { alive_for_ms: Some(ms), ..good },
            10 => Program { lingers_ms: ms, ..good },
            _ => {
                let port = ["http", "live", "start"][usize::try_from(self.entropy.below(3)).unwrap_or(0)];
                Program { deaf: vec![port.to_owned()], ..good }
            }
        };
        world.tell(format!("{name} becomes {program:?}"));
        set(world, &format!("/bin/{name}"), &program);
    }

    fn hook(&self, world: &mut World, name: &str) {
        let which = ["pre1", "pre2", "stop", "post"][usize::try_from(self.entropy.below(4)).unwrap_or(0)];
        let ms = between(&self.entropy, 0, 1_900);
        let exits = match self.entropy.below(4) {
            0 | 1 => Some((ms, 0)),
            2 => Some((ms, 3)),
            _ => None,
        };
        world.tell(format!("{which} of {name} ends as {exits:?}"));
        set(world, &format!("/hook/{name}/{which}"), &Program { exits, ..Program::default() });
    }

    fn source(&self, world: &mut World, name: &str) {
        let source = match self.entropy.below(5) {
            0 => Source::default(),
            1 => Source { takes_ms: between(&self.entropy, 500, 8_000), ..Source::default() },
            2 => Source { fails: Some("status 503".to_owned()), ..Source::default() },
            3 => {
                Source { takes_ms: 500, fails: Some("it has another sha256".to_owned()), ..Source::default() }
            }
            _ => Source { hangs: true, ..Source::default() },
        };
        world.tell(format!("the source of {name} is {source:?}"));
        for machine in &world.machines {
            machine.artifacts.set_source(&source_of(name), source.clone());
        }
    }

    /// Everybody does as one would wish, and what was asked last is asked again: its answer may have been lost.
    pub async fn calm(&mut self, world: &mut World) {
        for (name, (rev, form)) in self.forms.clone() {
            calm_down(world, &name, &form);
            for _ in 0..5 {
                if let Answer::Done(_) = world.operator.apply(&form.manifest(&name, rev)).await {
                    break;
                }
            }
        }
    }
}

/// Everything about a process is well from now on.
pub fn calm_down(world: &World, name: &str, form: &Form) {
    set(world, &format!("/bin/{name}"), &healthy(form));
    for hook in ["pre1", "pre2", "stop", "post"] {
        set(world, &format!("/hook/{name}/{hook}"), &good_hook());
    }
    for machine in &world.machines {
        machine.artifacts.set_source(&source_of(name), Source::default());
    }
}

/// How a command behaves on every host.
pub fn set(world: &World, command: &str, program: &Program) {
    for machine in &world.machines {
        machine.host.program(command, program.clone());
    }
}
