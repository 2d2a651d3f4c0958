use super::*;

fn stream() -> Stream {
    let spec = StreamSpec {
        name: "S",
        prefix: "k.".to_owned(),
        history_one: true,
        atomic: true,
        bytes_max: 2_000,
        message_max: 2_000,
        discard_old: false,
    };
    Stream::new(spec, Timestamp(1), 0)
}

fn draft(subject: &str, guard: Option<(&str, u64)>) -> Draft {
    Draft {
        subject: subject.to_owned(),
        headers: Headers::new(),
        body: Bytes::from_static(b"x"),
        guard: guard.map(|(s, n)| (s.to_owned(), n)),
    }
}

fn now() -> (Timestamp, Instant) {
    (Timestamp(5), Instant::now())
}

#[test]
fn a_batch_is_whole_or_not_at_all() {
    let mut s = stream();
    let drafts = vec![draft("k.a", Some(("k.a", 0))), draft("k.b", Some(("k.b", 7)))];
    assert_eq!(s.store(drafts, Some("b"), now()).map_err(|r| r.code), Err(WRONG_LAST_SEQUENCE));
    assert_eq!((s.last, s.count()), (0, 0));
    let drafts = vec![draft("k.a", Some(("k.a", 0))), draft("k.b", Some(("k.b", 0)))];
    assert_eq!(s.store(drafts, Some("b"), now()), Ok(2));
    let marks: Vec<bool> = s.iter().filter_map(|m| m.batch.as_ref().map(|b| b.last)).collect();
    assert_eq!(marks, [false, true]);
}

#[test]
fn a_guard_may_look_ahead_in_its_batch_but_not_back() {
    let mut s = stream();
    let ahead = vec![draft("k.fence", Some(("k.term", 0))), draft("k.term", Some(("k.term", 0)))];
    assert_eq!(s.store(ahead, Some("b"), now()), Ok(2));
    let back = vec![draft("k.term", Some(("k.term", 2))), draft("k.fence", Some(("k.term", 2)))];
    assert_eq!(s.store(back, Some("c"), now()).map_err(|r| r.code), Err(WRONG_LAST_SEQUENCE_CONSTANT));
}

#[test]
fn history_is_one_and_removal_leaves_no_trace() {
    let mut s = stream();
    for _ in 0..3 {
        s.store(vec![draft("k.a", None)], None, now()).expect("stores");
    }
    assert_eq!((s.count(), s.last), (1, 3));
    s.remove(3);
    assert_eq!((s.count(), s.last, s.bytes()), (0, 3, 0));
    assert!(s.last_of("k.a").is_none());
    assert_eq!(s.store(vec![draft("k.a", Some(("k.a", 0)))], None, now()), Ok(4));
}

#[test]
fn a_full_stream_refuses_and_can_retry() {
    let mut s = stream();
    let mut big = draft("k.a", None);
    big.body = Bytes::from(vec![0; 1_900]);
    assert_eq!(s.store(vec![big.clone()], None, now()), Ok(1));
    big.subject = "k.b".to_owned();
    let refusal = s.store(vec![big.clone()], None, now()).expect_err("is full");
    assert!(refusal.is_retryable() && !refusal.is_conflict());
    big.subject = "k.a".to_owned();
    assert_eq!(s.store(vec![big], None, now()), Ok(2), "replacing frees room");
}

#[test]
fn a_stale_replica_answers_the_version_before() {
    let mut s = stream();
    let t = Instant::now();
    s.store(vec![draft("k.a", None)], None, (Timestamp(1), t)).expect("stores");
    s.store(vec![draft("k.a", None)], None, (Timestamp(2), t)).expect("stores");
    assert_eq!(s.stale_last_of("k.a", t, 100).map(|m| m.seq), Some(1));
    assert_eq!(
        s.stale_last_of("k.a", t + std::time::Duration::from_millis(100), 100).map(|m| m.seq),
        Some(2)
    );
}
