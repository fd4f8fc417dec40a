//! Limits on how many of a kind there may be at once: sessions of the process or of a listener, health checks, lookups,
//! connections that cancel queries. A limit can be resized while its permits are in use.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The largest size. A capacity without a bound has this size, too: it is far above the number of descriptors that a
/// process may have (`fs.nr_open`, by default 2^20).
const SIZE_MAX: usize = 1 << 30;

/// A set of permits. Their number can be changed while some of them are in use.
#[derive(Debug)]
pub struct Capacity {
    semaphore: Arc<Semaphore>,
    in_use: AtomicUsize,
    // A blocking mutex: held for a few lines.
    size: Mutex<usize>,
}

impl Capacity {
    /// A capacity of `size` permits; `None`: without a bound.
    #[must_use]
    pub fn new(size: Option<usize>) -> Arc<Self> {
        let size = size.unwrap_or(SIZE_MAX).min(SIZE_MAX);
        Arc::new(Self {
            semaphore: Arc::new(Semaphore::new(size)),
            in_use: AtomicUsize::new(0),
            size: Mutex::new(size),
        })
    }

    /// Changes the number of permits. If more permits than the new number are in use, all of them stay valid, and a
    /// task is started that takes the surplus as permits are returned. Requests that come once this task waits are
    /// served after it. While permits are in use, this must be called within a tokio runtime, because of that task.
    pub fn resize(&self, size: Option<usize>) {
        let size = size.unwrap_or(SIZE_MAX).min(SIZE_MAX);
        let mut current = self.size.lock();
        self.semaphore.add_permits(size.saturating_sub(*current));
        let surplus = current.saturating_sub(size);
        let not_returned = surplus - self.semaphore.forget_permits(surplus);
        if not_returned > 0 {
            let not_returned = u32::try_from(not_returned).expect("it is at most SIZE_MAX");
            let semaphore = Arc::clone(&self.semaphore);
            // This task takes the permits as they are returned. The semaphore's queue is fair: requests that are queued
            // after the task wait until it has taken all of them.
            tokio::spawn(async move {
                if let Ok(permits) = semaphore.acquire_many_owned(not_returned).await {
                    permits.forget();
                }
            });
        }
        *current = size;
    }

    /// The number of permits.
    #[must_use]
    pub fn size(&self) -> usize {
        *self.size.lock()
    }

    /// The number of permits in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.in_use.load(Relaxed)
    }

    /// A permit, if one is free and nobody waits for it.
    #[must_use]
    pub fn try_acquire(self: &Arc<Self>) -> Option<CapacityPermit> {
        let permit = self.semaphore.try_acquire().ok()?;
        Some(CapacityPermit::new(self, permit))
    }

    /// A permit as soon as one is free; first come, first served. Cancel safe.
    pub async fn acquire(self: &Arc<Self>) -> CapacityPermit {
        let permit = self.semaphore.acquire().await;
        CapacityPermit::new(self, permit.expect("these semaphores are never closed"))
    }

    /// Makes every later [`Self::acquire`] panic, for tests of what such a panic does.
    #[cfg(test)]
    pub(crate) fn close(&self) {
        self.semaphore.close();
    }
}

/// One permit of a [`Capacity`], returned on drop. It has half the size of tokio's `OwnedSemaphorePermit`, which
/// matters because every session holds two, in its [`Permit`].
#[derive(Debug)]
pub struct CapacityPermit {
    capacity: Arc<Capacity>,
}

impl CapacityPermit {
    fn new(capacity: &Arc<Capacity>, permit: SemaphorePermit<'_>) -> Self {
        permit.forget();
        capacity.in_use.fetch_add(1, Relaxed);
        Self {
            capacity: Arc::clone(capacity),
        }
    }
}

impl Drop for CapacityPermit {
    fn drop(&mut self) {
        self.capacity.in_use.fetch_sub(1, Relaxed);
        self.capacity.semaphore.add_permits(1);
    }
}

/// The two limits for the sessions of a listener: that of the listener, and that of the whole process.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    listener: Arc<Capacity>,
    process: Arc<Capacity>,
}

/// What a session needs: a permit of its listener and a permit of the process. Dropping this returns both.
#[derive(Debug)]
pub struct Permit {
    _listener: CapacityPermit,
    _process: CapacityPermit,
}

impl Permit {
    fn new(listener: CapacityPermit, process: CapacityPermit) -> Self {
        Self {
            _listener: listener,
            _process: process,
        }
    }
}

impl ConnectionLimits {
    /// Limits of a listener, and of the process. `listener_max`: how many sessions the listener may have; `None`: as
    /// many as the process may have.
    #[must_use]
    pub fn new(listener_max: Option<usize>, process: Arc<Capacity>) -> Self {
        Self {
            listener: Capacity::new(listener_max),
            process,
        }
    }

    /// Changes the listener's maximum; see [`Capacity::resize`].
    pub fn resize(&self, listener_max: Option<usize>) {
        self.listener.resize(listener_max);
    }

    /// How many permits of the listener are in use: the number of its sessions.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.listener.in_use()
    }

    /// A permit, if both the listener and the process have one that is free and for which nobody waits.
    #[must_use]
    pub fn try_acquire(&self) -> Option<Permit> {
        let listener = self.listener.try_acquire()?;
        let process = self.process.try_acquire()?;
        Some(Permit::new(listener, process))
    }

    /// A permit, as soon as both the listener and the process have one free. Cancel safe.
    ///
    /// The listener and the process each have a queue, which serves the requests of all workers in their order. A
    /// request that has got a permit of one, and finds that the other has none free, returns the permit and joins the
    /// end of the other's queue. If it kept the permit while it waits, no other request could use the permit, and it
    /// would count as a session.
    pub async fn acquire(&self) -> Permit {
        loop {
            let listener = self.listener.acquire().await;
            if let Some(process) = self.process.try_acquire() {
                return Permit::new(listener, process);
            }
            drop(listener);
            let process = self.process.acquire().await;
            if let Some(listener) = self.listener.try_acquire() {
                return Permit::new(listener, process);
            }
        }
    }
}

/// The limits of all listeners, by the names of the listeners, and the limit of the process.
///
/// A listener's limits are kept as long as the listener is in force or a session that it accepted is open. So if one
/// reload removes a listener and a later reload adds it again, its open sessions still count.
#[derive(Debug)]
pub struct ListenerLimits {
    process: Arc<Capacity>,
    // A blocking mutex: taken by reloads, and by readers of the counts.
    by_name: Mutex<HashMap<Arc<str>, ConnectionLimits>>,
}

impl ListenerLimits {
    /// Limits without listeners so far, and with no bound on the sessions of the process.
    #[must_use]
    pub fn new() -> Self {
        Self {
            process: Capacity::new(None),
            by_name: Mutex::default(),
        }
    }

    /// Changes the number of sessions that the process may have; see [`Capacity::resize`].
    pub fn resize_process(&self, sessions_max: usize) {
        self.process.resize(Some(sessions_max));
    }

    /// The limits of the listener with this name. Its maximum is `listener_max` from now on; see [`Capacity::resize`].
    pub fn listener(&self, name: &Arc<str>, listener_max: Option<usize>) -> ConnectionLimits {
        let mut by_name = self.lock_and_prune();
        let limits = by_name
            .entry(Arc::clone(name))
            .or_insert_with(|| ConnectionLimits::new(listener_max, Arc::clone(&self.process)));
        limits.resize(listener_max);
        limits.clone()
    }

    /// The number of sessions of each listener in force, and of each former listener that still has sockets or
    /// sessions. In no particular order.
    #[must_use]
    pub fn sessions(&self) -> Vec<(Arc<str>, usize)> {
        let by_name = self.lock_and_prune();
        let sessions = |(name, limits): (&Arc<str>, &ConnectionLimits)| (Arc::clone(name), limits.in_use());
        by_name.iter().map(sessions).collect()
    }

    /// The maximum of each listener's sessions, not above that of the process; for the same listeners as
    /// [`Self::sessions`].
    #[must_use]
    pub fn sizes(&self) -> Vec<(Arc<str>, usize)> {
        let by_name = self.lock_and_prune();
        let size = |limits: &ConnectionLimits| limits.listener.size().min(limits.process.size());
        by_name
            .iter()
            .map(|(name, limits)| (Arc::clone(name), size(limits)))
            .collect()
    }

    /// The maximum of the process's sessions.
    #[must_use]
    pub fn process_size(&self) -> usize {
        self.process.size()
    }

    /// Locks the limits, and drops those that nothing uses any more.
    fn lock_and_prune(&self) -> MutexGuard<'_, HashMap<Arc<str>, ConnectionLimits>> {
        let mut by_name = self.by_name.lock();
        by_name.retain(|_, limits| Arc::strong_count(&limits.listener) > 1);
        by_name
    }
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shrinking_revokes_no_permit_and_grants_none_until_enough_are_returned() {
        let capacity = Capacity::new(None);
        let mut held: Vec<_> = (0..3).map(|_| capacity.try_acquire().unwrap()).collect();
        capacity.resize(Some(2));
        assert!(capacity.try_acquire().is_none());
        assert_eq!(capacity.in_use(), 3);
        held.pop();
        tokio::task::yield_now().await;
        assert!(capacity.try_acquire().is_none(), "two of two are in use");
        held.pop();
        tokio::task::yield_now().await;
        held.push(capacity.try_acquire().unwrap());
        assert!(capacity.try_acquire().is_none());
        capacity.resize(Some(3));
        assert!(capacity.try_acquire().is_some());
        held.clear();
        assert_eq!(capacity.in_use(), 0);
    }

    #[test]
    fn shrinking_an_unused_capacity_takes_effect_at_once() {
        let capacity = Capacity::new(None);
        capacity.resize(Some(2));
        let held: Vec<_> = std::iter::from_fn(|| capacity.try_acquire()).collect();
        assert_eq!(held.len(), 2);
    }

    #[tokio::test]
    async fn resizing_several_times_while_full_leaves_the_last_size() {
        let capacity = Capacity::new(Some(4));
        let held: Vec<_> = (0..4).map(|_| capacity.try_acquire().unwrap()).collect();
        for size in [1, 4, 2, 3] {
            capacity.resize(Some(size));
            tokio::task::yield_now().await;
        }
        drop(held);
        tokio::task::yield_now().await;
        let held: Vec<_> = std::iter::from_fn(|| capacity.try_acquire()).collect();
        assert_eq!(held.len(), 3);
    }

    #[test]
    fn a_listener_permit_is_returned_if_the_process_limit_is_reached() {
        let limits = ConnectionLimits::new(Some(2), Capacity::new(Some(1)));
        let held = limits.try_acquire().unwrap();
        assert!(limits.try_acquire().is_none());
        assert_eq!(limits.in_use(), 1);
        drop(held);
        assert_eq!(limits.in_use(), 0);
        assert!(limits.try_acquire().is_some());
    }

    #[test]
    fn a_listener_that_is_removed_and_added_again_still_counts_its_open_sessions() {
        let (limits, name) = (ListenerLimits::new(), Arc::from("l"));
        let before = limits.listener(&name, Some(2));
        let session = before.try_acquire().unwrap();
        drop(before);
        assert_eq!(limits.sessions(), [(Arc::clone(&name), 1)]);
        let again = limits.listener(&name, Some(1));
        assert!(again.try_acquire().is_none());
        drop((session, again));
        assert_eq!(limits.sessions(), []);
    }
}
