//! TLS over a socket. Its callers read and write the plaintext.
//!
//! The end of the stream is a `close_notify` alert; a socket that ends without it was cut off
//! ([`Fault::Truncated`](crate::socket::Fault)). Records are read, decrypted and encrypted in buffers of the thread, so
//! that an idle session holds nothing but its keys.

use std::cell::RefCell;
use std::io;
use std::mem::take;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::socket::Socket;
use super::wire::{poll_recv, poll_send};
use crate::relay::core::SendQueue;
use crate::tls::{RECORD_BYTES_MAX, TlsConnection};

/// The most bytes of records that are received at once.
const RECV_BYTES_MAX: usize = 64 * 1024;

/// Plaintext of a record while a burst begins. With an MTU of 1500, such a record fits into one segment, also over IPv6
/// and with TCP timestamps, so that the peer can decrypt it as soon as that segment has come.
const SMALL_RECORD_BYTES: usize = 1390;

/// Plaintext in small records at the beginning of a burst: about what a new connection may send within the first round
/// trip (RFC 6928).
const SMALL_RECORDS_TOTAL: usize = 10 * SMALL_RECORD_BYTES;

/// Plaintext of a record otherwise: the most that TLS allows (RFC 8446, section 5.1).
const LARGE_RECORD_BYTES: usize = 1 << 14;

/// A pause after which another burst begins. The congestion window is small again then (RFC 2861).
const PAUSE_BETWEEN_BURSTS: Duration = Duration::from_secs(1);

thread_local! {
    /// Records that were received. Borrowed only within a poll.
    static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; RECV_BYTES_MAX].into());
    /// Records to be sent. Borrowed only within a poll.
    static OUTGOING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// TLS over a socket.
pub(in crate::relay) struct TlsWire<'a> {
    socket: &'a TcpStream,
    // A mutex, because a wire is `Sync`. Nothing waits for it: both directions of a session run in one task.
    state: Mutex<TlsState>,
}

struct TlsState {
    connection: TlsConnection,
    /// Records that the kernel has not taken yet.
    unsent: Vec<u8>,
    /// Whether the bytes that came with the handshake may contain whole records: true until they are decrypted.
    may_hold_records: bool,
    /// Whether our `close_notify` was sent or is in `unsent`.
    has_shut_down: bool,
    /// Plaintext in the small records of this burst.
    burst_bytes_in_small: usize,
    /// When plaintext was last encrypted.
    encrypted_at: Option<Instant>,
    error: Option<rustls::Error>,
    /// The first error of the socket that no caller got. The kernel reports an error only once: the read after it sees
    /// an end of the stream, although the peer has not sent one. That read returns this error instead.
    deferred_error: Option<io::ErrorKind>,
}

impl<'a> TlsWire<'a> {
    /// A connection whose handshake is complete.
    pub(in crate::relay) fn new(socket: &'a TcpStream, connection: TlsConnection) -> Self {
        Self {
            socket,
            state: Mutex::new(TlsState {
                connection,
                unsent: Vec::new(),
                may_hold_records: true,
                has_shut_down: false,
                burst_bytes_in_small: 0,
                encrypted_at: None,
                error: None,
                deferred_error: None,
            }),
        }
    }
}

impl TlsState {
    /// Sends all that the kernel has not taken yet.
    fn poll_flush(&mut self, socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(poll_send(socket, cx, &self.unsent))?;
            self.unsent.drain(..sent);
        }
        self.unsent = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Like [`Self::poll_flush`], for callers that cannot return an error of the socket: a later read returns it.
    fn poll_flush_deferring_errors(&mut self, socket: &TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flush(socket, cx).map(|flushed| {
            if let Err(error) = flushed {
                self.deferred_error.get_or_insert(error.kind());
            }
        })
    }

    /// Receives once and decrypts. `Some(0)`: the end of the stream. `None`: that gave no plaintext.
    fn poll_decrypt(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
        received: &mut [u8],
        plain: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        let unread = self.connection.unread_bytes();
        let room = plain.len().min(received.len());
        // Decrypts straight into `plain` if less than a record is unread, and both buffers have room for a whole one.
        // Otherwise the connection keeps the plaintext, and `plain` gets as much of it as fits.
        let has_room = unread < RECORD_BYTES_MAX && RECORD_BYTES_MAX <= room;
        let decrypted = if has_room {
            let read = ready!(self.poll_records(socket, cx, &mut received[unread..room]))?;
            self.connection.take_unread(&mut received[..unread]);
            self.connection
                .decrypt(&mut received[..unread + read], plain, &mut self.unsent)
        } else {
            let read = ready!(self.poll_records(socket, cx, &mut received[..RECORD_BYTES_MAX]))?;
            let decrypted = self
                .connection
                .decrypt_keeping_plaintext(&received[..read], &mut self.unsent);
            let bytes = self.connection.take_kept_plaintext(plain);
            decrypted.map(|()| bytes).or_else(|error| match bytes {
                0 => Err(error),
                bytes => Ok(bytes), // a later call returns the error
            })
        };
        // Sends the refusal of a renegotiation, or the alert, if there is one. What the kernel does not take of a
        // refusal is sent later.
        let _ = self.poll_flush_deferring_errors(socket, cx);
        match decrypted {
            Ok(0) if self.connection.has_peer_closed() => Poll::Ready(Ok(Some(0))),
            Ok(0) => Poll::Ready(Ok(None)),
            Ok(bytes) => Poll::Ready(Ok(Some(bytes))),
            Err(error) => Poll::Ready(Err(self.failed(error))),
        }
    }

    /// Receives at least one byte of records. Or returns 0, if what came with the handshake is to be decrypted first.
    fn poll_records(&mut self, socket: &TcpStream, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if take(&mut self.may_hold_records) && self.connection.unread_bytes() > 0 {
            return Poll::Ready(Ok(0));
        }
        Poll::Ready(match ready!(poll_recv(socket, cx, buffer))? {
            0 => Err(self.deferred_error.unwrap_or(io::ErrorKind::UnexpectedEof).into()),
            read => Ok(read),
        })
    }

    /// Keeps why the connection has failed, for the log.
    fn failed(&mut self, error: rustls::Error) -> io::Error {
        self.error.get_or_insert_with(|| error.clone());
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    /// Encrypts: the beginning of a burst in small records, which the peer can decrypt one by one as they come.
    fn encrypt(&mut self, bytes: &[u8], outgoing: &mut Vec<u8>) -> io::Result<()> {
        let now = Instant::now();
        let begins_burst = self.encrypted_at.is_none_or(|at| now - at >= PAUSE_BETWEEN_BURSTS);
        if begins_burst {
            self.burst_bytes_in_small = 0;
        }
        self.encrypted_at = Some(now);
        let small_bytes_max = SMALL_RECORDS_TOTAL.saturating_sub(self.burst_bytes_in_small);
        let (small, large) = bytes.split_at(bytes.len().min(small_bytes_max));
        self.burst_bytes_in_small += small.len();
        let parts = [(small, SMALL_RECORD_BYTES), (large, LARGE_RECORD_BYTES)];
        for (part, record_bytes) in parts.into_iter().filter(|(part, _)| !part.is_empty()) {
            let encrypted = self.connection.encrypt(part, record_bytes, outgoing);
            encrypted.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }
}

/// The methods by which [`MaybeTls`](super::MaybeTls) is a [`Wire`](super::wire::Wire), and some more.
impl TlsWire<'_> {
    /// Why TLS has failed, if it has: what the peer has sent is not valid or is a fatal alert, or our keys are used up.
    pub(super) fn take_error(&self) -> Option<rustls::Error> {
        self.state.lock().error.take()
    }

    /// The TLS connection. All its records must have been flushed.
    pub(super) fn into_connection(self) -> TlsConnection {
        let state = self.state.into_inner();
        state.connection
    }

    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = self.state.lock();
        let connection = &state.connection;
        let is_over = connection.has_peer_closed() || connection.failure().is_some();
        if state.may_hold_records || is_over || connection.kept_plaintext_bytes() > 0 {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_read_ready(cx)
    }

    /// About how many bytes there are to read. What came with the handshake counts. Once that is decrypted, a held part
    /// of a record does not count: otherwise there would seem to be much to read whenever the peer adds a byte to it.
    pub(super) fn readable_bytes(&self) -> usize {
        let state = self.state.lock();
        let held = match state.may_hold_records {
            true => state.connection.held_bytes(),
            false => state.connection.kept_plaintext_bytes(),
        };
        Socket::readable_bytes(self.socket).saturating_add(held)
    }

    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.socket.poll_write_ready(cx)
    }

    pub(super) fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock();
        // The refusal of a renegotiation may be left from the last time.
        let _ = state.poll_flush_deferring_errors(self.socket, cx);
        let kept = state.connection.take_kept_plaintext(buffer);
        if kept > 0 {
            return Poll::Ready(Ok(kept));
        }
        if state.connection.has_peer_closed() {
            return Poll::Ready(Ok(0));
        }
        if let Some(error) = state.connection.failure().cloned() {
            return Poll::Ready(Err(state.failed(error)));
        }
        RECEIVED.with_borrow_mut(|received| {
            if let Some(bytes) = ready!(state.poll_decrypt(self.socket, cx, received, buffer))? {
                return Poll::Ready(Ok(bytes));
            }
            // Only a part of a record or message has come, or records without plaintext, which a peer may send without
            // end. If there is more to read, other sessions have their turn first.
            match self.socket.poll_read_ready(cx)? {
                Poll::Ready(()) => pin!(yield_now()).poll(cx).map(|()| Ok(0)), // always pending; wakes this task
                Poll::Pending => Poll::Pending,
            }
        })
    }

    pub(super) fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock();
        ready!(state.poll_flush(self.socket, cx))?;
        OUTGOING.with_borrow_mut(|outgoing| {
            outgoing.clear();
            if let Err(error) = state.encrypt(bytes, outgoing) {
                state.unsent = take(outgoing);
                let _ = state.poll_flush_deferring_errors(self.socket, cx); // the alert, as far as there is room for it
                return Poll::Ready(Err(error));
            }
            let mut sent = 0;
            while sent < outgoing.len() {
                match poll_send(self.socket, cx, &outgoing[sent..]) {
                    Poll::Ready(now_sent) => sent += now_sent?,
                    Poll::Pending => break,
                }
            }
            state.unsent = outgoing[sent..].to_vec();
            Poll::Ready(Ok(bytes.len()))
        })
    }

    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.lock().poll_flush(self.socket, cx)
    }

    pub(super) fn poll_shut_down(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if !state.has_shut_down {
            state.has_shut_down = true;
            let TlsState { connection, unsent, .. } = &mut *state;
            connection.close(unsent);
        }
        ready!(state.poll_flush_deferring_errors(self.socket, cx));
        Socket::shut_down(self.socket);
        Poll::Ready(())
    }

    pub(super) fn queue(&self) -> Option<SendQueue> {
        let mut queue = Socket::queue(self.socket)?;
        let unsent = u32::try_from(self.state.lock().unsent.len()).unwrap_or(u32::MAX);
        queue.not_sent_bytes = queue.not_sent_bytes.saturating_add(unsent);
        Some(queue)
    }

    pub(super) fn socket(&self) -> &TcpStream {
        self.socket
    }
}
