use proptest::prelude::*;

use super::*;

const MAX_LAG: Duration = Duration::from_secs(5);

fn replica(written: u64, applied: u64, is_following: bool) -> ServerFacts {
    ServerFacts {
        wal: Some(WalPosition {
            written,
            applied,
            is_following,
        }),
        ..ServerFacts::default()
    }
}

/// The facts of a replica or a primary that has written and applied all up to this position.
fn at(position: u64) -> ServerFacts {
    replica(position, position, true)
}

fn labels() -> (Arc<str>, Arc<str>) {
    ("primary".into(), "replica".into())
}

#[tokio::test(start_paused = true)]
async fn lag_counts_from_when_the_primary_passed_the_replica() {
    let (primary, label) = labels();
    let mut lags = LagWatch::default();
    let start = Instant::now();
    let second = |n| start + Duration::from_secs(n);
    let mut lag = |now, (written, applied)| lag_secs(&mut lags, &primary, &label, now, (written, applied));
    assert_eq!(lag(second(0), (1001, 1001)), 0);
    assert_eq!(lag(second(60), (1001, 1001)), 0, "nothing was written");
    assert_eq!(
        lag(second(61), (9_000_001, 1001)),
        0,
        "a bulk load after a quiet minute"
    );
    assert_eq!(lag(second(63), (20_000_001, 9_000_001)), 0);
    assert_eq!(lag(second(64), (20_000_001, 9_000_002)), 1);
    assert_eq!(lag(second(66), (20_000_001, 9_000_002)), 3, "it does not move");
    assert_eq!(lag(second(3600), (20_000_001, 9_000_002)), 3537);
    assert_eq!(lag(second(3601), (20_000_001, 20_000_001)), 0);
}

/// The lag in whole seconds of a replica that has applied all up to `applied`. It is checked right after its primary,
/// which has written up to `written`.
fn lag_secs(
    lags: &mut LagWatch,
    primary: &Arc<str>,
    label: &Arc<str>,
    now: Instant,
    (written, applied): (u64, u64),
) -> u64 {
    lags.record_primary(primary, &at(written), MAX_LAG, now);
    lags.replica_lag(label, &at(applied), MAX_LAG, now).unwrap().as_secs()
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_record_at_a_page_end_is_no_lag() {
    let (primary, label) = labels();
    let mut lags = LagWatch::default();
    let start = Instant::now();
    let mut lag = |seconds, (written, applied)| {
        lag_secs(
            &mut lags,
            &primary,
            &label,
            start + Duration::from_secs(seconds),
            (written, applied),
        )
    };
    let page_end = 1 << 30;
    assert_eq!(lag(0, (page_end, page_end - 300)), 0);
    assert_eq!(lag(100, (page_end, page_end - 300)), 0);
    assert_eq!(lag(101, (page_end + 9, page_end - 300)), 0);
    assert_eq!(lag(102, (page_end + 9, page_end - 300)), 1, "a whole record");
}

#[tokio::test(start_paused = true)]
async fn positions_of_different_timelines_are_not_compared() {
    let (primary, label) = labels();
    let mut lags = LagWatch::default();
    let now = Instant::now();
    lags.record_primary(&primary, &at(5001), MAX_LAG, now);
    let later = now + 2 * MAX_LAG;
    assert_eq!(lags.replica_lag(&label, &at(4001), MAX_LAG, later), Some(2 * MAX_LAG));
    let promoted = ServerFacts {
        timeline: Some(2),
        ..at(4001)
    };
    lags.record_primary(&"promoted".into(), &promoted, MAX_LAG, later);
    assert_eq!(
        lags.replica_lag(&label, &at(4001), MAX_LAG, later),
        Some(Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_known_primary_lag_counts_from_received_writes_or_the_lost_connection() {
    let (_, label) = labels();
    let mut lags = LagWatch::default();
    let start = Instant::now();
    let mut lag = |seconds, facts| {
        let now = start + Duration::from_secs(seconds);
        lags.replica_lag(&label, &facts, MAX_LAG, now).unwrap().as_secs()
    };
    assert_eq!(lag(0, replica(1001, 1001, true)), 0);
    assert_eq!(lag(60, replica(1001, 1001, true)), 0);
    assert_eq!(lag(61, replica(2001, 1001, true)), 0);
    assert_eq!(lag(65, replica(2001, 1001, true)), 4, "it applies nothing");
    assert_eq!(lag(66, replica(2001, 2001, true)), 0);
    assert_eq!(lag(70, replica(2001, 2001, false)), 4, "it follows no server");
}

#[tokio::test(start_paused = true)]
async fn a_reported_lag_counts_only_for_the_time_that_it_has_lasted() {
    let (_, label) = labels();
    let mut lags = LagWatch::default();
    let start = Instant::now();
    let mut lag = |seconds, reported| {
        let facts = ServerFacts {
            lag: Some(Duration::from_secs(reported)),
            ..ServerFacts::default()
        };
        let now = start + Duration::from_secs(seconds);
        lags.replica_lag(&label, &facts, MAX_LAG, now).unwrap().as_secs()
    };
    assert_eq!(lag(0, 0), 0);
    assert_eq!(lag(2, 170), 2, "it has begun to apply a statement that took 170 s");
    assert_eq!(lag(9, 177), 9);
    assert_eq!(lag(20, 3), 3);
    assert_eq!(lag(21, 0), 0);
    let unknown = ServerFacts::default();
    assert_eq!(lags.replica_lag(&label, &unknown, MAX_LAG, start), None);
}

#[tokio::test(start_paused = true)]
async fn the_time_as_a_primary_is_no_lag() {
    let (_, label) = labels();
    let mut lags = LagWatch::default();
    let start = Instant::now();
    let replication_stopped = ServerFacts {
        lag: Some(Duration::MAX),
        ..ServerFacts::default()
    };
    let lag = |lags: &mut LagWatch, seconds| {
        let now = start + Duration::from_secs(seconds);
        lags.replica_lag(&label, &replication_stopped, MAX_LAG, now)
            .unwrap()
            .as_secs()
    };
    assert_eq!((lag(&mut lags, 0), lag(&mut lags, 3)), (0, 3));
    lags.forget_replica(&label); // it is a primary until second 1000
    assert_eq!((lag(&mut lags, 1000), lag(&mut lags, 1002)), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn after_the_primary_is_lost_its_last_position_and_received_writes_count() {
    let (primary, label) = labels();
    let mut lags = LagWatch::default();
    let start = Instant::now();
    lags.record_primary(&primary, &at(1001), MAX_LAG, start);
    let mut lag = |seconds, facts| {
        let now = start + Duration::from_secs(seconds);
        lags.replica_lag(&label, &facts, MAX_LAG, now).unwrap().as_secs()
    };
    // Until `MAX_LAG` has passed, the primary is not lost: only its position counts.
    assert_eq!(lag(5, replica(2001, 1001, true)), 0);
    assert_eq!(lag(6, replica(3001, 1001, true)), 0);
    assert_eq!(
        lag(9, replica(3001, 2001, true)),
        3,
        "it applies too little of what it receives"
    );
    assert_eq!(
        lag(60, replica(3001, 3001, false)),
        0,
        "as far as the primary was when it was last seen"
    );
    assert_eq!(lag(61, replica(999, 999, false)), 61);
    // The primary is not listed any more.
    lags.retain(|label| label == "replica");
    assert_eq!(
        lags.replica_lag(
            &label,
            &replica(3001, 3001, false),
            MAX_LAG,
            start + Duration::from_secs(65)
        ),
        Some(Duration::from_secs(56)),
        "it has followed no server since second 9"
    );
}

proptest! {
    /// A primary writes at random times, and a replica applies the writes in order, each after a random delay. The lag
    /// that is found is never more than the real one. It is less by at most two intervals and two parts in
    /// [`RESOLUTION`] of the sum of `MAX_LAG` and the real lag.
    #[test]
    fn lag_is_the_age_of_the_oldest_missing_write(
        writes in prop::collection::vec((1u64..3000, 1u64..100_000), 1..200),
        delays in prop::collection::vec(prop_oneof![50 => 0u64..12_000, 1 => 60_000u64..600_000], 200),
        interval in 50u64..2000,
    ) {
        let (primary, label) = labels();
        let mut lags = LagWatch::default();
        let start = Instant::now();
        // (time of the write, position after it, time at which it is applied)
        let (mut time, mut position, mut applied_by) = (0, 1, 0);
        let mut log = Vec::new();
        for (index, (wait, bytes)) in writes.into_iter().enumerate() {
            time += wait;
            position += 2 * bytes; // odd, so not the end of a page
            applied_by = applied_by.max(time + delays[index]);
            log.push((time, position, applied_by));
        }
        let millis = Duration::from_millis;
        for check in 0..(time + 20_000) / interval {
            let now = check * interval;
            let written = log.iter().take_while(|(at, ..)| *at <= now).last().map_or(1, |(_, position, _)| *position);
            let applied = log.iter().take_while(|(.., by)| *by <= now).last().map_or(1, |(_, position, _)| *position);
            let missing = log.iter().find(|(at, position, _)| *at <= now && *position > applied);
            let real = missing.map_or(0, |(at, ..)| now - at);
            let instant = start + millis(now);
            lags.record_primary(&primary, &at(written), MAX_LAG, instant);
            let found = lags.replica_lag(&label, &at(applied), MAX_LAG, instant).unwrap();
            prop_assert!(found <= millis(real), "{found:?} at {now}, really {real} ms");
            let error_max = millis(2 * interval) + 2 * (MAX_LAG + millis(real)) / RESOLUTION;
            let least = millis(real).saturating_sub(error_max);
            prop_assert!(found >= least, "{found:?} at {now}, really {real} ms");
        }
        let history = &lags.histories.primary().unwrap().history.written;
        prop_assert!(history.reached.len() <= 12 * RESOLUTION as usize, "{} positions are kept", history.reached.len());
    }
}
