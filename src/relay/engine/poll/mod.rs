//! The engine that waits until sockets are ready. It copies, or splices while a direction carries bulk data.

mod socket;
mod wire;
mod tls;
mod maybe_tls;
mod copy;
mod read_mode;
mod splice;
mod half;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::guard::Throttle;
use crate::relay::closed::{Closed, EndRequest, RelayLimits, Side};
use crate::relay::core::Core;
use crate::relay::traffic::Traffic;
use crate::socket::Fault;
use half::Half;
#[cfg(test)]
pub(in crate::relay) use half::TURN_BYTES;
pub(in crate::relay) use maybe_tls::MaybeTls;
#[cfg(test)]
pub(in crate::relay) use socket::Socket;
pub use splice::limit_pipes;
#[cfg(test)]
pub(in crate::relay) use splice::pipes;
pub(in crate::relay) use tls::TlsWire;
use wire::TransferError;
pub(in crate::relay) use wire::Wire;

/// Relays between two connections until the relay is over. See [`relay`](crate::relay::relay).
pub(in crate::relay) fn relay_between<'a, 'r: 'a, W: Wire>(
    client: &'a W,
    server: &'a W,
    first: Vec<u8>,
    limits: RelayLimits,
    traffic: &'a Traffic,
    throttle: Option<Box<Throttle>>,
    mut end: impl Future<Output = EndRequest<'r>> + Unpin + 'a,
) -> impl Future<Output = Closed> + 'a {
    // The last ACK of the connect may have waited for the first bytes. Then the kernel also delays the ACK of the
    // server's first answer (see `LastAck` in `dial`), unless `down` sends this ACK at once.
    let acks_first_answer = !first.is_empty();
    let mut relay = Relay {
        core: Core::new(first.len(), limits, traffic, W::ENDS_EXPLICITLY, Instant::now()),
        client: WatchedWire::new(client),
        server: WatchedWire::new(server),
        down: Half::new(Vec::new(), acks_first_answer),
        up: Half::new(first, false),
        throttle,
        timer: None,
    };
    poll_fn(move |cx| {
        // Data first: a request to end is rare, and only a relay that was polled knows whether it is at rest.
        if let Poll::Ready(closed) = relay.poll(cx) {
            return Poll::Ready(closed);
        }
        // After a request that was not granted, `end` is polled again for the next one.
        while let Poll::Ready(request) = Pin::new(&mut end).poll(cx) {
            let (client, server) = (relay.client.wire, relay.server.wire);
            relay.core.end(request, |side| match side {
                Side::Client => client.queue(),
                Side::Server => server.queue(),
            });
            if let Some(closed) = relay.core.closed() {
                return Poll::Ready(closed);
            }
        }
        Poll::Pending
    })
}

/// A relay driven by this engine.
struct Relay<'a, W> {
    core: Core<'a>,
    client: WatchedWire<'a, W>,
    server: WatchedWire<'a, W>,
    up: Half,
    down: Half,
    /// Boxed, because few sessions have one.
    throttle: Option<Box<Throttle>>,
    /// Armed for the core's deadline. Boxed to keep the many sessions without a deadline small.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<W: Wire> Relay<'_, W> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        while let Err((side, fault)) = self.poll_sockets(cx) {
            self.core.broke(side, fault, Instant::now());
            self.timer = None; // resetting it to a new deadline that is now would wake this task once more
        }
        self.core.settle(Instant::now);
        loop {
            if let Some(closed) = self.core.closed() {
                return Poll::Ready(closed);
            }
            ready!(self.poll_deadline(cx));
            let (client, server) = (self.client.wire, self.server.wire);
            self.core.expire(Instant::now(), |side| match side {
                Side::Client => client.queue(),
                Side::Server => server.queue(),
            });
        }
    }

    /// Moves what can be moved now.
    ///
    /// # Errors
    /// The side whose connection broke. Unless that ends the relay, poll again.
    fn poll_sockets(&mut self, cx: &mut Context<'_>) -> Result<(), (Side, Fault)> {
        if self.core.closed().is_some() {
            return Ok(());
        }
        let (client, server) = (self.client.wire, self.server.wire);
        let (throttle_up, throttle_down) = self
            .throttle
            .as_mut()
            .map(|throttle| (&mut throttle.up, &mut throttle.down))
            .unzip();
        let up = self
            .up
            .poll(cx, &mut self.core, Side::Client, client, server, throttle_up);
        side_of_error(up, Side::Client)?;
        let down = self
            .down
            .poll(cx, &mut self.core, Side::Server, server, client, throttle_down);
        side_of_error(down, Side::Server)?;
        if self.core.closed().is_some() {
            return Ok(());
        }
        // A socket that is not being read (its half waits for the receiver or for bandwidth, has used up its turn, or
        // has ended) can still be reset.
        let client_watch = || Box::pin(client.fault()) as FaultWatch<'_>;
        if let Poll::Ready(fault) = self.client.poll_fault(cx, !self.up.waits_for_sender(), client_watch) {
            return Err((Side::Client, fault));
        }
        // While the server's last bytes are delivered, its connection has already broken.
        let is_watched = !self.down.waits_for_sender() && !self.core.is_delivering();
        let traffic = self.core.traffic();
        let server_watch = || Box::pin(server_fault(server, traffic)) as FaultWatch<'_>;
        if let Poll::Ready(fault) = self.server.poll_fault(cx, is_watched, server_watch) {
            return Err((Side::Server, fault));
        }
        Ok(())
    }

    /// Ready at the core's deadline.
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

/// An error says which side's connection broke, and how. `polled` is the result of the half that reads from `from`.
fn side_of_error(polled: Poll<Result<(), TransferError>>, from: Side) -> Result<(), (Side, Fault)> {
    match polled {
        Poll::Ready(Err(TransferError::Read(error))) => Err((from, Fault::classify(&error))),
        Poll::Ready(Err(TransferError::Write(error))) => Err((from.other(), Fault::classify(&error))),
        Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
    }
}

/// A connection, watched for errors while it is not being read.
struct WatchedWire<'a, W> {
    wire: &'a W,
    /// Dropped when not needed: a session whose both sides are being read has none.
    watch: Option<FaultWatch<'a>>,
}

/// Ready when a connection breaks. Boxed, because few sessions have one.
type FaultWatch<'a> = Pin<Box<dyn Future<Output = Fault> + Send + 'a>>;

impl<'a, W: Wire> WatchedWire<'a, W> {
    fn new(wire: &'a W) -> Self {
        Self { wire, watch: None }
    }

    fn poll_fault(
        &mut self,
        cx: &mut Context<'_>,
        is_needed: bool,
        watch: impl FnOnce() -> FaultWatch<'a>,
    ) -> Poll<Fault> {
        if !is_needed {
            self.watch = None;
            return Poll::Pending;
        }
        self.watch.get_or_insert_with(watch).as_mut().poll(cx)
    }
}

/// Waits until the server's connection breaks. Meanwhile notes in `traffic` when the end of the server's stream has
/// arrived, even if bytes before it are still unread.
async fn server_fault<W: Wire>(server: &W, traffic: &Traffic) -> Fault {
    let mut fault = pin!(server.fault());
    tokio::select! {
        biased;
        fault = &mut fault => return fault,
        () = server.read_closed() => traffic.down.end(),
    }
    fault.await
}
