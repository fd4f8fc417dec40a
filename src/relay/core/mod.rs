//! The decisions of a relay, without IO: what must be sent and what may be read, half-close, who finished first,
//! silence, and delivery after a server's connection has broken.
//!
//! An engine asks [`Core::next`] what to do in each direction, does it in its own way, and reports the result:
//! [`received`](Core::received), [`sent`](Core::sent), [`ended`](Core::ended), [`shut_down`](Core::shut_down),
//! [`broke`](Core::broke). Before it waits it calls [`settle`](Core::settle); at the [`deadline`](Core::deadline) it
//! calls [`expire`](Core::expire). Requests to end the relay go to [`end`](Core::end). Once [`Core::closed`]
//! returns a value, the relay is over. The core does not know when a socket is ready or an operation complete, nor
//! where the engine keeps unsent bytes.

mod timer;
mod direction;
mod closing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

use super::closed::{Closed, RelayLimits, Side};
use super::traffic::Traffic;
use direction::Direction;
pub(super) use direction::Next;
pub(super) use timer::SendQueue;
#[cfg(test)]
pub(super) use timer::{DELIVERY_CHECK_INTERVAL, DELIVERY_TIMEOUT};
use timer::{RelayTimer, SilenceTimer};

/// How long a client that has everything may be silent after its server has finished, if the session [ends with the
/// server](RelayLimits::ends_with_server).
pub const FOLLOW_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of a relay.
#[derive(Debug)]
pub(super) struct Core<'a> {
    up: Direction,
    down: Direction,
    idle_timeout: Option<Duration>,
    half_close_timeout: Option<Duration>,
    /// Whether the client has to follow a server that finishes first. See [`RelayLimits::ends_with_server`].
    client_follows: bool,
    traffic: &'a Traffic,
    /// Boxed, so that the many sessions without a time limit stay small.
    timer: Option<Box<RelayTimer>>,
    /// The side that finished first, by the end of its stream or by a close_notify before that. `None` until the stream
    /// of a side has ended.
    first_ended: Option<Side>,
    /// The side whose close_notify came first, as long as that side has sent nothing since.
    first_close_notify: Option<Side>,
    closed: Option<Closed>,
    /// Whether bytes were read or sent, or the server's connection has broken, since the timer last took note.
    has_moved: bool,
    /// Whether the last byte that was read came from the server.
    server_was_last: bool,
    /// Whether the end of a stream must be sent before the connection is closed.
    ends_explicitly: bool,
}

impl<'a> Core<'a> {
    /// Creates the state of a relay. `first_bytes` is the number of bytes already read from the client, not yet
    /// sent. `ends_explicitly`: closing a connection does not tell its peer that the stream is complete.
    pub(super) fn new(
        first_bytes: usize,
        limits: RelayLimits,
        traffic: &'a Traffic,
        ends_explicitly: bool,
        now: Instant,
    ) -> Self {
        let silence = limits.idle_timeout.map(|limit| silence_timer(limit, now));
        Self {
            up: Direction::new(first_bytes),
            down: Direction::new(0),
            idle_timeout: limits.idle_timeout,
            half_close_timeout: limits.half_close_timeout,
            client_follows: limits.ends_with_server,
            traffic,
            timer: silence,
            first_ended: None,
            first_close_notify: None,
            closed: None,
            has_moved: false,
            // If bytes of the server are already counted, a login was relayed. In a login, the server sends last;
            // `first_bytes` of the client come after the login.
            server_was_last: first_bytes == 0 && traffic.down.bytes() > 0,
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

    /// The counters of this relay, which any thread may read.
    pub(super) fn traffic(&self) -> &'a Traffic {
        self.traffic
    }

    /// How the relay ended; `None` while it runs.
    pub(super) fn closed(&self) -> Option<Closed> {
        self.closed
    }

    /// Whether the server's connection broke, and the bytes that the server had sent are being delivered to the client.
    /// Meanwhile nothing is read from the client.
    pub(super) fn is_delivering(&self) -> bool {
        matches!(self.timer.as_deref(), Some(RelayTimer::Delivery(_)))
    }

    /// Sets whether the engine leaves bytes of this side unread, because they wait for bandwidth, or because the turn
    /// of this direction is over. While bytes are held back, the peers do not count as silent, and the session is not
    /// at rest.
    pub(super) fn set_held_back(&mut self, from: Side, is_held_back: bool) {
        self.direction_mut(from).set_held_back(is_held_back);
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
        self.finish_if_done();
    }

    /// To be called before waiting, when nothing more can be done at the moment.
    pub(super) fn settle(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(RelayTimer::Silence(silence)) = self.timer.as_deref_mut()
            && std::mem::take(&mut self.has_moved)
        {
            silence.restart(now());
        }
    }

    /// When [`expire`](Self::expire) must be called. Changes only in that call, and when a side ends or breaks: bytes
    /// that move do not change it.
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
                    self.closed = Some(self.closed_by_fault(Side::Server, fault));
                }
            }
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
