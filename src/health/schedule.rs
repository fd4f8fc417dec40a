//! When checks start.

use std::time::Duration;

use tokio::time::Instant;

/// Checks that are due within this time start together: at a thousand checks a second, a wake-up for each of them would
/// cost a quarter of what the checks themselves cost.
const TICK: Duration = Duration::from_millis(10);

/// The ticks on which checks start.
pub(super) struct Ticks {
    /// The first tick.
    start: Instant,
}

impl Ticks {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// The first tick that is not before this time.
    pub(super) fn next(&self, at: Instant) -> Instant {
        let tick = TICK.as_nanos();
        let since_last_tick = at.saturating_duration_since(self.start).as_nanos() % tick;
        let wait = u64::try_from((tick - since_last_tick) % tick).unwrap_or(0); // less than a tick
        at + Duration::from_nanos(wait)
    }
}

/// The time from the start of the first check of a server to the start of the second. The first check starts at once;
/// this gap spreads the later ones over the interval. Multiples of the golden ratio fill the interval evenly, however
/// many servers there are. `number` differs for each task that checks a server.
pub(super) fn first_gap(number: u64, interval: Duration) -> Duration {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    interval.mul_f64((number as f64 * GOLDEN).fract())
}

/// The interval, randomly up to 10 % longer or shorter, so that checks that coincide once do not coincide every time.
pub(super) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tick_is_never_early_and_at_most_ten_milliseconds_late() {
        let ticks = Ticks::new();
        for micros in [0, 1, 9_999, 10_000, 10_001, 123_456] {
            let at = ticks.start + Duration::from_micros(micros);
            let tick = ticks.next(at);
            assert!(tick >= at && tick - at < TICK, "{micros}");
            assert_eq!((tick - ticks.start).as_micros() % TICK.as_micros(), 0);
        }
    }

    /// A minute in which a thousand servers are checked each second, without the first checks, which start at once.
    #[test]
    fn later_checks_start_spread_out_and_stay_so() {
        let second = Duration::from_secs(1);
        let mut tenths = vec![0; 600];
        for number in 1..=1000 {
            let mut at = first_gap(number, second);
            while at < 60 * second {
                tenths[usize::try_from(at.as_millis() / 100).unwrap()] += 1;
                at += jittered(second);
            }
        }
        let (least, most) = (tenths.iter().min().unwrap(), tenths.iter().max().unwrap());
        assert!(*least > 50 && *most < 160, "100 each is even: {least} to {most}");
    }
}
