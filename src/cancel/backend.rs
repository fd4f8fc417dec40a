//! Finds the key with which a client can cancel the queries of its PostgreSQL session. The server sends the key before
//! the first query. No IO, no log, no clock.
//!
//! ```text
//! "Message Formats" in the PostgreSQL documentation
//!   +-----------+---------+-------------+
//!   | type (u8) | n (u32) | n - 4 bytes |    type K: BackendKeyData, E: ErrorResponse, Z: ReadyForQuery
//!   +-----------+---------+-------------+
//! ```

use crate::sniff::postgres::{CancelKey, SECRET_BYTES_MAX};

/// The most bytes of a server that are read for the key. Usually the key comes within 1 KiB, after a challenge and
/// parameters.
pub const BACKEND_BYTES_MAX: usize = 64 << 10;

const HEADER_BYTES: usize = 5;
const KEY_BYTES_MAX: usize = 4 + SECRET_BYTES_MAX;
const BACKEND_KEY_DATA: u8 = b'K';
const ERROR_RESPONSE: u8 = b'E';
const READY_FOR_QUERY: u8 = b'Z';

/// Reads the messages of a server, which come in pieces, up to its first ReadyForQuery or ErrorResponse.
#[derive(Debug, Default)]
pub struct BackendReader {
    /// The header of the current message, as far as it has come.
    header: Vec<u8>,
    /// Bytes of the current message that are still to come.
    body_left: usize,
    /// Whether the current message is BackendKeyData, and no longer than a key can be.
    is_key: bool,
    /// The content of BackendKeyData, as far as it has come.
    content: Vec<u8>,
    key: Option<CancelKey>,
    /// Bytes read so far.
    taken: usize,
    is_done: bool,
}

impl BackendReader {
    /// Reads the bytes that have come since the last call. Returns whether nothing more is to be read: the server is
    /// ready or has failed, [`BACKEND_BYTES_MAX`] have come, or the server does not speak this protocol.
    pub fn advance(&mut self, mut fresh: &[u8]) -> bool {
        fresh = &fresh[..fresh.len().min(BACKEND_BYTES_MAX - self.taken)];
        self.taken += fresh.len();
        while !self.is_done && !fresh.is_empty() {
            if self.body_left > 0 {
                let (body, rest) = fresh.split_at(self.body_left.min(fresh.len()));
                self.take_body(body);
                fresh = rest;
            } else {
                let missing = HEADER_BYTES - self.header.len();
                let (part, rest) = fresh.split_at(missing.min(fresh.len()));
                self.header.extend(part);
                fresh = rest;
                self.begin_message();
            }
        }
        self.is_done |= self.taken >= BACKEND_BYTES_MAX;
        self.is_done
    }

    /// The key, if it has come.
    #[must_use]
    pub fn into_key(self) -> Option<CancelKey> {
        self.key
    }

    fn begin_message(&mut self) {
        let [kind, a, b, c, d] = *self.header.as_slice() else {
            return; // incomplete
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        // The length counts its own four bytes. A length below 4 is not of this protocol.
        match (kind, length.checked_sub(4)) {
            (READY_FOR_QUERY | ERROR_RESPONSE, _) | (_, None) => self.is_done = true,
            (_, Some(0)) => self.header.clear(),
            (_, Some(body)) => {
                self.body_left = body;
                self.is_key = kind == BACKEND_KEY_DATA && body <= KEY_BYTES_MAX;
            }
        }
    }

    fn take_body(&mut self, body: &[u8]) {
        self.body_left -= body.len();
        if self.is_key {
            self.content.extend(body);
        }
        if self.body_left == 0 {
            if self.is_key {
                self.key = CancelKey::new(&self.content);
                self.content = Vec::new();
            }
            self.header.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len() + 4).unwrap();
        [&[kind], &length.to_be_bytes()[..], content].concat()
    }

    /// Whether reading is done after these bytes, and the key.
    fn key_of(sent: &[u8]) -> (bool, Option<CancelKey>) {
        let mut reader = BackendReader::default();
        (reader.advance(sent), reader.into_key())
    }

    #[test]
    fn the_key_is_found_before_the_server_is_ready() {
        let key = [&[0, 0, 1, 2][..], &[7; 256]].concat();
        let login = [
            message(b'R', &[0, 0, 0, 0]),
            message(b'S', b"server_version\x0018\0"),
            message(b'K', &key),
            message(b'Z', b"I"),
        ];
        assert_eq!(key_of(&login.concat()), (true, CancelKey::new(&key)));
        assert_eq!(key_of(&login[..3].concat()), (false, CancelKey::new(&key)));
        assert!(CancelKey::new(&key).is_some());
    }

    #[test]
    fn only_a_valid_key_is_found() {
        assert_eq!(key_of(&message(b'Z', b"I")), (true, None));
        assert_eq!(key_of(&message(b'E', b"SFATAL\0\0")), (true, None));
        assert_eq!(key_of(b"HTTP/1.1"), (false, None), "a message of 1.4 GB begins");
        assert_eq!(key_of(b"x\0\0\0\x03"), (true, None));
        let long = message(b'S', &vec![0; BACKEND_BYTES_MAX]);
        assert_eq!(key_of(&long[..BACKEND_BYTES_MAX - 1]), (false, None));
        assert_eq!(key_of(&long[..BACKEND_BYTES_MAX]), (true, None));
        let too_long = [message(b'K', &[7; 261]), message(b'Z', b"I")].concat();
        assert_eq!(key_of(&too_long), (true, None));
        let mut reader = BackendReader::default();
        for piece in too_long.chunks(200) {
            reader.advance(piece);
        }
        assert_eq!(reader.into_key(), None, "the end of a long message is not a key");
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_how_the_bytes_are_cut(
            kinds in proptest::collection::vec((prop::sample::select(b"RSKZE".to_vec()), proptest::collection::vec(any::<u8>(), 0..12)), 0..6),
            cuts in proptest::collection::vec(1..9_usize, 1..8),
        ) {
            let sent: Vec<u8> = kinds.iter().flat_map(|(kind, content)| message(*kind, content)).collect();
            let mut reader = BackendReader::default();
            let mut is_done = false;
            let (mut left, mut cuts) = (sent.as_slice(), cuts.iter().cycle());
            while !left.is_empty() && !is_done {
                let (piece, rest) = left.split_at(left.len().min(*cuts.next().unwrap()));
                is_done = reader.advance(piece);
                left = rest;
            }
            prop_assert_eq!((is_done, reader.into_key()), key_of(&sent));
        }
    }
}
