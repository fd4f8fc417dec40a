//! Servers that follow the orders of clients, die, and listen again.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::client::{GREETING, PATIENCE};
use crate::order::{Manner, Order};
use crate::pattern::{Direction, Pattern};
use crate::records::{End, Records, Side, address, address_in_header};
use crate::site::{Host, Nature};
use crate::support::process::Port;
use crate::wire::{Counted, Tally, Wire, exchange, receive, receive_end, reset_when_closed, send};

/// How long a server waits in [`Manner::HalfSilence`] before it closes; longer than acequia's half_close_timeout.
const SILENCE: Duration = Duration::from_secs(3);

/// A running server, until it is dropped.
pub struct Server {
    pub pool: &'static str,
    pub is_killable: bool,
    address: SocketAddr,
    shared: Arc<Shared>,
    is_alive: watch::Sender<bool>,
}

/// The state that the sessions of a server share.
struct Shared {
    nature: Nature,
    /// The current number of connections.
    open: AtomicUsize,
    /// The maximum of `open` so far.
    most_open: AtomicUsize,
    acceptor: Option<TlsAcceptor>,
    records: Arc<Records>,
}

impl Server {
    /// Starts the server. Must be called within a runtime.
    pub fn start(host: &Host, acceptor: Option<TlsAcceptor>, records: &Arc<Records>) -> Self {
        let server = Self {
            pool: host.pool,
            is_killable: host.is_killable,
            address: host.port.address,
            shared: Arc::new(Shared {
                nature: host.nature,
                open: AtomicUsize::new(0),
                most_open: AtomicUsize::new(0),
                acceptor,
                records: Arc::clone(records),
            }),
            is_alive: watch::Sender::new(true),
        };
        server.listen();
        server
    }

    /// The largest number of connections that the server had at the same time.
    pub fn most_open(&self) -> usize {
        self.shared.most_open.load(Relaxed)
    }

    /// Closes the server's port, resets its sessions, and listens again after this time.
    pub async fn die(&self, time: Duration) {
        self.is_alive.send_replace(false);
        sleep(time).await;
        self.is_alive.send_replace(true);
        self.listen();
    }

    fn listen(&self) {
        let listener = Port::keep_again(self.address).listen_with(1024);
        listener.set_nonblocking(true).expect("it is a socket");
        let listener = TcpListener::from_std(listener).expect("there is a runtime");
        let (shared, mut dies) = (Arc::clone(&self.shared), self.is_alive.subscribe());
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    _ = dies.wait_for(|is_alive| !is_alive) => return,
                    accepted = listener.accept() => accepted,
                };
                if let Ok((socket, _)) = accepted {
                    reset_when_closed(&socket, true);
                    tokio::spawn(Arc::clone(&shared).serve(socket, dies.clone()));
                }
            }
        });
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, socket: TcpStream, mut dies: watch::Receiver<bool>) {
        let tally = Arc::<Tally>::default();
        let mut session = None;
        // Lets the tasks of connections that have already ended run first, so that these no longer count as open.
        tokio::task::yield_now().await;
        let open = OpenConnection::count(&self);
        let end = tokio::select! {
            end = self.talk(socket, &tally, &mut session, open) => end,
            _ = dies.wait_for(|is_alive| !is_alive) => End::Died,
        };
        if let Some(session) = session {
            self.records.set_server(session, Side::new(&tally, end));
        }
    }

    /// Follows the client's order, and stores the number of the session once it is known. Accepted sockets reset when
    /// they are closed, so dropping this future resets the session, unless it has ended well.
    async fn talk(
        &self,
        mut socket: TcpStream,
        tally: &Arc<Tally>,
        session: &mut Option<u32>,
        open: OpenConnection<'_>,
    ) -> End {
        let client_in_header = if let Nature::Proxied { .. } = self.nature {
            match read_proxy_header(&mut socket).await {
                Ok(client) => Some(client),
                Err(error) => return End::from_result(Err(error)),
            }
        } else {
            None
        };
        let counted = Counted::new(socket, tally);
        let mut wire: Box<dyn Wire> = match &self.acceptor {
            None => Box::new(counted),
            Some(acceptor) => match acceptor.accept(counted).await {
                Ok(stream) => Box::new(TlsStream::from(stream)),
                Err(error) => return End::from_result(Err(error)),
            },
        };
        // Dropped before `wire`: as soon as `wire` closes its socket, acequia may connect the next client in the queue.
        let _open = open;
        let mut order = [0; Order::BYTES];
        let read_order = async {
            if self.nature == Nature::Greets {
                wire.write_all(GREETING).await?;
            }
            wire.read_exact(&mut order).await
        };
        if let Err(error) = read_order.await {
            reset_when_closed(wire.socket().stream(), false); // a connection without an order, such as a health check
            return End::from_result(Err(error));
        }
        let Some(order) = Order::decode(&order) else {
            return End::Wrong;
        };
        *session = Some(order.session);
        let expected = match self.nature {
            Nature::Proxied { is_named: true } => address_in_header(order.session),
            _ => address(order.session),
        };
        if client_in_header.is_some_and(|client| client != expected) {
            return End::Wrong;
        }
        let stalled = |_| Err(std::io::ErrorKind::TimedOut.into());
        match timeout(PATIENCE, follow_order(&mut *wire, order))
            .await
            .unwrap_or_else(stalled)
        {
            Ok(()) if order.manner == Manner::ServerResets => End::Left,
            Ok(()) => {
                reset_when_closed(wire.socket().stream(), false);
                End::Well
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => End::Stalled,
            result => End::from_result(result),
        }
    }
}

/// A connection that counts as open until this value is dropped.
struct OpenConnection<'a>(&'a Shared);

impl<'a> OpenConnection<'a> {
    fn count(shared: &'a Shared) -> Self {
        let open = shared.open.fetch_add(1, Relaxed) + 1;
        shared.most_open.fetch_max(open, Relaxed);
        Self(shared)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

async fn follow_order(wire: &mut dyn Wire, order: Order) -> std::io::Result<()> {
    let down = Pattern::new(order.session, Direction::Down);
    let up = Pattern::new(order.session, Direction::Up);
    match order.manner {
        Manner::Both => {
            exchange(wire, (down, order.down), (up, order.up), order.pace).await?;
            receive_end(wire).await?;
        }
        Manner::ServerEndsFirst => {
            // The server half-closes as soon as it has sent everything, and goes on receiving.
            let (mut reading, mut writing) = tokio::io::split(&mut *wire);
            let sending = async {
                send(&mut writing, down, order.down, order.pace).await?;
                writing.shutdown().await
            };
            tokio::try_join!(sending, receive(&mut reading, up, order.up, order.pace))?;
            return receive_end(wire).await;
        }
        Manner::AfterTheEnd => {
            receive(wire, up, order.up, order.pace).await?;
            receive_end(wire).await?;
            send(wire, down, order.down, order.pace).await?;
        }
        Manner::ServerResets => {
            return send(wire, down, order.down, order.pace).await;
        }
        Manner::Silence => {
            receive(wire, up, order.up, order.pace).await?;
            receive_end(wire).await?;
        }
        Manner::HalfSilence => {
            receive(wire, up, order.up, order.pace).await?;
            receive_end(wire).await?;
            sleep(SILENCE).await;
            return Ok(());
        }
    }
    wire.shutdown().await
}

/// Reads a PROXY header of version 2, and returns the client's address. The header consists of signature (12 bytes),
/// version and command (1), family (1), length (2), then for TCP over IPv4 both addresses (4 each) and ports (2 each).
async fn read_proxy_header(socket: &mut TcpStream) -> std::io::Result<Ipv4Addr> {
    let mut head = [0; 16];
    socket.read_exact(&mut head).await?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
    socket.read_exact(&mut rest).await?;
    let client = rest.first_chunk::<4>().map(|ip| Ipv4Addr::from(*ip));
    let is_right = head.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
    client
        .filter(|_| is_right)
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "no PROXY header"))
}
