//! Drives rustls one step at a time, for servers and clients alike.

use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};

/// Room for what a record adds to its plaintext: header, nonce and tag are together shorter than this.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// A connection of rustls. Boxed, because it has 1 to 2 KiB.
pub(super) enum RustlsConnection {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// The result of a step.
pub(super) enum Step {
    /// Take another step.
    Next,
    /// More bytes must be received first, or there is nothing left to do.
    Wait,
    /// The peer has ended its stream.
    PeerClosed,
    /// What was [`Wanted`] has been encrypted.
    Written,
}

/// What a step is to write. It has written it only if it returns [`Step::Written`].
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    Nothing,
    Encrypt { plain: &'a [u8], record_bytes: usize },
    Close,
}

impl RustlsConnection {
    /// Takes a step. `on_plain` is called with what was received and decrypted. What is to be sent is added to
    /// `outgoing`. Also returns how many bytes at the start of `incoming` the caller must discard.
    pub(super) fn take_step(
        &mut self,
        incoming: &mut [u8],
        wanted: Wanted<'_>,
        on_plain: &mut dyn FnMut(&[u8]),
        outgoing: &mut Vec<u8>,
    ) -> (usize, Result<Step, rustls::Error>) {
        match self {
            Self::Server(connection) => {
                let status = connection.process_tls_records(incoming);
                take_step(status, wanted, on_plain, outgoing)
            }
            Self::Client(connection) => {
                let status = connection.process_tls_records(incoming);
                take_step(status, wanted, on_plain, outgoing)
            }
        }
    }

    pub(super) fn negotiated(&self) -> &CommonState {
        match self {
            Self::Server(connection) => connection,
            Self::Client(connection) => connection,
        }
    }
}

/// Does what rustls asks for. See [`RustlsConnection::take_step`].
fn take_step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    wanted: Wanted<'_>,
    on_plain: &mut dyn FnMut(&[u8]),
    outgoing: &mut Vec<u8>,
) -> (usize, Result<Step, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    on_plain(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Next),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let encoded = write_into(outgoing, 0, |room| {
                data.encode(room).map_err(|error| room_to_encode(&error))
            });
            encoded.map(|()| Step::Next)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done(); // `outgoing` has the data, and the caller sends it before anything else
            Ok(Step::Next)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match wanted {
            Wanted::Nothing => Ok(Step::Wait),
            Wanted::Close => {
                let close = |room: &mut [u8]| {
                    let closed = traffic.queue_close_notify(room);
                    closed.map_err(|error| room_to_encrypt(&error))
                };
                write_into(outgoing, RECORD_OVERHEAD_BYTES, close).map(|()| Step::Written)
            }
            Wanted::Encrypt { plain, record_bytes } => {
                let mut pieces = plain.chunks(record_bytes);
                let encrypted = pieces.try_for_each(|piece| {
                    let expected = piece.len() + RECORD_OVERHEAD_BYTES;
                    write_into(outgoing, expected, |room| {
                        traffic.encrypt(piece, room).map_err(|error| room_to_encrypt(&error))
                    })
                });
                encrypted.map(|()| Step::Written)
            }
        },
        // The handshake waits for the peer, or the connection is closed both ways. There is no early data: the
        // configurations refuse it.
        Ok(_) => Ok(Step::Wait),
    };
    (discard, step)
}

/// Calls `write` with room for `expected` bytes, and appends what it writes. If the room is too small, `write` fails
/// with the room that it needs, and is called again with that much. It fails with `None` if room is not the problem.
fn write_into(
    outgoing: &mut Vec<u8>,
    expected: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), rustls::Error> {
    let start = outgoing.len();
    let mut room = expected;
    loop {
        outgoing.resize(start + room, 0);
        match write(&mut outgoing[start..]) {
            Ok(written) => {
                outgoing.truncate(start + written);
                return Ok(());
            }
            Err(Some(needed)) if needed > room => room = needed,
            Err(_) => {
                outgoing.truncate(start);
                return Err(rustls::Error::EncryptError);
            }
        }
    }
}

/// The error for [`write_into`]: how much room is needed; `None`: room is not the problem.
fn room_to_encode(error: &EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

/// As [`room_to_encode`].
fn room_to_encrypt(error: &EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
        EncryptError::EncryptExhausted => None,
    }
}
