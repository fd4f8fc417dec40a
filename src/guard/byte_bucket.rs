//! Bytes over time, as a queue of time slots.
//!
//! Directions that share a bucket get their slots in turn, and nobody has to be woken. When the rate changes, a new queue
//! begins, and the slots of the old one are void.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::rate::{Nanos, nanos};

/// Bytes of a slot at most: half of what a receive buffer holds at least (`net.ipv4.tcp_rmem`). While a sender that has more
/// waits for its slot, the buffer fills up, and when a slot is read the bytes of the next one are there.
pub(super) const SLOT_BYTES_MAX: u64 = 32 << 10;

/// Bytes of a slot at least.
const SLOT_BYTES_MIN: u64 = 1 << 10;

/// The time that a slot takes, within these bounds.
const SLOTS_PER_SECOND: u64 = 50;

/// For how long a bucket that is not used saves up. Timers fire up to some milliseconds late, which must not cost
/// throughput.
pub(super) const SAVED: Nanos = 50_000_000;

/// The bandwidth of one direction of a session, or of all sessions of a guard.
#[derive(Debug)]
pub(super) struct ByteBucket {
    /// From which it counts time.
    epoch: Instant,
    // A std mutex, locked for a few lines by each slot that is reserved or used.
    queue: Mutex<SlotQueue>,
}

#[derive(Debug)]
struct SlotQueue {
    /// Bytes a second; 0: no limit.
    rate: u64,
    /// The number of changes of the rate. Slots of another number than this are void.
    generation: u64,
    /// When the slots end that are reserved.
    reserved_until: Nanos,
    /// How long the slots are together that are reserved and not used yet.
    waiting: Nanos,
}

/// What is reserved of a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved {
    /// How long it is.
    pub(super) length: Nanos,
    generation: u64,
}

impl ByteBucket {
    /// A bucket for so many bytes a second; `None`: no limit.
    pub(super) fn new(rate: Option<u64>) -> Self {
        let queue = SlotQueue {
            rate: rate.unwrap_or(0),
            generation: 0,
            reserved_until: 0,
            waiting: 0,
        };
        Self {
            epoch: Instant::now(),
            queue: Mutex::new(queue),
        }
    }

    /// Changes the rate, also for the sessions under way, as soon as they look.
    pub(super) fn set_rate(&self, rate: Option<u64>, now: Instant) {
        let mut queue = self.queue();
        let rate = rate.unwrap_or(0);
        if rate != queue.rate {
            queue.rate = rate;
            queue.generation += 1;
            queue.waiting = 0;
            queue.reserved_until = self.nanos(now);
        }
    }

    /// Bytes of a slot at most.
    pub(super) fn slot_bytes(&self) -> u64 {
        self.queue().slot_bytes()
    }

    /// Reserves a slot for so many bytes. Returns when it begins, what is reserved, and how long a round is: the slots of all
    /// directions that wait now.
    pub(super) fn reserve(&self, bytes: u64, now: Instant) -> (Instant, Reserved, Nanos) {
        let mut queue = self.queue();
        // Bounded by the rate. If that was lowered a moment ago, more may be asked for than the bytes of one slot.
        let bytes = bytes.min(queue.slot_bytes());
        let length = u128::from(bytes) * 1_000_000_000;
        let length = length.checked_div(queue.rate.into()).unwrap_or(0) as Nanos;
        let begins = match queue.rate {
            0 => now,
            _ => {
                let begins = queue.reserved_until.max(self.nanos(now).saturating_sub(SAVED));
                queue.reserved_until = begins + length;
                self.epoch + Duration::from_nanos(begins)
            }
        };
        queue.waiting += length;
        let generation = queue.generation;
        (begins, Reserved { length, generation }, queue.waiting)
    }

    /// When a slot would begin that replaces this one.
    pub(super) fn next_begins_without(&self, reserved: Reserved) -> Instant {
        self.epoch + Duration::from_nanos(self.queue().reserved_until.saturating_sub(reserved.length))
    }

    /// Whether the rate has changed since this was reserved.
    pub(super) fn is_void(&self, reserved: Reserved) -> bool {
        self.queue().generation != reserved.generation
    }

    /// The slot is used. Gives back a part of it, unless it is void.
    pub(super) fn give_back(&self, reserved: Reserved, length: Nanos) {
        let mut queue = self.queue();
        if queue.generation == reserved.generation {
            queue.waiting -= reserved.length;
            queue.reserved_until -= length; // at most what was added to it
        }
    }

    fn nanos(&self, now: Instant) -> Nanos {
        nanos(now.saturating_duration_since(self.epoch))
    }

    fn queue(&self) -> MutexGuard<'_, SlotQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotQueue {
    /// Bytes of a slot.
    fn slot_bytes(&self) -> u64 {
        match self.rate {
            0 => SLOT_BYTES_MAX,
            rate => (rate / SLOTS_PER_SECOND).clamp(SLOT_BYTES_MIN, SLOT_BYTES_MAX),
        }
    }
}
