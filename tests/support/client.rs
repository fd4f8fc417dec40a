//! Clients of the proxy.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::scope;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::PATIENCE;
use super::proxy::Proxy;

/// A client. No read or write waits longer than [`PATIENCE`].
pub struct Client(pub TcpStream);

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect_timeout(&address, PATIENCE).map(Self::new)
    }

    /// Connects from a local address such as 127.0.0.7.
    pub fn connect_from(source: &str, address: SocketAddr) -> Self {
        Self::try_connect_from(source, address).unwrap()
    }

    /// As [`Self::connect_from`], but returns an error: a reset may come before connect(2) returns.
    pub fn try_connect_from(source: &str, address: SocketAddr) -> io::Result<Self> {
        let source = SocketAddr::new(source.parse().unwrap(), 0);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&source.into())?;
        socket.connect(&address.into())?;
        Ok(Self::new(socket.into()))
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.write_all(bytes).unwrap();
        self
    }

    /// Sends the bytes in writes, and so in segments, of this length.
    pub fn send_in_pieces(&mut self, bytes: &[u8], length: usize) -> &mut Self {
        bytes.chunks(length).for_each(|piece| self.0.write_all(piece).unwrap());
        self
    }

    /// Half-closes the connection: sends the end of the stream.
    pub fn finish(&mut self) -> &mut Self {
        self.0.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Reads exactly this many bytes.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// What the next read returns, as text; at most 256 bytes.
    pub fn read_some(&mut self) -> String {
        let mut bytes = [0; 256];
        let count = self.0.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    /// Reads until the end of the stream.
    pub fn read_all(&mut self) -> Vec<u8> {
        self.try_read_all().unwrap()
    }

    pub fn try_read_all(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// Asserts that the other side sends nothing, and closes or resets the connection.
    pub fn must_be_closed(&mut self) {
        match self.try_read_all() {
            Ok(bytes) => assert_eq!(bytes, b"", "expected the end"),
            Err(error) => assert_eq!(
                error.kind(),
                io::ErrorKind::ConnectionReset,
                "expected the end or a reset"
            ),
        }
    }

    /// Asserts that the other side resets the connection.
    pub fn must_be_reset(&mut self) {
        let kind = self.try_read_all().map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::ConnectionReset), "expected a reset");
    }

    /// Closes with a reset.
    pub fn reset(self) {
        let socket = Socket::from(self.0);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A whole session: sends the request, half-closes, and returns the answer.
pub fn ask(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    Client::connect(address).send(request).finish().read_all()
}

/// Runs a whole session, and returns the name that the server sends (see `Server::named`).
pub fn server_reached(address: SocketAddr) -> String {
    String::from_utf8(ask(address, b"")).unwrap()
}

/// A client whose session is served: one echo has come back.
pub fn served_client(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.send(b"ping");
    assert_eq!(client.read(4), b"ping");
    client
}

/// Asserts that this many bytes come back unchanged from a server that echoes.
pub fn assert_echoes(client: &Client, count: usize) {
    let sent: Vec<u8> = (0..count).map(|number| (number % 251) as u8).collect();
    assert_echoes_bytes(client, &sent);
}

/// Sends these bytes to a server that echoes, and expects the same bytes back.
pub fn assert_echoes_bytes(client: &Client, sent: &[u8]) {
    let mut back = vec![0; sent.len()];
    scope(|all| {
        all.spawn(|| (&client.0).write_all(sent).unwrap());
        (&client.0).read_exact(&mut back).unwrap();
    });
    assert!(back == sent, "expected the same {} bytes back", sent.len());
}

/// Runs this many whole sessions, one after the other, at the listener `l`, whose servers echo.
pub fn run_sessions(proxy: &Proxy, count: usize) {
    for _ in 0..count {
        assert_eq!(ask(proxy.at("l"), b"ping"), b"ping", "expected an echo");
    }
}

/// A client with a receive buffer of about this many bytes.
pub fn small_buffer_client(address: SocketAddr, bytes: usize) -> Client {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(bytes).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.connect(&address.into()).unwrap();
    Client(socket.into())
}
