//! The decisions of a relay, without IO: what must be sent and what may be read, half-close, who finished first,
//! silence, and delivery after a server's reset.
//!
//! An engine asks [`Core::next`] what to do in each direction, does it in its own way, and reports the result:
//! [`received`](Core::received), [`sent`](Core::sent), [`ended`](Core::ended), [`shut_down`](Core::shut_down),
//! [`broke`](Core::broke). Before it waits it calls [`settle`](Core::settle); at the [`deadline`](Core::deadline) it
//! calls [`expire`](Core::expire). Once [`Core::closed`] returns a value, the relay is over. The core does not know
//! when a socket is ready or an operation complete, nor where the engine keeps unsent bytes.

mod timer;
mod direction;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

use super::closed::{Closed, EndRequest, Pending, RelayLimits, Side};
use super::traffic::Traffic;
use crate::socket::Fault;
use direction::Direction;
pub(super) use direction::Next;
pub(super) use timer::SendQueue;
#[cfg(test)]
pub(super) use timer::{DELIVERY_CHECK_INTERVAL, DELIVERY_TIMEOUT};
use timer::{DeliveryTimer, RelayTimer, SendQueues, SilenceTimer};

/// How long a client may be silent after its server has finished, if the session [ends with
/// it](RelayLimits::ends_with_server).
pub const FOLLOW_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of a relay.
#[derive(Debug)]
pub(super) struct Core<'a> {
    up: Direction,
    down: Direction,
    idle_timeout: Option<Duration>,
    half_close_timeout: Option<Duration>,
    /// See [`RelayLimits::ends_with_server`]. From the first end on: whether that was the server's.
    ends_with_server: bool,
    traffic: &'a Traffic,
    /// Boxed to keep the many sessions without a limit small.
    timer: Option<Box<RelayTimer>>,
    first_ended: Option<Side>,
    /// The side whose close_notify came first, as long as that side has sent nothing since.
    first_close_notify: Option<Side>,
    closed: Option<Closed>,
    /// Whether bytes were read or sent since the timer last took note.
    has_moved: bool,
    /// Whether the last byte that was read came from the server.
    server_was_last: bool,
    /// Whether a connection's end must be sent before it is closed.
    ends_explicitly: bool,
}

impl<'a> Core<'a> {
    /// Creates the state of a relay. `first` is the number of bytes already read from the client, not yet sent.
    /// `ends_explicitly`: closing a connection does not tell its peer that the stream is complete.
    pub(super) fn new(
        first: usize,
        limits: RelayLimits,
        traffic: &'a Traffic,
        ends_explicitly: bool,
        now: Instant,
    ) -> Self {
        let silence = limits.idle_timeout.map(|limit| silence_timer(limit, now));
        Self {
            up: Direction::new(first),
            down: Direction::new(0),
            idle_timeout: limits.idle_timeout,
            half_close_timeout: limits.half_close_timeout,
            ends_with_server: limits.ends_with_server,
            traffic,
            timer: silence,
            first_ended: None,
            first_close_notify: None,
            closed: None,
            has_moved: false,
            server_was_last: first == 0 && traffic.down.bytes() > 0, // the server ended a login that was relayed before
            ends_explicitly,
        }
    }

    /// The next action in the direction from this side.
    pub(super) fn next(&self, from: Side) -> Next {
        self.direction(from).next()
    }

    /// Bytes read from this side and not sent to the other one.
    pub(super) fn unsent(&self, from: Side) -> usize {
        self.direction(from).unsent()
    }

    /// Its progress, as others see it.
    pub(super) fn traffic(&self) -> &'a Traffic {
        self.traffic
    }

    /// How the relay ended; `None` while it runs.
    pub(super) fn closed(&self) -> Option<Closed> {
        self.closed
    }

    /// Whether the connection of the server broke and its last bytes are being delivered. The relay then only reads
    /// from it.
    pub(super) fn is_delivering(&self) -> bool {
        matches!(self.timer.as_deref(), Some(RelayTimer::Delivery(_)))
    }

    /// Sets whether the engine leaves bytes of this side unread, because they wait for bandwidth or its turn is over.
    /// Then the peers are not silent, however long that lasts, and the session is not at rest.
    pub(super) fn hold_back(&mut self, from: Side, is_held_back: bool) {
        self.direction_mut(from).hold_back(is_held_back);
    }

    /// Bytes were read from this side, at least one.
    pub(super) fn received(&mut self, from: Side, bytes: usize) {
        match from {
            Side::Client => self.traffic.up.add(bytes),
            Side::Server => self.traffic.down.add(bytes),
        }
        self.direction_mut(from).received(bytes);
        self.first_close_notify = self.first_close_notify.filter(|first| *first != from);
        self.has_moved = true;
        self.server_was_last = from == Side::Server;
    }

    /// The bytes just received from this side end with what is probably its close_notify.
    pub(super) fn received_close_notify(&mut self, from: Side) {
        self.direction_mut(from).complete();
        self.first_close_notify.get_or_insert(from);
    }

    /// This many of the bytes read from this side were sent to the other one.
    pub(super) fn sent(&mut self, from: Side, bytes: usize) {
        self.direction_mut(from).sent(bytes);
        self.has_moved = true;
        self.skip_last_end();
    }

    /// This side has finished: it sends no more.
    pub(super) fn ended(&mut self, from: Side, now: Instant) {
        self.direction_mut(from).end();
        if from == Side::Server {
            self.traffic.down.end();
        }
        if !self.is_delivering() {
            self.direction_mut(from).complete();
        }
        if self.first_ended.is_none() && !self.is_delivering() {
            self.first_ended = self.first_close_notify.or(Some(from));
            self.ends_with_server &= from == Side::Server;
            self.limit_half_close(now);
        }
        self.skip_last_end();
    }

    /// From now on the half-close timeout applies, too.
    fn limit_half_close(&mut self, now: Instant) {
        let follow = self.ends_with_server.then_some(FOLLOW_TIMEOUT);
        let limit = self.half_closed_limit().into_iter().chain(follow).min();
        self.timer = limit.map(|limit| silence_timer(limit, now));
    }

    /// The limit on silence after the first end, whatever is under way; `None`: there is none.
    fn half_closed_limit(&self) -> Option<Duration> {
        self.idle_timeout.into_iter().chain(self.half_close_timeout).min()
    }

    /// The connection of the other side was shut down for writing, because this side has finished.
    pub(super) fn shut_down(&mut self, from: Side) {
        self.direction_mut(from).finish();
        if from == Side::Client {
            self.traffic.up.end();
        }
        self.skip_last_end();
    }

    /// The connection of this side broke. A client that breaks ends the relay at once; what a server had sent before is
    /// still delivered, within [`DELIVERY_TIMEOUT`](timer::DELIVERY_TIMEOUT).
    ///
    /// A client that is cut off after the server has finished counts as finished: it waits for no answer, and many
    /// clients end like this. A server that is cut off never counts as finished: its answer may be incomplete.
    pub(super) fn broke(&mut self, side: Side, fault: Fault, now: Instant) {
        if side == Side::Client && fault == Fault::Truncated && self.down.has_ended() && !self.is_delivering() {
            return self.ended(side, now);
        }
        match side {
            Side::Client => self.closed = Some(self.broken(side, fault)),
            Side::Server if self.is_delivering() => self.down.end(), // reported again after the last byte
            Side::Server => {
                if fault != Fault::Tls {
                    self.traffic.down.end();
                }
                let delivery = DeliveryTimer::new(fault, self.is_client_through(), now);
                self.up.abandon(); // now the other direction is the last one: its end is not forwarded as a clean end
                self.timer = Some(Box::new(RelayTimer::Delivery(delivery)));
                self.has_moved = true;
            }
        }
        self.skip_last_end();
    }

    /// How the relay ends because the connection of this side broke. A reset is not a fault once the client has sent
    /// everything and, if the server broke, the server has sent everything, too: often a side does not read the last
    /// bytes of the other.
    fn broken(&self, side: Side, fault: Fault) -> Closed {
        let has_sent_all = match self.timer.as_deref() {
            Some(RelayTimer::Delivery(delivery)) => {
                delivery.fault == Fault::Reset && delivery.is_after_client && self.down.is_complete()
            }
            _ => self.is_client_through(),
        };
        if fault == Fault::Reset && has_sent_all && self.down.unsent() == 0 {
            let first = self.first_ended.or(self.first_close_notify);
            Closed::ResetAfterEnd(first.unwrap_or(Side::Client))
        } else {
            Closed::Broke(side, fault)
        }
    }

    /// Whether the client has sent everything, and all of it was sent on.
    fn is_client_through(&self) -> bool {
        self.up.is_complete() && self.up.unsent() == 0
    }

    /// Ends the relay on request, if it may end now. `queue` returns the send queue of the socket towards a side.
    pub(super) fn end(&mut self, request: EndRequest<'_>, queue: impl Fn(Side) -> Option<SendQueue>) {
        // A queue that the system does not report counts as delivered.
        let is_delivered = |side| queue(side).is_none_or(SendQueue::is_delivered);
        match request {
            EndRequest::Cut => self.closed = Some(Closed::Cut),
            EndRequest::IfAtRest(notes) | EndRequest::NoteDelivery(notes)
                if !self.is_sent() || !is_delivered(Side::Client) || !is_delivered(Side::Server) =>
            {
                notes.add();
            }
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

    /// Whether nothing is under way, as far as we can tell: the client has its answer, and has asked for nothing since.
    fn is_at_rest(&self) -> bool {
        let has_ended = self.up.has_ended() || self.down.has_ended() || self.is_delivering();
        self.server_was_last && self.is_sent() && !has_ended
    }

    /// To be called before waiting, when nothing more can be done at the moment.
    pub(super) fn settle(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(RelayTimer::Silence(silence)) = self.timer.as_deref_mut()
            && std::mem::take(&mut self.has_moved)
        {
            silence.restart(now());
        }
    }

    /// When [`expire`](Self::expire) must be called. Changes only in that call, when a side ends, and when one breaks.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timer.as_ref().map(|timer| timer.deadline())
    }

    /// To be called at the deadline. `queue` returns the send queue of the socket towards a side.
    pub(super) fn expire(&mut self, now: Instant, queue: impl Fn(Side) -> Option<SendQueue>) {
        match self.timer.as_deref_mut() {
            None => {}
            Some(RelayTimer::Silence(silence)) => {
                if self.up.is_held_back() || self.down.is_held_back() {
                    silence.restart(now);
                }
                let queues = || [queue(Side::Client), queue(Side::Server)];
                if let Some(queues) = silence.expire(now, queues) {
                    let since = silence.since();
                    self.give_up(queues, since, now);
                }
            }
            Some(RelayTimer::Delivery(delivery)) => {
                let is_sent = self.down.has_ended() && self.down.unsent() == 0;
                // Where the system does not report send queues, delivery takes the whole timeout.
                let is_delivered = || is_sent && queue(Side::Client).is_some_and(SendQueue::is_delivered);
                let has_moved = || std::mem::take(&mut self.has_moved) || self.down.is_held_back();
                if delivery.expire(now, is_delivered, has_moved) {
                    let fault = delivery.fault;
                    self.closed = Some(self.broken(Side::Server, fault));
                }
            }
        }
    }

    /// Ends the relay after a silence from `since` until now: which of the limits applied, and whether bytes were
    /// pending. A client that does not have everything yet may take longer to follow its server, as long as no other
    /// limit is reached.
    fn give_up(&mut self, queues: SendQueues, since: Instant, now: Instant) {
        let is_unsent = self.up.unsent() + self.down.unsent() > 0;
        // Where the system does not report send queues, they count as empty: the kernel continues to send them.
        let is_queued = queues.into_iter().flatten().any(|queue| !queue.is_delivered());
        let pending = if is_unsent || is_queued {
            Pending::Bytes
        } else {
            Pending::Nothing
        };
        let end = self.half_closed_limit().map(|limit| since + limit);
        if pending == Pending::Bytes && self.first_ended.is_some() && end.is_none_or(|end| now < end) {
            if let Some(RelayTimer::Silence(silence)) = self.timer.as_deref_mut() {
                silence.extend(now, end);
            }
            return;
        }
        let half_close = self.half_close_timeout.unwrap_or(Duration::MAX);
        self.closed = match (self.first_ended, pending) {
            (Some(first), Pending::Nothing) if self.ends_with_server => Some(Closed::Finished(first)),
            (Some(_), _) if half_close < self.idle_timeout.unwrap_or(Duration::MAX) => {
                Some(Closed::HalfClosed(pending))
            }
            _ => Some(Closed::Idle(pending)),
        };
    }

    /// Skips forwarding the end of the direction that finishes last: both connections are about to be reset, or to be
    /// closed, which has the same effect without a system call. Once both directions are done, the relay is over.
    fn skip_last_end(&mut self) {
        if !self.ends_explicitly || self.is_delivering() {
            if self.down.is_done() {
                self.up.skip_end();
            }
            if self.up.is_done() {
                self.down.skip_end();
            }
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

fn silence_timer(limit: Duration, now: Instant) -> Box<RelayTimer> {
    Box::new(RelayTimer::Silence(SilenceTimer::new(limit, now)))
}
