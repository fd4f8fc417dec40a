//! The demo's own servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use super::{echo, tls};

/// The TLS servers: their names, and the names in their certificates.
const TLS: [(&str, &str); 3] = [("a", "a.demo.test"), ("b", "*.b.demo.test"), ("c", "c.demo.test")];

/// The names of the echo servers.
const ECHO: [&str; 3] = ["one", "two", "three"];

/// Any free port on loopback.
pub(super) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The listening sockets of the servers, in the order of [`TLS`] and [`ECHO`].
pub(super) struct DemoServers {
    tls: [TcpListener; 3],
    echo: [TcpListener; 3],
}

/// The addresses of the servers, in the order of [`TLS`] and [`ECHO`].
pub(super) struct ServerAddresses {
    pub(super) tls: [SocketAddr; 3],
    pub(super) echo: [SocketAddr; 3],
}

impl DemoServers {
    pub(super) fn bind() -> io::Result<(Self, ServerAddresses)> {
        let bind = || {
            let socket = TcpListener::bind(ANY_PORT)?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        let servers = Self {
            tls: [bind()?, bind()?, bind()?],
            echo: [bind()?, bind()?, bind()?],
        };
        let [a, b, c] = &servers.tls;
        let [one, two, three] = &servers.echo;
        let addresses = ServerAddresses {
            tls: [a.local_addr()?, b.local_addr()?, c.local_addr()?],
            echo: [one.local_addr()?, two.local_addr()?, three.local_addr()?],
        };
        Ok((servers, addresses))
    }

    /// Spawns the servers on the current runtime; they end with it.
    pub(super) fn spawn(self) -> io::Result<()> {
        for (socket, (name, certificate_name)) in self.tls.into_iter().zip(TLS) {
            let acceptor = tls::acceptor(name, certificate_name)?;
            tokio::spawn(tls::serve(socket.try_into()?, name, acceptor));
        }
        for (socket, name) in self.echo.into_iter().zip(ECHO) {
            tokio::spawn(echo::serve(socket.try_into()?, name.into()));
        }
        Ok(())
    }
}
