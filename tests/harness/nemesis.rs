//! What goes wrong in a random run: drawn from the seed, several things at once, each for a while.
//!
//! The nemesis ends what it began, and tells the checkers what they must not take for a fault of the daemons.

use std::collections::BTreeMap;

use ostler_agent_core::unit::HowEnded;
use ostler_bus::EntropyRef;
use ostler_bus::memory::Noise;
use ostler_bus::memory::faults::Cut;
use ostler_bus::sim_clock::{Gate, ResumeOrder};
use ostler_schemas::NodeName;

use crate::seeds::{between, child, pick};
use crate::world::World;

/// Repairs of one file within ten minutes that the agent makes without slowing down: more would be a contest, which
/// may last an hour, and a run does not.
const SPOILS_PER_FILE: u32 = 2;
/// Accidents of one process within a run, likewise: more, and restarts back off for minutes.
const ACCIDENTS_PER_PROCESS: u32 = 2;

/// How far wall clocks jump.
const CONTROLLER_JUMP_MS: u64 = 60_000;
/// Agents decide nothing by wall time.
const HOST_JUMP_MS: u64 = 3_600_000;

enum Wrong {
    Noise,
    Party(String),
    Paused(String, Gate),
    AgentDown(usize),
    ControllerDown(usize),
    HostDown(usize),
    HolderDown(usize),
    BusDown,
    Rate(Machine),
}

#[derive(Clone, Copy)]
enum Machine {
    Controller(usize),
    Host(usize),
}

/// How much goes wrong.
#[derive(Debug, Clone, Copy)]
pub struct Temper {
    /// Shortest and longest pause between two things that go wrong.
    pub pause_ms: (u64, u64),
    /// Most things that are wrong at once.
    pub at_once: usize,
    /// Whether only agents, holders and the bus suffer: what a process goes through must then follow from its template
    /// and from what it does itself.
    pub around_processes: bool,
}

impl Default for Temper {
    fn default() -> Self {
        Self { pause_ms: (500, 8_000), at_once: 4, around_processes: false }
    }
}

/// The nemesis of one run.
pub struct Nemesis {
    entropy: EntropyRef,
    temper: Temper,
    wrong: Vec<(u64, Wrong)>,
    next_ms: u64,
    spoiled: BTreeMap<(NodeName, String), u32>,
    accidents: BTreeMap<ostler_schemas::Uid, u32>,
}

impl Nemesis {
    /// Of this seed.
    #[must_use]
    pub fn new(seed: u64, temper: Temper) -> Self {
        Self {
            entropy: child(seed, "nemesis"),
            temper,
            wrong: Vec::new(),
            next_ms: 0,
            spoiled: BTreeMap::new(),
            accidents: BTreeMap::new(),
        }
    }

    /// Ends what is due and begins something new now and then. To be called each time the checkers have looked.
    pub async fn act(&mut self, world: &mut World) {
        let now = world.now_ms();
        let (due, rest) = std::mem::take(&mut self.wrong).into_iter().partition(|(until, _)| *until <= now);
        self.wrong = rest;
        let due: Vec<(u64, Wrong)> = due;
        for (_, wrong) in due {
            self.end(world, wrong).await;
        }
        if now < self.next_ms {
            return;
        }
        let (low, high) = self.temper.pause_ms;
        self.next_ms = now + between(&self.entropy, low, high);
        if self.wrong.len() < self.temper.at_once {
            self.begin(world).await;
        }
    }

    fn lasts(&mut self, world: &World, (low, high): (u64, u64), wrong: Wrong) {
        let until = world.now_ms() + between(&self.entropy, low, high);
        self.wrong.push((until, wrong));
    }

    async fn begin(&mut self, world: &mut World) {
        if self.temper.around_processes {
            return self.begin_around_processes(world);
        }
        match self.entropy.below(100) {
            0..12 => self.noise(world),
            12..26 => self.cut(world),
            26..34 => self.pause(world),
            34..46 => self.kill_controller(world),
            46..58 => self.kill_agent(world),
            58..63 => self.power_off(world),
            63..66 => self.holder(world),
            66..70 => {
                world.set_bus(false);
                self.lasts(world, (1_000, 40_000), Wrong::BusDown);
            }
            70..76 => self.watches(world),
            76..84 => self.accident(world),
            84..92 => self.spoil(world),
            92..97 => self.clock(world),
            97..99 => world.lose_observed(),
            _ => {
                world.tell("all controllers die");
                for i in 0..world.replicas.len() {
                    world.replicas[i].kill();
                    self.lasts(world, (1_000, 15_000), Wrong::ControllerDown(i));
                }
            }
        }
    }

    /// For so short that no node is taken for lost.
    fn begin_around_processes(&mut self, world: &mut World) {
        match self.entropy.below(100) {
            0..40 => self.kill_agent_for(world, (50, 2_500)),
            40..75 => self.holder(world),
            75..90 => {
                let node = world.machines[self.index(world.machines.len())].node.to_string();
                world.disconnect(&node);
                self.lasts(world, (500, 2_500), Wrong::Party(node));
            }
            _ => {
                world.set_bus(false);
                self.lasts(world, (500, 10_000), Wrong::BusDown);
            }
        }
    }

    async fn end(&mut self, world: &mut World, wrong: Wrong) {
        match wrong {
            Wrong::Noise => world.noise(None),
            Wrong::Party(party) => world.heal(&party),
            Wrong::Paused(party, gate) => {
                let order = match self.entropy.below(2) {
                    0 => ResumeOrder::TimersFirst,
                    _ => ResumeOrder::BacklogFirst,
                };
                world.tell(format!("{party} goes on ({order:?})"));
                gate.resume(order);
            }
            Wrong::AgentDown(i) => world.start_agent(i).await,
            Wrong::ControllerDown(i) => world.start_replica(i).await,
            Wrong::HostDown(i) => {
                world.machines[i].power_on();
                world.start_agent(i).await;
            }
            Wrong::HolderDown(i) => {
                let line = format!("a holder runs on {} again", world.machines[i].node);
                world.tell(line);
                world.machines[i].holder_up();
            }
            Wrong::BusDown => world.set_bus(true),
            Wrong::Rate(machine) => match machine {
                Machine::Controller(i) => world.replicas[i].clock.set_rate_ppm(0),
                Machine::Host(i) => world.machines[i].clock.set_rate_ppm(0),
            },
        }
    }

    fn index(&self, of: usize) -> usize {
        usize::try_from(self.entropy.below(of as u64)).unwrap_or(0)
    }

    fn party(&self, world: &World) -> String {
        // Controllers are few, and what befalls them matters more.
        if self.entropy.below(100) < 40 {
            world.replicas[self.index(world.replicas.len())].name.clone()
        } else {
            world.machines[self.index(world.machines.len())].node.to_string()
        }
    }

    fn noise(&mut self, world: &mut World) {
        world.noise(Some(Noise::drawn(self.entropy.number())));
        self.lasts(world, (2_000, 40_000), Wrong::Noise);
    }

    fn cut(&mut self, world: &mut World) {
        let party = self.party(world);
        match self.entropy.below(4) {
            0 => world.disconnect(&party),
            1 => world.cut(&party, Cut::Outbound),
            2 => world.cut(&party, Cut::Inbound),
            _ => world.cut(&party, Cut::Both),
        }
        self.lasts(world, (500, 60_000), Wrong::Party(party));
    }

    fn pause(&mut self, world: &mut World) {
        let (party, gate) = if self.entropy.below(2) == 0 {
            let replica = &world.replicas[self.index(world.replicas.len())];
            (replica.name.clone(), replica.life.as_ref().map(|l| l.gate.clone()))
        } else {
            let machine = &world.machines[self.index(world.machines.len())];
            (machine.node.to_string(), machine.life.as_ref().map(|l| l.gate.clone()))
        };
        if let Some(gate) = gate {
            world.tell(format!("{party} is paused"));
            gate.pause();
            self.lasts(world, (300, 30_000), Wrong::Paused(party, gate));
        }
    }

    fn kill_controller(&mut self, world: &mut World) {
        let i = self.index(world.replicas.len());
        world.tell(format!("ctl-{} dies", i + 1));
        world.replicas[i].kill();
        self.lasts(world, (200, 20_000), Wrong::ControllerDown(i));
    }

    fn kill_agent(&mut self, world: &mut World) {
        self.kill_agent_for(world, (200, 20_000));
    }

    /// As short as its supervisor needs.
    fn holder(&mut self, world: &mut World) {
        let i = self.index(world.machines.len());
        if world.machines[i].powered && world.machines[i].holder {
            world.tell(format!("the holder of {} dies", world.machines[i].node));
            world.machines[i].holder_down();
            self.lasts(world, (100, 2_500), Wrong::HolderDown(i));
        }
    }

    fn kill_agent_for(&mut self, world: &mut World, ms: (u64, u64)) {
        let i = self.index(world.machines.len());
        world.tell(format!("the agent of {} dies", world.machines[i].node));
        world.machines[i].kill_agent();
        self.lasts(world, ms, Wrong::AgentDown(i));
    }

    fn power_off(&mut self, world: &mut World) {
        let i = self.index(world.machines.len());
        if world.machines[i].powered {
            world.tell(format!("{} loses power", world.machines[i].node));
            world.machines[i].power_off();
            self.lasts(world, (500, 60_000), Wrong::HostDown(i));
        }
    }

    fn watches(&mut self, world: &mut World) {
        let party = world.replicas[self.index(world.replicas.len())].name.clone();
        world.unsure();
        match self.entropy.below(3) {
            0 => {
                world.tell(format!("watches of {party} hang"));
                world.faults.hang_watches(&party);
            }
            1 => {
                world.tell(format!("watches of {party} end"));
                world.faults.end_watches(&party);
            }
            _ => {
                world.tell(format!("the backlog of {party} is dropped"));
                world.faults.drop_backlog(&party);
            }
        }
    }

    fn accident(&mut self, world: &mut World) {
        let machine = &world.machines[self.index(world.machines.len())];
        let living = machine.host.living();
        let Some((key, name, _)) = pick(&self.entropy, &living).cloned() else { return };
        let count = self.accidents.entry(key.uid).or_default();
        if *count >= ACCIDENTS_PER_PROCESS {
            return;
        }
        *count += 1;
        let how = if self.entropy.below(2) == 0 { HowEnded::Code(1) } else { HowEnded::Signal(11) };
        world.checks.hosts.excused.insert(key);
        machine.host.end(key, how);
        world.tell(format!("process {name} has an accident"));
    }

    fn spoil(&mut self, world: &mut World) {
        let machine = &world.machines[self.index(world.machines.len())];
        let paths = world.watch.paths();
        let Some(path) = pick(&self.entropy, &paths).cloned() else { return };
        let count = self.spoiled.entry((machine.node.clone(), path.clone())).or_default();
        if !machine.powered || *count >= SPOILS_PER_FILE || machine.files.read(&path).is_none() {
            return;
        }
        *count += 1;
        if self.entropy.below(3) == 0 {
            machine.files.with(|fs| fs.take(&path));
        } else {
            let foreign = format!("by another hand {}", self.entropy.below(1_000));
            world.watch.allow(foreign.as_bytes());
            let owner = ostler_agent_core::file::Owner { uid: 7, gid: 7 };
            machine.files.with(|fs| fs.put_file(&path, foreign.as_bytes(), 0o600, owner));
        }
        let line = format!("{}: {path} is spoiled", machine.node);
        world.tell(line);
    }

    fn clock(&mut self, world: &mut World) {
        let machine = if self.entropy.below(2) == 0 {
            Machine::Controller(self.index(world.replicas.len()))
        } else {
            Machine::Host(self.index(world.machines.len()))
        };
        let (name, clock) = match machine {
            Machine::Controller(i) => (world.replicas[i].name.clone(), world.replicas[i].clock.clone()),
            Machine::Host(i) => (world.machines[i].node.to_string(), world.machines[i].clock.clone()),
        };
        if self.entropy.below(2) == 0 {
            // Up to a tenth of a second per second: far worse than any clock that is not broken.
            let ppm = i64::try_from(self.entropy.below(200_001)).unwrap_or(0) - 100_000;
            world.tell(format!("the clock of {name} is off by {ppm} ppm"));
            clock.set_rate_ppm(ppm);
            self.lasts(world, (5_000, 60_000), Wrong::Rate(machine));
        } else {
            let most = match machine {
                // Bakes and deadlines of rollouts are wall times, because they outlive leaders: a controller whose
                // clock is wrong by more than their length ends them early.
                Machine::Controller(_) => CONTROLLER_JUMP_MS,
                Machine::Host(_) => HOST_JUMP_MS,
            };
            let ms = i64::try_from(self.entropy.below(2 * most + 1)).unwrap_or(0)
                - i64::try_from(most).unwrap_or(0);
            world.tell(format!("the wall clock of {name} jumps by {ms} ms"));
            clock.step_wall_ms(ms);
        }
    }
}
