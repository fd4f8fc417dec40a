//! How many sessions there may be at once, or whatever else has places.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// As many as there may ever be, where nothing else bounds them: Linux hands out no more descriptors to a process.
const MANY: usize = 1 << 30;

/// Places: for sessions of the process, or of a listener, or for checks. Their number may change while some are taken.
#[derive(Debug)]
pub struct Room {
    places: Arc<Semaphore>,
    taken: AtomicUsize,
    // A std mutex: held for a few lines when the number changes.
    size: Mutex<usize>,
}

impl Room {
    /// So many places; `None`: as many as there may ever be.
    #[must_use]
    pub fn new(size: Option<usize>) -> Arc<Self> {
        let size = size.unwrap_or(MANY).min(MANY);
        Arc::new(Self {
            places: Arc::new(Semaphore::new(size)),
            taken: AtomicUsize::new(0),
            size: Mutex::new(size),
        })
    }

    /// So many from now on. Where more are taken nobody loses his, and nobody new gets one until enough have left.
    /// To be called within a runtime, unless nobody has a place.
    pub fn resize(&self, size: Option<usize>) {
        let size = size.unwrap_or(MANY).min(MANY);
        let mut now = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        self.places.add_permits(size.saturating_sub(*now));
        let surplus = now.saturating_sub(size);
        let taken = surplus - self.places.forget_permits(surplus);
        if taken > 0 {
            let taken = u32::try_from(taken).expect("it is at most 2^30");
            let places = Arc::clone(&self.places);
            // The queue is fair: who asks after this one waits behind it.
            tokio::spawn(async move {
                if let Ok(taken) = places.acquire_many_owned(taken).await {
                    taken.forget();
                }
            });
        }
        *now = size;
    }

    /// Places that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    fn try_take(self: &Arc<Self>) -> Option<Place> {
        let permit = self.places.try_acquire().ok()?;
        Some(Place::new(self, permit))
    }

    /// A place as soon as there is one; first come, first served. Cancel safe.
    pub async fn take(self: &Arc<Self>) -> Place {
        let permit = self.places.acquire().await;
        Place::new(self, permit.expect("these semaphores are never closed"))
    }

    /// Whoever asks for a place from now on panics: for tests of what happens then.
    #[cfg(test)]
    pub(crate) fn break_down(&self) {
        self.places.close();
    }
}

/// One place of a room; dropping it gives it back. It stands for a permit of the room's semaphore, and is half as large:
/// every session has two of them for as long as it lasts.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
}

impl Place {
    fn new(room: &Arc<Room>, permit: SemaphorePermit<'_>) -> Self {
        permit.forget();
        room.taken.fetch_add(1, Relaxed);
        Self { room: Arc::clone(room) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(1, Relaxed);
        self.room.places.add_permits(1);
    }
}

/// How many sessions there may be: of the process, and of a listener.
#[derive(Clone, Debug)]
pub struct Places {
    listener: Arc<Room>,
    process: Arc<Room>,
}

/// A session's place among those there may be. Dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    _listener: Place,
    _process: Place,
}

impl Places {
    /// Places of a listener, within those of the process. `None`: as many as the process has.
    #[must_use]
    pub fn new(listener_max: Option<usize>, process: Arc<Room>) -> Self {
        Self {
            listener: Room::new(listener_max),
            process,
        }
    }

    /// So many for this listener from now on; see [`Room::resize`].
    pub fn resize(&self, listener_max: Option<usize>) {
        self.listener.resize(listener_max);
    }

    /// Places taken on this listener: its sessions.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.listener.taken()
    }

    /// A place if there is one.
    pub(super) fn try_take(&self) -> Option<Permit> {
        let listener = self.listener.try_take()?;
        let process = self.process.try_take()?;
        Some(Permit {
            _listener: listener,
            _process: process,
        })
    }

    /// A place as soon as there is one; first come, first served over all workers. Who waits for one half of it does
    /// not hold the other: it would be missed elsewhere, and counted as a session.
    pub(super) async fn take(&self) -> Permit {
        let permit = |listener, process| Permit {
            _listener: listener,
            _process: process,
        };
        loop {
            let listener = self.listener.take().await;
            if let Some(process) = self.process.try_take() {
                return permit(listener, process);
            }
            drop(listener);
            let process = self.process.take().await;
            if let Some(listener) = self.listener.try_take() {
                return permit(listener, process);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_room_that_shrinks_puts_nobody_out_and_lets_nobody_in_until_enough_have_left() {
        let room = Room::new(None);
        let mut held: Vec<_> = (0..3).map(|_| room.try_take().unwrap()).collect();
        room.resize(Some(2));
        assert!(room.try_take().is_none());
        assert_eq!(room.taken(), 3);
        held.pop();
        tokio::task::yield_now().await;
        assert!(room.try_take().is_none(), "two are there, and may be");
        held.pop();
        tokio::task::yield_now().await;
        held.push(room.try_take().unwrap());
        assert!(room.try_take().is_none());
        room.resize(Some(3));
        assert!(room.try_take().is_some());
        held.clear();
        assert_eq!(room.taken(), 0);
    }

    #[test]
    fn a_room_that_shrinks_is_smaller_at_once() {
        let room = Room::new(None);
        room.resize(Some(2));
        let held: Vec<_> = std::iter::from_fn(|| room.try_take()).collect();
        assert_eq!(held.len(), 2);
    }

    #[tokio::test]
    async fn a_room_that_shrinks_and_grows_while_it_is_full_is_as_large_as_last_said() {
        let room = Room::new(Some(4));
        let held: Vec<_> = (0..4).map(|_| room.try_take().unwrap()).collect();
        for size in [1, 4, 2, 3] {
            room.resize(Some(size));
            tokio::task::yield_now().await;
        }
        drop(held);
        tokio::task::yield_now().await;
        let held: Vec<_> = std::iter::from_fn(|| room.try_take()).collect();
        assert_eq!(held.len(), 3);
    }
}
