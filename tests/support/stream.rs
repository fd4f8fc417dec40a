//! A bare TCP stream: filling it, reading it to its end, resetting it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use socket2::Socket;

/// Writes until every buffer on the way is full. Its write timeout is shorter than any timeout that a test configures,
/// so that the error of such a timeout does not occur here.
pub fn fill(stream: &mut TcpStream) {
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while stream.write(&[0xaa; 1 << 16]).is_ok_and(|written| written > 0) {}
}

/// All bytes until the end of the stream, and the error that ended it, if any.
pub fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, Result<(), io::ErrorKind>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    (bytes, end.map(|_| ()).map_err(|error| error.kind()))
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}
