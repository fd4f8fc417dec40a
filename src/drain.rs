//! The shutdown of the process: stop accepting, give sessions a limited time to end, cut the rest.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How a worker learns of the shutdown. The worker holds its handle until its last session is over: that is what
/// [`Drain::finish`] waits for.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Cancelled when no more clients are to be accepted.
    pub stop: CancellationToken,
    /// Cancelled when the worker must cut the sessions that are still open.
    pub cut: CancellationToken,
    worker_lost: CancellationToken,
    has_cut: Arc<AtomicBool>,
    _alive: TaskTrackerToken,
}

/// The shutdown, as the process controls it.
#[derive(Debug, Default)]
pub struct Drain {
    stop: CancellationToken,
    cut: CancellationToken,
    worker_lost: CancellationToken,
    /// Whether any session was cut.
    has_cut: Arc<AtomicBool>,
    workers: TaskTracker,
}

/// Held by a worker, and by each of its tasks that accept at a listening socket. When the holder returns or panics, the
/// guard is dropped, and reports that the holder is lost: [`Drain::worker_lost`] returns. [`Self::disarm`] prevents the
/// report. After [`Drain::finish`] has begun, nobody waits for reports.
#[derive(Debug)]
#[must_use = "dropping it reports a loss"]
pub struct ShutdownGuard(DropGuard);

impl ShutdownGuard {
    /// Drops the guard without a report.
    pub fn disarm(self) {
        drop(self.0.disarm());
    }
}

impl Drain {
    /// A handle for one worker. Its `stop` and `cut` are child tokens: each has a lock of its own, so that workers that
    /// wait for them share no lock.
    #[must_use]
    pub fn worker_handle(&self) -> WorkerHandle {
        WorkerHandle {
            stop: self.stop.child_token(),
            cut: self.cut.child_token(),
            worker_lost: self.worker_lost.clone(),
            has_cut: Arc::clone(&self.has_cut),
            _alive: self.workers.token(),
        }
    }

    /// A token that closes listening sockets when it is cancelled. [`Self::finish`] cancels it. The caller cancels it
    /// earlier if a reload removes the address of the sockets.
    #[must_use]
    pub fn socket_stop(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Waits until a [`ShutdownGuard`] reports a loss. A loss before [`Self::finish`] is a fault. Cancel safe.
    pub async fn worker_lost(&self) {
        self.worker_lost.cancelled().await;
    }

    /// Stops accepting, and lets sessions end by themselves. After `grace`, or as soon as `cut_early` is ready, has the
    /// workers cut the sessions that are still open. Waits until all workers have dropped their handles, and returns
    /// whether any worker has cut a session.
    pub async fn finish(self, grace: Duration, cut_early: impl Future<Output = ()>) -> bool {
        self.stop.cancel();
        self.workers.close();
        tokio::select! {
            _ = timeout(grace, self.workers.wait()) => {}
            () = cut_early => {}
        }
        self.cut.cancel();
        self.workers.wait().await;
        self.has_cut.load(Relaxed)
    }
}

impl WorkerHandle {
    /// Records that the worker has cut sessions.
    pub fn record_cut(&self) {
        self.has_cut.store(true, Relaxed);
    }

    /// A guard for a thread or a task that must run until the shutdown.
    pub fn shutdown_guard(&self) -> ShutdownGuard {
        ShutdownGuard(self.worker_lost.clone().drop_guard())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs as a worker whose only session does not end until it is cut. Then the worker drops its handle.
    async fn until_cut(worker: WorkerHandle) {
        worker.cut.cancelled().await;
        worker.record_cut();
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_is_reported_only_if_a_worker_has_cut_a_session() {
        let drain = Drain::default();
        let worker = drain.worker_handle();
        // This worker has no session to cut.
        tokio::spawn(async move {
            // Moves the whole handle into the task, not only its field `cut`. `finish` waits until it is dropped.
            let worker = worker;
            worker.cut.cancelled().await;
        });
        assert!(!drain.finish(Duration::ZERO, std::future::pending()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_ends_within_the_grace_is_not_cut() {
        let drain = Drain::default();
        let worker = drain.worker_handle();
        let session = tokio::spawn(async move {
            let worker = worker; // the whole handle, as above
            worker.stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(29)).await;
            worker.cut.is_cancelled()
        });
        assert!(!drain.finish(Duration::from_secs(30), std::future::pending()).await);
        let was_to_be_cut = session.await.unwrap();
        assert!(!was_to_be_cut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_outlasts_the_grace_is_cut_and_waited_for() {
        let drain = Drain::default();
        let worker = drain.worker_handle();
        let session = tokio::spawn(until_cut(worker));
        let began = tokio::time::Instant::now();
        assert!(drain.finish(Duration::from_secs(30), std::future::pending()).await);
        assert_eq!(began.elapsed(), Duration::from_secs(30));
        assert!(session.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_to_cut_ends_the_grace_at_once() {
        let drain = Drain::default();
        let worker = drain.worker_handle();
        tokio::spawn(until_cut(worker));
        let began = tokio::time::Instant::now();
        assert!(drain.finish(Duration::from_secs(30), std::future::ready(())).await);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
