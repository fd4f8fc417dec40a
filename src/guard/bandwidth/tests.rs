//! Shares of a bandwidth, in paused time.

use std::future::poll_fn;

use super::*;

const MIB: u64 = 1 << 20;

/// How many bytes are readable: more than any grant.
fn plenty() -> usize {
    usize::MAX
}

/// How many bytes a direction reads until `end`, if it reads as many as it is granted each time.
async fn bytes_until(mut throttle: DirectionThrottle, end: Instant) -> u64 {
    let mut total = 0;
    loop {
        let granted = poll_fn(|cx| throttle.poll_grant(cx, plenty)).await;
        if Instant::now() >= end {
            return total;
        }
        throttle.settle(granted);
        total += granted as u64;
    }
}

#[tokio::test(start_paused = true)]
async fn one_direction_gets_the_whole_bandwidth() {
    for rate in [10 << 10, MIB, 50 * MIB, 1 << 30] {
        let (bucket, start) = (Arc::new(ByteBucket::new(Some(rate))), Instant::now());
        let total = bytes_until(DirectionThrottle::new(vec![bucket]), start + Duration::from_secs(10)).await;
        let error = total as f64 / (10 * rate) as f64 - 1.0;
        assert!(error.abs() < 0.02, "{rate} B/s: {total} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn directions_that_share_a_bucket_get_equal_shares() {
    let (bucket, start) = (Arc::new(ByteBucket::new(Some(50 * MIB))), Instant::now());
    let end = start + Duration::from_secs(5);
    let direction = || {
        let throttle = DirectionThrottle::new(vec![Arc::clone(&bucket)]);
        tokio::spawn(bytes_until(throttle, end))
    };
    let tasks: Vec<_> = (0..8).map(|_| direction()).collect();
    let mut shares = Vec::new();
    for task in tasks {
        shares.push(task.await.unwrap());
    }
    let all: u64 = shares.iter().sum();
    assert!((all as f64 / (250 * MIB) as f64 - 1.0).abs() < 0.02, "{all}"); // 5 s at 50 MiB/s
    for share in &shares {
        let ratio = *share as f64 / (all as f64 / 8.0);
        assert!((0.95..1.05).contains(&ratio), "{shares:?}");
    }
}

/// A prompt direction does not take the slots of those that wake late.
#[tokio::test(start_paused = true)]
async fn a_prompt_direction_gets_no_larger_share_than_late_ones() {
    let (bucket, start) = (Arc::new(ByteBucket::new(Some(50 * MIB))), Instant::now());
    let end = start + Duration::from_secs(5);
    let direction = |late: Duration| {
        let mut throttle = DirectionThrottle::new(vec![Arc::clone(&bucket)]);
        tokio::spawn(async move {
            let mut total = 0;
            while Instant::now() < end {
                let granted = poll_fn(|cx| throttle.poll_grant(cx, plenty)).await;
                tokio::time::sleep(late).await;
                throttle.settle(granted);
                total += granted as u64;
            }
            total
        })
    };
    // Late, but within the round: eight slots of 32 KiB take 5 ms at 50 MiB/s.
    let late: Vec<_> = (0..7).map(|_| direction(Duration::from_millis(4))).collect();
    let prompt = direction(Duration::ZERO).await.unwrap();
    for task in late {
        let ratio = prompt as f64 / task.await.unwrap() as f64;
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }
    assert!((prompt as f64 * 8.0 / (250 * MIB) as f64 - 1.0).abs() < 0.1, "{prompt}");
}

#[tokio::test(start_paused = true)]
async fn the_lowest_of_several_limits_applies() {
    let start = Instant::now();
    let buckets = [Some(50 * MIB), Some(MIB), None].map(|rate| Arc::new(ByteBucket::new(rate)));
    let end = start + Duration::from_secs(5);
    let total = bytes_until(DirectionThrottle::new(buckets.into()), end).await;
    assert!((total as f64 / (5 * MIB) as f64 - 1.0).abs() < 0.05, "{total}");
}

/// Directions that wait for a narrow bucket do not hold up a direction that waits only for the wide one.
#[tokio::test(start_paused = true)]
async fn bandwidth_left_by_directions_with_a_second_limit_is_used() {
    let (wide, narrow) = (100 * MIB, 5 * MIB);
    let [wide_bucket, narrow_bucket] = [wide, narrow].map(|rate| Arc::new(ByteBucket::new(Some(rate))));
    let end = Instant::now() + Duration::from_secs(5);
    let both = || DirectionThrottle::new(vec![Arc::clone(&wide_bucket), Arc::clone(&narrow_bucket)]);
    let limited: Vec<_> = (0..100).map(|_| tokio::spawn(bytes_until(both(), end))).collect();
    let free = DirectionThrottle::new(vec![Arc::clone(&wide_bucket)]);
    let free_bytes = bytes_until(free, end).await;
    let mut limited_bytes = 0;
    for direction in limited {
        limited_bytes += direction.await.unwrap();
    }
    let is_about = |bytes: u64, rate: u64| (bytes as f64 / (5 * rate) as f64 - 1.0).abs() < 0.1;
    assert!(is_about(limited_bytes, narrow), "{limited_bytes}");
    assert!(is_about(free_bytes, wide - narrow), "{free_bytes}");
}

#[tokio::test(start_paused = true)]
async fn granted_bytes_that_are_not_read_are_given_back() {
    let (bucket, start) = (Arc::new(ByteBucket::new(Some(MIB))), Instant::now());
    let mut idle = DirectionThrottle::new(vec![Arc::clone(&bucket)]);
    for _ in 0..1_000 {
        poll_fn(|cx| idle.poll_grant(cx, plenty)).await;
        idle.settle(0);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    poll_fn(|cx| idle.poll_grant(cx, plenty)).await;
    drop(idle);
    let total = bytes_until(DirectionThrottle::new(vec![bucket]), start + Duration::from_secs(5)).await;
    assert!((total as f64 / (5 * MIB) as f64 - 1.0).abs() < 0.02, "{total}");
}

/// At 10 KiB/s, a crowd reserves 2,000 slots of 1 KiB, which take 200 s, and then its sessions end. A direction whose
/// slot comes after theirs moves up.
#[tokio::test(start_paused = true)]
async fn slots_of_ended_sessions_are_used_by_others() {
    let (bucket, start) = (Arc::new(ByteBucket::new(Some(10 << 10))), Instant::now());
    let direction = || DirectionThrottle::new(vec![Arc::clone(&bucket)]);
    let mut crowd: Vec<_> = (0..2_000).map(|_| direction()).collect();
    for throttle in &mut crowd {
        let _ = poll_fn(|cx| Poll::Ready(throttle.poll_grant(cx, plenty))).await;
    }
    let reading = tokio::spawn(bytes_until(direction(), start + Duration::from_secs(20)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(crowd);
    let total = reading.await.unwrap();
    // In the 15 s after the end of the crowd. It takes up to `RECHECK_INTERVAL` until the direction moves up.
    assert!(total > 13 * (10 << 10), "{total} bytes");
}

/// A receive buffer of the default size holds slightly less than two slots of 32 KiB. The bytes that were read last
/// have made room, but the sender has not filled it yet when the next slot is reserved. So fewer bytes than a slot has
/// may be there.
#[tokio::test(start_paused = true)]
async fn a_direction_with_a_default_receive_buffer_gets_its_share() {
    const BUFFER_BYTES: usize = 65_483; // 64 KiB in whole segments of the loopback interface
    let (bucket, start) = (Arc::new(ByteBucket::new(Some(50 * MIB))), Instant::now());
    let end = start + Duration::from_secs(5);
    let direction = || DirectionThrottle::new(vec![Arc::clone(&bucket)]);
    let large: Vec<_> = (0..4).map(|_| tokio::spawn(bytes_until(direction(), end))).collect();
    let read_small = |mut throttle: DirectionThrottle| async move {
        let (mut total, mut last_read) = (0, 0);
        while Instant::now() < end {
            let granted = poll_fn(|cx| throttle.poll_grant(cx, || BUFFER_BYTES - last_read)).await;
            throttle.settle(granted);
            total += granted as u64;
            last_read = granted;
        }
        total
    };
    let small: Vec<_> = (0..4).map(|_| tokio::spawn(read_small(direction()))).collect();
    for task in large.into_iter().chain(small) {
        let ratio = task.await.unwrap() as f64 / (250 * MIB / 8) as f64;
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
    }
}

/// Directions that read a byte now and then do not take whole slots from those that need the bandwidth.
#[tokio::test(start_paused = true)]
async fn quiet_directions_use_little_bandwidth() {
    let (bucket, start) = (Arc::new(ByteBucket::new(Some(2 * MIB))), Instant::now());
    let end = start + Duration::from_secs(10);
    let direction = || DirectionThrottle::new(vec![Arc::clone(&bucket)]);
    let downloads: Vec<_> = (0..10).map(|_| tokio::spawn(bytes_until(direction(), end))).collect();
    let read_single_bytes = |mut throttle: DirectionThrottle| async move {
        let mut longest = Duration::ZERO;
        for count in 1.. {
            sleep_until(start + count * Duration::from_millis(500)).await; // the same moments for all directions
            let asked = Instant::now();
            if asked >= end {
                return longest;
            }
            poll_fn(|cx| throttle.poll_grant(cx, || 1)).await;
            throttle.settle(1);
            longest = longest.max(asked.elapsed());
        }
        unreachable!()
    };
    let quiet: Vec<_> = (0..400).map(|_| tokio::spawn(read_single_bytes(direction()))).collect();
    let mut shares = Vec::new();
    for download in downloads {
        shares.push(download.await.unwrap());
    }
    let all: u64 = shares.iter().sum();
    assert!((all as f64 / (20 * MIB) as f64 - 1.0).abs() < 0.05, "{shares:?}");
    let is_fair = shares.iter().all(|share| *share > all / 12); // a tenth, with a tolerance
    assert!(is_fair, "{shares:?}");
    for task in quiet {
        let longest = task.await.unwrap();
        assert!(
            longest < Duration::from_millis(300),
            "a byte waited for {longest:?}, but a round of ten slots of 32 KiB takes only 160 ms"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_rate_applies_to_open_sessions() {
    let (bucket, start) = (Arc::new(ByteBucket::new(Some(MIB))), Instant::now());
    let end = start + Duration::from_secs(10);
    let reading = tokio::spawn(bytes_until(DirectionThrottle::new(vec![Arc::clone(&bucket)]), end));
    tokio::time::sleep(Duration::from_secs(5)).await;
    bucket.set_rate(Some(3 * MIB), Instant::now());
    let total = reading.await.unwrap();
    // 5 s at 1 MiB/s, and 5 s at 3 MiB/s.
    assert!((total as f64 / (20 * MIB) as f64 - 1.0).abs() < 0.02, "{total}");
}

/// At 10 KiB/s, a crowd reserves 2,000 slots of 1 KiB, which take 200 s. When the rate is raised or switched off, these
/// slots are void: the crowd gets new ones soon, and newcomers do not wait behind it.
#[tokio::test(start_paused = true)]
async fn a_new_rate_drops_the_queue_of_the_old_one() {
    for rate in [Some(100 * MIB), None] {
        let (bucket, start) = (Arc::new(ByteBucket::new(Some(10 << 10))), Instant::now());
        let direction = || {
            let mut throttle = DirectionThrottle::new(vec![Arc::clone(&bucket)]);
            async move {
                let granted = poll_fn(|cx| throttle.poll_grant(cx, plenty)).await;
                throttle.settle(granted);
            }
        };
        let crowd: Vec<_> = (0..2_000).map(|_| tokio::spawn(direction())).collect();
        tokio::time::sleep(Duration::from_secs(5)).await;
        bucket.set_rate(rate, Instant::now());
        direction().await;
        assert_eq!(
            start.elapsed(),
            Duration::from_secs(5),
            "expected the newcomer not to wait"
        );
        for waiting in crowd {
            waiting.await.unwrap();
        }
        let took = start.elapsed() - Duration::from_secs(5);
        // The crowd notices the new rate within `RECHECK_INTERVAL`. At 100 MiB/s, 2,000 slots of 32 KiB take 0.6 s.
        assert!(took < Duration::from_secs(3), "{rate:?}: {took:?}");
    }
}

/// When the rate is lowered, slots that were reserved at the higher rate are void: the directions that wait get later
/// ones.
#[tokio::test(start_paused = true)]
async fn a_lower_rate_applies_to_waiting_directions() {
    let (bucket, start) = (Arc::new(ByteBucket::new(Some(100 * MIB))), Instant::now());
    let end = start + Duration::from_secs(10);
    let reading = || tokio::spawn(bytes_until(DirectionThrottle::new(vec![Arc::clone(&bucket)]), end));
    let crowd: Vec<_> = (0..500).map(|_| reading()).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    bucket.set_rate(Some(MIB), Instant::now());
    let mut total = 0;
    for reading in crowd {
        total += reading.await.unwrap();
    }
    // 1 s at 100 MiB/s, and 9 s at 1 MiB/s.
    assert!((total as f64 / (109 * MIB) as f64 - 1.0).abs() < 0.02, "{total}");
}
