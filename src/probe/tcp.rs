//! The check `tcp`: the server's kernel completes a handshake, and the server's program never hears of it.

use std::io;

use crate::addr::ServerAddr;
use crate::socket::{delay_ack, reset_when_closed, towards};

/// Connects, and resets before the last ACK of the handshake is sent.
///
/// With TCP_QUICKACK cleared (tcp(7)) the kernel delays that ACK in the hope of data to send along; closing without
/// lingering sends a reset in its place. The server's listening queue never sees the connection.
///
/// # Errors
/// Those of connecting.
pub async fn check(server: ServerAddr) -> io::Result<()> {
    let socket = towards(server.socket())?;
    delay_ack(&socket);
    reset_when_closed(&socket);
    let connected = socket.connect(server.socket()).await?;
    drop(connected); // here the reset goes out
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_servers_program_never_sees_a_check() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let address = ServerAddr::new(server.local_addr().unwrap());
        for _ in 0..20 {
            check(address).await.unwrap();
        }
        // On loopback a reset is delivered before the call that sends it returns.
        assert_eq!(server.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(server);
        assert_eq!(
            check(address).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }
}
