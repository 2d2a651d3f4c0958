//! Random histories of two ConfigFiles with one path: pushes good and bad, labels, losses, deletions, stale snapshots.

use proptest::prelude::*;

use super::*;
use crate::fleet::Fleet;

#[derive(Debug, Clone)]
enum Happening {
    Look(prop::sample::Index),
    StaleLook(prop::sample::Index, prop::sample::Index),
    Agent(usize),
    Lose(usize),
    Return(usize),
    DeleteNode(usize),
    AddNode(usize),
    Label(usize, bool),
    Push(bool, u64),
    Selector(bool, bool),
    Delete(bool),
    Pass(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let size = prop_oneof![3 => 1_u64..9, 1 => Just(BAD_SIZE)];
    prop_oneof![
        20 => any::<prop::sample::Index>().prop_map(Look),
        4 => (any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(a, b)| StaleLook(a, b)),
        10 => (0_usize..3).prop_map(Agent),
        1 => (0_usize..3).prop_map(Lose),
        1 => (0_usize..3).prop_map(Return),
        1 => (0_usize..3).prop_map(DeleteNode),
        1 => (0_usize..3).prop_map(AddNode),
        2 => (0_usize..3, any::<bool>()).prop_map(|(n, on)| Label(n, on)),
        3 => (any::<bool>(), size).prop_map(|(which, size)| Push(which, size)),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(which, all)| Selector(which, all)),
        1 => any::<bool>().prop_map(Delete),
        4 => (1_u64..20_000).prop_map(Pass),
    ]
}

const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn file(which: bool) -> &'static str {
    if which { "first" } else { "second" }
}

/// A ConfigFile that is being deleted takes no changes, as the API has it.
fn may_change(world: &World, which: bool) -> bool {
    world.fleet.objects.get(&name(file(which))).is_none_or(|o| !o.is_deleting())
}

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
            let snapshot = when.get(history).clone();
            let plan = world.plan_on(&snapshot, index.get(&looks));
            if !plan.is_idle() {
                world.commit(&plan);
            }
        }
        Happening::Agent(n) => drop(world.agent_acts(NODES[*n])),
        Happening::Lose(n) => world.lose(NODES[*n]),
        Happening::Return(n) => world.bring_back(NODES[*n]),
        Happening::DeleteNode(n) => world.remove_node(NODES[*n]),
        Happening::AddNode(n) => add_again(world, NODES[*n]),
        Happening::Label(n, on) if world.agents.contains_key(NODES[*n]) => {
            label(world, NODES[*n], "role", if *on { "web" } else { "db" });
        }
        Happening::Push(which, size) if may_change(world, *which) => drop(push(world, file(*which), *size)),
        Happening::Selector(which, all) if may_change(world, *which) => {
            put(world, file(*which), |spec| {
                let web = [("role".to_owned(), "web".to_owned())];
                spec.node_selector = if *all { Labels::new() } else { web.into() };
            });
        }
        Happening::Delete(which) if world.fleet.objects.contains_key(&name(file(*which))) => {
            world.ask_deletion(&name(file(*which)));
        }
        Happening::Label(..) | Happening::Push(..) | Happening::Selector(..) | Happening::Delete(_) => {}
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
        let mut world = nodes(3);
        let mut history = vec![world.fleet.clone()];
        for happening in &happenings {
            happen(&mut world, &mut history, happening);
        }
        for node in NODES {
            add_again(&mut world, node);
            world.bring_back(node);
        }
        world.settle(500);
        for which in [true, false] {
            if may_change(&world, which) {
                push(&mut world, file(which), 7);
            }
        }
        world.settle(500);
        for (object, _) in configfiles(&world.fleet) {
            let version = object.metadata.version.0;
            let wanted = nodes_of(&world.fleet, object).len();
            prop_assert_eq!(held(&world, object.metadata.uid), vec![version; wanted], "{:?}", object);
        }
        let deleting = world.fleet.objects.values().filter(|o| o.is_deleting()).count();
        prop_assert_eq!(deleting, 0, "deletions came to an end");
    }
}
