//! Bytes over time, as a queue of time slots.
//!
//! Directions that share a bucket get slots one after another. Each sleeps until its slot begins, so none has to wake
//! another. When the rate changes, a new queue begins, and the slots of the old queue are void.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::rate::{Nanos, nanos};

/// The most bytes of a slot: half of what a receive buffer of the default size holds (`net.ipv4.tcp_rmem`). While a
/// direction waits for its slot, the buffer fills up, so that the bytes of the next slot are there when this one is
/// read.
pub(super) const SLOT_BYTES_MAX: u64 = 32 << 10;

/// The fewest bytes of a full slot. At the lowest rate that can be configured, 1 KiB/s, this slot takes a second.
const SLOT_BYTES_MIN: u64 = 1 << 10;

/// How many full slots there are in a second, where the two bounds above allow it: each takes 20 ms.
const SLOTS_PER_SECOND: u64 = 50;

/// For how long at most an unused bucket saves up, in nanoseconds. Timers fire some milliseconds late, and that must
/// not cost throughput.
pub(super) const SAVINGS_NANOS_MAX: Nanos = 50_000_000;

/// The bandwidth of one direction, either of one session or of all sessions of a guard together.
#[derive(Debug)]
pub(super) struct ByteBucket {
    /// What [`Nanos`] are counted from.
    epoch: Instant,
    // A blocking mutex, locked for a few lines when a slot is reserved or its use ends.
    queue: Mutex<SlotQueue>,
}

#[derive(Debug)]
struct SlotQueue {
    /// Bytes a second; 0: no limit.
    rate: u64,
    /// How many times the rate has changed. Slots of another generation are void.
    generation: u64,
    /// When the last reserved slot ends.
    reserved_until: Nanos,
    /// The length of the round, in which each waiting direction gets one slot (see `bandwidth`): the sum of the slots
    /// that [`ByteBucket::join_round`] has added and whose use has not ended.
    round: Nanos,
}

/// A slot that is reserved in a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReservedSlot {
    /// How long it is.
    pub(super) length: Nanos,
    generation: u64,
    /// Whether it is in a round of this bucket.
    is_in_round: bool,
}

impl ByteBucket {
    /// A bucket for this many bytes a second; `None`: no limit.
    pub(super) fn new(rate: Option<u64>) -> Self {
        let queue = SlotQueue {
            rate: rate.unwrap_or(0),
            generation: 0,
            reserved_until: 0,
            round: 0,
        };
        Self {
            epoch: Instant::now(),
            queue: Mutex::new(queue),
        }
    }

    /// Changes the rate. Directions that wait for a slot notice it when they wake.
    pub(super) fn set_rate(&self, rate: Option<u64>, now: Instant) {
        let mut queue = self.queue.lock();
        let rate = rate.unwrap_or(0);
        if rate != queue.rate {
            queue.rate = rate;
            queue.generation += 1;
            queue.round = 0;
            queue.reserved_until = self.nanos(now);
        }
    }

    /// The most bytes that a slot has at the present rate.
    pub(super) fn slot_bytes(&self) -> u64 {
        self.queue.lock().slot_bytes()
    }

    /// Reserves a slot for this many bytes. Returns when it begins, and the slot.
    pub(super) fn reserve(&self, bytes: u64, now: Instant) -> (Instant, ReservedSlot) {
        let mut queue = self.queue.lock();
        // If the rate was lowered a moment ago, more may be asked for than one slot has now.
        let bytes = bytes.min(queue.slot_bytes());
        let length = u128::from(bytes) * 1_000_000_000;
        let length = length.checked_div(queue.rate.into()).unwrap_or(0) as Nanos;
        let begins = match queue.rate {
            0 => now,
            _ => {
                let begins = queue
                    .reserved_until
                    .max(self.nanos(now).saturating_sub(SAVINGS_NANOS_MAX));
                queue.reserved_until = begins + length;
                self.epoch + Duration::from_nanos(begins)
            }
        };
        let slot = ReservedSlot {
            length,
            generation: queue.generation,
            is_in_round: false,
        };
        (begins, slot)
    }

    /// Adds a slot to the round of this bucket. A direction with several buckets calls this for the bucket whose slot
    /// begins last. Returns the length of the round: the sum of the slots of all directions that wait for this bucket
    /// now.
    pub(super) fn join_round(&self, slot: &mut ReservedSlot) -> Nanos {
        let mut queue = self.queue.lock();
        if queue.generation == slot.generation {
            queue.round += slot.length;
            slot.is_in_round = true;
        }
        queue.round
    }

    /// The earliest time at which a new slot would begin if this one were given back.
    pub(super) fn next_begin_without(&self, slot: ReservedSlot) -> Instant {
        self.epoch + Duration::from_nanos(self.queue.lock().reserved_until.saturating_sub(slot.length))
    }

    /// Whether the rate has changed since the slot was reserved.
    pub(super) fn is_stale(&self, slot: ReservedSlot) -> bool {
        self.queue.lock().generation != slot.generation
    }

    /// Ends the use of a slot: takes it out of the round, and gives back the unused part of its length. A void slot has
    /// nothing to give back.
    pub(super) fn end_use(&self, slot: ReservedSlot, unused: Nanos) {
        let mut queue = self.queue.lock();
        if queue.generation == slot.generation {
            if slot.is_in_round {
                queue.round -= slot.length;
            }
            queue.reserved_until -= unused; // at most what was added to it
        }
    }

    fn nanos(&self, now: Instant) -> Nanos {
        nanos(now.saturating_duration_since(self.epoch))
    }
}

impl SlotQueue {
    /// The bytes of a full slot at this rate.
    fn slot_bytes(&self) -> u64 {
        match self.rate {
            0 => SLOT_BYTES_MAX,
            rate => (rate / SLOTS_PER_SECOND).clamp(SLOT_BYTES_MIN, SLOT_BYTES_MAX),
        }
    }
}
