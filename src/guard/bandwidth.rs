//! Bandwidth: how fast bytes may be read.
//!
//! A direction that has something to read reserves a slot of each of its [buckets](ByteBucket) for a few bytes, sleeps until
//! the slot begins, reads, and gives back what it did not need.
//!
//! Those that wake late leave slots behind that have begun. A direction that runs at that moment would take them all, and do
//! so again and again. Therefore each direction also keeps to its share: with n of them waiting, it gets a slot each n slots.
//! One that is behind its own share catches up.
//!
//! Slots that are given back before they begin leave a gap. One that waits long looks from time to time whether it could
//! have an earlier slot, so that a crowd that leaves does not leave a queue of unused slots behind.
//! It looks whether its slot is void, too, because the rate has changed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::byte_bucket::{ByteBucket, Reserved, SAVED, SLOT_BYTES_MAX};
use super::rate::Nanos;

/// How often a direction that waits for a late slot looks whether others have left and an earlier one is free.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The limits of a session, for each of its directions.
#[derive(Debug)]
pub struct Throttle {
    /// For what the client sends.
    pub up: DirectionThrottle,
    /// For what the server sends.
    pub down: DirectionThrottle,
}

#[cfg(test)]
impl Throttle {
    /// So many bytes a second of the client, and of the server.
    pub(crate) fn to_rates(rates: [u64; 2]) -> Self {
        let [up, down] = rates.map(|rate| DirectionThrottle::new(vec![Arc::new(ByteBucket::new(Some(rate)))]));
        Self { up, down }
    }
}

/// The limits of one direction. Dropping it gives back what is reserved.
#[derive(Debug)]
pub struct DirectionThrottle {
    buckets: Vec<Arc<ByteBucket>>,
    /// From when on it may have its next slot, so that it keeps to its share.
    turn: Instant,
    slot: Option<Slot>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A reserved slot.
#[derive(Debug)]
struct Slot {
    bytes: u64,
    /// What was reserved of each bucket.
    reserved: Vec<Reserved>,
    begins: Instant,
    /// When its turn began, and after how long the next one does if all is read.
    turn: (Instant, Duration),
}

impl DirectionThrottle {
    /// A direction that all these buckets limit.
    pub(super) fn new(buckets: Vec<Arc<ByteBucket>>) -> Self {
        Self {
            buckets,
            turn: Instant::now(),
            slot: None,
            timer: None,
        }
    }

    /// Ready when bytes may be read: at most so many. To be called when there is something to read.
    pub fn poll_grant(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut now = Instant::now();
        loop {
            let is_void = |slot: &Slot| self.is_void(slot) || self.can_move_up(slot, now);
            if self.slot.as_ref().is_some_and(is_void) {
                self.settle(0);
            }
            let slot = match self.slot.take() {
                Some(slot) => slot,
                None => self.reserve(now),
            };
            let (bytes, begins) = (slot.bytes as usize, slot.begins);
            self.slot = Some(slot);
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

    /// Whether a rate has changed since it was reserved.
    fn is_void(&self, slot: &Slot) -> bool {
        let mut reserved = self.buckets.iter().zip(&slot.reserved);
        reserved.any(|(bucket, reserved)| bucket.is_void(*reserved))
    }

    /// Whether there is a slot that begins much earlier, because others have left that had reserved theirs before.
    fn can_move_up(&self, slot: &Slot, now: Instant) -> bool {
        if slot.begins <= now + RECHECK_INTERVAL {
            return false; // most slots
        }
        let next = |(bucket, reserved): (&Arc<ByteBucket>, &Reserved)| bucket.next_begins_without(*reserved);
        let begins = self.buckets.iter().zip(&slot.reserved).map(next).max();
        begins.is_some_and(|begins| begins.max(self.turn) + RECHECK_INTERVAL < slot.begins)
    }

    /// So many bytes were read. What else was granted is given back.
    pub fn settle(&mut self, read: usize) {
        let Some(slot) = self.slot.take() else { return };
        let unused = slot.bytes.saturating_sub(read as u64);
        for (bucket, reserved) in self.buckets.iter().zip(&slot.reserved) {
            let share = u128::from(reserved.length) * u128::from(unused) / u128::from(slot.bytes);
            bucket.give_back(*reserved, share as Nanos); // at most its length
        }
        let (began, interval) = slot.turn;
        let used = (slot.bytes - unused) as f64 / slot.bytes as f64;
        // At most: a long queue of slots is fair by itself, and shrinks when others leave.
        self.turn = began + interval.mul_f64(used).min(RECHECK_INTERVAL);
    }

    fn reserve(&self, now: Instant) -> Slot {
        let bytes = self.buckets.iter().map(|bucket| bucket.slot_bytes()).min();
        let bytes = bytes.unwrap_or(SLOT_BYTES_MAX);
        let turn = now
            .checked_sub(Duration::from_nanos(SAVED))
            .map_or(self.turn, |saved| self.turn.max(saved));
        let (mut begins, mut interval) = (turn, 0);
        let reserved = self.buckets.iter().map(|bucket| {
            let (begin, reserved, waiting) = bucket.reserve(bytes, now);
            begins = begins.max(begin);
            interval = interval.max(reserved.length.saturating_mul(waiting));
            reserved
        });
        Slot {
            bytes,
            reserved: reserved.collect(),
            begins,
            turn: (turn, Duration::from_nanos(interval)),
        }
    }
}

impl Drop for DirectionThrottle {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Bytes that a direction reads until `end`, each time as many as it is granted.
    async fn bytes_until(mut throttle: DirectionThrottle, end: Instant) -> u64 {
        let mut total = 0;
        loop {
            let granted = poll_fn(|cx| throttle.poll_grant(cx)).await;
            if Instant::now() >= end {
                return total;
            }
            throttle.settle(granted);
            total += granted as u64;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_direction_gets_the_whole_bandwidth() {
        for rate in [10 << 10, MIB, 50 * MIB, 1 << 30] {
            let (bucket, start) = (Arc::new(ByteBucket::new(Some(rate))), Instant::now());
            let total = bytes_until(DirectionThrottle::new(vec![bucket]), start + Duration::from_secs(10)).await;
            let error = total as f64 / (10 * rate) as f64 - 1.0;
            assert!(error.abs() < 0.02, "{rate} B/s: {total} bytes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn directions_that_share_a_bucket_get_equal_shares() {
        let (bucket, start) = (Arc::new(ByteBucket::new(Some(50 * MIB))), Instant::now());
        let end = start + Duration::from_secs(5);
        let direction = || {
            let throttle = DirectionThrottle::new(vec![Arc::clone(&bucket)]);
            tokio::spawn(bytes_until(throttle, end))
        };
        let tasks: Vec<_> = (0..8).map(|_| direction()).collect();
        let mut shares = Vec::new();
        for task in tasks {
            shares.push(task.await.unwrap());
        }
        let all: u64 = shares.iter().sum();
        assert!((all as f64 / (250 * MIB) as f64 - 1.0).abs() < 0.02, "{all}");
        for share in &shares {
            let fair = *share as f64 / (all as f64 / 8.0);
            assert!((0.95..1.05).contains(&fair), "{shares:?}");
        }
    }

    /// A prompt direction does not take the slots that those leave behind who wake late.
    #[tokio::test(start_paused = true)]
    async fn a_prompt_direction_gets_no_more_than_late_ones() {
        let (bucket, start) = (Arc::new(ByteBucket::new(Some(50 * MIB))), Instant::now());
        let end = start + Duration::from_secs(5);
        let direction = |late: Duration| {
            let mut throttle = DirectionThrottle::new(vec![Arc::clone(&bucket)]);
            tokio::spawn(async move {
                let mut total = 0;
                while Instant::now() < end {
                    let granted = poll_fn(|cx| throttle.poll_grant(cx)).await;
                    tokio::time::sleep(late).await;
                    throttle.settle(granted);
                    total += granted as u64;
                }
                total
            })
        };
        let late: Vec<_> = (0..7).map(|_| direction(Duration::from_millis(9))).collect();
        let prompt = direction(Duration::ZERO).await.unwrap();
        for task in late {
            let fair = prompt as f64 / task.await.unwrap() as f64;
            assert!((0.9..1.1).contains(&fair), "{fair}");
        }
        assert!((prompt as f64 * 8.0 / (250 * MIB) as f64 - 1.0).abs() < 0.1, "{prompt}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_narrowest_of_several_limits_counts() {
        let start = Instant::now();
        let buckets = [Some(50 * MIB), Some(MIB), None].map(|rate| Arc::new(ByteBucket::new(rate)));
        let end = start + Duration::from_secs(5);
        let total = bytes_until(DirectionThrottle::new(buckets.into()), end).await;
        assert!((total as f64 / (5 * MIB) as f64 - 1.0).abs() < 0.05, "{total}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_granted_and_not_read_is_given_back() {
        let (bucket, start) = (Arc::new(ByteBucket::new(Some(MIB))), Instant::now());
        let mut idle = DirectionThrottle::new(vec![Arc::clone(&bucket)]);
        for _ in 0..1_000 {
            poll_fn(|cx| idle.poll_grant(cx)).await;
            idle.settle(0);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        poll_fn(|cx| idle.poll_grant(cx)).await;
        drop(idle);
        let total = bytes_until(DirectionThrottle::new(vec![bucket]), start + Duration::from_secs(5)).await;
        assert!((total as f64 / (5 * MIB) as f64 - 1.0).abs() < 0.02, "{total}");
    }

    /// A crowd that asks for bandwidth and leaves does not leave a queue of unused slots behind.
    #[tokio::test(start_paused = true)]
    async fn slots_of_those_who_leave_are_used_by_others() {
        let (bucket, start) = (Arc::new(ByteBucket::new(Some(10 << 10))), Instant::now());
        let direction = || DirectionThrottle::new(vec![Arc::clone(&bucket)]);
        let mut crowd: Vec<_> = (0..2_000).map(|_| direction()).collect();
        for throttle in &mut crowd {
            let _ = poll_fn(|cx| Poll::Ready(throttle.poll_grant(cx))).await;
        }
        let reading = tokio::spawn(bytes_until(direction(), start + Duration::from_secs(20)));
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(crowd);
        let total = reading.await.unwrap();
        assert!(total > 13 * (10 << 10), "{total} bytes in 15 s");
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_applies_to_sessions_under_way() {
        let (bucket, start) = (Arc::new(ByteBucket::new(Some(MIB))), Instant::now());
        let end = start + Duration::from_secs(10);
        let reading = tokio::spawn(bytes_until(DirectionThrottle::new(vec![Arc::clone(&bucket)]), end));
        tokio::time::sleep(Duration::from_secs(5)).await;
        bucket.set_rate(Some(3 * MIB), Instant::now());
        let total = reading.await.unwrap();
        assert!((total as f64 / (20 * MIB) as f64 - 1.0).abs() < 0.02, "{total}");
    }

    /// A crowd that waits for its slots at a low rate does not wait for them after that was raised or switched off, and
    /// newcomers do not wait behind it.
    #[tokio::test(start_paused = true)]
    async fn another_rate_leaves_no_queue_of_the_one_before() {
        for rate in [Some(100 * MIB), None] {
            let (bucket, start) = (Arc::new(ByteBucket::new(Some(10 << 10))), Instant::now());
            let direction = || {
                let mut throttle = DirectionThrottle::new(vec![Arc::clone(&bucket)]);
                async move {
                    let granted = poll_fn(|cx| throttle.poll_grant(cx)).await;
                    throttle.settle(granted);
                }
            };
            let crowd: Vec<_> = (0..2_000).map(|_| tokio::spawn(direction())).collect();
            tokio::time::sleep(Duration::from_secs(5)).await;
            bucket.set_rate(rate, Instant::now());
            direction().await;
            assert_eq!(start.elapsed(), Duration::from_secs(5), "a newcomer");
            for waiting in crowd {
                waiting.await.unwrap();
            }
            let took = start.elapsed() - Duration::from_secs(5);
            assert!(took < Duration::from_secs(3), "{rate:?}: {took:?}");
        }
    }

    /// Those who wait for a slot at a high rate do not read at that rate after it was lowered.
    #[tokio::test(start_paused = true)]
    async fn a_lower_rate_applies_to_those_who_wait() {
        let (bucket, start) = (Arc::new(ByteBucket::new(Some(100 * MIB))), Instant::now());
        let end = start + Duration::from_secs(10);
        let reading = || tokio::spawn(bytes_until(DirectionThrottle::new(vec![Arc::clone(&bucket)]), end));
        let crowd: Vec<_> = (0..500).map(|_| reading()).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        bucket.set_rate(Some(MIB), Instant::now());
        let mut total = 0;
        for reading in crowd {
            total += reading.await.unwrap();
        }
        assert!((total as f64 / (109 * MIB) as f64 - 1.0).abs() < 0.02, "{total}");
    }
}
