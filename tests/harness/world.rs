//! The world: controllers, hosts and an operator around one bus in memory, in virtual time, with checkers that look
//! every quarter of a second.
//!
//! A world lives on one current-thread runtime with paused time ([`World::run`] makes it). Everything random comes
//! from its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ostler_bus::memory::faults::Cut;
use ostler_bus::memory::{Faults, MemoryBus, MemoryOptions, Noise, Party, Snapshot};
use ostler_bus::sim_clock::ResumeOrder;
use ostler_controller_core::fleet::Fleet;
use ostler_controller_core::liveness::Limits;
use ostler_schemas::{Bucket, ControllerName, Name, NodeName};
use tokio::time::{Duration, Instant};

use crate::checks::acts::ActsCheck;
use crate::checks::files::FileWatch;
use crate::checks::hosts::HostCheck;
use crate::checks::life::LifeCheck;
use crate::checks::log::LogCheck;
use crate::checks::{Found, Rule};
use crate::machine::Machine;
use crate::operator::Operator;
use crate::planted::Plant;
use crate::replica::{Common, Replica};
use crate::{panics, settle};

/// How often checkers look.
pub const LOOK_MS: u64 = 250;
/// How long a world without faults may take until everything is as asked: lost nodes return, backoffs of a minute end.
pub const SETTLE_MS: u64 = 180_000;

/// After so long without a heartbeat a watch is begun anew (12 s), and everything has been read again.
const NOTICE_MS: u64 = 20_000;

/// How a world is made.
#[derive(Clone)]
pub struct Shape {
    /// Controllers.
    pub controllers: usize,
    /// Hosts.
    pub hosts: usize,
    /// Servers.
    pub servers: usize,
    /// How long silence may last.
    pub limits: Limits,
    /// Bugs on purpose.
    pub plant: Plant,
}

impl Default for Shape {
    fn default() -> Self {
        Self { controllers: 3, hosts: 20, servers: 3, limits: Limits::default(), plant: Plant::default() }
    }
}

/// The checkers.
#[derive(Default)]
pub struct Checks {
    /// Of the store.
    pub log: LogCheck,
    /// Of processes.
    pub hosts: HostCheck,
    /// Of what their templates promise.
    pub life: LifeCheck,
    /// Of what follows changes of files.
    pub acts: ActsCheck,
    /// What was found.
    pub found: Vec<Found>,
}

/// The store as it was.
pub struct Past {
    snapshot: Snapshot,
    fleet: Fleet,
}

/// A world.
pub struct World {
    /// Its seed.
    pub seed: u64,
    /// The bus.
    pub bus: MemoryBus,
    /// What can be done to it.
    pub faults: Faults,
    /// The controllers.
    pub replicas: Vec<Replica>,
    /// The hosts.
    pub machines: Vec<Machine>,
    /// An operator.
    pub operator: Operator,
    /// The checkers.
    pub checks: Checks,
    /// The checker of files.
    pub watch: Arc<FileWatch>,
    /// What was done to the world, for whoever reads a failure.
    pub story: Vec<String>,
    common: Common,
    started: Instant,
    troubled: BTreeSet<String>,
    bus_down: bool,
    noisy: bool,
}

/// `OSTLER_SIM_LOG=file`: where everything stored by a run that fails is written, a line for each message.
fn log_file() -> Option<String> {
    std::env::var("OSTLER_SIM_LOG").ok()
}

impl World {
    /// Runs `scenario` in a world of its own, on a runtime of its own.
    pub fn run<T>(seed: u64, shape: Shape, scenario: impl AsyncFnOnce(&mut World) -> T) -> T {
        panics::collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without IO needs nothing of the machine");
        runtime.block_on(async {
            let mut world = World::new(seed, shape).await;
            scenario(&mut world).await
        })
    }

    async fn new(seed: u64, shape: Shape) -> Self {
        let servers: Vec<Name> =
            (1..=shape.servers).map(|i| format!("s{i}").parse().expect("a name")).collect();
        let options = MemoryOptions { seed, servers: servers.clone(), ..MemoryOptions::default() };
        let bus = MemoryBus::with_options(Party::new("servers").clock, options);
        bus.keep_log();
        let watch = FileWatch::new();
        let nodes: Vec<NodeName> =
            (1..=shape.hosts).map(|i| format!("n{i:02}").parse().expect("a name")).collect();
        let anna: Name = "anna".parse().expect("a name");
        let callers = nodes.iter().map(|n| (n.as_str(), "AG")).chain([(anna.as_str(), "OP")]);
        let identities = callers
            .map(|(name, account)| (name.parse().expect("a name"), account.to_owned(), name.to_owned()))
            .collect();
        let common = Common {
            bus: bus.clone(),
            servers,
            identities: Arc::new(identities),
            limits: shape.limits,
            plant: shape.plant,
        };
        let machines = nodes.into_iter().map(|n| Machine::new(seed, n, Arc::clone(&watch))).collect();
        let mut checks = Checks::default();
        checks.log.lines = log_file().map(|_| Vec::new());
        let mut world = Self {
            seed,
            faults: bus.faults(),
            replicas: (0..shape.controllers).map(|i| Replica::new(seed, i)).collect(),
            machines,
            operator: Operator::new(&bus, anna),
            checks,
            watch,
            story: Vec::new(),
            bus,
            common,
            started: Instant::now(),
            troubled: BTreeSet::new(),
            bus_down: false,
            noisy: false,
        };
        world.start_everything().await;
        world
    }

    /// Starts every controller and agent that does not run.
    pub async fn start_everything(&mut self) {
        for replica in &mut self.replicas {
            replica.start(&self.common).await;
        }
        for machine in &mut self.machines {
            machine.start(&self.common.bus, &self.common.plant).await;
        }
    }

    /// Starts one controller.
    pub async fn start_replica(&mut self, i: usize) {
        self.tell(format!("ctl-{} starts", i + 1));
        self.replicas[i].start(&self.common).await;
    }

    /// Starts the agent of one host.
    pub async fn start_agent(&mut self, i: usize) {
        self.tell(format!("agent of {} starts", self.machines[i].node));
        self.machines[i].start(&self.common.bus, &self.common.plant).await;
    }

    /// Milliseconds since the world began.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Adds a line to the story.
    pub fn tell(&mut self, what: impl std::fmt::Display) {
        self.story.push(format!("{:>9.3}s {what}", self.now_ms() as f64 / 1000.0));
    }

    /// Cuts a party off.
    pub fn cut(&mut self, party: &str, cut: Cut) {
        self.tell(format!("{party} is cut off ({cut:?})"));
        self.troubled.insert(party.to_owned());
        self.faults.cut(party, cut);
    }

    /// Ends a party's connection until it is healed.
    pub fn disconnect(&mut self, party: &str) {
        self.tell(format!("{party} is disconnected"));
        self.troubled.insert(party.to_owned());
        self.faults.disconnect(party);
    }

    /// Ends [`Self::cut`] and [`Self::disconnect`].
    pub fn heal(&mut self, party: &str) {
        self.tell(format!("{party} is healed"));
        self.troubled.remove(party);
        self.faults.heal(party);
        self.faults.connect(party);
    }

    /// Misfortune for everyone, or none any more.
    pub fn noise(&mut self, noise: Option<Noise>) {
        self.tell(format!("noise: {noise:?}"));
        self.noisy = noise.is_some();
        match noise {
            Some(noise) => self.faults.noise(noise),
            None => self.faults.calm(),
        }
    }

    /// Takes all servers down, or up.
    pub fn set_bus(&mut self, up: bool) {
        self.tell(if up { "the bus is up" } else { "the bus is down" });
        self.bus_down = !up;
        if up { self.faults.bus_up() } else { self.faults.bus_down() }
    }

    /// The store as it is now.
    #[must_use]
    pub fn remember(&mut self) -> Past {
        self.look();
        let snapshot = self.faults.snapshot(Bucket::Objects).expect("there is a store");
        Past { snapshot, fleet: self.checks.log.fleet.clone() }
    }

    /// The store is again as it was.
    pub fn roll_back(&mut self, past: Past) {
        self.look();
        self.tell("the store is rolled back");
        self.faults.roll_back(past.snapshot);
        self.watch.forgive();
        let reports = self.checks.log.fleet.reports.clone();
        let observed = self.checks.log.fleet.observed;
        self.checks.log.rolled_back(past.fleet);
        self.checks.log.fleet.reports = reports;
        self.checks.log.fleet.observed = observed;
    }

    /// The plane of reports is lost and made anew.
    pub fn lose_observed(&mut self) {
        self.look();
        self.tell("the observed plane is lost");
        self.unsure();
        self.faults.lose_stream(Bucket::Observed);
        self.bus.provision();
        self.checks.log.observed_lost();
    }

    /// From now on leaders may act on an old picture of what nodes report, until they notice.
    pub fn unsure(&mut self) {
        self.checks.log.readiness_unsure_until = self.now_ms() + NOTICE_MS;
    }

    /// Who leads a controller.
    #[must_use]
    pub fn leader(&self, c: ControllerName) -> Option<usize> {
        let leads = |r: &Replica| r.life.as_ref().is_some_and(|l| l.gate.is_open() && l.daemon.leads(c));
        self.replicas.iter().position(leads)
    }

    /// Lets checkers look once.
    pub fn look(&mut self) {
        let now = self.now_ms();
        let fine = |name: &str| !self.troubled.contains(name) && !self.bus_down && !self.noisy;
        let mut well = BTreeMap::new();
        for machine in self.machines.iter().filter(|m| m.is_running() && fine(m.node.as_str())) {
            let since = self.checks.log.well_since.get(&machine.node).copied().unwrap_or(now);
            well.insert(machine.node.clone(), since);
        }
        self.checks.log.well_since = well;
        let troubled = self.troubled.iter().any(|name| self.replicas.iter().any(|r| r.name == *name));
        let paused = self.replicas.iter().any(|r| r.life.as_ref().is_some_and(|l| !l.gate.is_open()));
        if troubled || paused || self.bus_down || self.noisy {
            self.unsure();
        }
        let Checks { log, hosts, life, acts, found } = &mut self.checks;
        log.take(self.bus.take_log(), now, found);
        for machine in &self.machines {
            hosts.take(&machine.node, &machine.host, log, now, found);
            life.take(machine, log, now, found);
            acts.take(&machine.node, &machine.host, now, found);
            self.watch.look(&machine.node, &machine.files);
        }
        // A version that failed is rolled back from by itself: then an older one follows, and rightly.
        let files =
            self.watch.take().into_iter().filter(|odd| {
                odd.rule != Rule::FileFellBack || !settle::was_rolled_back(&log.fleet, &odd.path)
            });
        let files: Vec<(Rule, String)> = files.map(|odd| (odd.rule, odd.what)).collect();
        let panics = panics::take().into_iter().map(|detail| (Rule::Panic, detail));
        found.extend(files.into_iter().chain(panics).map(|(rule, detail)| Found {
            at_ms: now,
            rule,
            detail,
        }));
    }

    /// Lets time pass under the checkers' eyes.
    pub async fn pass(&mut self, ms: u64) {
        let end = self.now_ms() + ms;
        while self.now_ms() < end {
            let step = LOOK_MS.min(end - self.now_ms());
            tokio::time::sleep(Duration::from_millis(step)).await;
            self.look();
        }
    }

    /// Lets time pass until something holds; returns how long that took, or nothing if it took too long.
    pub async fn until(&mut self, within_ms: u64, mut holds: impl FnMut(&World) -> bool) -> Option<u64> {
        let begin = self.now_ms();
        loop {
            self.look();
            if holds(self) {
                return Some(self.now_ms() - begin);
            }
            if self.now_ms() >= begin + within_ms {
                return None;
            }
            self.pass(LOOK_MS).await;
        }
    }

    /// Ends everything that is wrong: all run, all are connected, all clocks are true.
    pub async fn heal_everything(&mut self) {
        self.tell("everything is healed");
        self.noise(None);
        if self.bus_down {
            self.set_bus(true);
        }
        for party in std::mem::take(&mut self.troubled) {
            self.heal(&party);
        }
        for replica in &mut self.replicas {
            replica.clock.set_rate_ppm(0);
            if let Some(life) = &replica.life {
                life.gate.resume(ResumeOrder::BacklogFirst);
            }
        }
        for machine in &mut self.machines {
            machine.clock.set_rate_ppm(0);
            machine.power_on();
            machine.holder_up();
            if let Some(life) = &machine.life {
                life.gate.resume(ResumeOrder::BacklogFirst);
            }
        }
        self.start_everything().await;
    }

    /// Waits until everything is as asked; else that is a violation. Returns how long it took.
    pub async fn settle(&mut self, within_ms: u64) -> u64 {
        let begin = self.now_ms();
        let mut missing = vec![String::new()];
        while !missing.is_empty() && self.now_ms() < begin + within_ms {
            self.pass(LOOK_MS).await;
            missing = settle::missing(self);
        }
        let now = self.now_ms();
        for detail in missing {
            self.checks.found.push(Found { at_ms: now, rule: Rule::NotSettled, detail });
        }
        now - begin
    }

    /// What must hold once everything is as asked.
    pub fn final_checks(&mut self) {
        self.look();
        let now = self.now_ms();
        let Checks { log, hosts, life, acts: _, found } = &mut self.checks;
        for detail in hosts.unaccounted(log).into_iter().chain(life.miscounted(log)) {
            found.push(Found { at_ms: now, rule: Rule::ExitLost, detail });
        }
        for violation in ostler_controller_core::audit::check_quiet(&log.fleet) {
            let detail = format!("{}: {}", violation.subject, violation.detail);
            found.push(Found { at_ms: now, rule: Rule::Audit(violation.rule), detail });
        }
        for replica in &self.replicas {
            if replica.panics() > 0 {
                let detail = format!("{}: {} decisions panicked", replica.name, replica.panics());
                found.push(Found { at_ms: now, rule: Rule::Panic, detail });
            }
        }
    }

    /// Which rules were broken.
    #[must_use]
    pub fn broken(&self) -> BTreeSet<Rule> {
        self.checks.found.iter().map(|f| f.rule).collect()
    }

    /// A hash of everything that was stored and of everything that happened on hosts.
    #[must_use]
    pub fn trace(&self) -> String {
        format!("{} {}", self.checks.log.trace(), self.checks.hosts.trace())
    }

    /// Fails the test if any rule was broken, with the story of the run.
    ///
    /// # Panics
    /// If one was.
    #[track_caller]
    pub fn assert_unbroken(&self) {
        if self.checks.found.is_empty() {
            return;
        }
        if let (Some(path), Some(lines)) = (log_file(), &self.checks.log.lines) {
            std::fs::write(&path, lines.join("\n")).expect("the log can be written where it was asked for");
        }
        let found: Vec<String> = self.checks.found.iter().take(40).map(ToString::to_string).collect();
        panic!(
            "seed {}: {} violations\n{}\nstory:\n{}",
            self.seed,
            self.checks.found.len(),
            found.join("\n"),
            self.story.join("\n")
        );
    }
}
