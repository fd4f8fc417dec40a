//! How a relay ends.
//!
//! ```text
//! both sides have finished                        Finished, once everything has been sent
//! the client breaks                               Broke, at once
//! the server breaks                               Broke, after the client has got what the server had sent
//! a reset after the client has sent everything    ResetAfterEnd, if nothing is left to be sent either way
//! silence                                         Idle or HalfClosed, after the limit
//! the client is silent after its server's end     Finished, after FOLLOW_TIMEOUT, with RelayLimits::ends_with_server
//! EndRequest::Cut                                 Cut, at once
//! EndRequest::IfAtRest                            AtRest, if the session is at rest
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::timer::{DeliveryTimer, RelayTimer, SendQueue, SendQueues};
use super::{Core, FOLLOW_TIMEOUT, silence_timer};
use crate::relay::closed::{Closed, EndRequest, Pending, Side};
use crate::socket::Fault;

impl Core<'_> {
    /// This side has finished: it sends no more.
    pub(in crate::relay) fn ended(&mut self, from: Side, now: Instant) {
        self.direction_mut(from).end();
        // The client's stream counts as ended only in `shut_down` (see `ByteCounter::has_ended`).
        if from == Side::Server {
            self.traffic.down.end();
        }
        if !self.is_delivering() {
            self.direction_mut(from).complete();
        }
        if self.first_ended.is_none() && !self.is_delivering() {
            self.first_ended = self.first_close_notify.or(Some(from));
            self.client_follows &= from == Side::Server;
            self.limit_half_close(now);
        }
        self.finish_if_done();
    }

    /// Sets the limit on silence for the time after one side has finished.
    fn limit_half_close(&mut self, now: Instant) {
        let follow = self.client_follows.then_some(FOLLOW_TIMEOUT);
        let limit = self.half_closed_limit().into_iter().chain(follow).min();
        self.timer = limit.map(|limit| silence_timer(limit, now));
    }

    /// The limit on silence once one side has finished, without [`FOLLOW_TIMEOUT`]; `None`: there is none.
    fn half_closed_limit(&self) -> Option<Duration> {
        self.idle_timeout.into_iter().chain(self.half_close_timeout).min()
    }

    /// The connection of the other side was shut down for writing, because this side has finished.
    pub(in crate::relay) fn shut_down(&mut self, from: Side) {
        self.direction_mut(from).shut_down();
        if from == Side::Client {
            self.traffic.up.end();
        }
        self.finish_if_done();
    }

    /// The connection of this side broke. If it is the client's, the relay ends at once. If it is the server's, what
    /// the server had sent before is still delivered, within [`DELIVERY_TIMEOUT`](super::timer::DELIVERY_TIMEOUT).
    ///
    /// A client whose stream is truncated ([`Fault::Truncated`]) after the server has finished counts as finished: it
    /// waits for no answer, and many clients end like this. A server whose stream is truncated never counts as
    /// finished: its answer may be incomplete.
    pub(in crate::relay) fn broke(&mut self, side: Side, fault: Fault, now: Instant) {
        if side == Side::Client && fault == Fault::Truncated && self.down.has_ended() && !self.is_delivering() {
            return self.ended(side, now);
        }
        match side {
            Side::Client => self.closed = Some(self.closed_by_fault(side, fault)),
            Side::Server if self.is_delivering() => self.down.end(), // the engine has now read the last byte
            Side::Server => {
                // Invalid TLS is not the end of the server's stream (see `ByteCounter::has_ended`).
                if fault != Fault::Tls {
                    self.traffic.down.end();
                }
                let delivery = DeliveryTimer::new(fault, self.is_upload_forwarded(), now);
                // With `up` done, `finish_if_done` skips the end towards the client: the client is to be reset.
                self.up.abandon();
                self.timer = Some(Box::new(RelayTimer::Delivery(delivery)));
                self.has_moved = true;
            }
        }
        self.finish_if_done();
    }

    /// How the relay ends because the connection of this side broke: with [`Closed::ResetAfterEnd`] if it was reset and
    /// no byte was lost.
    pub(super) fn closed_by_fault(&self, side: Side, fault: Fault) -> Closed {
        let has_sent_all = match self.timer.as_deref() {
            Some(RelayTimer::Delivery(delivery)) => {
                delivery.fault == Fault::Reset && delivery.client_had_sent_all && self.down.is_complete()
            }
            _ => self.is_upload_forwarded(),
        };
        if fault == Fault::Reset && has_sent_all && self.down.unsent() == 0 {
            let first = self.first_ended.or(self.first_close_notify);
            Closed::ResetAfterEnd(first.unwrap_or(Side::Client))
        } else {
            Closed::Broke(side, fault)
        }
    }

    /// Whether the client has sent everything, and all of it was sent on to the server.
    fn is_upload_forwarded(&self) -> bool {
        self.up.is_complete() && self.up.unsent() == 0
    }

    /// Handles a request about the end of the relay: ends it, notes that bytes are on their way, or does nothing (see
    /// [`EndRequest`]). `queue` returns the send queue of the socket towards a side.
    pub(in crate::relay) fn end(&mut self, request: EndRequest<'_>, queue: impl Fn(Side) -> Option<SendQueue>) {
        // A queue that the system does not report counts as delivered.
        let is_delivered = |side| queue(side).is_none_or(SendQueue::is_delivered);
        let are_bytes_on_their_way = || !self.is_sent() || !is_delivered(Side::Client) || !is_delivered(Side::Server);
        match request {
            EndRequest::Cut => self.closed = Some(Closed::Cut),
            EndRequest::IfAtRest(notes) | EndRequest::NoteDelivery(notes) if are_bytes_on_their_way() => notes.add(),
            EndRequest::IfAtRest(_) if self.is_at_rest() => self.closed = Some(Closed::AtRest),
            EndRequest::IfAtRest(_) | EndRequest::NoteDelivery(_) => {}
        }
    }

    /// Whether everything that the peers have sent so far was read and sent on.
    fn is_sent(&self) -> bool {
        [&self.up, &self.down]
            .into_iter()
            .all(|direction| direction.unsent() == 0 && !direction.is_held_back())
    }

    /// Whether the session is at rest, as far as we can tell: the client has its answer, and has asked for nothing
    /// since. [`Self::end`] has checked the send queues before it calls this.
    pub(super) fn is_at_rest(&self) -> bool {
        let has_ended = self.up.has_ended() || self.down.has_ended() || self.is_delivering();
        self.server_was_last && self.is_sent() && !has_ended
    }

    /// Ends the relay, because a limit on silence was reached. If only [`FOLLOW_TIMEOUT`] was reached and bytes are
    /// still to be delivered, the client gets more time, until another limit is reached.
    pub(super) fn give_up(&mut self, queues: SendQueues, silent_since: Instant, now: Instant) {
        let pending = self.pending(queues);
        // `None`: after one side has finished, FOLLOW_TIMEOUT is the only limit.
        let half_closed_until = self.half_closed_limit().map(|limit| silent_since + limit);
        let is_only_follow_timeout = self.first_ended.is_some() && half_closed_until.is_none_or(|until| now < until);
        if is_only_follow_timeout && pending == Pending::Bytes {
            if let Some(RelayTimer::Silence(silence)) = self.timer.as_deref_mut() {
                silence.extend(now, half_closed_until);
            }
            return;
        }
        let half_close = self.half_close_timeout.unwrap_or(Duration::MAX);
        self.closed = match (self.first_ended, pending) {
            (Some(first), Pending::Nothing) if self.client_follows => Some(Closed::Finished(first)),
            (Some(_), _) if half_close < self.idle_timeout.unwrap_or(Duration::MAX) => {
                Some(Closed::HalfClosed(pending))
            }
            _ => Some(Closed::Idle(pending)),
        };
    }

    /// Whether bytes are still to be delivered. Send queues that the system does not report count as empty: the kernel
    /// continues to send what is in them.
    fn pending(&self, queues: SendQueues) -> Pending {
        let is_unsent = self.up.unsent() + self.down.unsent() > 0;
        let is_queued = queues.into_iter().flatten().any(|queue| !queue.is_delivered());
        if is_unsent || is_queued {
            Pending::Bytes
        } else {
            Pending::Nothing
        }
    }

    /// Ends the relay once both directions are done.
    ///
    /// The direction that finishes last does not forward its end: the connections are closed next, which sends the end
    /// without another system call, or are reset. With `ends_explicitly`, that end is forwarded unless a reset follows.
    pub(super) fn finish_if_done(&mut self) {
        if !self.ends_explicitly || self.is_delivering() {
            if self.down.is_done() {
                self.up.skip_end();
            }
            if self.up.is_done() {
                self.down.skip_end();
            }
        }
        let are_both_done = self.up.is_done() && self.down.is_done();
        if are_both_done && self.closed.is_none() && !self.is_delivering() {
            self.closed = self.first_ended.map(Closed::Finished);
        }
    }
}
