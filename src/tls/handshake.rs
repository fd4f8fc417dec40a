//! Handshakes on a socket.
//!
//! A handshake is a burst of computation. On each worker one step of one handshake is taken at a time, by order of arrival,
//! and between two of them every other session of the worker has its turn: a storm of handshakes does not stop the sessions
//! under way.

use std::io;
use std::mem::take;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use super::connection::TlsConnection;

/// Bytes of one read.
const READ_BYTES_MAX: usize = 4096;

thread_local! {
    /// The turn to compute, for the handshakes of this worker. Fair: it is given in the order in which it is asked for.
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
}

/// Why a handshake has failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer has closed the connection meanwhile.
    #[error("the peer closed the connection during the TLS handshake")]
    LeftEarly,
    /// It has sent so much that there is no room for it.
    #[error("there is no room for what the peer has sent of the TLS handshake")]
    NoRoom,
    /// The connection broke.
    #[error("the connection broke during the TLS handshake")]
    Io(#[from] io::Error),
    /// What the peer has sent is not acceptable. The alert was sent.
    #[error("the TLS handshake failed")]
    Tls(#[from] rustls::Error),
}

/// Completes a handshake. `first` is what was read of the peer already; `unsent` is sent before anything else. `hold` is told
/// how many bytes of the peer are held while it is waited for, and returns whether there is room for them.
///
/// Dropping the future leaves the connection useless.
///
/// # Errors
/// Why it has failed.
pub async fn shake_hands(
    socket: &TcpStream,
    connection: &mut TlsConnection,
    first: Vec<u8>,
    unsent: Vec<u8>,
    mut hold: impl FnMut(usize) -> bool,
) -> Result<(), HandshakeError> {
    let turn = TURN.with(Arc::clone);
    let mut outgoing = unsent;
    let mut received = first;
    loop {
        if !hold(connection.held_bytes() + received.capacity()) {
            return Err(HandshakeError::NoRoom);
        }
        let permit = turn.acquire().await.expect("it is never closed");
        let result = connection.shake_hands(&take(&mut received), &mut outgoing);
        yield_now().await;
        drop(permit);
        if !outgoing.is_empty() {
            let written = write_all(socket, &outgoing).await;
            if result.is_ok() {
                written?;
            }
            outgoing.clear();
        }
        result?;
        if !connection.is_handshaking() {
            return Ok(());
        }
        if !hold(connection.held_bytes()) {
            return Err(HandshakeError::NoRoom);
        }
        received = read_some(socket).await?;
    }
}

async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.ready(Interest::WRITABLE).await?;
        match socket.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what is there, at least a byte. A peer that is waited for costs no buffer.
async fn read_some(socket: &TcpStream) -> Result<Vec<u8>, HandshakeError> {
    loop {
        socket.ready(Interest::READABLE).await?;
        let mut buffer = [0; READ_BYTES_MAX];
        match socket.try_read(&mut buffer) {
            Ok(0) => return Err(HandshakeError::LeftEarly),
            Ok(bytes) => return Ok(buffer[..bytes].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}
