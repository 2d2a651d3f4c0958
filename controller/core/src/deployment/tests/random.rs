//! Random histories: users, losses, stale snapshots and lost plans in any order. The world audits every write; in the
//! end everything must be as asked.

use proptest::prelude::*;

use super::*;
use crate::fleet::Fleet;
use crate::plan::Plan;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Happening {
    Look(prop::sample::Index),
    /// A look at a snapshot of some time ago.
    StaleLook(prop::sample::Index, prop::sample::Index),
    /// A plan made, and lost with its controller before it was committed.
    LostPlan(prop::sample::Index),
    Agent(usize),
    AgentRestart(usize),
    Lose(usize),
    Return(usize),
    /// The host is gone for good and its node deleted.
    DeleteNode(usize),
    AddNode(usize),
    Scale(u32),
    Word(&'static str),
    Bounds(u32, u32),
    Recreate,
    Limit(u16),
    ReportsLost,
    Pass(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let word = prop::sample::select(vec!["v1", "v2", "v3", "bad", "slow", "crash"]);
    prop_oneof![
        20 => any::<prop::sample::Index>().prop_map(Look),
        4 => (any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(a, b)| StaleLook(a, b)),
        2 => any::<prop::sample::Index>().prop_map(LostPlan),
        12 => (0_usize..4).prop_map(Agent),
        1 => (0_usize..4).prop_map(AgentRestart),
        1 => (0_usize..4).prop_map(Lose),
        2 => (0_usize..4).prop_map(Return),
        1 => (0_usize..4).prop_map(DeleteNode),
        1 => (0_usize..4).prop_map(AddNode),
        2 => (0_u32..6).prop_map(Scale),
        2 => word.prop_map(Word),
        1 => (0_u32..3, 0_u32..3).prop_map(|(a, b)| Bounds(a, b.max(u32::from(a == 0)))),
        1 => Just(Recreate),
        1 => (100_u16..200).prop_map(Limit),
        1 => Just(ReportsLost),
        4 => (1_u64..20_000).prop_map(Pass),
    ]
}

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];

/// A new host under the name of an old one.
fn add_again(world: &mut World, name: &str) {
    if !world.agents.contains_key(name) {
        world.add_node(name);
    }
}

fn happen(world: &mut World, history: &mut Vec<Fleet>, happening: &Happening) {
    match happening {
        Happening::Look(index) => {
            let looks = world.looks();
            world.look(index.get(&looks));
        }
        Happening::StaleLook(index, when) => {
            let looks = world.looks();
            // Nothing can guard a decision against a report that comes in meanwhile, so reports are always fresh.
            let snapshot = Fleet { reports: world.fleet.reports.clone(), ..when.get(history).clone() };
            let plan = world.plan_on(&snapshot, index.get(&looks));
            if !plan.is_idle() {
                world.commit(&plan);
            }
        }
        Happening::LostPlan(index) => {
            let looks = world.looks();
            let _lost: Plan = world.plan(index.get(&looks));
        }
        Happening::Agent(n) => drop(world.agent_acts(NODES[*n])),
        Happening::AgentRestart(n) => {
            if let Some(agent) = world.agents.get_mut(NODES[*n]) {
                agent.restart();
            }
        }
        Happening::Lose(n) => world.lose(NODES[*n]),
        Happening::Return(n) => world.bring_back(NODES[*n]),
        Happening::DeleteNode(n) => world.remove_node(NODES[*n]),
        Happening::AddNode(n) => add_again(world, NODES[*n]),
        Happening::Scale(n) => world.edit_deployment("web", |spec| spec.replicas = *n),
        Happening::Word(word) => set_word(world, word),
        Happening::Bounds(surge, unavailable) => bounds(world, *surge, *unavailable),
        Happening::Recreate => {
            world.edit_deployment("web", |spec| spec.strategy.kind = StrategyType::Recreate);
        }
        Happening::Limit(n) => world.edit_deployment("web", |spec| {
            spec.template.spec.limit_nofile = n.to_string().parse().expect("a limit");
        }),
        Happening::ReportsLost => {
            world.fleet.reset(ostler_schemas::Bucket::Observed);
            world.agents.values_mut().for_each(crate::testing::agent::Agent::restart);
        }
        Happening::Pass(ms) => world.pass_ms(*ms),
    }
    history.push(world.fleet.clone());
    if history.len() > 12 {
        history.remove(0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_ends_as_asked(happenings in prop::collection::vec(happening(), 1..80)) {
        let mut world = World::new();
        for name in NODES {
            world.add_node(name);
        }
        let uid = world.deployment("web", rig::deployment_spec(3, "v1"));
        let mut history = vec![world.fleet.clone()];
        for happening in &happenings {
            happen(&mut world, &mut history, happening);
        }
        for name in NODES {
            add_again(&mut world, name);
            world.bring_back(name);
        }
        // A last good version ends every history, so that it can be said what it must come to.
        set_word(&mut world, "last");
        world.settle(2000);
        let replicas = match &world.fleet.object_by_uid(&uid).expect("the object").value.spec {
            Spec::Deployment(spec) => spec.replicas as usize,
            Spec::Node(_) | Spec::Namespace(_) | Spec::Process(_) | Spec::ConfigFile(_) | Spec::Secret(_) => 0,
        };
        prop_assert_eq!((world.running(uid).len(), world.ready(uid)), (replicas, replicas));
        let alive: usize = world.agents.values().map(crate::testing::agent::Agent::alive).sum();
        prop_assert_eq!(alive, replicas, "nothing lives on unseen");
        let phase = state(&world, uid).phase;
        prop_assert!(matches!(phase, RolloutPhase::Complete), "{phase:?}");
    }
}
