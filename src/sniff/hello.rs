//! A prefix of what a client sends -> what it proves. No IO, no log, no clock.
//!
//! ```text
//! TLS record, RFC 8446 section 5.1
//!   0      1         3         5
//!   +------+---------+---------+----------------------------+
//!   | 0x16 | 03 xx   | n (u16) | fragment: n bytes, 1..2^14 |  next record ...
//!   +------+---------+---------+----------------------------+
//!
//! handshake message, RFC 8446 section 4: the fragments put together; a cut may be anywhere, also in its header
//!   0      1         4
//!   +------+---------+----------------------+
//!   | 0x01 | m (u24) | ClientHello: m bytes | whatever follows is not ours to read
//!   +------+---------+----------------------+
//! ```

mod alpn;
mod cursor;
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
pub enum Verdict {
    /// Nothing wrong so far; cannot decide yet.
    NeedMore,
    /// A whole ClientHello.
    Hello(Hello),
    /// The first byte is not 0x16, or the second (the record's major version) is not 3.
    NotTls,
    /// It begins as TLS and then is not.
    Malformed(Malformed),
    /// By its own lengths it cannot end within the bytes allowed.
    TooLong,
}

/// What is wrong with bytes that begin as TLS and are no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Malformed {
    /// In words.
    pub what: &'static str,
    /// What the client is told: RFC 8446, section 6.2.
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

/// Reads a ClientHello that comes in pieces. It holds no bytes, only how far it has got: the work is linear in the
/// bytes however they come, and a client that waits costs nothing here.
#[derive(Debug)]
pub struct Reader {
    bytes_max: usize,
    /// Bytes of the wire that have been gone over: whole headers and parts of fragments.
    next: usize,
    /// Record headers gone over.
    records: usize,
    /// Bytes of the current fragment after `next`, come or not.
    record_left: usize,
    /// Bytes of the handshake message before `next`.
    message_taken: usize,
    /// The first four bytes of that message, as far as they have come, most significant first.
    message_head: u32,
}

const RECORD_HEADER_BYTES: usize = 5;
const MESSAGE_HEADER_BYTES: usize = 4;
/// ContentType `handshake`: RFC 8446, section 5.1.
const HANDSHAKE: u8 = 22;
/// HandshakeType `client_hello`: RFC 8446, section 4.
const CLIENT_HELLO: u8 = 1;
/// Of TLS in all its versions, and of SSL 3.
const RECORD_MAJOR: u8 = 3;
/// Longest fragment of a plaintext record: RFC 8446, section 5.1.
const FRAGMENT_BYTES_MAX: usize = 1 << 14;

impl Reader {
    /// A reader of a ClientHello of at most `bytes_max` bytes, record headers included.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            next: 0,
            records: 0,
            record_left: 0,
            message_taken: 0,
            message_head: 0,
        }
    }

    /// What `wire` proves: all bytes that have come, from the first. Each call must bring the bytes of the one
    /// before, with or without more behind them. Once decided, more bytes change nothing.
    pub fn advance(&mut self, wire: &[u8]) -> Verdict {
        loop {
            if let Some(verdict) = self.step(wire) {
                return verdict;
            }
        }
    }

    /// Answers, or goes over at least one more byte and returns `None`: so there are at most as many steps as bytes,
    /// and one a call.
    fn step(&mut self, wire: &[u8]) -> Option<Verdict> {
        let fresh = wire.get(self.next..).unwrap_or_default();
        match self.message_bytes() {
            Some(bytes) if self.records * RECORD_HEADER_BYTES + bytes > self.bytes_max => Some(Verdict::TooLong),
            Some(bytes) if self.message_taken >= bytes => Some(self.decide(wire, bytes)),
            _ if fresh.is_empty() => Some(Verdict::NeedMore),
            _ if self.record_left == 0 => self.header(fresh),
            _ => self.fragment(fresh),
        }
    }

    /// Length of the handshake message with its header, once that has come.
    fn message_bytes(&self) -> Option<usize> {
        let length = (self.message_head & 0x00ff_ffff) as usize; // the top byte is the type
        (self.message_taken >= MESSAGE_HEADER_BYTES).then_some(MESSAGE_HEADER_BYTES + length)
    }

    fn header(&mut self, fresh: &[u8]) -> Option<Verdict> {
        let plausible = fresh[0] == HANDSHAKE && fresh.get(1).is_none_or(|&major| major == RECORD_MAJOR);
        if !plausible && self.records == 0 {
            return Some(Verdict::NotTls);
        }
        if !plausible {
            return Some(malformed(
                Alert::UnexpectedMessage,
                "another record within the ClientHello",
            ));
        }
        let &[_, _, _, high, low, ..] = fresh else {
            return Some(Verdict::NeedMore);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        match length {
            // Section 5.1 forbids it, and section 5.4 names the alert, there for encrypted records.
            0 => return Some(malformed(Alert::UnexpectedMessage, "an empty handshake record")),
            1..=FRAGMENT_BYTES_MAX => {}
            _ => return Some(malformed(Alert::RecordOverflow, "a record of more than 2^14 bytes")),
        }
        self.next += RECORD_HEADER_BYTES;
        self.records += 1;
        self.record_left = length;
        None
    }

    fn fragment(&mut self, fresh: &[u8]) -> Option<Verdict> {
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
        self.next += taken;
        self.record_left -= taken;
        self.message_taken += taken;
        None
    }

    fn decide(&self, wire: &[u8], message_bytes: usize) -> Verdict {
        let read = self
            .message(wire, message_bytes)
            .get(MESSAGE_HEADER_BYTES..)
            .ok_or(Malformed::undecodable("bytes that are gone"))
            .and_then(message::read);
        match read {
            Ok(hello) => Verdict::Hello(hello),
            Err(malformed) => Verdict::Malformed(malformed),
        }
    }

    /// The whole message: where it lies, if it lies in one record, else put together. That happens once and not
    /// piece by piece, so that only a hello that is about to be decided is ever held twice.
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
            // The last record may go on after the message, and what follows need not have come.
            let wanted = usize::from(length).min(message_bytes - message.len());
            message.extend_from_slice(records.take(wanted).unwrap_or_default());
        }
        message.into()
    }
}

fn malformed(alert: Alert, what: &'static str) -> Verdict {
    Verdict::Malformed(Malformed::new(alert, what))
}
