//! The engine that waits until sockets are ready: it copies, and splices a direction while that is bulk.

mod copy;
mod half;
mod pace;
mod splice;
mod wire;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::relay::closed::{Closed, RelayLimits, Side};
use crate::relay::core::Core;
use crate::relay::traffic::Traffic;
use crate::socket::Fault;
#[cfg(test)]
pub(in crate::relay) use half::TURN_BYTES;
use half::{Broken, Half};
pub use splice::limit_pipes;
#[cfg(test)]
pub(in crate::relay) use splice::pipes;
pub(in crate::relay) use wire::Wire;

/// Relays between two connections until it is over. See [`relay`](crate::relay::relay).
pub(in crate::relay) fn relay_between<'a, W: Wire>(
    client: &'a W,
    server: &'a W,
    first: Vec<u8>,
    limits: RelayLimits,
    traffic: &'a Traffic,
    mut cut: impl Future + Unpin + 'a,
) -> impl Future<Output = Closed> + 'a {
    let mut relay = Relay {
        core: Core::new(first.len(), limits, traffic, Instant::now()),
        client: End::new(client),
        server: End::new(server),
        up: Half::new(first),
        down: Half::new(Vec::new()),
        timer: None,
    };
    poll_fn(move |cx| {
        // The data first: being cut is rare, and may wait for a turn.
        if let Poll::Ready(closed) = relay.poll(cx) {
            return Poll::Ready(closed);
        }
        ready!(Pin::new(&mut cut).poll(cx));
        relay.core.cut();
        relay.core.closed().map_or(Poll::Pending, Poll::Ready)
    })
}

/// A relay by this engine.
struct Relay<'a, W> {
    core: Core<'a>,
    client: End<'a, W>,
    server: End<'a, W>,
    up: Half,
    down: Half,
    /// Armed for the core's deadline. Boxed, for the many sessions that have none.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<W: Wire> Relay<'_, W> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        while let Err((side, fault)) = self.poll_sockets(cx) {
            self.core.broke(side, fault, Instant::now());
            self.timer = None; // set back to a time that has come, it would wake this task
        }
        self.core.settle(Instant::now);
        while self.core.closed().is_none() {
            ready!(self.poll_deadline(cx));
            let (client, server) = (self.client.wire, self.server.wire);
            self.core.expire(Instant::now(), |side| match side {
                Side::Client => client.queue(),
                Side::Server => server.queue(),
            });
        }
        self.core.closed().map_or(Poll::Pending, Poll::Ready)
    }

    /// Moves what can be moved.
    ///
    /// # Errors
    /// The side whose connection broke. Poll again, if that is not the end.
    fn poll_sockets(&mut self, cx: &mut Context<'_>) -> Result<(), (Side, Fault)> {
        if self.core.closed().is_some() {
            return Ok(());
        }
        let (client, server) = (self.client.wire, self.server.wire);
        let up = self.up.poll(cx, &mut self.core, Side::Client, client, server);
        moved(up, Side::Client)?;
        let down = self.down.poll(cx, &mut self.core, Side::Server, server, client);
        moved(down, Side::Server)?;
        if self.core.closed().is_some() {
            return Ok(());
        }
        // A socket that is not read from (its half waits for the other side, or has ended) can still be reset.
        if let Poll::Ready(fault) = self.client.poll_fault(cx, !self.up.is_reading()) {
            return Err((Side::Client, fault));
        }
        let is_watched = !self.down.is_reading() && !self.core.is_delivering();
        if let Poll::Ready(fault) = self.server.poll_fault(cx, is_watched) {
            return Err((Side::Server, fault));
        }
        Ok(())
    }

    /// Ready when the core's deadline has come.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.core.deadline() else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

/// Of which side an error of the half from `from` tells, and what.
fn moved(polled: Poll<Result<(), Broken>>, from: Side) -> Result<(), (Side, Fault)> {
    match polled {
        Poll::Ready(Err(Broken::Reading(error))) => Err((from, Fault::of(&error))),
        Poll::Ready(Err(Broken::Writing(error))) => Err((from.other(), Fault::of(&error))),
        Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
    }
}

/// A connection, and what watches it for errors while it is not read from.
struct End<'a, W> {
    wire: &'a W,
    /// Boxed and dropped when not needed: a session that only talks has none.
    watch: Option<Pin<Box<dyn Future<Output = Fault> + Send + 'a>>>,
}

impl<'a, W: Wire> End<'a, W> {
    fn new(wire: &'a W) -> Self {
        Self { wire, watch: None }
    }

    fn poll_fault(&mut self, cx: &mut Context<'_>, is_needed: bool) -> Poll<Fault> {
        if !is_needed {
            self.watch = None;
            return Poll::Pending;
        }
        self.watch
            .get_or_insert_with(|| Box::pin(self.wire.fault()))
            .as_mut()
            .poll(cx)
    }
}
