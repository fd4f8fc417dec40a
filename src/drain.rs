//! The end of the process: stop accepting, wait (bounded), cut.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What a worker listens to at the end, and what it holds until its last session is over.
#[derive(Clone, Debug)]
pub struct Leash {
    /// Accept nobody any more.
    pub stop: CancellationToken,
    /// End what is left.
    pub cut: CancellationToken,
    /// Nothing is ever sent; the last one dropped says that all workers are done.
    _alive: mpsc::Sender<()>,
}

/// The other end of all leashes.
#[derive(Debug)]
pub struct Drain {
    stop: CancellationToken,
    cut: CancellationToken,
    alive: mpsc::Receiver<()>,
}

impl Drain {
    /// A drain and the leash to be given to every worker.
    #[must_use]
    pub fn new() -> (Self, Leash) {
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let (sender, alive) = mpsc::channel(1);
        (
            Self {
                stop: stop.clone(),
                cut: cut.clone(),
                alive,
            },
            Leash {
                stop,
                cut,
                _alive: sender,
            },
        )
    }

    /// Waits until all workers are done, which without a drain none should ever be. Cancel safe.
    pub async fn all_done(&mut self) {
        let nothing = self.alive.recv().await;
        debug_assert!(nothing.is_none(), "nothing is ever sent");
    }

    /// Lets sessions end for `grace` and cuts the rest, at once when `hurry` is ready. Returns whether any had to be
    /// cut.
    pub async fn finish(mut self, grace: Duration, hurry: impl Future<Output = ()>) -> bool {
        self.stop.cancel();
        let in_time = tokio::select! {
            ended = timeout(grace, self.all_done()) => ended.is_ok(),
            () = hurry => false,
        };
        self.cut.cancel();
        self.all_done().await;
        !in_time
    }
}

impl Leash {
    /// A worker's own leash: tokens of its own, so that its sessions do not share a lock with those of others.
    #[must_use]
    pub fn for_worker(&self) -> Self {
        Self {
            stop: self.stop.child_token(),
            cut: self.cut.child_token(),
            _alive: self._alive.clone(),
        }
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
        let (drain, leash) = Drain::new();
        let worker = leash.for_worker();
        drop(leash);
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
        let (drain, leash) = Drain::new();
        let worker = leash.for_worker();
        drop(leash);
        let session = tokio::spawn(until_cut(worker));
        let began = tokio::time::Instant::now();
        assert!(drain.finish(Duration::from_secs(30), std::future::pending()).await);
        assert_eq!(began.elapsed(), Duration::from_secs(30));
        assert!(session.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_cuts_at_once() {
        let (drain, leash) = Drain::new();
        let worker = leash.for_worker();
        drop(leash);
        tokio::spawn(until_cut(worker));
        let began = tokio::time::Instant::now();
        assert!(drain.finish(Duration::from_secs(30), std::future::ready(())).await);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
