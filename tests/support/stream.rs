//! A bare TCP stream: filling it, reading it to its end, resetting it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use socket2::Socket;

/// Writes until every buffer on the way is full. The write timeout of the stream stays set. It is shorter than the
/// session timeouts in the callers' configurations, so that no session ends here.
pub fn fill(stream: &mut TcpStream) {
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while stream.write(&[0xaa; 1 << 16]).is_ok_and(|written| written > 0) {}
}

/// The receive buffer of a client that is to read slowly, in bytes, as given to the kernel, which doubles it. With a
/// larger buffer, the kernel is late to tell the sender that the client has read.
pub const SLOW_READER_BUFFER: usize = 32 << 10;

/// The idle timeout of a session whose client reads slowly: shorter than [`read_slowly`] takes, and long enough that
/// a test that gets no core for a second does not look idle.
pub const SLOW_READER_IDLE_TIMEOUT: &str = "2s";

/// Reads like a slow client with a buffer of [`SLOW_READER_BUFFER`], for three seconds. Each call of `read` must read
/// exactly the given number of bytes: that empties the buffer, so that the kernel tells the sender.
pub fn read_slowly(mut read: impl FnMut(usize)) {
    for _ in 0..30 {
        sleep(Duration::from_millis(100));
        read(2 * SLOW_READER_BUFFER);
    }
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
