//! Agent and holder killed at random while processes end: every end is in the ledger once, and nothing else ends.
//! The seed is printed; `OSTLER_SURVIVAL_SEED` repeats it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ostler_bus::entropy::{EntropyRef, SeededEntropy};
use ostler_schemas::Uid;
use ostler_schemas::v1::process::Goal;
use ostler_schemas::v1::report::{ExitReason, Report};

use crate::plane::{Plane, entry, uid};
use crate::real::{Box, pid, shell};

/// Each is ended once: then none waits for a backoff longer than the first.
const PROCESSES: u8 = 10;

/// Exits by process and incarnation: whoever tells one again tells the same.
#[derive(Default)]
struct Told(BTreeMap<(Uid, u64), (u64, ExitReason)>);

impl Told {
    fn take(&mut self, report: &Report) {
        for exit in &report.exits {
            let this = (exit.seq, exit.reason);
            let before = self.0.insert((exit.u, exit.i), this);
            assert!(before.is_none_or(|before| before == this), "{exit:?} was told as {before:?}");
        }
    }
}

fn ends(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("it ran until now");
}

#[tokio::test]
async fn killed_at_random_agent_and_holder_account_for_every_exit_once() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let given = std::env::var("OSTLER_SURVIVAL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(u64::from(since.subsec_nanos()) | 1);
    eprintln!("OSTLER_SURVIVAL_SEED={seed}");
    let chance: EntropyRef = Arc::new(SeededEntropy::from_number(seed));
    let mut host = Box::new();
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let sleeper = plane.put_template(&shell("exec sleep 600")).await;
    plane.put_run((1..=PROCESSES).map(|n| entry(n, 0, Goal::Run)).collect(), &[sleeper], None).await;
    plane.until_report("all run", |r| (1..=PROCESSES).all(|n| pid(r, n).is_some())).await;
    let mut told = Told::default();
    for victim in 1..=PROCESSES {
        let report = plane.report().await.expect("a report");
        told.take(&report);
        let others: Vec<Option<u32>> =
            (1..=PROCESSES).filter(|n| *n != victim).map(|n| pid(&report, n)).collect();
        let mine = pid(&report, victim).expect("runs");
        let (agent, holder) = (chance.below(3) > 0, chance.below(3) > 0);
        // Before, between or after.
        let when = chance.below(3);
        if when == 0 {
            ends(mine);
        }
        if agent {
            plane.kill_agent().await;
        }
        if holder {
            host.kill_holder();
        }
        if when == 1 {
            ends(mine);
        }
        if holder {
            host.start_holder();
        }
        if agent {
            plane.start_agent_on(host.parts()).await;
        }
        if when == 2 {
            ends(mine);
        }
        plane
            .until_report("its end is told and another runs", |r| {
                r.exits.iter().any(|exit| exit.u == uid(victim))
                    && pid(r, victim).is_some_and(|now| now != mine)
            })
            .await;
        let report = plane.report().await.expect("a report");
        told.take(&report);
        let after: Vec<Option<u32>> =
            (1..=PROCESSES).filter(|n| *n != victim).map(|n| pid(&report, n)).collect();
        assert_eq!(after, others, "somebody else was touched");
    }
    assert_eq!(told.0.len(), usize::from(PROCESSES), "an exit for each, and no other: {:?}", told.0);
    for (seq, reason) in told.0.values() {
        let known = matches!(reason, ExitReason::Signaled | ExitReason::Unknown);
        assert!(known, "exit {seq}: {reason:?}");
    }
    plane
        .put_run((1..=PROCESSES).map(|n| entry(n, 0, Goal::Stop)).collect(), &[sleeper], Some("delete"))
        .await;
    plane.until_report("all have stopped", |r| (1..=PROCESSES).all(|n| pid(r, n).is_none())).await;
    plane.kill_agent().await;
}
