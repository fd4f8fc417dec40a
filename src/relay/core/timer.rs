//! The time limits of a relay: on silence, and on delivery after a server's connection has broken.

use std::time::Duration;

use tokio::time::Instant;

use crate::socket::Fault;

/// How long the send queue towards the client may take to empty after the server's connection has broken, counted
/// from the last byte that the relay read or sent. Time in which bytes wait for bandwidth does not count.
pub(in crate::relay) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the send queue towards the client is checked after the server's connection has broken: the kernel has no
/// event for "acknowledged".
pub(in crate::relay) const DELIVERY_CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// The send queue of a socket: what the kernel has not sent yet, and what the peer has not acknowledged. It changes
/// whenever something reaches the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) struct SendQueue {
    pub(in crate::relay) unacknowledged_segments: u32,
    pub(in crate::relay) not_sent_bytes: u32,
}

impl SendQueue {
    /// Nothing is queued.
    pub(in crate::relay) const EMPTY: Self = Self {
        unacknowledged_segments: 0,
        not_sent_bytes: 0,
    };

    /// Whether the peer has acknowledged everything.
    pub(in crate::relay) fn is_delivered(self) -> bool {
        self.unacknowledged_segments == 0 && self.not_sent_bytes == 0
    }
}

/// The send queues towards client and server; `None` where the system does not report them.
pub(super) type SendQueues = [Option<SendQueue>; 2];

/// The timer of a relay: only one of the two limits applies at a time.
#[derive(Debug)]
pub(super) enum RelayTimer {
    Silence(SilenceTimer),
    Delivery(DeliveryTimer),
}

impl RelayTimer {
    /// When `expire` of the timer that runs must be called next.
    pub(super) fn deadline(&self) -> Instant {
        match self {
            Self::Silence(silence) => silence.check_at,
            Self::Delivery(delivery) => delivery.check_at.min(delivery.give_up_at),
        }
    }
}

/// The limit on silence. Its deadline is moved only when it is reached, not at every read.
///
/// It is not silence when the kernel still delivers bytes to a peer that reads slowly. There is no event for that, so
/// the send queues are compared: at half of the limit and at its end.
#[derive(Debug)]
pub(super) struct SilenceTimer {
    limit: Duration,
    since: Instant,
    /// The send queues at the last check within this silence.
    queues: Option<SendQueues>,
    check_at: Instant,
}

impl SilenceTimer {
    pub(super) fn new(limit: Duration, now: Instant) -> Self {
        Self {
            limit,
            since: now,
            queues: None,
            check_at: now + limit / 2,
        }
    }

    /// Lets this silence go on beyond its limit, because bytes are still to be delivered (`Core::give_up`). The next
    /// check is after half of the limit, or at `latest`, when another limit is reached, if that is earlier.
    pub(super) fn extend(&mut self, now: Instant, latest: Option<Instant>) {
        let next = now + self.limit / 2;
        self.check_at = latest.map_or(next, |latest| next.min(latest));
    }

    /// When this silence began.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Starts a new silence, because bytes have moved or are held back ([`super::Core::set_held_back`]).
    pub(super) fn restart(&mut self, now: Instant) {
        self.since = now;
        self.queues = None;
    }

    /// To be called at the deadline. Returns the send queues if nothing has moved for the whole limit; otherwise sets a
    /// new deadline.
    pub(super) fn expire(&mut self, now: Instant, queues: impl FnOnce() -> SendQueues) -> Option<SendQueues> {
        let silent_for = now - self.since;
        if silent_for < self.limit / 2 {
            self.check_at = self.since + self.limit / 2;
            return None;
        }
        let queues = queues();
        let have_changed = self.queues.replace(queues).is_some_and(|before| before != queues);
        if have_changed {
            self.since = now;
            // Half of the limit, not all of it: `restart` does not move this deadline, and a silence that `restart`
            // begins needs its first check within half of the limit.
            self.check_at = now + self.limit / 2;
            return None;
        }
        if silent_for < self.limit {
            self.check_at = self.since + self.limit;
            return None;
        }
        Some(queues)
    }
}

/// The limit on delivering what a server had sent before its connection broke.
#[derive(Debug)]
pub(super) struct DeliveryTimer {
    pub(super) fault: Fault,
    /// Whether, when the server's connection broke, the client had sent everything and all of it had been sent on.
    pub(super) client_had_sent_all: bool,
    check_at: Instant,
    give_up_at: Instant,
}

impl DeliveryTimer {
    pub(super) fn new(fault: Fault, client_had_sent_all: bool, now: Instant) -> Self {
        Self {
            fault,
            client_had_sent_all,
            check_at: now,
            give_up_at: now + DELIVERY_TIMEOUT,
        }
    }

    /// To be called at the deadline. Returns whether delivery is over; otherwise sets a new deadline. `is_delivered`
    /// tells whether the client has everything, `has_moved` whether bytes have moved since the last check, or are held
    /// back ([`super::Core::set_held_back`]).
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
            self.check_at = now + DELIVERY_CHECK_INTERVAL;
            if has_moved() {
                self.give_up_at = now + DELIVERY_TIMEOUT;
            }
        }
        now >= self.give_up_at
    }
}
