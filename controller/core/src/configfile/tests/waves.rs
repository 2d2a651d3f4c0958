//! Waves over nodes: examples, random histories under checkers that know nothing of the engine, and planted bugs that
//! these must catch.

use std::collections::{BTreeMap, BTreeSet};

use ostler_schemas::quantity::{CountOrPercent, Dur};
use ostler_schemas::v1::object::{RolloutAct, RolloutOrder};
use ostler_schemas::v1::state::{Rank, RolloutHold};
use proptest::prelude::*;

use super::*;
use crate::fleet::Fleet;

const BAKE_MS: u64 = 5_000;

fn share(text: &str) -> CountOrPercent {
    text.parse().expect("a count or share")
}

fn rules(waves: &[&str]) -> Rollout {
    let waves = waves.iter().map(|wave| share(wave)).collect();
    Rollout { waves, bake: Dur::from_millis(BAKE_MS), ..Rollout::default() }
}

fn push_with(world: &mut World, size: u64, rules: &Rollout) -> Uid {
    put(world, "app", |spec| {
        spec.content = Some(content(size));
        spec.rollout = rules.clone();
    })
}

/// The version that each node's document asks for.
fn told(fleet: &Fleet, uid: Uid) -> BTreeMap<NodeName, u64> {
    let entry = |d: &ostler_schemas::v1::document::FilesDocument| {
        d.entries.iter().find(|e| e.u == uid && e.g == FileGoal::Hold).map(|e| e.v.0)
    };
    fleet.files_documents.iter().filter_map(|(node, d)| Some((node.clone(), entry(d)?))).collect()
}

fn has(fleet: &Fleet, uid: Uid, node: &NodeName) -> Option<(u64, FileState)> {
    fleet.reports.get(node).and_then(|r| r.value.file(&uid).map(|f| (f.wanted.0, f.state)))
}

/// Watches what is stored, and knows only what was asked: sizes of waves, bake, and how many may be at it.
struct Watch {
    uid: Uid,
    sizes: Vec<usize>,
    most: Option<usize>,
    /// Since when so many are well with a version, and for how long they were at most.
    well: BTreeMap<(u64, usize), (Option<u64>, u64)>,
    good: BTreeSet<u64>,
    found: Vec<String>,
}

impl Watch {
    fn new(uid: Uid, rules: &Rollout, nodes: u32) -> Self {
        let sizes = rules.waves.iter().map(|wave| wave.round_up(nodes).min(nodes) as usize).collect();
        let most = rules.max_unavailable.map(|most| most.round_down(nodes).max(1) as usize);
        Self { uid, sizes, most, well: BTreeMap::new(), good: BTreeSet::new(), found: Vec::new() }
    }

    fn look(&mut self, world: &World) {
        let now = world.now().wall.0;
        let told = told(&world.fleet, self.uid);
        let newest = world.fleet.object_by_uid(&self.uid).map_or(0, |o| o.metadata.version.0);
        for version in 1..=newest {
            let well =
                |node: &NodeName| has(&world.fleet, self.uid, node) == Some((version, FileState::InSync));
            let count = told.keys().filter(|node| well(node)).count();
            for size in self.sizes.clone() {
                let (since, longest) = self.well.entry((version, size)).or_default();
                match (count >= size, *since) {
                    (true, None) => *since = Some(now),
                    (true, Some(from)) => *longest = (*longest).max(now - from),
                    (false, _) => *since = None,
                }
            }
            let with = told.values().filter(|told| **told == version).count();
            if self.good.contains(&version) {
                continue;
            }
            for pair in self.sizes.windows(2) {
                let longest = self.well.get(&(version, pair[0])).map_or(0, |(_, longest)| *longest);
                if with > pair[0] && longest < BAKE_MS {
                    self.found
                        .push(format!("version {version} on {with} nodes before {} had baked", pair[0]));
                }
            }
        }
        let state = state(world, self.uid);
        if state.phase == RolloutPhase::Complete {
            self.good.insert(state.target.0);
        }
        if let Some(most) = self.most {
            let busy = |(node, told): &(&NodeName, &u64)| match has(&world.fleet, self.uid, node) {
                Some((wanted, FileState::Failed)) => wanted == **told && **told == newest,
                Some((wanted, state)) => wanted != **told || state != FileState::InSync,
                None => true,
            };
            let busy = told.iter().filter(busy).count();
            if busy > most {
                self.found.push(format!("{busy} nodes are at it, {most} may be"));
            }
        }
    }

    fn assert_clean(&self) {
        assert_eq!(self.found, Vec::<String>::new());
    }
}

fn settle_watched(world: &mut World, watch: &mut Watch, seconds: u32) {
    for _ in 0..seconds {
        for look in world.looks() {
            world.look(&look);
            watch.look(world);
        }
        world.agents_act();
        watch.look(world);
        world.pass_ms(1000);
        watch.look(world);
    }
}

#[test]
fn a_version_spreads_wave_by_wave() {
    let mut world = nodes(10);
    let rules = rules(&["1", "30%", "100%"]);
    let uid = push_with(&mut world, 1, &rules);
    let mut watch = Watch::new(uid, &rules, 10);
    settle_watched(&mut world, &mut watch, 40);
    push_with(&mut world, 2, &rules);
    settle_watched(&mut world, &mut watch, 4);
    let with: Vec<u64> = told(&world.fleet, uid).into_values().filter(|v| *v == 2).collect();
    assert_eq!(with.len(), 1, "one goes first, the others keep what they have");
    settle_watched(&mut world, &mut watch, 40);
    watch.assert_clean();
    let state = state(&world, uid);
    assert_eq!((state.phase, held(&world, uid)), (RolloutPhase::Complete, vec![2; 10]));
    let sizes: Vec<(u32, u32)> = state.past.iter().map(|past| (past.wave, past.size)).collect();
    assert_eq!(sizes, [(1, 1), (2, 3), (3, 10)]);
}

#[test]
fn a_bad_version_never_passes_wave_one() {
    let mut world = nodes(10);
    let rules = rules(&["1", "30%", "100%"]);
    let uid = push_with(&mut world, 1, &rules);
    let mut watch = Watch::new(uid, &rules, 10);
    settle_watched(&mut world, &mut watch, 40);
    push_with(&mut world, BAD_SIZE, &rules);
    let mut ever = BTreeSet::new();
    for _ in 0..40 {
        settle_watched(&mut world, &mut watch, 1);
        ever.extend(told(&world.fleet, uid).into_iter().filter(|(_, v)| *v == 2).map(|(node, _)| node));
    }
    watch.assert_clean();
    assert_eq!(ever.len(), 1, "{ever:?}");
    let state = state(&world, uid);
    assert_eq!((state.phase, state.failed), (RolloutPhase::RolledBack, Version(2)));
    assert_eq!(told(&world.fleet, uid).into_values().collect::<BTreeSet<_>>(), [1].into());
    world.add_node("late");
    settle_watched(&mut world, &mut watch, 3);
    assert_eq!(held(&world, uid), [1; 11], "who comes later takes the good one");
}

#[test]
fn late_nodes_take_what_holds_where_no_wave_has_come() {
    let mut world = nodes(4);
    let rules = Rollout { pause_after: vec![1], ..rules(&["1", "100%"]) };
    let uid = push_with(&mut world, 1, &Rollout::default());
    world.settle(60);
    push_with(&mut world, 2, &rules);
    world.settle(60);
    assert_eq!(state(&world, uid).hold, Some(RolloutHold::AfterWave));
    for n in 0..6 {
        world.add_node(&format!("late{n}"));
    }
    world.settle(60);
    let spread = state(&world, uid).spread;
    for (node, version) in told(&world.fleet, uid) {
        let object = &world.fleet.object_by_uid(&uid).expect("there").value;
        let rank = rollout::spread::rank(&object.metadata.uid, Version(2), None, &node);
        let reached = rollout::spread::is_reached(rank, spread);
        assert_eq!(version, if reached { 2 } else { 1 }, "{node}");
    }
    let order = RolloutOrder {
        n: 1,
        act: RolloutAct::Resume,
        version: Version(2),
        actor: rig::user(),
        at: rig::NOW,
        reason: None,
    };
    world.edit_object(&name("app"), |object| object.metadata.order = Some(order));
    world.settle(60);
    assert_eq!(held(&world, uid), [2; 10]);
}

#[test]
fn a_wave_never_mixes_racks() {
    let mut world = nodes(9);
    for n in 1..=9 {
        label(&mut world, &format!("n{n}"), "rack", &format!("r{}", n % 3));
    }
    let rules = Rollout { group_by: Some("rack".to_owned()), ..rules(&["1", "100%"]) };
    let uid = push_with(&mut world, 1, &Rollout::default());
    world.settle(60);
    push_with(&mut world, 2, &rules);
    let mut before: BTreeSet<NodeName> = BTreeSet::new();
    let mut waves = 0;
    for _ in 0..80 {
        for look in world.looks() {
            world.look(&look);
        }
        let with: BTreeSet<NodeName> =
            told(&world.fleet, uid).into_iter().filter(|(_, v)| *v == 2).map(|(node, _)| node).collect();
        let fresh: BTreeSet<String> = with
            .difference(&before)
            .filter_map(|n| world.fleet.node_labels(n).get("rack").cloned())
            .collect();
        assert!(fresh.len() <= 1, "{fresh:?}");
        waves += fresh.len();
        before = with;
        world.agents_act();
        world.pass_ms(1000);
    }
    assert_eq!((waves, before.len()), (4, 9), "one node, the rest of its rack, and two racks more");
}

#[test]
fn nodes_that_are_away_block_nothing_and_take_what_holds() {
    let mut world = nodes(6);
    let rules = rules(&["1", "100%"]);
    let uid = push_with(&mut world, 1, &Rollout::default());
    world.settle(60);
    world.lose("n2");
    world.settle(60);
    push_with(&mut world, 2, &rules);
    world.settle(90);
    assert_eq!(state(&world, uid).phase, RolloutPhase::Complete);
    world.bring_back("n2");
    world.settle(60);
    assert_eq!(held(&world, uid), [2; 6]);
}

#[test]
fn a_wave_of_nobody_but_lost_nodes_fails_in_the_end() {
    let mut world = nodes(3);
    let rules = rules(&["1", "100%"]);
    let uid = push_with(&mut world, 1, &Rollout::default());
    world.settle(60);
    push_with(&mut world, 2, &rules);
    world.look(&Look::Config(Subject::File(uid)));
    let all: Vec<NodeName> = world.fleet.nodes().map(|(node, ..)| node).collect();
    let nodes: Vec<Look> = all.iter().map(|node| Look::Config(Subject::Node(node.clone()))).collect();
    for look in &nodes {
        world.look(look);
    }
    let first = told(&world.fleet, uid).into_iter().find(|(_, v)| *v == 2).expect("the first").0;
    world.lose(first.as_str());
    world.settle(60);
    assert_eq!(state(&world, uid).phase, RolloutPhase::Progressing, "nobody has said that it is well");
    world.pass_ms(600_000);
    world.settle(60);
    assert_eq!((state(&world, uid).phase, state(&world, uid).target), (RolloutPhase::RolledBack, Version(1)));
}

/// The way back goes on after the leader that began it, and stays within what may be at it at one time.
#[test]
fn the_way_back_is_paced_too() {
    let mut world = nodes(8);
    let rules = Rollout { max_unavailable: Some(share("2")), ..rules(&["100%"]) };
    let uid = push_with(&mut world, 1, &rules);
    let mut watch = Watch::new(uid, &rules, 8);
    settle_watched(&mut world, &mut watch, 60);
    push_with(&mut world, 2, &rules);
    settle_watched(&mut world, &mut watch, 8);
    assert_eq!(state(&world, uid).phase, RolloutPhase::Baking);
    let order = RolloutOrder {
        n: 1,
        act: RolloutAct::Abort,
        version: Version(2),
        actor: rig::user(),
        at: rig::NOW,
        reason: Some("not today".to_owned()),
    };
    world.edit_object(&name("app"), |object| object.metadata.order = Some(order));
    settle_watched(&mut world, &mut watch, 30);
    watch.assert_clean();
    assert_eq!((state(&world, uid).phase, held(&world, uid)), (RolloutPhase::RolledBack, vec![1; 8]));
    assert!(state(&world, uid).reason.contains("not today"));
}

#[test]
fn a_superseding_version_begins_where_the_other_did() {
    let mut world = nodes(8);
    let rules = Rollout { pause_after: vec![1], ..rules(&["2", "100%"]) };
    let uid = push_with(&mut world, 1, &Rollout::default());
    world.settle(60);
    let with = |world: &World, version: u64| -> BTreeSet<NodeName> {
        told(&world.fleet, uid).into_iter().filter(|(_, v)| *v == version).map(|(node, _)| node).collect()
    };
    push_with(&mut world, 2, &rules);
    world.settle(60);
    let first = with(&world, 2);
    push_with(&mut world, 3, &rules);
    world.settle(60);
    assert_eq!((with(&world, 3), first.len()), (first, 2));
}

#[derive(Debug, Clone)]
enum Happening {
    Look(prop::sample::Index),
    Stale(prop::sample::Index, prop::sample::Index),
    Agent(usize),
    Push(u64),
    Pause(bool),
    Order(bool),
    Pass(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let size = prop_oneof![3 => 1_u64..9, 1 => Just(BAD_SIZE)];
    prop_oneof![
        30 => any::<prop::sample::Index>().prop_map(Look),
        4 => (any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(a, b)| Stale(a, b)),
        20 => (0_usize..6).prop_map(Agent),
        2 => size.prop_map(Push),
        1 => any::<bool>().prop_map(Pause),
        1 => any::<bool>().prop_map(Order),
        8 => (1_u64..4_000).prop_map(Pass),
    ]
}

fn some_rules() -> impl Strategy<Value = Rollout> {
    let waves = prop::sample::select(vec![
        vec!["1", "100%"],
        vec!["1", "50%", "100%"],
        vec!["2", "100%"],
        vec!["100%"],
    ]);
    (waves, prop::option::of(1_u32..3), any::<bool>()).prop_map(|(waves, most, pause)| Rollout {
        max_unavailable: most.map(CountOrPercent::Count),
        on_failure: if pause { OnFailure::Pause } else { OnFailure::Rollback },
        ..rules(&waves)
    })
}

fn give_order(world: &mut World, uid: Uid, act: RolloutAct) {
    let (version, orders) = (state(world, uid).target, state(world, uid).orders);
    let (actor, at) = (rig::user(), rig::NOW);
    let order = RolloutOrder { n: orders + 1, act, version, actor, at, reason: None };
    world.edit_object(&name("app"), |object| object.metadata.order = Some(order));
}

fn happen(world: &mut World, history: &mut Vec<Fleet>, rules: &Rollout, happening: &Happening) {
    let uid = world.fleet.objects[&name("app")].metadata.uid;
    match happening {
        Happening::Look(index) => {
            let looks = world.looks();
            world.look(index.get(&looks));
        }
        Happening::Stale(index, when) => {
            let looks = world.looks();
            let snapshot = when.get(history).clone();
            let plan = world.plan_on(&snapshot, index.get(&looks));
            if !plan.is_idle() {
                world.commit(&plan);
            }
        }
        Happening::Agent(n) => drop(world.agent_acts(&format!("n{}", n + 1))),
        Happening::Push(size) => drop(push_with(world, *size, rules)),
        Happening::Pause(paused) => drop(put(world, "app", |spec| spec.paused = *paused)),
        Happening::Order(resume) => {
            give_order(world, uid, if *resume { RolloutAct::Resume } else { RolloutAct::Abort });
        }
        Happening::Pass(ms) => world.pass_ms(*ms),
    }
    history.push(world.fleet.clone());
    if history.len() > 6 {
        history.remove(0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: no version is told to more than the waves before have borne out, no more are at it than may
    /// be, and in the end a good version is everywhere.
    #[test]
    fn every_wave_bakes_or_returns(rules in some_rules(), happenings in prop::collection::vec(happening(), 1..120)) {
        let mut world = nodes(6);
        let uid = push_with(&mut world, 1, &rules);
        let mut watch = Watch::new(uid, &rules, 6);
        settle_watched(&mut world, &mut watch, 40);
        let mut history = vec![world.fleet.clone()];
        for happening in &happenings {
            happen(&mut world, &mut history, &rules, happening);
            watch.look(&world);
        }
        put(&mut world, "app", |spec| spec.paused = false);
        push_with(&mut world, 500, &rules);
        settle_watched(&mut world, &mut watch, 90);
        prop_assert_eq!(&watch.found, &Vec::<String>::new());
        let state = state(&world, uid);
        prop_assert_eq!((state.phase, held(&world, uid)), (RolloutPhase::Complete, vec![state.target.0; 6]));
    }
}

/// What a broken engine would store.
fn planted(break_it: fn(&mut RolloutState)) -> Vec<String> {
    let mut world = nodes(8);
    let rules = Rollout { max_unavailable: Some(share("2")), ..rules(&["1", "100%"]) };
    let uid = push_with(&mut world, 1, &rules);
    let mut watch = Watch::new(uid, &rules, 8);
    settle_watched(&mut world, &mut watch, 60);
    watch.assert_clean();
    push_with(&mut world, 2, &rules);
    let key = Key::State(ControllerName::ConfigFile, StateSubject::Uid(uid));
    for _ in 0..30 {
        world.look(&Look::Config(Subject::File(uid)));
        let mut broken = state(&world, uid);
        break_it(&mut broken);
        if broken != state(&world, uid) {
            world.put(&key, &broken);
        }
        for look in world.looks().into_iter().filter(|look| matches!(look, Look::Config(Subject::Node(_)))) {
            world.look(&look);
            watch.look(&world);
        }
        world.agents_act();
        watch.look(&world);
        world.pass_ms(1000);
    }
    watch.found
}

#[test]
fn planted_bugs_are_caught() {
    assert_eq!(planted(|_| {}), Vec::<String>::new());
    let everywhere = planted(|state| state.spread = state.spread.map(|_| Rank::LAST));
    assert!(everywhere.iter().any(|found| found.contains("may be")), "{everywhere:?}");
    let unbaked = planted(|state| state.bake_ends_at = state.bake_ends_at.map(|_| Timestamp(0)));
    assert!(unbaked.iter().any(|found| found.contains("had baked")), "{unbaked:?}");
}
