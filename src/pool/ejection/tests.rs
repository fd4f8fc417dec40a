use super::*;

const LIMITS: EjectLimits = EjectLimits {
    after: 3,
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    percent_max: 50,
    on_reset: false,
};

/// The pool allows one more ejection.
const PERMITTED: bool = true;
const NOT_PERMITTED: bool = false;

/// A server that three failed connects have just ejected.
fn ejected(now: Instant) -> Ejection {
    let mut ejection = Ejection::default();
    let back_offs = [(); 3].map(|()| ejection.record_failure(now, LIMITS, PERMITTED, LeaseKind::Regular));
    assert_eq!(back_offs, [None, None, Some(LIMITS.first)]);
    ejection
}

#[tokio::test(start_paused = true)]
async fn the_back_off_doubles_up_to_its_limit_and_a_connect_resets_it() {
    let mut now = Instant::now();
    let mut ejection = ejected(now);
    let mut back_off = LIMITS.first;
    let mut next = || {
        now += back_off;
        assert!(ejection.claim_trial(now, Duration::from_secs(3)));
        back_off = ejection
            .record_failure(now, LIMITS, NOT_PERMITTED, LeaseKind::Trial)
            .expect("a failed trial keeps it ejected, permitted or not");
        back_off.as_secs()
    };
    assert_eq!([(); 6].map(|()| next()), [2, 4, 8, 16, 30, 30]);
    assert!(ejection.record_connect(now, LeaseKind::Trial));
    assert!(ejection.is_clean());
    assert_eq!(
        ejection.record_failure(now, LIMITS, PERMITTED, LeaseKind::Regular),
        None
    );
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_failures_causes_one_ejection() {
    let now = Instant::now();
    let mut ejection = ejected(now);
    assert!((0..100).all(|_| {
        ejection
            .record_failure(now, LIMITS, PERMITTED, LeaseKind::Regular)
            .is_none()
    }));
    assert!(ejection.is_trial_due(now + LIMITS.first));
}

#[tokio::test(start_paused = true)]
async fn passed_checks_end_an_ejection_and_only_a_connect_clears_the_record() {
    let now = Instant::now();
    let mut ejection = ejected(now);
    let rise = 2;
    let mut check = |pass| ejection.record_check(pass, rise);
    assert_eq!(
        [check(true), check(false), check(true), check(true)],
        [false, false, false, true]
    );
    assert!(!ejection.is_ejected() && !ejection.is_clean());
    let again = [(); 3].map(|()| ejection.record_failure(now, LIMITS, PERMITTED, LeaseKind::Regular));
    assert_eq!(again, [None, None, Some(LIMITS.first * 2)]);
    ejection.record_connect(now, LeaseKind::Regular);
    assert!(ejection.is_clean());
}

#[tokio::test(start_paused = true)]
async fn any_back_off_length_is_accepted_without_a_panic() {
    let limits = EjectLimits {
        first: Duration::MAX,
        longest: Duration::MAX,
        after: 1,
        percent_max: 100,
        on_reset: false,
    };
    let mut ejection = Ejection::default();
    assert_eq!(
        ejection.record_failure(Instant::now(), limits, PERMITTED, LeaseKind::Regular),
        Some(Duration::MAX)
    );
    assert!(!ejection.is_trial_due(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn failures_count_even_if_the_server_may_not_be_ejected() {
    let mut ejection = Ejection::default();
    let now = Instant::now();
    assert!((0..9).all(|_| {
        ejection
            .record_failure(now, LIMITS, NOT_PERMITTED, LeaseKind::Regular)
            .is_none()
    }));
    assert!(
        ejection
            .record_failure(now, LIMITS, PERMITTED, LeaseKind::Regular)
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn an_expired_back_off_grants_one_trial() {
    let start = Instant::now();
    let mut ejection = ejected(start);
    let connect_timeout = Duration::from_secs(3);
    assert!(!ejection.claim_trial(start, connect_timeout));
    let later = start + Duration::from_secs(1);
    assert!(ejection.claim_trial(later, connect_timeout));
    assert!(!ejection.claim_trial(later, connect_timeout), "the trial is taken");
    assert!(
        ejection.claim_trial(later + connect_timeout, connect_timeout),
        "the first trial has reported no result in time"
    );
    assert_eq!(
        ejection.record_failure(later, LIMITS, NOT_PERMITTED, LeaseKind::Regular),
        None,
        "the failure of a regular session is not that of the trial"
    );
    assert_eq!(
        ejection.record_failure(later, LIMITS, NOT_PERMITTED, LeaseKind::Trial),
        Some(Duration::from_secs(2)),
        "it stays ejected"
    );
}

/// The address of client number `n`.
fn client(n: u8) -> ClientHost {
    ClientHost::Ip([192, 0, 2, n].into())
}

/// A server that served none of `clients` sessions, each from a different address; and the back-off if the last one
/// ejected it.
fn unserving(clients: u8, now: Instant) -> (Ejection, Option<Duration>) {
    let mut ejection = Ejection::default();
    let mut back_off = None;
    for n in 0..clients {
        assert!(!ejection.record_connect(now, LeaseKind::Regular));
        back_off = ejection.record_unserved(client(n), now, LIMITS, PERMITTED, LeaseKind::Regular);
    }
    (ejection, back_off)
}

#[tokio::test(start_paused = true)]
async fn unserved_sessions_of_three_addresses_eject_a_server() {
    let now = Instant::now();
    assert_eq!(unserving(2, now).1, None);
    assert_eq!(unserving(3, now).1, Some(LIMITS.first));
    let (mut ejection, _) = unserving(2, now);
    for _ in 0..100 {
        assert_eq!(
            ejection.record_unserved(client(0), now, LIMITS, PERMITTED, LeaseKind::Regular),
            None
        );
    }
    let (mut ejection, _) = unserving(2, now);
    assert_eq!(
        ejection.record_unserved(client(2), now, LIMITS, NOT_PERMITTED, LeaseKind::Regular),
        None
    );
    assert!(
        ejection
            .record_unserved(client(2), now, LIMITS, PERMITTED, LeaseKind::Regular)
            .is_some()
    );
    let seven = EjectLimits { after: 7, ..LIMITS };
    let (mut ejection, _) = unserving(2, now);
    let ejects = [(); 5].map(|()| {
        ejection
            .record_unserved(client(9), now, seven, PERMITTED, LeaseKind::Regular)
            .is_some()
    });
    assert_eq!(ejects, [false, false, false, false, true], "the seventh");
}

#[tokio::test(start_paused = true)]
async fn a_served_session_clears_unserved_sessions_that_ended_before_it_connected() {
    let start = Instant::now();
    let now = start + Duration::from_secs(5);
    let (mut ejection, _) = unserving(2, now);
    ejection.record_served(start);
    assert!(!ejection.is_clean(), "it connected before the first unserved one ended");
    ejection.record_served(now);
    assert!(ejection.is_clean());
    // A served session does not end an ejection for failed connects.
    let mut ejection = ejected(now);
    assert!(!ejection.record_served(now) && ejection.is_ejected());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_lasts_clears_unserved_sessions_when_the_next_one_connects() {
    let now = Instant::now();
    let (mut ejection, _) = unserving(2, now);
    ejection.record_connect(now, LeaseKind::Regular);
    ejection.record_connect(now + SERVED_AFTER / 2, LeaseKind::Regular);
    assert!(!ejection.is_clean());
    ejection.record_connect(now + SERVED_AFTER, LeaseKind::Regular);
    assert!(ejection.is_clean());
    let (mut ejection, _) = unserving(2, now);
    ejection.record_connect(now, LeaseKind::Regular);
    ejection.record_inconclusive();
    ejection.record_connect(now + SERVED_AFTER, LeaseKind::Regular);
    assert!(!ejection.is_clean(), "its client closed at once");
}

#[tokio::test(start_paused = true)]
async fn one_session_at_a_time_tries_a_server_ejected_for_unserved_sessions() {
    let mut now = Instant::now();
    let (mut ejection, _) = unserving(3, now);
    assert!(!ejection.record_check(true, 1), "checks do not end it");
    let mut back_off = LIMITS.first;
    for _ in 0..3 {
        now += back_off;
        assert!(ejection.claim_trial(now, Duration::from_secs(3)));
        assert!(
            !ejection.record_connect(now, LeaseKind::Trial),
            "a connect proves nothing"
        );
        assert!(!ejection.is_trial_due(now));
        back_off = ejection
            .record_unserved(client(7), now, LIMITS, NOT_PERMITTED, LeaseKind::Trial)
            .unwrap();
    }
    assert_eq!(back_off, LIMITS.first * 8);
    now += back_off;
    assert!(ejection.claim_trial(now, Duration::from_secs(3)));
    assert!(!ejection.record_connect(now, LeaseKind::Trial));
    now += SERVED_AFTER;
    assert!(ejection.claim_trial(now, Duration::from_secs(3)));
    assert!(
        ejection.record_connect(now, LeaseKind::Trial),
        "the session before has lasted"
    );
    assert!(ejection.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_ends_without_a_report_makes_the_next_one_due_soon() {
    let due = Instant::now() + LIMITS.first;
    let timeout = Duration::from_secs(3);
    let mut ejection = ejected(Instant::now());
    assert!(!ejection.release_trial(due), "nobody has claimed it");
    assert!(ejection.claim_trial(due, timeout) && !ejection.is_trial_due(due));
    assert!(ejection.release_trial(due) && !ejection.is_trial_due(due));
    let due = due + RETURN_WAIT;
    assert!(ejection.claim_trial(due, timeout));
    let back_off = ejection
        .record_failure(due, LIMITS, PERMITTED, LeaseKind::Trial)
        .unwrap();
    assert!(!ejection.release_trial(due), "it has reported");
    assert!(!ejection.is_trial_due(due) && ejection.is_trial_due(due + back_off));
}
