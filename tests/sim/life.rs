//! What processes go through: random templates, programs, hooks and sources under crashes of agents and holders, with
//! the checkers of `harness::checks::life` looking on; stories of one kind each; and bugs that these checkers catch.

use std::collections::BTreeSet;

use harness::checks::Rule;
use harness::life::{Form, Life, calm_down, healthy, set, source_of};
use harness::nemesis::{Nemesis, Temper};
use harness::operator::object;
use harness::planted::{LifeBug, Plant};
use harness::seeds;
use harness::world::{LOOK_MS, SETTLE_MS, Shape, World};
use ostler_agent::sim::{Program, Source};
use ostler_schemas::Kind;
use ostler_schemas::spec::ProcessType;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::{ProcessPhase, ProcessReport};

/// How much goes wrong around processes, beside what they do themselves.
const TEMPER: Temper = Temper { pause_ms: (500, 6_000), at_once: 2, around_processes: true };

fn shape(plant: Plant) -> Shape {
    Shape { controllers: 1, hosts: 2, plant, ..Shape::default() }
}

async fn ends_well(world: &mut World) {
    world.heal_everything().await;
    world.settle(SETTLE_MS).await;
    world.final_checks();
}

async fn one(world: &mut World, chaos_ms: u64) -> String {
    world.checks.hosts.lively = true;
    world.pass(4_000).await;
    let mut life = Life::new(world.seed, 8);
    life.begin(world).await;
    let mut nemesis = Nemesis::new(world.seed, TEMPER);
    let end = world.now_ms() + chaos_ms;
    while world.now_ms() < end && world.checks.found.is_empty() {
        world.pass(LOOK_MS).await;
        nemesis.act(world).await;
        life.act(world).await;
    }
    world.heal_everything().await;
    life.calm(world).await;
    ends_well(world).await;
    let hosts = &world.checks.hosts;
    format!("seed {}: {} starts, {} ends; {}", world.seed, hosts.starts, hosts.ends, world.trace())
}

#[test]
fn whatever_processes_do_templates_are_kept_to() {
    for seed in seeds::chosen(1, 6) {
        World::run(seed, shape(Plant::default()), async |world: &mut World| {
            let line = one(world, 240_000).await;
            eprintln!("{line}");
            world.assert_unbroken();
            assert!(world.checks.hosts.starts > 20, "little has happened");
        });
    }
}

#[test]
fn one_seed_of_life_is_one_run() {
    let run = || World::run(78, shape(Plant::default()), async |world: &mut World| one(world, 40_000).await);
    assert_eq!(run(), run());
}

/// A process `w`, as its node tells of it.
fn told(world: &World) -> Option<&ProcessReport> {
    let object = world.checks.log.fleet.objects.get(&object(Kind::Process, "w"))?;
    world.checks.log.fleet.process_report(&object.metadata.uid)
}

fn is_ready(world: &World) -> bool {
    told(world).is_some_and(|process| process.ready)
}

async fn apply(world: &mut World, rev: u64, form: &Form) {
    world.checks.life.know("w", rev, form);
    world.tell(format!("w is to be {rev}"));
    world.operator.apply(&form.manifest("w", rev)).await.done();
}

/// A world with one healthy process `w` of this form.
async fn begun(world: &mut World, form: &Form) {
    world.checks.hosts.lively = true;
    world.pass(4_000).await;
    calm_down(world, "w", form);
    apply(world, 1, form).await;
}

async fn until(world: &mut World, what: &str, holds: impl FnMut(&World) -> bool) {
    if world.until(60_000, holds).await.is_none() {
        let process = told(world).cloned();
        panic!("not within a minute: {what}: {process:?}\n{}", world.story.join("\n"));
    }
}

/// The words of what lives.
fn words(world: &World) -> Vec<Vec<String>> {
    world.machines.iter().flat_map(|m| m.host.living()).map(|(_, _, words)| words).collect()
}

fn runs_rev(world: &World, rev: u64) -> bool {
    words(world).iter().any(|words| words.contains(&rev.to_string()))
}

fn source(world: &World, source: &Source) {
    for machine in &world.machines {
        machine.artifacts.set_source(&source_of("w"), source.clone());
    }
}

#[test]
fn a_version_that_cannot_be_fetched_leaves_the_one_before_alone() {
    World::run(81, shape(Plant::default()), async |world: &mut World| {
        let form = Form { artifact: true, ..Form::plain() };
        begun(world, &form).await;
        until(world, "the first version runs", is_ready).await;
        let bad = [
            Source { fails: Some("it has another sha256".to_owned()), ..Source::default() },
            Source { fails: Some("status 503".to_owned()), takes_ms: 2_000, ..Source::default() },
            Source { hangs: true, ..Source::default() },
        ];
        let before = words(world);
        for (rev, how) in (2..).zip(bad) {
            source(world, &how);
            apply(world, rev, &form).await;
            for _ in 0..3 {
                world.pass(10_000).await;
                for machine in &mut world.machines {
                    machine.kill_agent();
                }
                world.pass(1_000).await;
                world.start_everything().await;
            }
            assert_eq!(words(world), before, "the first version goes on");
            assert!(is_ready(world), "and is ready: {:?}", told(world));
        }
        source(world, &Source::default());
        until(world, "the last version runs", |w| runs_rev(w, 4)).await;
        ends_well(world).await;
        world.assert_unbroken();
    });
}

/// Found by seed 12: the version before was stopped for a probe of the one to come.
#[test]
fn what_runs_is_not_judged_by_the_probes_of_what_is_to_replace_it() {
    World::run(86, shape(Plant::default()), async |world: &mut World| {
        let form = Form::plain();
        begun(world, &form).await;
        until(world, "it runs", is_ready).await;
        let before = words(world);
        source(world, &Source { hangs: true, ..Source::default() });
        let deaf = vec!["live".to_owned(), "http".to_owned()];
        set(world, "/bin/w", &Program { deaf, ..healthy(&form) });
        let next = Form { artifact: true, liveness: true, readiness: true, ..form };
        apply(world, 2, &next).await;
        for _ in 0..3 {
            world.pass(10_000).await;
            for machine in &mut world.machines {
                machine.kill_agent();
            }
            world.pass(1_000).await;
            world.start_everything().await;
            world.pass(5_000).await;
        }
        assert_eq!(words(world), before, "it goes on");
        assert!(is_ready(world), "and is ready: {:?}", told(world));
        calm_down(world, "w", &next);
        until(world, "the next version runs", |w| runs_rev(w, 2)).await;
        ends_well(world).await;
        world.assert_unbroken();
    });
}

#[test]
fn what_never_says_that_it_is_up_is_started_again_and_again_ever_later() {
    World::run(82, shape(Plant::default()), async |world: &mut World| {
        let form = Form { kind: ProcessType::Notify, ..Form::plain() };
        begun(world, &form).await;
        set(world, "/bin/w", &Program { mute: true, ..healthy(&form) });
        apply(world, 2, &form).await;
        let gave_up = |w: &World| told(w).is_some_and(|p| p.exits >= 3);
        until(world, "it was given up three times", gave_up).await;
        assert!(!is_ready(world));
        set(world, "/bin/w", &Program { ready_after_ms: 8_000, ..healthy(&form) });
        until(world, "late is early enough", is_ready).await;
        ends_well(world).await;
        world.assert_unbroken();
    });
}

#[test]
fn silence_is_ended_and_a_dead_holder_is_not_taken_for_silence() {
    World::run(83, shape(Plant::default()), async |world: &mut World| {
        let form = Form { kind: ProcessType::Notify, watchdog: true, ..Form::plain() };
        begun(world, &form).await;
        until(world, "it is up", is_ready).await;
        let exits = told(world).map(|p| p.exits);
        for _ in 0..3 {
            for machine in &mut world.machines {
                machine.holder_down();
            }
            world.pass(5_000).await;
            for machine in &mut world.machines {
                machine.holder_up();
            }
            world.pass(5_000).await;
        }
        assert_eq!(told(world).map(|p| p.exits), exits, "nobody was taken for silent");
        set(world, "/bin/w", &Program { alive_for_ms: Some(1_000), ..healthy(&form) });
        apply(world, 2, &form).await;
        until(world, "silence was ended", |w| told(w).is_some_and(|p| p.exits >= 3)).await;
        calm_down(world, "w", &form);
        ends_well(world).await;
        world.assert_unbroken();
    });
}

#[test]
fn what_does_not_answer_for_its_life_is_started_again_with_the_reason() {
    World::run(84, shape(Plant::default()), async |world: &mut World| {
        let form = Form { liveness: true, readiness: true, stop: true, post: true, ..Form::plain() };
        begun(world, &form).await;
        until(world, "it is ready", is_ready).await;
        set(world, "/bin/w", &Program { deaf: vec!["live".to_owned()], stops_in_ms: None, ..healthy(&form) });
        let loops = |w: &World| told(w).is_some_and(|p| p.reason == Some(Reason::CrashLoop));
        until(world, "it is in a crash loop", loops).await;
        let text = told(world).and_then(|p| p.message.clone()).unwrap_or_default();
        assert!(text.contains("livenessProbe"), "{text}");
        calm_down(world, "w", &form);
        ends_well(world).await;
        world.assert_unbroken();
    });
}

#[test]
fn a_oneshot_does_its_work_once_through_every_crash() {
    World::run(85, shape(Plant::default()), async |world: &mut World| {
        let form = Form { kind: ProcessType::Oneshot, pre: 1, post: true, ..Form::plain() };
        begun(world, &form).await;
        let done = |w: &World| told(w).is_some_and(|p| p.phase == ProcessPhase::Succeeded);
        until(world, "it is done", done).await;
        let starts = world.checks.hosts.starts;
        for round in 0..4 {
            for machine in &mut world.machines {
                if round % 2 == 0 {
                    machine.kill_agent();
                } else {
                    machine.power_off();
                    machine.power_on();
                }
            }
            world.pass(1_000).await;
            world.start_everything().await;
            world.pass(5_000).await;
        }
        assert_eq!(world.checks.hosts.starts, starts);
        ends_well(world).await;
        world.assert_unbroken();
    });
}

/// The story that brings a bug to light; the same without the bug breaks no rule.
fn story(bug: LifeBug) -> (BTreeSet<Rule>, BTreeSet<Rule>) {
    let told = |plant: Plant| {
        World::run(91, shape(plant), async |world: &mut World| {
            let form = Form {
                kind: ProcessType::Notify,
                readiness: true,
                pre: 1,
                stop: bug != LifeBug::KillsAtOnce,
                post: true,
                ..Form::plain()
            };
            let plain = Form { artifact: true, ..Form::plain() };
            let work = Form { kind: ProcessType::Oneshot, ..Form::plain() };
            let form = match bug {
                LifeBug::ArtifactsAtOnce | LifeBug::Hasty => plain,
                LifeBug::Amnesia | LifeBug::Gloomy => work,
                LifeBug::BelievesAll | LifeBug::KillsAtOnce | LifeBug::HooksTwice | LifeBug::HooksNever => {
                    form
                }
            };
            begun(world, &form).await;
            world.pass(5_000).await;
            let stubborn = Program { stops_in_ms: None, ready_after_ms: 3_000, ..healthy(&form) };
            let dies = Program { exits: Some((500, 1)), ..healthy(&form) };
            let program = match bug {
                LifeBug::Hasty => &dies,
                LifeBug::Amnesia | LifeBug::Gloomy => &healthy(&form),
                LifeBug::BelievesAll
                | LifeBug::KillsAtOnce
                | LifeBug::HooksTwice
                | LifeBug::HooksNever
                | LifeBug::ArtifactsAtOnce => &stubborn,
            };
            set(world, "/bin/w", program);
            if bug != LifeBug::Hasty {
                source(world, &Source { takes_ms: 5_000, ..Source::default() });
            }
            if !matches!(bug, LifeBug::Amnesia | LifeBug::Gloomy) {
                apply(world, 2, &form).await;
            }
            world.pass(15_000).await;
            for machine in &mut world.machines {
                machine.kill_agent();
            }
            world.start_everything().await;
            world.pass(15_000).await;
            world.broken()
        })
    };
    (told(Plant::default()), told(Plant { life: Some(bug), ..Plant::default() }))
}

#[test]
fn each_bug_in_the_life_of_processes_is_caught() {
    for (bug, rule) in [
        (LifeBug::BelievesAll, Rule::ReadyTooEarly),
        (LifeBug::KillsAtOnce, Rule::StopDisorder),
        (LifeBug::HooksTwice, Rule::HookDisorder),
        (LifeBug::HooksNever, Rule::HookSkipped),
        (LifeBug::ArtifactsAtOnce, Rule::ArtifactMissing),
        (LifeBug::ArtifactsAtOnce, Rule::StoppedUnasked),
        (LifeBug::Hasty, Rule::HastyRestart),
        (LifeBug::Gloomy, Rule::OneshotTwice),
        (LifeBug::Amnesia, Rule::IncarnationTwice),
    ] {
        let (without, with) = story(bug);
        assert_eq!(without, BTreeSet::new(), "without {bug:?}");
        assert!(with.contains(&rule), "{bug:?} breaks {with:?}");
    }
}
