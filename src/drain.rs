//! The end of the process: stop accepting, wait (bounded), cut.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// What a worker listens to at the end, and what it holds until its last session is over.
#[derive(Debug)]
pub struct Leash {
    /// Accept nobody any more.
    pub stop: CancellationToken,
    /// End what is left.
    pub cut: CancellationToken,
    one_gone: CancellationToken,
    _alive: TaskTrackerToken,
}

/// The other end of all leashes.
#[derive(Debug, Default)]
pub struct Drain {
    stop: CancellationToken,
    cut: CancellationToken,
    one_gone: CancellationToken,
    workers: TaskTracker,
}

impl Drain {
    /// A worker's own leash: tokens of its own, so that its sessions do not share a lock with those of others.
    #[must_use]
    pub fn leash(&self) -> Leash {
        Leash {
            stop: self.stop.child_token(),
            cut: self.cut.child_token(),
            one_gone: self.one_gone.clone(),
            _alive: self.workers.token(),
        }
    }

    /// Ends what one gate does: with the stop of all, or before it. For a gate that is closed before its time.
    #[must_use]
    pub fn gate(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Waits until somebody has left his post, which before the stop nobody ever should. Cancel safe.
    pub async fn one_gone(&self) {
        self.one_gone.cancelled().await;
    }

    /// Lets sessions end for `grace` and cuts the rest, at once when `hurry` is ready. Returns whether any had to be
    /// cut.
    pub async fn finish(self, grace: Duration, hurry: impl Future<Output = ()>) -> bool {
        self.stop.cancel();
        self.workers.close();
        let in_time = tokio::select! {
            ended = timeout(grace, self.workers.wait()) => ended.is_ok(),
            () = hurry => false,
        };
        self.cut.cancel();
        self.workers.wait().await;
        !in_time
    }
}

impl Leash {
    /// To be held by whoever must be there until the stop. However it is dropped, by a return or by a panic, it tells
    /// [`Drain::one_gone`].
    #[must_use]
    pub fn post(&self) -> DropGuard {
        self.one_gone.clone().drop_guard()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker whose session ends only when it is cut. It holds its whole leash till then.
    async fn until_cut(worker: Leash) {
        worker.cut.cancelled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_ends_in_time_is_not_cut() {
        let drain = Drain::default();
        let worker = drain.leash();
        tokio::spawn(async move {
            let worker = worker;
            worker.stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(29)).await;
            assert!(!worker.cut.is_cancelled());
        });
        assert!(!drain.finish(Duration::from_secs(30), std::future::pending()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_is_cut_and_waited_for() {
        let drain = Drain::default();
        let worker = drain.leash();
        let session = tokio::spawn(until_cut(worker));
        let began = tokio::time::Instant::now();
        assert!(drain.finish(Duration::from_secs(30), std::future::pending()).await);
        assert_eq!(began.elapsed(), Duration::from_secs(30));
        assert!(session.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_in_a_hurry_cuts_at_once() {
        let drain = Drain::default();
        let worker = drain.leash();
        tokio::spawn(until_cut(worker));
        let began = tokio::time::Instant::now();
        assert!(drain.finish(Duration::from_secs(30), std::future::ready(())).await);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
