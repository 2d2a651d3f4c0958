//! Which nodes waves reach, against a plain model of what was asked for.

use ostler_schemas::v1::state::Rank;
use proptest::prelude::*;

use super::super::spread::{Course, Stand, extend, is_reached};
use super::*;

fn ranks(groups: &[u8]) -> Vec<Rank> {
    let rank = |(n, group): (u64, &u8)| Rank { g: u64::from(*group), n: n.wrapping_mul(7919) % 1009 };
    let mut ranks: Vec<Rank> = (0_u64..).zip(groups).map(rank).collect();
    ranks.sort();
    ranks
}

fn some_waves() -> impl Strategy<Value = Vec<String>> {
    let wave = prop_oneof![(1_u32..5).prop_map(|n| n.to_string()), (1_u8..100).prop_map(|n| format!("{n}%"))];
    prop::collection::vec(wave, 0..4).prop_map(|mut waves| {
        waves.push("100%".to_owned());
        waves
    })
}

proptest! {
    /// The last wave is everybody, each end has the size that it says, and with groups waves only grow and none mixes
    /// two of them.
    #[test]
    fn a_course_is_as_asked(groups in prop::collection::vec(0_u8..4, 1..40), waves in some_waves(), grouped: bool) {
        let text: Vec<&str> = waves.iter().map(String::as_str).collect();
        let group_by = grouped.then(|| "rack".to_owned());
        let rules = Rollout { group_by, ..super::waves(&text) };
        let ranks = ranks(&groups);
        let course = Course::of_nodes(&rules, &ranks, ranks.len(), &RolloutState::default());
        prop_assert_eq!(course.ends.last().map(|end| (end.rank, end.size as usize)), Some((Rank::LAST, ranks.len())));
        let mut before = 0_usize;
        for end in &course.ends {
            let within = ranks.iter().filter(|rank| **rank <= end.rank).count();
            prop_assert_eq!(within, end.size as usize);
            if grouped {
                prop_assert!(within > before);
                let mixed = ranks[before..within].iter().any(|rank| rank.g != ranks[before].g);
                prop_assert!(!mixed, "{:?}", course);
                before = within;
            }
        }
        if !grouped {
            prop_assert_eq!(course.ends.len(), rules.waves.len());
        }
    }

    /// However nodes go on: no more than so many are busy at one time, and in the end everybody was reached.
    #[test]
    fn no_more_are_busy_than_may_be(
        groups in prop::collection::vec(0_u8..4, 1..40),
        most in 1_u32..6,
        finish in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
    ) {
        let ranks = ranks(&groups);
        let mut members: Vec<(Rank, Stand)> = ranks.iter().map(|rank| (*rank, Stand::Untouched)).collect();
        let mut spread = None;
        let rounds = finish.iter().map(Some).chain(std::iter::repeat_n(None, 100));
        for done in rounds {
            spread = extend(spread, Rank::LAST, &members, most);
            for (rank, stand) in &mut members {
                if is_reached(*rank, spread) && *stand == Stand::Untouched {
                    *stand = Stand::Busy;
                }
            }
            let busy: Vec<usize> = (0..members.len()).filter(|i| members[*i].1 == Stand::Busy).collect();
            prop_assert!(busy.len() <= most as usize, "{}", busy.len());
            let next = match done {
                Some(index) if !busy.is_empty() => Some(*index.get(&busy)),
                Some(_) => None,
                None => busy.first().copied(),
            };
            if let Some(next) = next {
                members[next].1 = Stand::Holds;
            }
        }
        prop_assert_eq!(spread, Some(Rank::LAST));
    }
}

#[test]
fn who_cannot_be_asked_costs_nothing() {
    let ranks = ranks(&[0; 5]);
    let stands = [Stand::Busy, Stand::Offline, Stand::Offline, Stand::Untouched, Stand::Untouched];
    let members: Vec<(Rank, Stand)> = ranks.iter().copied().zip(stands).collect();
    let spread = extend(Some(ranks[0]), Rank::LAST, &members, 1);
    assert_eq!(spread, Some(ranks[2]), "they are told, and nobody else is while one is busy");
    let spread = extend(Some(ranks[0]), Rank::LAST, &members, 2);
    assert_eq!(spread, Some(ranks[3]));
}

#[test]
fn a_group_that_went_away_does_not_make_a_wave_of_two_others() {
    let rules = Rollout { group_by: Some("rack".to_owned()), ..waves(&["100%"]) };
    let three = ranks(&[0, 0, 1, 1, 2, 2]);
    let first = Course::of_nodes(&rules, &three, 6, &RolloutState { wave: 1, ..RolloutState::default() });
    assert_eq!(first.ends.len(), 3);
    let state = RolloutState { wave: 2, wave_end: Some(first.ends[0].rank), ..RolloutState::default() };
    let left = &three[2..];
    let next = Course::of_nodes(&rules, left, 4, &state);
    assert_eq!((next.first, next.ends.len(), next.ends[0].size), (2, 2, 2));
}
