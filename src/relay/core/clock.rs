//! What bounds a relay in time: silence, and the delivery after a server's reset.

use std::time::Duration;

use tokio::time::Instant;

use crate::socket::Fault;

/// How long the send queue towards the client may take to empty after a server's reset, counted from the last byte
/// that moved.
pub(in crate::relay) const DELIVERY_PATIENCE: Duration = Duration::from_secs(5);

/// How often the client's send queue is checked meanwhile: the kernel has no event for "acknowledged".
pub(in crate::relay) const DELIVERY_CHECK: Duration = Duration::from_millis(5);

/// What the kernel has still to send on a socket, or to see acknowledged. It changes with all that reaches the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) struct Queue {
    pub(in crate::relay) unacknowledged: u32,
    pub(in crate::relay) not_sent_bytes: u32,
}

impl Queue {
    pub(in crate::relay) fn is_delivered(self) -> bool {
        self.unacknowledged == 0 && self.not_sent_bytes == 0
    }
}

/// The send queues towards client and server; `None` where the system does not tell.
pub(super) type Queues = [Option<Queue>; 2];

/// The timer of a relay.
#[derive(Debug)]
pub(super) enum Clock {
    Silence(Silence),
    Delivery(Delivery),
}

impl Clock {
    pub(super) fn deadline(&self) -> Instant {
        match self {
            Self::Silence(silence) => silence.check_at,
            Self::Delivery(delivery) => delivery.check_at.min(delivery.give_up_at),
        }
    }
}

/// The bound on silence. Its deadline is moved when it has come, never at every read.
///
/// Bytes that only the kernel still moves, to a peer that reads slowly, are no silence either. There is no event for
/// them, so the send queues are compared, and only once half of the time is over: twice in a silence.
#[derive(Debug)]
pub(super) struct Silence {
    limit: Duration,
    since: Instant,
    /// The send queues when they were last checked in this silence.
    queues: Option<Queues>,
    check_at: Instant,
}

impl Silence {
    pub(super) fn new(limit: Duration, now: Instant) -> Self {
        Self {
            limit,
            since: now,
            queues: None,
            check_at: now + limit / 2,
        }
    }

    /// Bytes have moved.
    pub(super) fn restart(&mut self, now: Instant) {
        self.since = now;
        self.queues = None;
    }

    /// The deadline has come. Returns the send queues if nothing has moved for the whole limit; otherwise there is a new
    /// deadline.
    pub(super) fn expire(&mut self, now: Instant, queues: impl FnOnce() -> Queues) -> Option<Queues> {
        let silent_for = now - self.since;
        if silent_for < self.limit / 2 {
            self.check_at = self.since + self.limit / 2;
            return None;
        }
        let queues = queues();
        if self.queues.replace(queues).is_some_and(|before| before != queues) {
            self.since = now;
            // Not later than half of the time after the last move: a later check would be the first of this silence.
            self.check_at = now + self.limit / 2;
        } else if silent_for >= self.limit {
            return Some(queues);
        } else {
            self.check_at = self.since + self.limit;
        }
        None
    }
}

/// The bound on delivering what a server had sent before it broke.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) fault: Fault,
    check_at: Instant,
    give_up_at: Instant,
}

impl Delivery {
    pub(super) fn new(fault: Fault, now: Instant) -> Self {
        Self {
            fault,
            check_at: now,
            give_up_at: now + DELIVERY_PATIENCE,
        }
    }

    /// The deadline has come. Returns whether delivery is over; otherwise there is a new deadline. `is_delivered` is
    /// asked whether all has arrived, `has_moved` whether bytes have moved since the last check.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        is_delivered: impl FnOnce() -> bool,
        has_moved: impl FnOnce() -> bool,
    ) -> bool {
        if now >= self.check_at {
            if is_delivered() {
                return true;
            }
            self.check_at = now + DELIVERY_CHECK;
            if has_moved() {
                self.give_up_at = now + DELIVERY_PATIENCE;
            }
        }
        now >= self.give_up_at
    }
}
