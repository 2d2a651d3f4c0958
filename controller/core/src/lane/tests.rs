use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::process::{BindRecord, Goal, GoalReason, GoalRecord};
use ostler_schemas::{Actor, Uid};

use super::*;
use crate::plan::{Body, Step};

fn uid(n: u8) -> Uid {
    Uid::from_bytes([n; 16])
}

fn goal_step(n: u8) -> Step {
    let record = GoalRecord {
        goal: Goal::Stop,
        reason: GoalReason::Scale,
        actor: Actor::Controller(ControllerName::Deployment),
        epoch: None,
        at: Timestamp(1),
    };
    Step { key: Key::ProcessGoal(uid(n)), expect: None, act: Act::Put(Body::Goal(record)) }
}

fn submission(ticket: u64, keys: &[u8]) -> Submission {
    Submission {
        ticket,
        plan: Plan { steps: keys.iter().map(|n| goal_step(*n)).collect(), ..Plan::default() },
    }
}

fn lane() -> LaneTerm {
    LaneTerm {
        controller: ControllerName::Scheduler,
        replica: "r1".parse().expect("a name"),
        term: Revision(40),
        nonce: 7,
    }
}

#[test]
fn no_key_is_written_twice_and_order_is_kept() {
    let mut queue: VecDeque<Submission> =
        [submission(1, &[1, 2]), submission(2, &[2, 3]), submission(3, &[3]), submission(4, &[4])].into();
    let batch: Vec<u64> = fill(&mut queue, 100).iter().map(|s| s.ticket).collect();
    assert_eq!(batch, [1, 4], "3 shares a key with 2, which waits");
    let batch: Vec<u64> = fill(&mut queue, 100).iter().map(|s| s.ticket).collect();
    assert_eq!(batch, [2]);
}

#[test]
fn a_batch_has_a_limit_but_takes_one_plan_of_any_size() {
    let many: Vec<Step> = (0..600)
        .map(|i| Step { key: Key::ProcessGoal(Uid::from_bytes(u128::to_be_bytes(i))), ..goal_step(0) })
        .collect();
    let large = |ticket| Submission { ticket, plan: Plan { steps: many.clone(), ..Plan::default() } };
    let mut queue: VecDeque<Submission> = [large(1)].into();
    assert_eq!(fill(&mut queue, 100).len(), 1);
    let mut queue: VecDeque<Submission> = [large(1), submission(2, &[250])].into();
    assert_eq!(fill(&mut queue, 100).len(), 2);
}

#[test]
fn the_fence_comes_first_and_is_guarded_on_the_term() {
    let mut plan = submission(1, &[1]);
    plan.plan.reads.push((Key::ProcessSpec(uid(9)), Some(Revision(12))));
    let writes = render(&lane(), &Fleet::new(), 5, TxnId::from_bytes([1; 16]), &[plan]).expect("renders");
    assert_eq!(writes.len(), 3);
    let fence = Key::Fence(ControllerName::Scheduler);
    assert_eq!((&writes[0].key, &writes[1].key), (&fence, &fence));
    assert_eq!(
        writes[0].guard,
        RenderedGuard::Other(Key::Term(ControllerName::Scheduler), Some(Revision(40)))
    );
    assert_eq!(writes[1].guard, RenderedGuard::Other(Key::ProcessSpec(uid(9)), Some(Revision(12))));
    let stored: Fence = codec::decode(writes[0].value.as_deref().expect("a value")).expect("decodes");
    assert_eq!((stored.batch, stored.epoch.term, stored.epoch.incarnation), (5, Revision(40), 1));
    let goal: GoalRecord = codec::decode(writes[2].value.as_deref().expect("a value")).expect("decodes");
    assert_eq!(goal.epoch, Some(stored.epoch), "the executor fills in the epoch");
}

#[test]
fn a_bind_gets_the_token_of_its_batch() {
    let bind = BindRecord {
        node: "n1".parse().expect("a name"),
        token: ostler_schemas::v1::epoch::Token::default(),
        ports: BTreeMap::new(),
        at: Timestamp(1),
    };
    let step = Step { key: Key::ProcessBind(uid(1)), expect: None, act: Act::Put(Body::Bind(bind)) };
    let plan = Submission { ticket: 1, plan: Plan { steps: vec![step], ..Plan::default() } };
    let writes = render(&lane(), &Fleet::new(), 17, TxnId::from_bytes([1; 16]), &[plan]).expect("renders");
    let bind: BindRecord = codec::decode(writes[1].value.as_deref().expect("a value")).expect("decodes");
    assert_eq!(bind.token.to_string(), "00000001-0000000000000028-00000011");
}

#[test]
fn a_takeover_guards_the_fence_on_the_old_term() {
    let cs = [ControllerName::Node, ControllerName::Scheduler];
    let replica = "r1".parse().expect("a name");
    let writes = takeover(&Fleet::new(), &cs, &replica, 9, TxnId::from_bytes([1; 16])).expect("renders");
    let keys: Vec<String> = writes.iter().map(|w| w.key.to_string()).collect();
    assert_eq!(
        keys,
        [
            "meta.incarnation",
            "lease.node",
            "fence.node",
            "term.node",
            "lease.scheduler",
            "fence.scheduler",
            "term.scheduler"
        ]
    );
    assert_eq!(writes[2].guard, RenderedGuard::Other(Key::Term(ControllerName::Node), None));
}

#[test]
fn overtaken_plans_are_told_from_innocent_ones() {
    let mut fleet = Fleet::new();
    let key = Key::ProcessGoal(uid(2));
    fleet.apply(&crate::fleet::Change { key: &key, revision: Revision(50), at: Timestamp(1), value: None });
    let batch = [submission(1, &[1]), submission(2, &[2])];
    assert_eq!(overtaken(&batch, &fleet), [2].into());
}
