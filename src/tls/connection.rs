//! The TLS of one connection, without IO: records in, plaintext out, and the other way round.
//!
//! Built on the unbuffered interface of rustls: what is received is decrypted in the caller's buffer, and an idle
//! connection keeps no buffer at all.

use std::mem::take;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, CommonState, ServerConfig};

use super::rustls_connection::{RustlsConnection, Step, Wanted};

/// The length of the header of a record.
const RECORD_HEADER_BYTES: usize = 5;

/// The longest record on the wire: its header, 2^14 bytes of plaintext, and 2048 that compression and encryption of TLS
/// 1.2 may add (RFC 5246, section 6.2; TLS 1.3 adds less).
pub const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + (1 << 14) + 2048;

/// Bytes of records that may be held until their message of the handshake protocol is complete. rustls limits such a
/// message, for example a chain of certificates, to 64 KiB; the overhead of its records adds to that.
const HANDSHAKE_BYTES_MAX: usize = 80 << 10;

/// The TLS of one connection.
pub struct TlsConnection {
    rustls: RustlsConnection,
    /// Bytes that were received and not decrypted yet: usually nothing, or a part of a record.
    incoming: Vec<u8>,
    /// Plaintext that was decrypted before the caller could take it.
    kept_plaintext: Vec<u8>,
    /// Whether the peer has sent its `close_notify`.
    has_received_close_notify: bool,
    /// Why the connection has failed. After that, rustls must not be called: it would send another alert.
    failed: Option<rustls::Error>,
}

impl TlsConnection {
    /// The server's side of a connection.
    ///
    /// # Errors
    /// Those of rustls, for a configuration that contradicts itself.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(RustlsConnection::Server(Box::new(connection))))
    }

    /// The client's side of a connection to the server of this name. The server is offered these protocols (ALPN).
    ///
    /// # Errors
    /// Those of rustls, for a configuration that contradicts itself.
    pub fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        protocols: Vec<Vec<u8>>,
    ) -> Result<Self, rustls::Error> {
        let connection = UnbufferedClientConnection::new_with_alpn(config, name, protocols)?;
        Ok(Self::new(RustlsConnection::Client(Box::new(connection))))
    }

    fn new(rustls: RustlsConnection) -> Self {
        Self {
            rustls,
            incoming: Vec::new(),
            kept_plaintext: Vec::new(),
            has_received_close_notify: false,
            failed: None,
        }
    }

    /// What was negotiated.
    #[must_use]
    pub fn negotiated(&self) -> &CommonState {
        self.rustls.negotiated()
    }

    /// Whether the handshake is under way.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.negotiated().is_handshaking()
    }

    /// Whether the peer has ended its stream, and all of its bytes were taken.
    #[must_use]
    pub fn has_peer_closed(&self) -> bool {
        self.has_received_close_notify && self.kept_plaintext.is_empty()
    }

    /// Why the connection has failed, if it has: then nothing more can be encrypted or decrypted.
    #[must_use]
    pub fn failure(&self) -> Option<&rustls::Error> {
        self.failed.as_ref()
    }

    /// How many bytes are reserved for what was received and not taken yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.incoming.capacity() + self.kept_plaintext.capacity()
    }

    /// Continues the handshake with what was received, and adds what is to be sent to `outgoing`; on an error, the
    /// alert is the last of it, unless the error is an alert of the peer. What was received beyond the handshake is
    /// kept.
    ///
    /// # Errors
    /// Why the handshake has failed.
    pub fn handshake(&mut self, received: &[u8], outgoing: &mut Vec<u8>) -> Result<(), rustls::Error> {
        self.process_held(received, outgoing, Until::HandshakeComplete)
    }

    /// Decrypts all that was received and not decrypted yet, and `received` after it. The plaintext is kept for
    /// [`take_kept_plaintext`](Self::take_kept_plaintext). `outgoing`: as for [`decrypt`](Self::decrypt).
    ///
    /// # Errors
    /// What the peer has sent is not valid, or is a fatal alert. Plaintext that came before it is kept.
    pub fn decrypt_keeping_plaintext(&mut self, received: &[u8], outgoing: &mut Vec<u8>) -> Result<(), rustls::Error> {
        self.process_held(received, outgoing, Until::MoreNeeded)?;
        self.forget_after_close();
        Ok(())
    }

    fn process_held(&mut self, received: &[u8], outgoing: &mut Vec<u8>, until: Until) -> Result<(), rustls::Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.incoming.extend_from_slice(received);
        let mut incoming = take(&mut self.incoming);
        let kept = &mut self.kept_plaintext;
        let mut keep = |payload: &[u8]| kept.extend_from_slice(payload);
        let (used, result) = process(
            &mut self.rustls,
            &mut incoming,
            &mut keep,
            outgoing,
            &mut self.has_received_close_notify,
            until,
        );
        incoming.drain(..used);
        incoming.shrink_to_fit();
        let is_too_long = result.is_ok() && incoming.len() > HANDSHAKE_BYTES_MAX;
        let result = if is_too_long {
            Err(rustls::Error::General(String::from(
                "a message of the handshake is too long",
            )))
        } else {
            result
        };
        if let Err(error) = &result {
            write_alert(&mut self.rustls, error, incoming.len(), outgoing);
            self.failed = Some(error.clone());
        }
        self.incoming = incoming;
        result
    }

    /// How many bytes were received and not decrypted yet: usually less than a record. If a message of the handshake
    /// protocol comes in several records, all of these are held until it is complete.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.incoming.len()
    }

    /// Moves all [unread bytes](Self::unread_bytes) to `buffer`, which must have their length: usually the beginning of
    /// the buffer that the caller fills for [`decrypt`](Self::decrypt). rustls remembers how many of them it has looked
    /// at, and must be given all of them again.
    pub fn take_unread(&mut self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&take(&mut self.incoming));
    }

    /// Moves as much of the kept plaintext as fits to `plain`. Returns how many bytes that are. Plaintext is kept if
    /// another call than [`decrypt`](Self::decrypt) has decrypted it.
    pub fn take_kept_plaintext(&mut self, plain: &mut [u8]) -> usize {
        let taken = self.kept_plaintext.len().min(plain.len());
        plain[..taken].copy_from_slice(&self.kept_plaintext[..taken]);
        self.kept_plaintext.drain(..taken);
        if self.kept_plaintext.is_empty() {
            self.kept_plaintext = Vec::new();
        }
        taken
    }

    /// How many bytes [`take_kept_plaintext`](Self::take_kept_plaintext) has to return.
    #[must_use]
    pub fn kept_plaintext_bytes(&self) -> usize {
        self.kept_plaintext.len()
    }

    /// Decrypts `received` in place, and copies the plaintext to `plain`. `received` begins with all bytes of
    /// [`take_unread`](Self::take_unread); `plain` must be at least as long as `received`. Returns how many bytes of
    /// plaintext there are. `outgoing` gets what is to be sent at once: the refusal of a renegotiation (TLS 1.2), or
    /// the alert on an error, unless that is an alert of the peer. The answer to a request for new keys (TLS 1.3) comes
    /// with the next [`encrypt`](Self::encrypt) or [`close`](Self::close).
    ///
    /// # Errors
    /// What the peer has sent is not valid, or is a fatal alert. If plaintext came before it, this call returns the
    /// plaintext, and the next call returns the error.
    pub fn decrypt(
        &mut self,
        received: &mut [u8],
        plain: &mut [u8],
        outgoing: &mut Vec<u8>,
    ) -> Result<usize, rustls::Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut decrypted = 0;
        let mut keep = |payload: &[u8]| {
            plain[decrypted..decrypted + payload.len()].copy_from_slice(payload);
            decrypted += payload.len();
        };
        let (used, result) = process(
            &mut self.rustls,
            received,
            &mut keep,
            outgoing,
            &mut self.has_received_close_notify,
            Until::MoreNeeded,
        );
        if let Err(error) = result {
            write_alert(&mut self.rustls, &error, received.len() - used, outgoing);
            self.failed = Some(error.clone());
            return if decrypted > 0 { Ok(decrypted) } else { Err(error) };
        }
        self.incoming = received[used..].to_vec();
        self.forget_after_close();
        Ok(decrypted)
    }

    /// What follows the peer's close_notify is ignored (RFC 8446, section 6.1).
    fn forget_after_close(&mut self) {
        if self.has_received_close_notify {
            self.incoming = Vec::new();
        }
    }

    /// Encrypts in records of at most `record_bytes` of plaintext, and adds them to `outgoing`. Adds an alert if what
    /// the peer has sent before turns out not to be valid.
    ///
    /// # Errors
    /// What the peer has sent before is not valid, or the connection has failed already.
    /// [`rustls::Error::EncryptError`]: the keys are used up, after 2^24 records of TLS 1.2 with AES-GCM; TLS 1.3 gets
    /// new ones.
    pub fn encrypt(&mut self, plain: &[u8], record_bytes: usize, outgoing: &mut Vec<u8>) -> Result<(), rustls::Error> {
        self.write(Wanted::Encrypt { plain, record_bytes }, outgoing)
    }

    /// Ends our stream: adds a `close_notify` alert (RFC 8446, section 6.1) to `outgoing`. Does nothing if the
    /// connection has failed.
    pub fn close(&mut self, outgoing: &mut Vec<u8>) {
        let _ = self.write(Wanted::Close, outgoing);
    }

    fn write(&mut self, wanted: Wanted<'_>, outgoing: &mut Vec<u8>) -> Result<(), rustls::Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        loop {
            // rustls also gets the bytes that were received and not decrypted yet: if they end in the middle of a
            // message, it remembers where in them the message begins.
            let kept = &mut self.kept_plaintext;
            let mut keep = |payload: &[u8]| kept.extend_from_slice(payload);
            let (used, step) = self.rustls.take_step(&mut self.incoming, wanted, &mut keep, outgoing);
            self.incoming.drain(..used);
            match step {
                Ok(Step::Written) => return Ok(()),
                Ok(Step::Next) => {}
                Ok(Step::PeerClosed) => self.has_received_close_notify = true,
                Ok(Step::Wait) => return Err(rustls::Error::HandshakeNotComplete),
                Err(error) => {
                    // When the keys are used up, rustls has a close_notify to send instead of a fatal alert. But then
                    // the stream would look complete, without the bytes that were to be encrypted.
                    if error != rustls::Error::EncryptError {
                        write_alert(&mut self.rustls, &error, self.incoming.len(), outgoing);
                    }
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
    }
}

/// Up to where records are processed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Until more bytes are needed.
    MoreNeeded,
    /// Until the handshake is complete, or more bytes are needed.
    HandshakeComplete,
}

/// Processes records. Returns how many bytes of `incoming` were used, and the error, if one ended the processing.
fn process(
    rustls: &mut RustlsConnection,
    incoming: &mut [u8],
    on_plain: &mut dyn FnMut(&[u8]),
    outgoing: &mut Vec<u8>,
    has_received_close_notify: &mut bool,
    until: Until,
) -> (usize, Result<(), rustls::Error>) {
    let mut used = 0;
    loop {
        let (discarded, step) = rustls.take_step(&mut incoming[used..], Wanted::Nothing, on_plain, outgoing);
        used += discarded;
        match step {
            Ok(Step::Wait | Step::Written) => return (used, Ok(())),
            Ok(Step::PeerClosed) => *has_received_close_notify = true,
            Ok(Step::Next) if until == Until::HandshakeComplete && is_complete(rustls.negotiated()) => {
                return (used, Ok(()));
            }
            Ok(Step::Next) => {}
            Err(error) => return (used, Err(error)),
        }
    }
}

/// Adds the alert that follows an error; an alert of the peer is not answered. `unread_bytes` is how many bytes were
/// received and not used yet.
fn write_alert(rustls: &mut RustlsConnection, error: &rustls::Error, unread_bytes: usize, outgoing: &mut Vec<u8>) {
    if !rustls.negotiated().wants_write() && !matches!(error, rustls::Error::AlertReceived(_)) {
        // For some errors, such as a message of more than 64 KiB, rustls makes no alert. It makes one for an invalid
        // record header, so it is given an invalid header. As many bytes as are unread come before the header, because
        // rustls skips as many bytes as it has looked at already.
        let mut no_record = vec![0xff; unread_bytes + RECORD_HEADER_BYTES];
        let _ = rustls.take_step(&mut no_record, Wanted::Nothing, &mut |_| {}, outgoing);
    }
    while rustls.negotiated().wants_write() {
        let _ = rustls.take_step(&mut [], Wanted::Nothing, &mut |_| {}, outgoing);
    }
}

/// Whether the handshake is complete, and all of our messages were written.
fn is_complete(negotiated: &CommonState) -> bool {
    !negotiated.is_handshaking() && !negotiated.wants_write()
}

#[cfg(test)]
pub(crate) mod tests;
