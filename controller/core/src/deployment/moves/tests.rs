use ostler_schemas::time::Timestamp;
use proptest::prelude::*;

use super::*;

fn uid(n: usize) -> Uid {
    Uid::from_bytes([u8::try_from(n % 256).unwrap_or(0); 16])
}

fn member() -> impl Strategy<Value = (Fit, Readiness, u64, bool)> {
    let fit = prop_oneof![Just(Fit::Current), Just(Fit::InPlace), Just(Fit::Outdated)];
    let readiness = prop_oneof![
        1 => Just(Readiness::Unplaced),
        1 => Just(Readiness::NotReady),
        1 => Just(Readiness::Unknown),
        4 => Just(Readiness::Ready)
    ];
    (fit, readiness, 0_u64..5, prop::bool::weighted(0.1))
}

fn situation() -> impl Strategy<Value = Situation> {
    let numbers = (0_u32..8, 0_u32..4, 0_u32..4, 0_u32..3);
    let waves = (prop::option::of(0_u32..8), any::<bool>());
    let flags = (any::<bool>(), prop::bool::weighted(0.2), waves);
    (numbers, flags, prop::collection::vec(member(), 0..16)).prop_map(
        |(
            (replicas, surge, unavailable, ending_outdated),
            (recreate, frozen, (quota, has_base)),
            members,
        )| {
            let make = |(i, (fit, readiness, at, replace)): (usize, (Fit, Readiness, u64, bool))| Member {
                uid: uid(i),
                fit,
                readiness,
                at: Timestamp(at),
                replace: replace && readiness == Readiness::NotReady,
            };
            let (surge, unavailable) = match (recreate, surge, unavailable) {
                (true, _, _) => (0, replicas),
                (false, 0, 0) => (0, 1),
                (false, surge, unavailable) => (surge, unavailable),
            };
            let members = members.into_iter().enumerate().map(make).collect();
            Situation {
                replicas,
                surge,
                unavailable,
                recreate,
                frozen,
                quota,
                has_base,
                members,
                ending_outdated,
            }
        },
    )
}

fn left<'a>(s: &'a Situation, moves: &'a Moves) -> impl Iterator<Item = &'a Member> {
    s.members.iter().filter(|m| !moves.end.iter().any(|(uid, _)| *uid == m.uid))
}

fn ready<'a>(members: impl Iterator<Item = &'a Member>) -> u32 {
    u32::try_from(members.filter(|m| m.readiness == Readiness::Ready).count()).unwrap_or(u32::MAX)
}

proptest! {
    #[test]
    fn never_makes_more_than_replicas_and_surge(s in situation()) {
        let moves = next_moves(&s);
        let total = u32::try_from(left(&s, &moves).count()).unwrap_or(u32::MAX) + moves.create + moves.create_base;
        prop_assert!(moves.create + moves.create_base == 0 || total <= s.replicas + s.surge, "{moves:?}");
    }

    #[test]
    fn never_ends_ready_ones_below_what_must_be_available(s in situation()) {
        let moves = next_moves(&s);
        let (were, are) = (ready(s.members.iter()), ready(left(&s, &moves)));
        let for_rollout = moves.end.iter().any(|(_, reason)| *reason == GoalReason::Rollout);
        if for_rollout && !s.recreate {
            // What is ended because fewer are wanted is not the rollout's doing, and leaves `replicas` of the new ones.
            prop_assert!(are >= s.replicas.saturating_sub(s.unavailable).min(were), "{were} -> {are}: {moves:?}");
        }
    }

    #[test]
    fn ends_nothing_twice_and_adopts_only_what_stays(s in situation()) {
        let moves = next_moves(&s);
        let mut ended: Vec<Uid> = moves.end.iter().map(|(uid, _)| *uid).collect();
        ended.sort();
        let count = ended.len();
        ended.dedup();
        prop_assert_eq!(count, ended.len());
        prop_assert!(moves.adopt.iter().all(|uid| !ended.contains(uid)));
    }

    #[test]
    fn frozen_exchanges_nothing(s in situation()) {
        let moves = next_moves(&Situation { frozen: true, ..s });
        prop_assert!(moves.adopt.is_empty());
        prop_assert!(moves.end.iter().all(|(_, reason)| *reason != GoalReason::Rollout));
    }

    #[test]
    fn recreate_makes_nothing_beside_what_is_old(s in situation()) {
        let s = Situation { recreate: true, surge: 0, unavailable: s.replicas, ..s };
        let moves = next_moves(&s);
        let is_alive = |m: &&Member| m.fit == Fit::Outdated && m.readiness != Readiness::Unplaced;
        let ends = |m: &Member| moves.end.contains(&(m.uid, GoalReason::Rollout));
        // In a wave those beyond it stay, and what it replaces ends first; what never ran is beside nobody.
        let is_replaced = |m: &Member| s.quota.is_none() || ends(m);
        let waits = s.ending_outdated > 0 || s.members.iter().filter(is_alive).any(is_replaced);
        prop_assert!(s.frozen || !waits || moves.create == 0);
    }

    /// No wave gives the version in force to more than it may, whatever there is.
    #[test]
    fn a_wave_reaches_no_more_than_it_may(s in situation()) {
        let moves = next_moves(&s);
        let quota = s.quota.unwrap_or(s.replicas);
        let current = left(&s, &moves).filter(|m| m.fit == Fit::Current).count();
        let after = current + moves.adopt.len() + moves.create as usize;
        let most = current.max(quota as usize);
        prop_assert!(s.frozen && s.quota.is_none() || after <= most, "{after} of {quota}: {moves:?}");
    }

    /// Whatever it starts from, the moves of one wave end with as many current ones as it may have, and the others as
    /// they were.
    #[test]
    fn the_moves_of_a_wave_come_to_an_end(s in situation(), quota in 0_u32..8) {
        let mut s = Situation { frozen: false, has_base: true, quota: Some(quota), ..s };
        let had = s.members.iter().filter(|m| m.fit == Fit::Current).count();
        for round in 0..100_usize {
            let moves = next_moves(&s);
            s.members.retain(|m| !moves.end.iter().any(|(uid, _)| *uid == m.uid));
            for m in &mut s.members {
                m.readiness = Readiness::Ready;
                m.replace = false;
                if moves.adopt.contains(&m.uid) {
                    m.fit = Fit::Current;
                }
            }
            for i in 0..(moves.create + moves.create_base) as usize {
                let uid = uid(100 + (round * 7 + i) % 150);
                let fit = if i < moves.create as usize { Fit::Current } else { Fit::Outdated };
                let at = Timestamp(10);
                s.members.push(Member { uid, fit, readiness: Readiness::Unplaced, at, replace: false });
            }
            s.ending_outdated = 0;
        }
        prop_assert!(next_moves(&s).is_idle(), "{:?}", next_moves(&s));
        prop_assert_eq!(s.members.len(), s.replicas as usize);
        let current = s.members.iter().filter(|m| m.fit == Fit::Current).count();
        let quota = quota.min(s.replicas) as usize;
        prop_assert!(current == quota || (current > quota && current <= had), "{} of {}", current, quota);
    }

    /// Whatever it starts from, the moves come to an end with as many current ones as wanted, when all that is made
    /// becomes ready and all that is unknown becomes known.
    #[test]
    fn moves_come_to_an_end(s in situation()) {
        let mut s = Situation { frozen: false, quota: None, ..s };
        for round in 0..100_usize {
            let moves = next_moves(&s);
            s.members.retain(|m| !moves.end.iter().any(|(uid, _)| *uid == m.uid));
            for m in &mut s.members {
                m.readiness = Readiness::Ready;
                m.replace = false;
                if moves.adopt.contains(&m.uid) {
                    m.fit = Fit::Current;
                }
            }
            for i in 0..moves.create as usize {
                let uid = uid(100 + (round * 7 + i) % 150);
                let at = Timestamp(10);
                let fresh = Member { uid, fit: Fit::Current, readiness: Readiness::Unplaced, at, replace: false };
                s.members.push(fresh);
            }
            s.ending_outdated = 0;
        }
        prop_assert!(next_moves(&s).is_idle() || s.members.iter().any(|m| m.readiness != Readiness::Ready));
        prop_assert_eq!(s.members.len(), s.replicas as usize);
        prop_assert!(s.members.iter().all(|m| m.fit == Fit::Current));
    }
}

#[test]
fn the_youngest_goes_first_and_the_broken_before_it() {
    let of = |n: usize, readiness, at| Member {
        uid: uid(n),
        fit: Fit::Current,
        readiness,
        at: Timestamp(at),
        replace: false,
    };
    let members = vec![
        of(1, Readiness::Ready, 5),
        of(2, Readiness::Ready, 9),
        of(3, Readiness::NotReady, 1),
        of(4, Readiness::Ready, 9),
    ];
    let s = Situation { replicas: 1, unavailable: 1, members, ..Situation::default() };
    let ended: Vec<Uid> = next_moves(&s).end.into_iter().map(|(uid, _)| uid).collect();
    assert_eq!(ended, [uid(3), uid(2), uid(4)]);
}

#[test]
fn unknown_readiness_is_no_reason_to_end_anything_while_too_few_are_known_to_be_ready() {
    let of = |n: usize| Member {
        uid: uid(n),
        fit: Fit::Outdated,
        readiness: Readiness::Unknown,
        at: Timestamp(1),
        replace: false,
    };
    let s = Situation {
        replicas: 3,
        surge: 1,
        unavailable: 1,
        members: vec![of(1), of(2), of(3)],
        ..Situation::default()
    };
    let moves = next_moves(&s);
    assert_eq!((moves.end.len(), moves.create), (0, 1), "all reports were lost: only the surge is made");
}
