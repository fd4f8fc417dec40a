use std::time::Duration;

use super::*;

fn plan() -> Arc<Plan> {
    let text = "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"a\"\n[pools]\na.servers = [\"127.0.0.1:9\"]";
    Arc::new(crate::config::read("test.toml", text).ok().unwrap().plan)
}

/// A reading after `opened` sessions, of which `open` have not ended; each of `pools` pools has the same counts. Its
/// time is `opened` seconds after the epoch.
fn reading(opened: u64, open: u32, pools: usize) -> Reading {
    let mut totals = TotalCounts::default();
    let ended = opened - u64::from(open);
    totals.endings[Ending::ServerReset as usize] = ended;
    (totals.bytes_up, totals.bytes_down) = (10 * opened, 100 * opened);
    let counts = totals.clone();
    Reading {
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(opened),
        sessions: open as usize,
        opened,
        totals,
        pools: vec![PoolReading { counts, sessions: open }; pools],
    }
}

#[test]
fn a_sample_is_the_difference_of_two_readings() {
    let mut recorder = Recorder::default();
    recorder.choose_pools(&plan(), vec!["a".into()]);
    assert!(recorder.record(reading(5, 5, 1), 1).is_none());
    let sample = recorder.record(reading(8, 6, 1), 1).unwrap();
    let totals = sample.totals;
    assert_eq!((totals.sessions, totals.opened), (6, 3));
    assert_eq!(
        (totals.bytes_up, totals.bytes_down, totals.connect_p99),
        (30, 300, None)
    );
    assert_eq!(totals.endings[Ending::ServerReset as usize], 2);
    let pool = PoolSample {
        sessions: 6,
        opened: 3,
        failed: 2,
        bytes_up: 30.0,
        bytes_down: 300.0,
        connect_p99: None,
    };
    assert_eq!(sample.pools, [("a".into(), pool)]);
    assert_eq!(recorder.past_pools()[0].endings()[Ending::ServerReset as usize], 2);
    assert_eq!(recorder.at(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(8)));
}

#[test]
fn rings_keep_the_latest_samples() {
    let mut recorder = Recorder::default();
    recorder.choose_pools(&plan(), vec!["a".into()]);
    let count = SAMPLES_MAX as u64 + 5;
    for opened in 0..=count {
        recorder.record(reading(opened, 0, 1), 1);
    }
    assert_eq!(recorder.totals().len(), SAMPLES_MAX);
    assert_eq!(recorder.past_pools()[0].samples.len(), SAMPLES_MAX);
    let reset = |endings: EndingCounts| endings[Ending::ServerReset as usize];
    assert_eq!(reset(recorder.endings_of_minute()), SAMPLES_A_MINUTE);
    assert_eq!(reset(recorder.endings_of_hour()), count, "no hour is over yet");
    for opened in count + 1..=2 * 3600 {
        recorder.record(reading(opened, 0, 1), 1);
    }
    assert_eq!(reset(recorder.endings()), 7200);
    assert!((3540..=3600).contains(&reset(recorder.endings_of_hour())));
}

#[test]
fn a_stall_adds_a_sample_for_each_of_its_seconds() {
    let mut recorder = Recorder::default();
    recorder.choose_pools(&plan(), vec!["a".into()]);
    recorder.record(reading(2, 2, 1), 1);
    // This reading counts as 4 seconds after the previous one. The times in the readings do not matter.
    let sample = recorder.record(reading(12, 6, 1), 4).unwrap();
    assert_eq!(
        (sample.seconds, sample.totals.opened, sample.totals.bytes_up),
        (4, 10, 100)
    );
    let totals = recorder.totals();
    let of = |value: fn(&TotalsSample) -> u64| totals.iter().map(value).collect::<Vec<_>>();
    assert_eq!(of(|second| second.opened.into()), [2, 3, 2, 3]);
    assert_eq!(of(|second| second.bytes_up), [25; 4]);
    assert_eq!(of(|second| second.sessions.into()), [3, 4, 5, 6]);
    assert_eq!(
        of(|second| second.endings[Ending::ServerReset as usize].into()),
        [1, 2, 1, 2]
    );
    let pool: Vec<_> = recorder.past_pools()[0].samples.iter().collect();
    assert_eq!(
        pool.iter().map(|second| second.opened).collect::<Vec<_>>(),
        [2, 3, 2, 3]
    );
    assert!(pool.iter().all(|second| second.bytes_down == 250.0));

    // A stall of ten hours: the rings keep its last part, with the counts spread evenly over the seconds.
    recorder.record(reading(12 + 36_000, 6, 1), 36_000);
    assert_eq!(recorder.totals().len(), SAMPLES_MAX);
    assert!(recorder.totals().iter().all(|second| second.opened == 1));
    assert_eq!(recorder.past_pools()[0].samples.len(), SAMPLES_MAX);
    let reset = |endings: EndingCounts| endings[Ending::ServerReset as usize];
    assert_eq!(reset(recorder.endings_of_minute()), SAMPLES_A_MINUTE);
    assert!((3540..=3600).contains(&reset(recorder.endings_of_hour())));
    // The number of open sessions can also decrease.
    let sample = recorder.record(reading(36_013, 1, 1), 2).unwrap();
    assert_eq!(
        (
            sample.totals.sessions,
            sample.totals.endings[Ending::ServerReset as usize]
        ),
        (1, 6)
    );
    let latest_first = recorder.totals().iter().rev().map(|second| second.sessions);
    assert_eq!(latest_first.take(3).collect::<Vec<_>>(), [1, 4, 6]);
}

#[test]
fn pools_that_stay_chosen_keep_their_samples() {
    let (mut recorder, plan) = (Recorder::default(), plan());
    recorder.choose_pools(&plan, vec!["a".into(), "b".into()]);
    assert!(!recorder.is_out_of_date(&plan));
    assert!(recorder.is_out_of_date(&self::plan()));
    recorder.record(reading(1, 1, 2), 1);
    recorder.record(reading(2, 2, 2), 1);
    recorder.choose_pools(&plan, vec!["c".into(), "b".into()]);
    let sample = recorder.record(reading(3, 3, 2), 1).unwrap();
    let opened: Vec<_> = sample
        .pools
        .iter()
        .map(|(name, sample)| (&**name, sample.opened))
        .collect();
    assert_eq!(
        opened,
        [("b", 1)],
        "`c` has no earlier reading; that of `a`, at the same index, does not count"
    );
    let lengths: Vec<_> = recorder.past_pools().iter().map(|pool| pool.samples.len()).collect();
    assert_eq!(lengths, [0, 2]);
}

#[test]
fn all_rings_together_take_less_than_2_mib() {
    // The capacity of a ring grows by doubling.
    let pools = super::super::POOLS_MAX * SAMPLES_MAX.next_power_of_two() * size_of::<PoolSample>();
    let totals = SAMPLES_MAX.next_power_of_two() * size_of::<TotalsSample>();
    assert!(pools + totals + MINUTES_MAX * size_of::<EndingCounts>() < 2 << 20);
}
