//! Bytes, both ways, until the end.
//!
//! [`relay`] takes two sockets, what was read before, limits and a [`Traffic`] to count in, and says how it ended.
//! Nobody else knows how bytes move. Each direction is a half: it copies, and splices while it is bulk.

mod copy;
mod half;
mod quiet;
mod splice;
#[cfg(test)]
mod tests;
mod traffic;
mod wire;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::socket::Fault;
use half::{Broken, Half};
use quiet::{Queue, Quiet};
pub use splice::limit_pipes;
pub use traffic::{Moved, Traffic};
use wire::Wire;

/// How long the send queue towards the client may take to empty after a server's reset; and before that, how long the
/// client may take nothing at all of what is still to be given to its socket.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(5);

/// How often the client's send queue is looked at meanwhile: the kernel has no event for "acknowledged".
const DELIVERY_LOOK: Duration = Duration::from_millis(5);

/// How long a relay may be quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// No byte either way; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// No byte after one side has finished; `None`: for ever.
    pub half_close_timeout: Option<Duration>,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who connected to us.
    Client,
    /// Whom we connected to.
    Server,
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Both have finished; this one first.
    Finished(Side),
    /// This one broke.
    Broke(Side, Fault),
    /// No byte for [`RelayLimits::idle_timeout`].
    Idle(Pending),
    /// No byte for [`RelayLimits::half_close_timeout`] after one had finished.
    HalfClosed(Pending),
    /// Somebody told it to end.
    Cut,
}

/// Whether bytes were on their way when a relay was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Everything read had reached the other end.
    Nothing,
    /// Some had not: the end must not look complete.
    Bytes,
}

impl Closed {
    /// Whether both sides must see a reset, lest a cut look like a complete answer.
    #[must_use]
    pub const fn is_abrupt(self) -> bool {
        match self {
            Self::Finished(_) | Self::Idle(Pending::Nothing) | Self::HalfClosed(Pending::Nothing) => false,
            Self::Broke(..) | Self::Idle(Pending::Bytes) | Self::HalfClosed(Pending::Bytes) | Self::Cut => true,
        }
    }
}

/// Moves bytes both ways until both sides are done, one breaks, it has been quiet for too long, or `cut` says so.
///
/// `first` is what the server gets before anything else. After a server's reset the client first gets what the server
/// had sent. The sockets are left to the caller, who resets them if the end [is abrupt](Closed::is_abrupt).
///
/// Cancelling loses bytes: what was read and not yet sent.
///
/// No `async fn`: that would keep its arguments a second time, and every idle session with them.
pub fn relay<'a>(
    client: &'a TcpStream,
    server: &'a TcpStream,
    first: Vec<u8>,
    limits: RelayLimits,
    traffic: &'a Traffic,
    cut: impl Future + Unpin + 'a,
) -> impl Future<Output = Closed> + 'a {
    between(client, server, first, limits, traffic, cut)
}

/// [`relay`], over whatever carries bytes.
fn between<'a, W: Wire>(
    client: &'a W,
    server: &'a W,
    first: Vec<u8>,
    limits: RelayLimits,
    traffic: &'a Traffic,
    mut cut: impl Future + Unpin + 'a,
) -> impl Future<Output = Closed> + 'a {
    let mut both = Both::new(client, server, first, limits, traffic);
    async move {
        let stop = poll_fn(|cx| {
            // The data first: being cut is rare, and may wait for a turn.
            if let Poll::Ready(stop) = both.poll(cx) {
                return Poll::Ready(stop);
            }
            Pin::new(&mut cut).poll(cx).map(|_| Stop::Closed(Closed::Cut))
        })
        .await;
        match stop {
            Stop::Closed(closed) => closed,
            // Rare, and boxed so that sessions that end well are not larger for it.
            Stop::ServerBroke(fault) => Box::pin(both.deliver(fault, cut)).await,
        }
    }
}

/// Why the main part of a relay stopped.
enum Stop {
    Closed(Closed),
    /// What the server sent before is still to be delivered.
    ServerBroke(Fault),
}

/// Both directions and what watches them.
struct Both<'a, W> {
    client: End<'a, W>,
    server: End<'a, W>,
    up: Half,
    down: Half,
    /// Who finished first.
    first_ended: Option<Side>,
    limits: RelayLimits,
    quiet: Option<Box<Quiet>>,
    traffic: &'a Traffic,
}

impl<'a, W: Wire> Both<'a, W> {
    fn new(client: &'a W, server: &'a W, first: Vec<u8>, limits: RelayLimits, traffic: &'a Traffic) -> Self {
        Self {
            client: End {
                wire: client,
                watch: None,
            },
            server: End {
                wire: server,
                watch: None,
            },
            up: Half::new(first),
            down: Half::new(Vec::new()),
            first_ended: None,
            limits,
            quiet: limits.idle_timeout.map(Quiet::new),
            traffic,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        if let Err((side, fault)) = self.poll_up(cx).and_then(|()| self.poll_down(cx)) {
            return Poll::Ready(stopped(side, fault));
        }
        if self.first_ended.is_none() && (self.up.has_ended() || self.down.has_ended()) {
            self.half_closed();
        }
        if let (true, true, Some(first)) = (self.up.is_done(), self.down.is_done(), self.first_ended) {
            return Poll::Ready(Stop::Closed(Closed::Finished(first)));
        }
        // A socket that is not read from (its half waits for the other side, or has ended) can still be reset.
        if let Poll::Ready(fault) = self.client.poll_fault(cx, !self.up.is_reading()) {
            return Poll::Ready(stopped(Side::Client, fault));
        }
        if let Poll::Ready(fault) = self.server.poll_fault(cx, !self.down.is_reading()) {
            return Poll::Ready(stopped(Side::Server, fault));
        }
        let pulse = self.pulse();
        let Some(quiet) = &mut self.quiet else {
            return Poll::Pending;
        };
        let queues = || [self.client.wire.queue(), self.server.wire.queue()];
        quiet.poll(cx, pulse, queues).map(|()| Stop::Closed(self.given_up()))
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<(), (Side, Fault)> {
        if self.up.is_done() {
            return Ok(());
        }
        match self.up.poll(
            cx,
            self.client.wire,
            self.server.wire,
            &self.traffic.up,
            self.down.is_done(),
        ) {
            Poll::Ready(Err(broken)) => Err(at(broken, Side::Client, Side::Server)),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<(), (Side, Fault)> {
        if self.down.is_done() {
            return Ok(());
        }
        match self.down.poll(
            cx,
            self.server.wire,
            self.client.wire,
            &self.traffic.down,
            self.up.is_done(),
        ) {
            Poll::Ready(Err(broken)) => Err(at(broken, Side::Server, Side::Client)),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Changes with every byte read or sent.
    fn pulse(&self) -> (u64, usize) {
        (
            self.traffic.up.bytes() + self.traffic.down.bytes(),
            self.up.unsent() + self.down.unsent(),
        )
    }

    /// One side has finished: from now on silence has another bound too.
    fn half_closed(&mut self) {
        self.first_ended = Some(if self.up.has_ended() {
            Side::Client
        } else {
            Side::Server
        });
        let bound = [self.limits.idle_timeout, self.limits.half_close_timeout]
            .into_iter()
            .flatten()
            .min();
        self.quiet = bound.map(Quiet::new);
    }

    /// It has been quiet for too long; by which of the two bounds?
    fn given_up(&self) -> Closed {
        let unsent = self.up.unsent() + self.down.unsent() > 0;
        // Where the system does not tell, everything is taken for delivered: the kernel goes on sending it.
        let delivered = [self.client.wire, self.server.wire]
            .iter()
            .all(|wire| wire.queue().is_none_or(Queue::is_delivered));
        let pending = if unsent || !delivered {
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

    /// The server broke. The client gets what was read from it before, and what its socket still holds; then the
    /// caller resets the client. Bounded by [`DELIVERY_PATIENCE`].
    async fn deliver(mut self, fault: Fault, mut cut: impl Future + Unpin) -> Closed {
        self.up.abandon();
        self.down.cut_off();
        let mut patience = pin!(sleep(DELIVERY_PATIENCE));
        let mut look = pin!(sleep(Duration::ZERO));
        let mut progress = None;
        poll_fn(|cx| {
            match self.poll_down(cx) {
                Ok(()) => {}
                Err((Side::Server, _)) => self.down.end(), // a reset after the last byte; held bytes are sent below
                Err((Side::Client, fault)) => return Poll::Ready(Closed::Broke(Side::Client, fault)),
            }
            if let Poll::Ready(fault) = self.client.poll_fault(cx, true) {
                return Poll::Ready(Closed::Broke(Side::Client, fault));
            }
            if Pin::new(&mut cut).poll(cx).is_ready() {
                return Poll::Ready(Closed::Cut);
            }
            while look.as_mut().poll(cx).is_ready() {
                look.as_mut().reset(Instant::now() + DELIVERY_LOOK);
                // Where the system does not tell, it is given all the time there is.
                let delivered = self.client.wire.queue().is_some_and(Queue::is_delivered);
                if self.down.has_ended() && self.down.unsent() == 0 && delivered {
                    return Poll::Ready(Closed::Broke(Side::Server, fault));
                }
                let now = self.pulse();
                if progress.replace(now) != Some(now) {
                    patience.as_mut().reset(Instant::now() + DELIVERY_PATIENCE);
                }
            }
            patience.as_mut().poll(cx).map(|()| Closed::Broke(Side::Server, fault))
        })
        .await
    }
}

/// A client that breaks ends everything at once; a server that breaks has perhaps said something before.
fn stopped(side: Side, fault: Fault) -> Stop {
    match side {
        Side::Client => Stop::Closed(Closed::Broke(side, fault)),
        Side::Server => Stop::ServerBroke(fault),
    }
}

/// Which side an error of a half is about, and what it says.
fn at(broken: Broken, from: Side, to: Side) -> (Side, Fault) {
    match broken {
        Broken::Reading(error) => (from, Fault::of(&error)),
        Broken::Writing(error) => (to, Fault::of(&error)),
    }
}

/// One of the two, and what watches it for errors while nobody reads from it.
struct End<'a, W> {
    wire: &'a W,
    /// Boxed and dropped when not needed: a session that only talks has none.
    watch: Option<Pin<Box<dyn Future<Output = Fault> + Send + 'a>>>,
}

impl<W: Wire> End<'_, W> {
    fn poll_fault(&mut self, cx: &mut Context<'_>, needed: bool) -> Poll<Fault> {
        if !needed {
            self.watch = None;
            return Poll::Pending;
        }
        self.watch
            .get_or_insert_with(|| Box::pin(self.wire.fault()))
            .as_mut()
            .poll(cx)
    }
}
