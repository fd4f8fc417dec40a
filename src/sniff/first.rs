//! The first bytes of a client: one buffer for them, and one budget for those of all clients.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::time::Instant;

/// After so long without a client that had to go, an episode is over.
const CALM: Duration = Duration::from_secs(5);

/// A buffer that outgrows its first read begins with so many bytes. The allocator maps blocks of this size and larger one
/// by one (`app::allocator`), so that their memory goes back to the system when the client does.
pub const LARGE_BUFFER_BYTES: usize = 16 << 10;

/// The bytes that the process holds of clients that have no server yet, and the most it may hold.
///
/// What is counted is what the buffers of all clients have reserved, to the byte. When that exceeds the budget, the
/// clients that wait longest for the rest of their ClientHello are told to end, as many as it takes. Their bytes are
/// held until their tasks have run: until then the budget is exceeded by what was just reserved. A client that waits for
/// a connection to its server is counted but not told to end; if such clients alone use up the budget, every client that
/// has to wait for more bytes is ended at once.
#[derive(Debug)]
pub struct HelloMemory {
    bytes_max: AtomicUsize,
    held: AtomicUsize,
    // A std mutex, for a few lines at a time. Only a client whose ClientHello does not come at once takes it, twice.
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Who waits for more bytes, by the time of accept. The number keeps equal times apart.
    waiting: BTreeMap<(Instant, u64), Arc<Place>>,
    numbers: u64,
    /// Bytes of those who were told to end and have not done so yet.
    leaving: usize,
    /// When the last one was told to end in this episode, and how many were.
    episode: Option<(Instant, u64)>,
}

/// A client that waits for more bytes.
#[derive(Debug, Default)]
struct Place {
    held: AtomicUsize,
    is_told: AtomicBool,
    /// What it held when it was told to end; guarded by the queue's lock.
    counted: AtomicUsize,
    task: AtomicWaker,
}

impl HelloMemory {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max: AtomicUsize::new(bytes_max),
            held: AtomicUsize::new(0),
            queue: Mutex::default(),
        })
    }

    /// Changes the budget; a smaller one holds from the next byte on.
    pub fn resize(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Relaxed);
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// How many clients were ended in an episode that is over; said once. To be asked now and then.
    #[must_use]
    pub fn is_calm_again(&self) -> Option<u64> {
        let mut queue = self.queue();
        let (_, ended) = queue.episode.take_if(|(last, _)| last.elapsed() >= CALM)?;
        Some(ended)
    }

    fn is_exceeded(&self, leaving: usize) -> bool {
        self.held().saturating_sub(leaving) > self.bytes_max.load(Relaxed)
    }

    /// Tells those who wait longest to end until the rest is within the budget.
    fn relieve(&self) {
        let mut queue = self.queue();
        let mut told = 0;
        while self.is_exceeded(queue.leaving) {
            let Some((_, place)) = queue.waiting.pop_first() else {
                break;
            };
            let held = place.held.load(Relaxed);
            place.counted.store(held, Relaxed);
            place.is_told.store(true, Relaxed);
            queue.leaving += held;
            place.task.wake();
            told += 1;
        }
        if told == 0 {
            return;
        }
        let ended = queue.episode.map_or(0, |(_, ended)| ended);
        queue.episode = Some((Instant::now(), ended + told));
        drop(queue);
        if ended == 0 {
            let bytes = self.bytes_max.load(Relaxed);
            tracing::warn!(
                bytes,
                "`hello_memory` is used up: clients that wait longest for the rest of their ClientHello end as hello_timeout"
            );
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that was read of a client. What it has reserved is charged to the budget until it is dropped.
#[derive(Debug)]
pub struct FirstBytes {
    bytes: Vec<u8>,
    memory: Arc<HelloMemory>,
    accepted_at: Instant,
    /// Its place in the queue, while it waits.
    place: Option<((Instant, u64), Arc<Place>)>,
}

impl FirstBytes {
    /// Nothing yet, of a client that was accepted then.
    #[must_use]
    pub fn new(memory: &Arc<HelloMemory>, accepted_at: Instant) -> Self {
        Self {
            bytes: Vec::new(),
            memory: Arc::clone(memory),
            accepted_at,
            place: None,
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, no longer charged: there is a server for them.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<u8> {
        self.settled();
        self.memory.held.fetch_sub(self.bytes.capacity(), Relaxed);
        std::mem::take(&mut self.bytes) // of no capacity: dropping the rest gives back nothing
    }

    /// Appends; where it must grow it doubles, so that few bytes at a time are not copied often, but never beyond
    /// `bytes_max`.
    pub(super) fn push(&mut self, fresh: &[u8], bytes_max: usize) {
        let needed = self.bytes.len() + fresh.len();
        let reserved = self.bytes.capacity();
        if needed > reserved {
            let larger = match reserved {
                0 => 0, // mostly this is all there will be
                _ => (2 * reserved).max(LARGE_BUFFER_BYTES).min(bytes_max),
            };
            self.bytes.reserve_exact(needed.max(larger) - self.bytes.len());
            self.memory.held.fetch_add(self.bytes.capacity() - reserved, Relaxed);
            if let Some((_, place)) = &self.place {
                place.held.store(self.bytes.capacity(), Relaxed);
            }
            self.weigh();
        }
        self.bytes.extend_from_slice(fresh);
    }

    /// It is not decided yet: from now on it may be told to end.
    pub(super) fn waits(&mut self) {
        if self.place.is_some() || self.bytes.is_empty() {
            return;
        }
        let place = Arc::new(Place::default());
        place.held.store(self.bytes.capacity(), Relaxed);
        let mut queue = self.memory.queue();
        queue.numbers += 1;
        let key = (self.accepted_at, queue.numbers);
        queue.waiting.insert(key, Arc::clone(&place));
        drop(queue);
        self.place = Some((key, place));
        self.weigh();
    }

    /// Whether it was told to end; if not, the task is woken when that happens.
    pub(super) fn is_told(&self, cx: &Context<'_>) -> bool {
        let Some((_, place)) = &self.place else {
            return false;
        };
        place.task.register(cx.waker()); // before the look, so that what happens in between is not missed
        place.is_told.load(Relaxed)
    }

    /// It is decided: it waits no longer.
    pub(super) fn settled(&mut self) {
        let Some((key, place)) = self.place.take() else {
            return;
        };
        let mut queue = self.memory.queue();
        if queue.waiting.remove(&key).is_none() {
            queue.leaving -= place.counted.load(Relaxed);
        }
    }

    fn weigh(&self) {
        if self.memory.is_exceeded(0) {
            self.memory.relieve();
        }
    }
}

impl Drop for FirstBytes {
    fn drop(&mut self) {
        self.settled();
        self.memory.held.fetch_sub(self.bytes.capacity(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    /// A client that waits with so many bytes, accepted so many seconds after the first.
    fn waits(memory: &Arc<HelloMemory>, begin: Instant, after: u64, bytes: usize) -> FirstBytes {
        let mut first = FirstBytes::new(memory, begin + Duration::from_secs(after));
        first.push(&vec![0; bytes], 1 << 20);
        first.waits();
        first
    }

    fn told(clients: &[&FirstBytes]) -> Vec<bool> {
        let cx = Context::from_waker(Waker::noop());
        clients.iter().map(|first| first.is_told(&cx)).collect()
    }

    #[test]
    fn what_is_reserved_is_counted_until_it_is_dropped_or_has_a_server() {
        let memory = HelloMemory::new(1 << 20);
        let mut first = FirstBytes::new(&memory, Instant::now());
        assert_eq!(memory.held(), 0);
        first.push(&[1; 100], 20_000);
        assert_eq!(memory.held(), 100);
        first.push(&[2; 100], 20_000);
        assert_eq!(memory.held(), LARGE_BUFFER_BYTES);
        first.push(&[3; 16_300], 20_000);
        assert_eq!(memory.held(), 20_000, "never beyond the bound of one client");
        let other = waits(&memory, Instant::now(), 0, 50);
        assert_eq!(memory.held(), 20_050);
        drop(other);
        assert_eq!(first.into_vec().len(), 16_500);
        assert_eq!(memory.held(), 0);
        assert!(memory.queue().waiting.is_empty());
    }

    #[test]
    fn beyond_the_budget_those_who_wait_longest_end_and_new_ones_go_on() {
        let (memory, begin) = (HelloMemory::new(1_000), Instant::now());
        let third = waits(&memory, begin, 3, 400);
        let first = waits(&memory, begin, 1, 300);
        let second = waits(&memory, begin, 2, 300);
        assert_eq!(told(&[&first, &second, &third]), [false; 3], "on the bound");
        let fourth = waits(&memory, begin, 4, 301);
        assert_eq!(told(&[&first, &second, &third, &fourth]), [true, true, false, false]);
        let fifth = waits(&memory, begin, 5, 299);
        assert_eq!(
            told(&[&third, &fifth]),
            [false; 2],
            "what is about to go is not counted twice"
        );
        drop((first, second));
        assert_eq!((memory.held(), memory.queue().leaving), (1_000, 0));
        let mut decided = third;
        decided.settled();
        let sixth = waits(&memory, begin, 6, 1);
        assert_eq!(
            told(&[&decided, &fourth, &sixth]),
            [false, true, false],
            "one that is decided goes on"
        );
    }

    #[test]
    fn clients_that_wait_for_a_server_are_counted() {
        let (memory, begin) = (HelloMemory::new(1_000), Instant::now());
        let mut dials = waits(&memory, begin, 0, 1_001);
        dials.settled();
        let next = waits(&memory, begin, 1, 1);
        assert_eq!(told(&[&dials, &next]), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_episode_is_told_once_when_it_is_over() {
        let memory = HelloMemory::new(10);
        let begin = Instant::now();
        let clients: Vec<_> = (0..3).map(|after| waits(&memory, begin, after, 11)).collect();
        drop(clients);
        assert_eq!(memory.is_calm_again(), None);
        tokio::time::advance(CALM).await;
        assert_eq!(memory.is_calm_again(), Some(3));
        assert_eq!(memory.is_calm_again(), None);
    }

    #[tokio::test]
    async fn one_that_is_told_is_woken() {
        let memory = HelloMemory::new(10);
        let begin = Instant::now();
        let first = waits(&memory, begin, 0, 10);
        let mut ends = pin!(std::future::poll_fn(|cx| match first.is_told(cx) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }));
        tokio::select! {
            biased;
            () = &mut ends => panic!("nobody has told it"),
            () = std::future::ready(()) => {}
        }
        let _second = waits(&memory, begin, 1, 1);
        ends.await;
    }
}
