//! The slow start of a server that came back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// Whoever came back begins with this part of its share.
const FIRST_PERCENT: u16 = 10;

/// Since when a server is back, if it ever was away. Read by every pick, hence one word and no lock.
#[derive(Debug)]
pub(super) struct Ramp {
    made: Instant,
    /// One more than the nanoseconds from `made`; 0: it has its whole share.
    began: AtomicU64,
}

impl Ramp {
    /// Of a server that begins with its whole share.
    pub(super) fn new() -> Self {
        Self {
            made: Instant::now(),
            began: AtomicU64::new(0),
        }
    }

    /// It has come back.
    pub(super) fn begin(&self) {
        let age = u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX); // 584 years
        self.began.store(age.saturating_add(1), Relaxed);
    }

    /// What part of its share it has, 10 to 100 percent, rising evenly over `whole` from when it came back.
    pub(super) fn percent(&self, now: Instant, whole: Duration) -> u16 {
        let began = self.began.load(Relaxed);
        if began == 0 {
            return 100;
        }
        let since = now.saturating_duration_since(self.made + Duration::from_nanos(began - 1));
        if since >= whole {
            // Unless it has come back once more in the meantime.
            let _ = self.began.compare_exchange(began, 0, Relaxed, Relaxed);
            return 100;
        }
        let part = 100 * since.as_nanos() / whole.as_nanos().max(1);
        u16::try_from(part).unwrap_or(100).max(FIRST_PERCENT)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn who_came_back_gets_its_share_little_by_little() {
        let ramp = Ramp::new();
        assert_eq!(ramp.percent(Instant::now(), TEN), 100, "at the start of the process");
        advance(TEN).await;
        ramp.begin();
        let mut seen = Vec::new();
        for _ in 0..11 {
            seen.push(ramp.percent(Instant::now(), TEN));
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(seen, [10, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
        ramp.begin();
        assert_eq!(ramp.percent(Instant::now(), TEN), 10, "once more");
        assert_eq!(ramp.percent(Instant::now(), Duration::ZERO), 100);
    }
}
