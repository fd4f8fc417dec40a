//! The check `tcp`: the server's kernel completes a handshake, and the server's program never hears of it.

use std::io;

use crate::addr::ServerAddr;
use crate::dial::{ConnectOptions, LastAck, connect};
use crate::socket::reset;

/// Connects, and resets before the last ACK of the handshake is sent. No byte is sent, not even a PROXY header.
///
/// The kernel delays that ACK in the hope of data to send along; closing without lingering sends a reset in its place.
/// The server's listening queue never sees the connection.
///
/// # Errors
/// Those of connecting.
pub async fn check(server: ServerAddr, options: &ConnectOptions) -> io::Result<()> {
    reset(connect(server, options, LastAck::Delayed).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::PLAIN;
    use crate::proxy_protocol::Version;

    #[tokio::test]
    async fn the_servers_program_never_sees_a_check() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let address = ServerAddr::new(server.local_addr().unwrap());
        let options = ConnectOptions {
            proxy_protocol: Some(Version::V2),
            ..PLAIN
        };
        for _ in 0..20 {
            check(address, &options).await.unwrap();
        }
        // On loopback a reset is delivered before the call that sends it returns.
        assert_eq!(server.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(server);
        assert_eq!(
            check(address, &options).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }
}
