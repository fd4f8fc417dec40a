//! The buffer for the first bytes of a client, and the budget for the buffers of all clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::Context;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::Instant;

/// An episode of evictions is over when no client was evicted for this long. Its beginning and its end are logged, not
/// each eviction.
const EPISODE_GAP: Duration = Duration::from_secs(5);

/// The least size of a buffer that grows after its first read, unless its bound is smaller. The allocator usually maps
/// a block of this size or larger separately (`app::allocator`): its memory goes back to the system when it is freed.
/// This size is above that of a TLS record: mapping a block for each record would cost as much as decrypting it.
pub const LARGE_BUFFER_BYTES: usize = 20 << 10;

/// The budget for bytes of clients that have no server yet.
///
/// It counts, to the byte, what the buffers of all clients have reserved, and what `HeldBytes` charges. When the sum
/// exceeds the budget, the clients that have waited longest for the rest of their first message are evicted, as many as
/// it takes. Their bytes are held until their tasks have run, so the sum may exceed the budget for that time. A client
/// in a TLS handshake, or one that waits for a connection to its server, is counted but not evicted; if such clients
/// alone use up the budget, every client that has to wait for more bytes is evicted at once.
#[derive(Debug)]
pub struct HelloMemory {
    bytes_max: AtomicUsize,
    held: AtomicUsize,
    // A blocking mutex, for a few lines at a time. While the budget is not exceeded, a client takes it only if its
    // first message does not come in one read: to join the queue, and to leave it.
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// The clients that wait for more bytes, by the time of accept. The number tells equal times apart.
    waiting: BTreeMap<(Instant, u64), Arc<Waiting>>,
    last_number: u64,
    /// Bytes of clients that are evicted and have not ended yet. No further client is evicted because of these bytes.
    leaving: usize,
    /// When the last client was evicted in this episode, and how many were.
    episode: Option<(Instant, u64)>,
}

/// A client that waits for more bytes.
#[derive(Debug, Default)]
struct Waiting {
    held: AtomicUsize,
    is_evicted: AtomicBool,
    /// How many bytes it held when it was evicted; guarded by the queue's lock.
    held_at_eviction: AtomicUsize,
    task: AtomicWaker,
}

impl HelloMemory {
    /// A budget of `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max: AtomicUsize::new(bytes_max),
            held: AtomicUsize::new(0),
            queue: Mutex::default(),
        })
    }

    /// Changes the budget. A smaller one takes effect when the next byte is charged.
    pub fn resize(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Relaxed);
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// If an episode of evictions is over: how many clients it evicted. Each episode is returned once. To be called now
    /// and then.
    #[must_use]
    pub fn take_evictions(&self) -> Option<u64> {
        let mut queue = self.queue.lock();
        let (_, evicted) = queue.episode.take_if(|(last, _)| last.elapsed() >= EPISODE_GAP)?;
        Some(evicted)
    }

    /// Charges bytes that are held elsewhere. If they do not fit, evicts clients. Returns whether they fit then; they
    /// are charged in any case.
    pub(super) fn charge(&self, bytes: usize) -> bool {
        self.held.fetch_add(bytes, Relaxed);
        if !self.is_exceeded(0) {
            return true;
        }
        self.evict();
        let queue = self.queue.lock(); // kept locked for the comparison: see `FirstBytes::release`
        !self.is_exceeded(queue.leaving)
    }

    /// Returns bytes to the budget that [`Self::charge`] has charged.
    pub(super) fn refund(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    /// Whether the bytes held exceed the budget, not counting the `leaving` bytes of evicted clients.
    fn is_exceeded(&self, leaving: usize) -> bool {
        self.held().saturating_sub(leaving) > self.bytes_max.load(Relaxed)
    }

    /// Evicts clients, those that have waited longest first, until the others' bytes fit or no other client is queued.
    fn evict(&self) {
        let mut queue = self.queue.lock();
        let mut evicted = 0;
        while self.is_exceeded(queue.leaving) {
            let Some((_, waiting)) = queue.waiting.pop_first() else {
                break;
            };
            let held = waiting.held.load(Relaxed);
            waiting.held_at_eviction.store(held, Relaxed);
            waiting.is_evicted.store(true, Relaxed);
            queue.leaving += held;
            waiting.task.wake();
            evicted += 1;
        }
        if evicted == 0 {
            return;
        }
        let before = queue.episode.map_or(0, |(_, evicted)| evicted);
        queue.episode = Some((Instant::now(), before + evicted));
        drop(queue);
        if before == 0 {
            let bytes = self.bytes_max.load(Relaxed);
            tracing::warn!(
                bytes,
                "`hello_memory` is used up: clients that wait longest for the rest of their first message end as hello_timeout"
            );
        }
    }
}

/// Bytes of a client that has no server yet. What the buffer has reserved is charged to the budget until it is dropped.
#[derive(Debug)]
pub struct FirstBytes {
    bytes: Vec<u8>,
    memory: Arc<HelloMemory>,
    accepted_at: Instant,
    /// Its entry in the queue, while it waits.
    waiting: Option<((Instant, u64), Arc<Waiting>)>,
}

impl FirstBytes {
    /// No bytes yet, of a client that was accepted at this time.
    #[must_use]
    pub fn new(memory: &Arc<HelloMemory>, accepted_at: Instant) -> Self {
        Self {
            bytes: Vec::new(),
            memory: Arc::clone(memory),
            accepted_at,
            waiting: None,
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, no longer charged to the budget here: there is a server for them, or `HeldBytes` charges them.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<u8> {
        self.take()
    }

    /// Drops this many bytes at the front. What the buffer has reserved stays charged.
    pub(super) fn drop_front(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
    }

    /// Drops the bytes.
    pub(super) fn clear(&mut self) {
        drop(self.take());
    }

    /// Takes the bytes. What they have reserved is no longer charged to the budget.
    fn take(&mut self) -> Vec<u8> {
        self.release(self.bytes.capacity());
        std::mem::take(&mut self.bytes) // leaves no capacity, so that `drop` returns nothing a second time
    }

    /// Appends. The first bytes reserve no more than they need. When the buffer must grow after that, it doubles, to at
    /// least `LARGE_BUFFER_BYTES` and at most `capacity_max`: bytes that come a few at a time are not copied often.
    pub(super) fn push(&mut self, fresh: &[u8], capacity_max: usize) {
        let needed = self.bytes.len() + fresh.len();
        let reserved = self.bytes.capacity();
        if needed > reserved {
            let larger = match reserved {
                0 => 0, // usually nothing more comes
                _ => (2 * reserved).max(LARGE_BUFFER_BYTES).min(capacity_max),
            };
            self.bytes.reserve_exact(needed.max(larger) - self.bytes.len());
            self.memory.held.fetch_add(self.bytes.capacity() - reserved, Relaxed);
            if let Some((_, waiting)) = &self.waiting {
                waiting.held.store(self.bytes.capacity(), Relaxed);
            }
            self.evict_if_exceeded();
        }
        self.bytes.extend_from_slice(fresh);
    }

    /// Once a byte has come, joins the queue of clients that wait for more bytes and may be evicted.
    pub(super) fn enqueue(&mut self) {
        if self.waiting.is_some() || self.bytes.is_empty() {
            return;
        }
        let waiting = Arc::new(Waiting::default());
        waiting.held.store(self.bytes.capacity(), Relaxed);
        let mut queue = self.memory.queue.lock();
        queue.last_number += 1;
        let key = (self.accepted_at, queue.last_number);
        queue.waiting.insert(key, Arc::clone(&waiting));
        drop(queue);
        self.waiting = Some((key, waiting));
        self.evict_if_exceeded();
    }

    /// Whether the client is evicted; if not, the task is woken when that happens.
    pub(super) fn is_evicted(&self, cx: &Context<'_>) -> bool {
        let Some((_, waiting)) = &self.waiting else {
            return false;
        };
        waiting.task.register(cx.waker()); // before the load, so that an eviction in between is not missed
        waiting.is_evicted.load(Relaxed)
    }

    /// Leaves the queue, so that the client can no longer be evicted.
    pub(super) fn dequeue(&mut self) {
        self.release(0);
    }

    /// Returns these bytes to the budget, and leaves the queue. A client that has queued does both under the lock: if
    /// `leaving` were reduced before `held`, another thread could count the bytes of an evicted client as still needed,
    /// and evict one client too many.
    fn release(&mut self, bytes: usize) {
        let Some((key, waiting)) = self.waiting.take() else {
            self.memory.held.fetch_sub(bytes, Relaxed);
            return;
        };
        let mut queue = self.memory.queue.lock();
        self.memory.held.fetch_sub(bytes, Relaxed);
        if queue.waiting.remove(&key).is_none() {
            queue.leaving -= waiting.held_at_eviction.load(Relaxed); // `evict` has removed the client
        }
    }

    fn evict_if_exceeded(&self) {
        if self.memory.is_exceeded(0) {
            self.memory.evict();
        }
    }
}

impl Drop for FirstBytes {
    fn drop(&mut self) {
        self.release(self.bytes.capacity());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    /// A client that waits with this many bytes, accepted `after` seconds after `begin`.
    fn waits(memory: &Arc<HelloMemory>, begin: Instant, after: u64, bytes: usize) -> FirstBytes {
        let mut first = FirstBytes::new(memory, begin + Duration::from_secs(after));
        first.push(&vec![0; bytes], 1 << 20);
        first.enqueue();
        first
    }

    fn evicted(clients: &[&FirstBytes]) -> Vec<bool> {
        let cx = Context::from_waker(Waker::noop());
        clients.iter().map(|first| first.is_evicted(&cx)).collect()
    }

    #[test]
    fn hello_bytes_are_charged_until_dropped_or_connected() {
        let memory = HelloMemory::new(1 << 20);
        let mut first = FirstBytes::new(&memory, Instant::now());
        assert_eq!(memory.held(), 0);
        first.push(&[1; 100], 24_000);
        assert_eq!(memory.held(), 100);
        first.push(&[2; 100], 24_000);
        assert_eq!(memory.held(), LARGE_BUFFER_BYTES);
        first.push(&[3; 20_300], 24_000);
        assert_eq!(memory.held(), 24_000, "never beyond the bound of one client");
        let other = waits(&memory, Instant::now(), 0, 50);
        assert_eq!(memory.held(), 24_050);
        drop(other);
        assert_eq!(first.into_vec().len(), 20_500);
        assert_eq!(memory.held(), 0);
        assert!(memory.queue.lock().waiting.is_empty());
    }

    #[test]
    fn clients_beyond_the_budget_are_evicted_longest_wait_first() {
        let (memory, begin) = (HelloMemory::new(1_000), Instant::now());
        let third = waits(&memory, begin, 3, 400);
        let first = waits(&memory, begin, 1, 300);
        let second = waits(&memory, begin, 2, 300);
        assert_eq!(
            evicted(&[&first, &second, &third]),
            [false; 3],
            "the budget is used up, not exceeded"
        );
        let fourth = waits(&memory, begin, 4, 301);
        assert_eq!(evicted(&[&first, &second, &third, &fourth]), [true, true, false, false]);
        let fifth = waits(&memory, begin, 5, 299);
        assert_eq!(
            evicted(&[&third, &fifth]),
            [false; 2],
            "the bytes of evicted clients no longer count"
        );
        drop((first, second));
        assert_eq!((memory.held(), memory.queue.lock().leaving), (1_000, 0));
        let mut dequeued = third;
        dequeued.dequeue();
        let sixth = waits(&memory, begin, 6, 1);
        assert_eq!(
            evicted(&[&dequeued, &fourth, &sixth]),
            [false, true, false],
            "a client that no longer waits for bytes is not evicted"
        );
    }

    #[test]
    fn the_end_of_an_evicted_client_never_causes_another_eviction() {
        let (memory, begin) = (HelloMemory::new(1_000), Instant::now());
        for _ in 0..20_000 {
            let first = waits(&memory, begin, 1, 500);
            let second = waits(&memory, begin, 2, 500);
            let third = waits(&memory, begin, 3, 400);
            assert_eq!(evicted(&[&first, &second, &third]), [true, false, false]);
            let fourth = std::thread::scope(|threads| {
                threads.spawn(|| drop(first));
                waits(&memory, begin, 4, 100)
            });
            assert_eq!(
                evicted(&[&second, &third, &fourth]),
                [false; 3],
                "the budget is used up, not exceeded"
            );
        }
    }

    #[test]
    fn clients_waiting_for_a_server_are_charged_but_not_evicted() {
        let (memory, begin) = (HelloMemory::new(1_000), Instant::now());
        let mut dials = waits(&memory, begin, 0, 1_000);
        dials.dequeue();
        let next = waits(&memory, begin, 1, 1);
        assert_eq!(evicted(&[&dials, &next]), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_eviction_episode_is_reported_once_when_it_is_over() {
        let memory = HelloMemory::new(10);
        let begin = Instant::now();
        let clients: Vec<_> = (0..3).map(|after| waits(&memory, begin, after, 11)).collect();
        drop(clients);
        assert_eq!(memory.take_evictions(), None);
        tokio::time::advance(EPISODE_GAP).await;
        assert_eq!(memory.take_evictions(), Some(3));
        assert_eq!(memory.take_evictions(), None);
    }

    #[tokio::test]
    async fn an_eviction_between_two_polls_is_seen_at_the_second() {
        let memory = HelloMemory::new(10);
        let begin = Instant::now();
        let first = waits(&memory, begin, 0, 10);
        let mut ends = pin!(std::future::poll_fn(|cx| match first.is_evicted(cx) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }));
        tokio::select! {
            biased;
            () = &mut ends => panic!("evicted within the budget"),
            () = std::future::ready(()) => {}
        }
        let _second = waits(&memory, begin, 1, 1);
        ends.await;
    }
}
