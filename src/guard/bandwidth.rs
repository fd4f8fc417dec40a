//! Bandwidth: how fast bytes may be read.
//!
//! A direction of a session that has something to read takes these steps:
//! 1. It reserves a slot of each of its [buckets](ByteBucket) for the bytes that are there. A full slot has the bytes
//!    of 20 ms, but at least 1 KiB and at most 32 KiB.
//! 2. It sleeps until the latest of these slots begins, and until its turn.
//! 3. It reads, and gives back the unused part of its slots. Slots that are reserved afterwards begin that much
//!    earlier. Slots that are already reserved do not move, so the unused part must be small.
//!
//! For example, ten downloads share a bucket of 1 MiB/s. A full slot has about 20 KiB, and each download gets one in a
//! round of 200 ms.
//!
//! The turns keep the shares equal. A direction that wakes late also reserves its next slot late. This leaves a gap,
//! and another direction that is awake could fill all such gaps with further slots of its own. So a direction gets one
//! slot in each round: its next turn begins when the round is over, or after [`RECHECK_INTERVAL`] if the round is
//! longer. A round takes as long as the slots of all directions that wait for the same bucket. A direction that is
//! behind its turns catches up, but by no more than [`SAVINGS_NANOS_MAX`].
//!
//! Slots that are given back before they begin leave a gap, too. A direction that waits long looks from time to time
//! whether it could have an earlier slot, so that a crowd that leaves does not leave a queue of unused slots behind. It
//! also looks whether its slot is void because the rate has changed.

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::byte_bucket::{ByteBucket, ReservedSlot, SAVINGS_NANOS_MAX, SLOT_BYTES_MAX};
use super::rate::Nanos;

/// How often a direction that waits for a late slot looks whether an earlier slot is free, because others have left.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The limits of a session, for each of its directions.
#[derive(Debug)]
pub struct Throttle {
    /// For what the client sends.
    pub up: DirectionThrottle,
    /// For what the server sends.
    pub down: DirectionThrottle,
}

impl Throttle {
    /// The limits of a session. Each direction is limited by all its buckets.
    pub(super) fn new(up: Vec<Arc<ByteBucket>>, down: Vec<Arc<ByteBucket>>) -> Self {
        Self {
            up: DirectionThrottle::new(up),
            down: DirectionThrottle::new(down),
        }
    }

    /// Limits what the client sends, and what the server sends, to this many bytes a second.
    #[cfg(test)]
    pub(crate) fn with_rates(rates: [u64; 2]) -> Self {
        let [up, down] = rates.map(|rate| vec![Arc::new(ByteBucket::new(Some(rate)))]);
        Self::new(up, down)
    }
}

/// The limits of one direction. Dropping it gives back what is reserved.
#[derive(Debug)]
pub struct DirectionThrottle {
    buckets: Vec<Arc<ByteBucket>>,
    /// When its next turn begins: it reads no earlier, so that it keeps to its share.
    next_turn: Instant,
    reservation: Option<Reservation>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// One slot of each bucket.
#[derive(Debug)]
struct Reservation {
    bytes: u64,
    /// The bytes that it would have if there were more to read.
    bytes_max: u64,
    /// In the order of the buckets.
    slots: Vec<ReservedSlot>,
    /// When the direction may read: once all slots and its turn have begun; at once if no byte is there to read.
    begins: Instant,
    turn_begins: Instant,
    /// How long the round is. The next turn begins that long after this one if `bytes_max` are read, earlier if fewer
    /// are; [`RECHECK_INTERVAL`] after this one at the latest.
    round: Duration,
}

impl DirectionThrottle {
    /// A direction that is limited by all these buckets.
    pub(super) fn new(buckets: Vec<Arc<ByteBucket>>) -> Self {
        Self {
            buckets,
            next_turn: Instant::now(),
            reservation: None,
            timer: None,
        }
    }

    /// Ready when bytes may be read. Returns how many: at most one more than `readable` returns, so that the read shows
    /// whether there were more. To be called when the socket is readable; `readable` returns how many bytes are there.
    /// If that is 0, the read is granted without a wait: it probably finds the end of the stream, or nothing.
    pub fn poll_grant(&mut self, cx: &mut Context<'_>, readable: impl Fn() -> usize) -> Poll<usize> {
        let mut now = Instant::now();
        loop {
            let is_outdated = |held: &Reservation| self.is_stale(held) || self.can_move_up(held, now);
            if self.reservation.as_ref().is_some_and(is_outdated) {
                self.settle(0);
            }
            let reservation = match self.reservation.take() {
                Some(reservation) => reservation,
                None => self.reserve(now, readable()),
            };
            let (bytes, begins) = (reservation.bytes as usize, reservation.begins);
            self.reservation = Some(reservation);
            if begins <= now {
                return Poll::Ready(bytes);
            }
            let wakes = begins.min(now + RECHECK_INTERVAL);
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(wakes)));
            if timer.deadline() != wakes {
                timer.as_mut().reset(wakes);
            }
            ready!(timer.as_mut().poll(cx));
            now = Instant::now().max(wakes);
        }
    }

    /// Whether a rate has changed since the slots were reserved.
    fn is_stale(&self, reservation: &Reservation) -> bool {
        let mut slots = self.buckets.iter().zip(&reservation.slots);
        slots.any(|(bucket, slot)| bucket.is_stale(*slot))
    }

    /// Whether a new reservation would begin much earlier, because directions that were ahead have left.
    fn can_move_up(&self, reservation: &Reservation, now: Instant) -> bool {
        if reservation.begins <= now + RECHECK_INTERVAL {
            return false; // most reservations
        }
        let next = |(bucket, slot): (&Arc<ByteBucket>, &ReservedSlot)| bucket.next_begin_without(*slot);
        let begins = self.buckets.iter().zip(&reservation.slots).map(next).max();
        begins.is_some_and(|begins| begins.max(self.next_turn) + RECHECK_INTERVAL < reservation.begins)
    }

    /// To be called after `read` bytes were read; with 0, if nothing will be read. Ends the reservation: gives back
    /// the rest of what was granted, and decides when the next turn begins.
    pub fn settle(&mut self, read: usize) {
        let Some(reservation) = self.reservation.take() else {
            return;
        };
        let unused_bytes = reservation.bytes.saturating_sub(read as u64);
        for (bucket, slot) in self.buckets.iter().zip(&reservation.slots) {
            let unused = u128::from(slot.length) * u128::from(unused_bytes) / u128::from(reservation.bytes);
            bucket.end_use(*slot, unused as Nanos); // at most its length
        }
        let used_ratio = (reservation.bytes - unused_bytes) as f64 / reservation.bytes_max as f64;
        // When others leave, a direction can get an earlier slot, but no earlier turn. So the next turn begins at most
        // [`RECHECK_INTERVAL`] after this one. In a longer round, the queue of slots keeps the shares equal without
        // turns.
        let turn_length = reservation.round.mul_f64(used_ratio).min(RECHECK_INTERVAL);
        self.next_turn = reservation.turn_begins + turn_length;
    }

    /// Reserves a slot of each bucket.
    fn reserve(&self, now: Instant, readable: usize) -> Reservation {
        let bytes_max = self.buckets.iter().map(|bucket| bucket.slot_bytes()).min();
        let bytes_max = bytes_max.unwrap_or(SLOT_BYTES_MAX);
        let bytes = bytes_max.min((readable as u64).saturating_add(1));
        let mut slots = Vec::with_capacity(self.buckets.len());
        // The bucket that the direction waits for: that of the slot which begins last.
        let mut last = None;
        for (index, bucket) in self.buckets.iter().enumerate() {
            let (begins, slot) = bucket.reserve(bytes, now);
            slots.push(slot);
            if last.is_none_or(|(_, latest)| begins >= latest) {
                last = Some((index, begins));
            }
        }
        let turn_begins = self.turn_at(now);
        let begins = last.map_or(turn_begins, |(_, begins)| turn_begins.max(begins));
        // The direction joins only the round of the bucket that it waits for. If it joined the round of another bucket,
        // the directions that wait for that bucket would leave this direction a turn that it cannot use.
        let round = last.map_or(0, |(index, _)| self.buckets[index].join_round(&mut slots[index]));
        Reservation {
            bytes,
            bytes_max,
            slots,
            begins: if readable == 0 { now } else { begins },
            turn_begins,
            round: Duration::from_nanos(round),
        }
    }

    /// When the next turn begins. That may be in the past, so that a direction that is late catches up, but by no more
    /// than [`SAVINGS_NANOS_MAX`].
    fn turn_at(&self, now: Instant) -> Instant {
        let savings = Duration::from_nanos(SAVINGS_NANOS_MAX);
        now.checked_sub(savings)
            .map_or(self.next_turn, |earliest| self.next_turn.max(earliest))
    }
}

impl Drop for DirectionThrottle {
    fn drop(&mut self) {
        self.settle(0);
    }
}
