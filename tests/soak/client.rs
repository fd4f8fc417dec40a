//! A client: it carries out its script, and records its side of the session.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsConnector, TlsStream};

use crate::kinds::{Leave, Script, Talk};
use crate::order::{Manner, Pace};
use crate::pattern::{Direction, Pattern};
use crate::records::{End, Records, Side, address};
use crate::wire::{Counted, Tally, Wire, exchange, receive, receive_end, reset_when_closed, send};

/// How long one side of a session may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The greeting of a server that sends first.
pub const GREETING: &[u8] = b"who is there?";

/// The pause between two bytes of a dripped hello: short, so that several bytes come before hello_timeout.
const DRIP: Duration = Duration::from_millis(500);

/// The receive buffer of slow readers, small so that backpressure sets in soon.
const NARROW_BYTES: u32 = 16 * 1024;

/// What all clients share.
pub struct Clients {
    pub records: Arc<Records>,
    pub tls: TlsConnector,
}

/// A client, with its number, script and target.
pub struct Client {
    pub number: u32,
    pub kind: &'static str,
    /// Whether the server sends a greeting first.
    pub is_greeted: bool,
    pub script: Script,
    pub to: SocketAddr,
}

impl Client {
    pub async fn run(self, clients: Arc<Clients>) {
        let tally = Arc::<Tally>::default();
        let mut wire = None;
        let end = tokio::select! {
            result = timeout(PATIENCE, self.act(&clients, &tally, &mut wire)) => match result {
                Ok(result) => End::from_result(result),
                Err(_) => End::Stalled,
            },
            () = self.until_it_leaves() => End::Left,
        };
        if end == End::Left
            && let Some(wire) = &mut wire
        {
            reset_when_closed(wire.socket().stream(), self.leave().is_some_and(|leave| leave.by_reset));
        }
        drop(wire);
        clients
            .records
            .set_client(self.number, self.kind, Side::new(&tally, end));
    }

    fn leave(&self) -> Option<Leave> {
        match &self.script {
            Script::Talk(talk) => talk.leaves,
            Script::PartOfHello(_, leave) | Script::PartOfHeader(_, leave) | Script::Nothing(leave) => Some(*leave),
            Script::Bytes(_) | Script::Drip => None,
        }
    }

    async fn until_it_leaves(&self) {
        match self.leave() {
            Some(leave) => sleep(leave.after).await,
            None => std::future::pending().await,
        }
    }

    /// Carries out the script. Once the connection is set up, TLS included, puts it into `wire`, so that it stays open
    /// when this future is dropped. The caller then decides whether to close it with a reset.
    async fn act(&self, clients: &Clients, tally: &Arc<Tally>, wire: &mut Option<Box<dyn Wire>>) -> io::Result<()> {
        let mut socket = self.connect().await?;
        if let Script::Talk(Talk {
            header: Some(header), ..
        }) = &self.script
        {
            send_parts(&mut socket, header.parts(self.number)).await?;
        }
        let socket = Counted::new(socket, tally);
        match &self.script {
            Script::Talk(talk) => {
                let wire = match talk.name {
                    None => wire.insert(Box::new(socket)),
                    Some(name) => {
                        let name = ServerName::try_from(name).expect("the name is valid");
                        wire.insert(Box::new(TlsStream::from(clients.tls.connect(name, socket).await?)))
                    }
                };
                self.talk(&mut **wire, talk).await
            }
            Script::Bytes(bytes) => {
                let wire = wire.insert(Box::new(socket));
                wire.write_all(bytes).await?;
                read_to_end(&mut **wire).await
            }
            Script::PartOfHello(share, _) => {
                let hello = hello(clients.tls.config(), "shop.example.com");
                let wire = wire.insert(Box::new(socket));
                // `share` is less than `1 << 16`, so this is never the whole hello.
                wire.write_all(&hello[..hello.len() * usize::from(*share) / (1 << 16)])
                    .await?;
                std::future::pending().await
            }
            Script::PartOfHeader(header, _) => {
                let [part, _] = header.parts(self.number);
                wire.insert(Box::new(socket)).write_all(&part).await?;
                std::future::pending().await
            }
            Script::Drip => {
                let wire = wire.insert(Box::new(socket));
                drip(&mut **wire, &hello(clients.tls.config(), "shop.example.com")).await
            }
            Script::Nothing(_) => {
                *wire = Some(Box::new(socket));
                std::future::pending().await
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Script::Talk(Talk {
            paces: [Pace::Slow, _], ..
        }) = self.script
        {
            socket.set_recv_buffer_size(NARROW_BYTES)?;
        }
        socket.bind((address(self.number), 0).into())?;
        socket.connect(self.to).await
    }

    async fn talk(&self, wire: &mut dyn Wire, talk: &Talk) -> io::Result<()> {
        let up = Pattern::new(self.number, Direction::Up);
        let down = Pattern::new(self.number, Direction::Down);
        let [pace, _of_server] = talk.paces;
        if self.is_greeted {
            let mut greeting = [0; GREETING.len()];
            wire.read_exact(&mut greeting).await?;
            if greeting != GREETING {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the wrong greeting"));
            }
        }
        wire.write_all(&talk.order(self.number).encode()).await?;
        match talk.manner {
            Manner::Both => {
                exchange(wire, (up, talk.up), (down, talk.down), pace).await?;
                wire.shutdown().await?;
                receive_end(wire).await
            }
            Manner::ServerResets => {
                exchange(wire, (up, talk.up), (down, talk.down), pace).await?;
                receive_end(wire).await
            }
            Manner::ServerEndsFirst => {
                exchange(wire, (up, talk.up), (down, talk.down), pace).await?;
                receive_end(wire).await?;
                wire.shutdown().await
            }
            Manner::AfterTheEnd | Manner::HalfSilence => {
                send(wire, up, talk.up, pace).await?;
                wire.shutdown().await?;
                receive(wire, down, talk.down, pace).await?;
                receive_end(wire).await
            }
            Manner::Silence => {
                send(wire, up, talk.up, pace).await?;
                receive_end(wire).await
            }
        }
    }
}

/// Sends a PROXY header in two parts. It is not content: its bytes are not counted.
async fn send_parts(socket: &mut TcpStream, parts: [Vec<u8>; 2]) -> io::Result<()> {
    socket.set_nodelay(true)?;
    for part in parts {
        socket.write_all(&part).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Reads until the end of the stream.
async fn read_to_end(wire: &mut dyn Wire) -> io::Result<()> {
    while wire.read(&mut [0; 64]).await? > 0 {}
    Ok(())
}

/// Sends a byte at a time, until the other side closes or sends something.
async fn drip(wire: &mut dyn Wire, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        wire.write_all(&[*byte]).await?;
        if let Ok(result) = timeout(DRIP, wire.read(&mut [0])).await {
            return result.map(drop);
        }
    }
    read_to_end(wire).await
}

/// A real ClientHello for this server name.
pub fn hello(config: &Arc<ClientConfig>, name: &'static str) -> Vec<u8> {
    let name = ServerName::try_from(name).expect("the name is valid");
    let mut client = ClientConnection::new(Arc::clone(config), name).expect("the configuration is complete");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("writing to a vector does not fail");
    bytes
}
