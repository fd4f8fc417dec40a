//! What a prefix of a client's bytes proves about its ClientHello. No IO, no log, no clock.
//!
//! ```text
//! TLS record, RFC 8446 section 5.1
//!   0      1         3         5
//!   +------+---------+---------+----------------------------+
//!   | 0x16 | 03 xx   | n (u16) | fragment: n bytes, 1..2^14 |  next record ...
//!   +------+---------+---------+----------------------------+
//!
//! handshake message, RFC 8446 section 4: the joined fragments; a record may end anywhere in it, even in its header
//!   0      1         4
//!   +------+---------+----------------------+
//!   | 0x01 | m (u24) | ClientHello: m bytes | what follows is not read
//!   +------+---------+----------------------+
//! ```

mod cursor;
mod alpn;
mod message;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use self::alpn::ProtocolList;
use self::cursor::Cursor;
pub use self::message::{Hello, RAW_NAME_BYTES_MAX};
use super::alert::Alert;

/// What a prefix of a client's bytes proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloVerdict {
    /// Undecided: nothing is wrong so far.
    NeedMore,
    /// A whole ClientHello.
    Hello(Hello),
    /// The first byte is not 0x16, or the second (the record's major version) is not 3.
    NotTls,
    /// It begins as TLS, but is not valid.
    Malformed(Malformed),
    /// The lengths in its headers say that the ClientHello does not end within the bytes allowed.
    TooLong,
}

/// Why bytes that begin as TLS are not a ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Malformed {
    /// The error, for the log.
    pub what: &'static str,
    /// The alert for the client: RFC 8446, section 6.2.
    pub alert: Alert,
}

impl Malformed {
    const fn new(alert: Alert, what: &'static str) -> Self {
        Self { what, alert }
    }

    /// A length or a value that is out of its range.
    const fn undecodable(what: &'static str) -> Self {
        Self::new(Alert::DecodeError, what)
    }
}

/// Reads a ClientHello that comes in pieces. The reader holds its position and the first four bytes of the message, but
/// no others: the work is linear in the bytes however they come, and a silent client costs nothing.
#[derive(Debug)]
pub struct HelloReader {
    bytes_max: usize,
    /// The number of bytes that were processed: whole record headers and parts of fragments.
    processed: usize,
    /// Record headers that were processed.
    records: usize,
    /// Bytes of the current fragment that were not processed, received or not.
    record_left: usize,
    /// Bytes of fragments that were processed: the handshake message, and what follows it in the last record.
    message_taken: usize,
    /// The first four bytes of the handshake message, as far as they were received, most significant first.
    message_head: u32,
}

const RECORD_HEADER_BYTES: usize = 5;
const MESSAGE_HEADER_BYTES: usize = 4;
/// ContentType `handshake`: RFC 8446, section 5.1.
const HANDSHAKE: u8 = 22;
/// HandshakeType `client_hello`: RFC 8446, section 4.
const CLIENT_HELLO: u8 = 1;
/// The major version in records of all TLS versions, and of SSL 3.
const RECORD_MAJOR: u8 = 3;
/// Longest fragment of a plaintext record: RFC 8446, section 5.1.
const FRAGMENT_BYTES_MAX: usize = 1 << 14;

impl HelloReader {
    /// A reader of a ClientHello of at most `bytes_max` bytes, record headers included.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            processed: 0,
            records: 0,
            record_left: 0,
            message_taken: 0,
            message_head: 0,
        }
    }

    /// What the bytes received so far prove: `wire` has all of them, from the first. In each call, `wire` must
    /// begin with the bytes of the previous call. Once decided, more bytes change nothing.
    pub fn advance(&mut self, wire: &[u8]) -> HelloVerdict {
        loop {
            if let Some(verdict) = self.step(wire) {
                return verdict;
            }
        }
    }

    /// Decides, or processes at least one more byte and returns `None`: so there are at most as many steps as bytes,
    /// and one more for each call.
    fn step(&mut self, wire: &[u8]) -> Option<HelloVerdict> {
        let fresh = wire.get(self.processed..).unwrap_or_default();
        match self.message_bytes() {
            Some(bytes) if self.records * RECORD_HEADER_BYTES + bytes > self.bytes_max => Some(HelloVerdict::TooLong),
            Some(bytes) if self.message_taken >= bytes => Some(self.decide(wire, bytes)),
            _ if fresh.is_empty() => Some(HelloVerdict::NeedMore),
            _ if self.record_left == 0 => self.read_header(fresh),
            _ => self.take_fragment(fresh),
        }
    }

    /// Length of the handshake message with its header, once the header was received.
    fn message_bytes(&self) -> Option<usize> {
        let length = (self.message_head & 0x00ff_ffff) as usize; // the top byte is the type
        (self.message_taken >= MESSAGE_HEADER_BYTES).then_some(MESSAGE_HEADER_BYTES + length)
    }

    /// Reads the header of a record.
    fn read_header(&mut self, fresh: &[u8]) -> Option<HelloVerdict> {
        let is_handshake = fresh[0] == HANDSHAKE && fresh.get(1).is_none_or(|&major| major == RECORD_MAJOR);
        if !is_handshake && self.records == 0 {
            return Some(HelloVerdict::NotTls);
        }
        if !is_handshake {
            return Some(malformed(
                Alert::UnexpectedMessage,
                "a record of another type or major version within the ClientHello",
            ));
        }
        let &[_, _, _, high, low, ..] = fresh else {
            return Some(HelloVerdict::NeedMore);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        match length {
            // Section 5.1 forbids an empty record. The alert is the one that section 5.4 names for encrypted records.
            0 => return Some(malformed(Alert::UnexpectedMessage, "an empty handshake record")),
            1..=FRAGMENT_BYTES_MAX => {}
            _ => return Some(malformed(Alert::RecordOverflow, "a record of more than 2^14 bytes")),
        }
        self.processed += RECORD_HEADER_BYTES;
        self.records += 1;
        self.record_left = length;
        None
    }

    /// Takes bytes of the current fragment.
    fn take_fragment(&mut self, fresh: &[u8]) -> Option<HelloVerdict> {
        if self.message_taken == 0 && fresh[0] != CLIENT_HELLO {
            return Some(malformed(
                Alert::UnexpectedMessage,
                "a handshake that does not begin with a ClientHello",
            ));
        }
        let taken = fresh.len().min(self.record_left);
        let head_left = MESSAGE_HEADER_BYTES.saturating_sub(self.message_taken);
        for &byte in &fresh[..taken.min(head_left)] {
            self.message_head = self.message_head << 8 | u32::from(byte);
        }
        self.processed += taken;
        self.record_left -= taken;
        self.message_taken += taken;
        None
    }

    fn decide(&self, wire: &[u8], message_bytes: usize) -> HelloVerdict {
        let read = self
            .message(wire, message_bytes)
            .get(MESSAGE_HEADER_BYTES..)
            .ok_or(Malformed::undecodable("the bytes of an earlier call are missing"))
            .and_then(message::read);
        match read {
            Ok(hello) => HelloVerdict::Hello(hello),
            Err(malformed) => HelloVerdict::Malformed(malformed),
        }
    }

    /// The whole message: borrowed if it is in one record, else copied together. The copy is made when the message is
    /// complete, not piece by piece: so a hello is held twice only while it is decided.
    fn message<'w>(&self, wire: &'w [u8], message_bytes: usize) -> Cow<'w, [u8]> {
        if self.records == 1 {
            let end = (RECORD_HEADER_BYTES + message_bytes).min(wire.len());
            return wire.get(RECORD_HEADER_BYTES..end).unwrap_or_default().into();
        }
        let mut message = Vec::with_capacity(message_bytes);
        let mut records = Cursor::new(wire);
        while message.len() < message_bytes {
            let Some(length) = records.take(3).and_then(|_| records.u16()) else {
                break;
            };
            // The last record may contain more than the message; the bytes after the message may not have come yet.
            let wanted = usize::from(length).min(message_bytes - message.len());
            message.extend_from_slice(records.take(wanted).unwrap_or_default());
        }
        message.into()
    }
}

fn malformed(alert: Alert, what: &'static str) -> HelloVerdict {
    HelloVerdict::Malformed(Malformed::new(alert, what))
}
