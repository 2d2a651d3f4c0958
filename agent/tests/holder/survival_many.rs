//! Many processes under a holder that is killed and upgraded again and again, at random moments, while they end
//! and start. The seed is printed; `OSTLER_SURVIVAL_SEED` repeats it, `OSTLER_SURVIVAL_PROCESSES` and
//! `OSTLER_SURVIVAL_ROUNDS` make it larger (the full size is 1,000 processes and 100 rounds).

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ostler_agent::holder_client::HolderClient;
use ostler_agent_core::holder::protocol::{Exit, ExitRecord, ProcKey};
use ostler_bus::entropy::{EntropyRef, SeededEntropy};
use ostler_schemas::Uid;

use crate::rig::{Mode, Rig, alive, modes, until};

/// Small enough for every run of the tests.
const PROCESSES: u64 = 100;
const ROUNDS: u64 = 12;

/// Descriptors of the holder beside two pipes and a pidfd for each process: its own dozen, and connections.
const OWN_DESCRIPTORS: usize = 32;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What may be said of an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// A holder was its parent all the time: the signal has to be known.
    Exactly,
    /// It may have ended while no holder lived.
    Perhaps,
}

/// What the test knows to be so.
struct World {
    rig: Rig,
    chance: EntropyRef,
    next: u64,
    running: BTreeMap<ProcKey, i32>,
    ended: BTreeMap<ProcKey, Known>,
    /// Exits that were acknowledged: they may not come again.
    acknowledged: BTreeMap<ProcKey, u64>,
    /// Processes that a holder before the present one started are not its children.
    adopted: bool,
    unknown: usize,
}

impl World {
    async fn fill(&mut self, client: &HolderClient, wanted: u64) {
        let missing = wanted.saturating_sub(self.running.len() as u64);
        let keys: Vec<ProcKey> = (0..missing).map(|_| self.key()).collect();
        let starts = keys.iter().map(|key| client.spawn(self.rig.program(*key, &["sleep", "1000"])));
        for spawned in futures::future::try_join_all(starts).await.expect("starts") {
            self.running.insert(spawned.key, spawned.pid);
        }
    }

    fn key(&mut self) -> ProcKey {
        self.next += 1;
        let mut bytes = [0x5a; 16];
        bytes[..8].copy_from_slice(&self.next.to_be_bytes());
        ProcKey { uid: Uid::from_bytes(bytes), incarnation: 1 }
    }

    /// Ends some at random.
    fn end_some(&mut self, known: Known) {
        for _ in 0..self.chance.below(6) {
            let nth = self.chance.below(self.running.len() as u64);
            let Some((key, pid)) = self.running.iter().nth(usize::try_from(nth).unwrap()) else { return };
            let (key, pid) = (*key, *pid);
            kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it ran until now");
            self.running.remove(&key);
            self.ended.insert(key, known);
        }
    }

    /// A holder dies, or becomes another program, while things go on.
    async fn disturb(&mut self, client: HolderClient) {
        match self.chance.below(3) {
            0 => {
                // Some end just before, and may not be told of any more.
                self.end_some(Known::Perhaps);
                let pause = self.chance.below(20);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                self.rig.kill();
                self.end_some(Known::Perhaps);
                self.rig.start_again();
                self.adopted = true;
            }
            1 => {
                let known = self.known();
                self.end_some(known);
                let upgraded = client.upgrade(None).await;
                assert!(upgraded.is_ok(), "{upgraded:?}");
                self.end_some(known);
            }
            _ => {
                let known = self.known();
                let holder = Pid::from_raw(i32::try_from(self.rig.holder.id()).unwrap());
                kill(holder, Signal::SIGUSR2).expect("the holder lives");
                self.end_some(known);
                let pause = self.chance.below(20);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                if self.chance.below(2) == 0 {
                    // In the middle of it.
                    self.rig.kill();
                    for ended in self.ended.values_mut() {
                        *ended = Known::Perhaps;
                    }
                    self.rig.start_again();
                    self.adopted = true;
                } else {
                    self.upgraded_since(client.welcome().started_at).await;
                }
            }
        }
    }

    async fn upgraded_since(&self, before: u64) {
        let begin = Instant::now();
        while self.rig.connect().await.0.welcome().started_at == before {
            assert!(begin.elapsed() < Duration::from_secs(30), "it does not become another program");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What kernels before 6.15 do not tell of processes that are not children.
    fn known(&self) -> Known {
        if self.adopted { Known::Perhaps } else { Known::Exactly }
    }

    /// Everything is as it should be, under the present holder.
    async fn check(&mut self) -> HolderClient {
        let (client, _events) = self.rig.connect().await;
        let begin = Instant::now();
        let all = loop {
            let all = client.list().await.expect("a listing");
            let told = all.exits.iter().filter(|exit| self.ended.contains_key(&exit.key)).count();
            if told == self.ended.len() && all.processes.len() == self.running.len() {
                break all;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "{told} of {} exits, {} of {} processes",
                self.ended.len(),
                all.processes.len(),
                self.running.len()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        for process in &all.processes {
            assert_eq!(self.running.get(&process.key), Some(&process.pid), "{} has another pid", process.key);
            assert!(alive(process.pid), "{} is listed and dead", process.key);
        }
        assert_eq!(all.exits.len(), self.ended.len(), "an exit that nobody expects");
        for exit in &all.exits {
            self.judge(exit);
        }
        for exit in all.exits {
            if self.chance.below(3) > 0 {
                client.ack_exit(exit.key, exit.seq).await.expect("acknowledged");
                self.ended.remove(&exit.key);
                let before = self.acknowledged.insert(exit.key, exit.seq);
                assert_eq!(before, None, "two exits of {}", exit.key);
            }
        }
        client
    }

    fn judge(&mut self, exit: &ExitRecord) {
        assert!(!self.acknowledged.contains_key(&exit.key), "{} ended twice", exit.key);
        match (&exit.exit, self.ended.get(&exit.key)) {
            (Exit::Signal(15), Some(_)) => {}
            (Exit::Unknown(why), Some(Known::Perhaps)) => {
                assert!(!why.is_empty());
                self.unknown += 1;
            }
            (other, known) => panic!("{} ended with {other:?}, {known:?}", exit.key),
        }
    }

    /// Nothing was left behind.
    fn check_leaks(&self) {
        let pid = self.rig.holder.id();
        let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("the holder lives").count();
        assert!(open <= 3 * self.running.len() + OWN_DESCRIPTORS, "{open} descriptors");
        let fifos = fs::read_dir(self.rig.dir().join("fifo")).expect("the folder of pipes").count();
        assert_eq!(fifos, 2 * self.running.len());
        if let Some(cgroup) = self.rig.cgroup() {
            let folders = fs::read_dir(cgroup).expect("the cgroup").flatten();
            let cgroups = folders.filter(|entry| entry.path().is_dir()).count();
            assert_eq!(cgroups, self.running.len(), "cgroups");
        }
    }
}

async fn many(mode: Mode) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = setting("OSTLER_SURVIVAL_SEED", u64::from(since.subsec_nanos()) | 1);
    let processes = setting("OSTLER_SURVIVAL_PROCESSES", PROCESSES);
    let rounds = setting("OSTLER_SURVIVAL_ROUNDS", ROUNDS);
    eprintln!("{mode:?}: OSTLER_SURVIVAL_SEED={seed}, {processes} processes, {rounds} rounds");
    let mut world = World {
        rig: Rig::start(mode).await,
        chance: Arc::new(SeededEntropy::from_number(seed)),
        next: 0,
        running: BTreeMap::new(),
        ended: BTreeMap::new(),
        acknowledged: BTreeMap::new(),
        adopted: false,
        unknown: 0,
    };
    for _ in 0..rounds {
        let client = world.check().await;
        world.fill(&client, processes).await;
        world.disturb(client).await;
    }
    let client = world.check().await;
    world.check_leaks();
    let ended = world.acknowledged.len() + world.ended.len();
    eprintln!("{mode:?}: {ended} ended, {} of them nobody knows how", world.unknown);
    client.stop_all(Some(20_000), Duration::from_secs(60)).await.expect("everything stops");
    until("nothing is left", || world.rig.marked().is_empty().then_some(())).await;
}

#[tokio::test]
async fn killed_and_upgraded_at_random_no_process_and_no_exit_is_lost() {
    for mode in modes() {
        many(mode).await;
    }
}
