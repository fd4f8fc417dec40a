//! The decisions of a relay, without IO: what must be sent and what may be read, half-close, who finished first,
//! silence, and delivery after a server's reset.
//!
//! An engine asks [`Core::next`] what to do in each direction, does it in its own way, and reports what came of it:
//! [`received`](Core::received), [`sent`](Core::sent), [`ended`](Core::ended), [`shut_down`](Core::shut_down),
//! [`broke`](Core::broke). Before it waits it calls [`settle`](Core::settle); when [`deadline`](Core::deadline) has come
//! it calls [`expire`](Core::expire). When there is [`Core::closed`], the relay is over. Nothing here says when a socket
//! is ready or an operation complete, and where unsent bytes are kept is the engine's business.

mod clock;
mod direction;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

use super::closed::{Closed, Pending, RelayLimits, Side};
use super::traffic::Traffic;
use crate::socket::Fault;
pub(super) use clock::Queue;
use clock::{Clock, Delivery, Queues, Silence};
#[cfg(test)]
pub(super) use clock::{DELIVERY_CHECK, DELIVERY_PATIENCE};
use direction::Direction;
pub(super) use direction::Next;

/// The state of a relay.
#[derive(Debug)]
pub(super) struct Core<'a> {
    up: Direction,
    down: Direction,
    limits: RelayLimits,
    traffic: &'a Traffic,
    /// Boxed, for the many sessions that have no limit.
    clock: Option<Box<Clock>>,
    first_ended: Option<Side>,
    closed: Option<Closed>,
    /// Bytes were read or sent since the clock last learned of it.
    has_moved: bool,
}

impl<'a> Core<'a> {
    /// A relay whose server must first be sent so many bytes that were read before.
    pub(super) fn new(first: usize, limits: RelayLimits, traffic: &'a Traffic, now: Instant) -> Self {
        let silence = limits.idle_timeout.map(|limit| silence(limit, now));
        Self {
            up: Direction::new(first),
            down: Direction::new(0),
            limits,
            traffic,
            clock: silence,
            first_ended: None,
            closed: None,
            has_moved: false,
        }
    }

    /// What is to be done in the direction from this side.
    pub(super) fn next(&self, from: Side) -> Next {
        self.direction(from).next()
    }

    /// Bytes read from this side and not sent to the other one.
    pub(super) fn unsent(&self, from: Side) -> usize {
        self.direction(from).unsent()
    }

    /// How it ended, once it has.
    pub(super) fn closed(&self) -> Option<Closed> {
        self.closed
    }

    /// Whether it has come to the delivery of what a broken server had sent. The server's connection is then only read.
    pub(super) fn is_delivering(&self) -> bool {
        matches!(self.clock.as_deref(), Some(Clock::Delivery(_)))
    }

    /// Bytes were read from this side, at least one.
    pub(super) fn received(&mut self, from: Side, bytes: usize) {
        match from {
            Side::Client => self.traffic.up.add(bytes),
            Side::Server => self.traffic.down.add(bytes),
        }
        self.direction_mut(from).received(bytes);
        self.has_moved = true;
    }

    /// Of the bytes read from this side, so many more were sent to the other one.
    pub(super) fn sent(&mut self, from: Side, bytes: usize) {
        self.direction_mut(from).sent(bytes);
        self.has_moved = true;
        self.settle_ends();
    }

    /// This side has finished: it sends no more.
    pub(super) fn ended(&mut self, from: Side, now: Instant) {
        self.direction_mut(from).end();
        if self.first_ended.is_none() && !self.is_delivering() {
            self.first_ended = Some(from);
            // From now on silence has another bound too.
            let limit = [self.limits.idle_timeout, self.limits.half_close_timeout];
            self.clock = limit.into_iter().flatten().min().map(|limit| silence(limit, now));
        }
        self.settle_ends();
    }

    /// The other side was told that this one has finished.
    pub(super) fn shut_down(&mut self, from: Side) {
        self.direction_mut(from).finish();
        self.settle_ends();
    }

    /// The connection of this side broke. A client that breaks ends the relay at once; what a server had sent before is
    /// still delivered, within [`DELIVERY_PATIENCE`](clock::DELIVERY_PATIENCE).
    pub(super) fn broke(&mut self, side: Side, fault: Fault, now: Instant) {
        match side {
            Side::Client => self.closed = Some(Closed::Broke(side, fault)),
            Side::Server if self.is_delivering() => self.down.end(), // told again, behind the last byte
            Side::Server => {
                self.up.abandon(); // which makes the other direction the last: its end is not passed on as a clean one
                self.clock = Some(Box::new(Clock::Delivery(Delivery::new(fault, now))));
                self.has_moved = true;
            }
        }
        self.settle_ends();
    }

    /// Somebody cut the session.
    pub(super) fn cut(&mut self) {
        self.closed = Some(Closed::Cut);
    }

    /// To be called when nothing more can be done at the moment.
    pub(super) fn settle(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(Clock::Silence(silence)) = self.clock.as_deref_mut()
            && std::mem::take(&mut self.has_moved)
        {
            silence.restart(now());
        }
    }

    /// When [`expire`](Self::expire) is to be called. It changes only there, when a side ends, and when one breaks.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.clock.as_ref().map(|clock| clock.deadline())
    }

    /// The deadline has come. `queue` tells what the kernel still holds for a side.
    pub(super) fn expire(&mut self, now: Instant, queue: impl Fn(Side) -> Option<Queue>) {
        match self.clock.as_deref_mut() {
            None => {}
            Some(Clock::Silence(silence)) => {
                let queues = || [queue(Side::Client), queue(Side::Server)];
                if let Some(queues) = silence.expire(now, queues) {
                    self.closed = Some(self.given_up(queues));
                }
            }
            Some(Clock::Delivery(delivery)) => {
                let is_sent = self.down.has_ended() && self.down.unsent() == 0;
                // Where the system does not tell, delivery gets all the time there is.
                let is_delivered = || is_sent && queue(Side::Client).is_some_and(Queue::is_delivered);
                if delivery.expire(now, is_delivered, || std::mem::take(&mut self.has_moved)) {
                    self.closed = Some(Closed::Broke(Side::Server, delivery.fault));
                }
            }
        }
    }

    /// It was silent for too long. By which of the two bounds, and was anything on its way?
    fn given_up(&self, queues: Queues) -> Closed {
        let is_unsent = self.up.unsent() + self.down.unsent() > 0;
        // Where the system does not tell, everything counts as delivered: the kernel goes on sending it.
        let is_queued = queues.into_iter().flatten().any(|queue| !queue.is_delivered());
        let pending = if is_unsent || is_queued {
            Pending::Bytes
        } else {
            Pending::Nothing
        };
        let half_close = self.limits.half_close_timeout.unwrap_or(Duration::MAX);
        if self.first_ended.is_some() && half_close < self.limits.idle_timeout.unwrap_or(Duration::MAX) {
            Closed::HalfClosed(pending)
        } else {
            Closed::Idle(pending)
        }
    }

    /// The direction that finishes last does not tell its receiver: both connections are about to be closed, which tells
    /// it as well and costs a system call less, or to be reset.
    fn settle_ends(&mut self) {
        if self.down.is_done() {
            self.up.settle();
        }
        if self.up.is_done() {
            self.down.settle();
        }
        if let (true, true, Some(first)) = (self.up.is_done(), self.down.is_done(), self.first_ended)
            && self.closed.is_none()
            && !self.is_delivering()
        {
            self.closed = Some(Closed::Finished(first));
        }
    }

    fn direction(&self, from: Side) -> &Direction {
        match from {
            Side::Client => &self.up,
            Side::Server => &self.down,
        }
    }

    fn direction_mut(&mut self, from: Side) -> &mut Direction {
        match from {
            Side::Client => &mut self.up,
            Side::Server => &mut self.down,
        }
    }
}

fn silence(limit: Duration, now: Instant) -> Box<Clock> {
    Box::new(Clock::Silence(Silence::new(limit, now)))
}
