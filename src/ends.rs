//! The two sockets of a session.

use std::net::Shutdown;

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::socket::reset_when_closed;

/// The sockets of a session that is connected to its server. Dropping it closes both.
///
/// While a panic unwinds, both are closed by a reset: a bug of ours must not look like a complete answer.
#[derive(Debug)]
pub struct Endpoints {
    /// The socket towards the client.
    pub client: TcpStream,
    /// The socket towards the server.
    pub server: TcpStream,
}

impl Endpoints {
    /// Makes both sockets end by a reset when they are closed, so that neither peer treats incomplete data as complete.
    pub fn reset_when_closed(&self) {
        reset_when_closed(&self.server);
        reset_when_closed(&self.client);
    }

    /// Sends a FIN to both peers.
    pub fn finish(&self) {
        for socket in [&self.client, &self.server] {
            let _ = SockRef::from(socket).shutdown(Shutdown::Write); // an error means that the connection has ended
        }
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.reset_when_closed();
        }
    }
}
