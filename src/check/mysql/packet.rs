//! Packets of the MySQL protocol, and the fields in them ("MySQL Packets" and "Protocol Data Types" in the chapter
//! "Client/Server Protocol" of the MySQL source code documentation).
//!
//! ```text
//!  length (3, little-endian) | sequence (1) | payload (length)
//!
//!  ERR:  0xff | code (2) | "#" and SQLSTATE (6, may be absent if ERR is sent instead of the greeting) | message
//! ```

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::check::CheckTarget;
use crate::check::stream::{CheckStream, start_tls};

/// The most bytes of packets read from a server in one check, without what TLS adds. The status of a replica has about
/// 3 KiB, but may contain long GTID sets.
const RECEIVED_BYTES_MAX: usize = 256 << 10;

/// The command that ends a session.
const COM_QUIT: u8 = 1;

/// Why a conversation with a server came to an end.
#[derive(Debug)]
pub(super) enum MysqlFailure {
    /// The connection failed, or what the server has sent is of no use: for example, it speaks another protocol.
    Io(io::Error),
    /// The server sent an error.
    Server {
        /// Its number.
        code: u16,
        /// Its text.
        message: String,
    },
}

impl From<io::Error> for MysqlFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The failure if a packet is not as it must be.
pub(super) fn malformed() -> MysqlFailure {
    MysqlFailure::Io(io::Error::other("not a MySQL server: malformed packet"))
}

/// A connection over which packets are sent and received.
pub(super) struct Packets {
    stream: Box<dyn CheckStream>,
    /// See [`Self::is_secure`].
    is_secure: bool,
    /// The number of the next packet to send.
    sequence: u8,
    /// The number of bytes that may still be read.
    left: usize,
}

impl Packets {
    /// `is_secure`: see [`Self::is_secure`].
    pub(super) fn new(stream: Box<dyn CheckStream>, is_secure: bool) -> Self {
        Self {
            stream,
            is_secure,
            sequence: 0,
            left: RECEIVED_BYTES_MAX,
        }
    }

    /// Begins TLS.
    ///
    /// # Errors
    /// Those of the handshake.
    pub(super) async fn start_tls(self, config: Arc<ClientConfig>, target: &CheckTarget) -> io::Result<Self> {
        let stream = start_tls(self.stream, config, target).await?;
        Ok(Self {
            stream,
            is_secure: true,
            ..self
        })
    }

    /// Whether the password may be sent in clear text: the connection uses TLS, or a Unix socket.
    pub(super) fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Receives the payload of a packet.
    ///
    /// # Errors
    /// [`MysqlFailure::Server`] if it is an ERR packet; [`MysqlFailure::Io`] if that is malformed, if reading fails, or
    /// if the server sends more than [`RECEIVED_BYTES_MAX`].
    pub(super) async fn receive(&mut self) -> Result<Vec<u8>, MysqlFailure> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await?;
        let [a, b, c, sequence] = header;
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        self.left = self.left.checked_sub(4 + length).ok_or_else(|| {
            let kib = RECEIVED_BYTES_MAX >> 10;
            io::Error::other(format!("not a MySQL server, or one that sends more than {kib} KiB"))
        })?;
        self.sequence = sequence.wrapping_add(1);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await?;
        match payload.split_first() {
            Some((0xff, rest)) => Err(read_error(rest)),
            _ => Ok(payload),
        }
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).expect("what a check sends is short");
        let [a, b, c, _] = length.to_le_bytes();
        let packet = [&[a, b, c, self.sequence], payload].concat();
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet).await?;
        self.stream.flush().await
    }

    /// Sends a command, which begins a new sequence.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) async fn send_command(&mut self, command: u8, argument: &[u8]) -> io::Result<()> {
        self.sequence = 0;
        self.send(&[&[command], argument].concat()).await
    }

    /// Ends the session, so that the server does not count it as aborted. Whether that succeeds does not matter.
    pub(super) async fn quit(mut self) {
        let _ = self.send_command(COM_QUIT, &[]).await;
        let _ = self.stream.shutdown().await;
    }
}

fn read_error(payload: &[u8]) -> MysqlFailure {
    let mut fields = Fields(payload);
    let Some(code) = fields.u16() else {
        return malformed();
    };
    let Fields(rest) = fields;
    // After "#" come five characters of SQLSTATE.
    let text = rest.strip_prefix(b"#").and_then(|rest| rest.get(5..)).unwrap_or(rest);
    MysqlFailure::Server {
        code,
        message: String::from_utf8_lossy(text).into_owned(),
    }
}

/// The rest of a payload. Each method reads a field from its front, and returns `None` if too few bytes are left or the
/// field is malformed.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        let bytes = self.bytes(2)?;
        Some(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// A string that ends with a zero byte.
    pub(super) fn terminated(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = self.bytes(end)?;
        self.bytes(1)?;
        Some(text)
    }

    /// A length-encoded integer.
    pub(super) fn integer(&mut self) -> Option<u64> {
        let count = match self.u8()? {
            small @ ..=0xfa => return Some(small.into()),
            0xfc => 2,
            0xfd => 3,
            0xfe => 8,
            _ => return None,
        };
        let mut number = [0; 8];
        number[..count].copy_from_slice(self.bytes(count)?);
        Some(u64::from_le_bytes(number))
    }

    /// A length-encoded string.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.integer()?;
        self.bytes(usize::try_from(length).ok()?)
    }

    /// A value in a row; `Some(None)` for NULL.
    pub(super) fn value(&mut self) -> Option<Option<&'a [u8]>> {
        if self.0.first() == Some(&0xfb) {
            self.bytes(1)?;
            return Some(None);
        }
        self.string().map(Some)
    }
}
