//! What the first bytes of a client prove about its first packet, in PostgreSQL's protocol. No IO, no log, no clock.
//!
//! ```text
//! "Message Formats" in the chapter "Frontend/Backend Protocol" of the PostgreSQL documentation
//!   0               4            8
//!   +---------------+------------+-----------------------+
//!   | n (u32)       | code (u32) | n - 8 bytes           |
//!   +---------------+------------+-----------------------+
//!   SSLRequest      80877103     nothing; the client waits for S or N
//!   GSSENCRequest   80877104     nothing; the client waits for G or N
//!   CancelRequest   80877102     process id (u32), secret key
//!   StartupMessage  3 << 16 | m  { name 0 value 0 }* 0   (m: the minor version)
//! ```

use std::fmt;

/// The longest packet: the length, which takes 4 bytes, and MAX_STARTUP_PACKET_LENGTH of the server.
pub const PACKET_BYTES_MAX: usize = 4 + 10_000;

/// The longest secret key: "BackendKeyData", protocol 3.2.
pub const SECRET_BYTES_MAX: usize = 256;

/// The longest name of a user or a database, in bytes; the server cuts longer ones (NAMEDATALEN - 1).
pub const NAME_BYTES_MAX: usize = 63;

/// SSLRequest.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// The name of the protocol that clients offer by ALPN (RFC 7301).
pub const ALPN: &[u8] = b"postgresql";

/// GSSENCRequest, which a client with a Kerberos ticket sends before an SSLRequest.
pub const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

const CODE_CANCEL: u32 = 80_877_102;
const CODE_SSL: u32 = 80_877_103;
const CODE_GSSENC: u32 = 80_877_104;
const MAJOR_VERSION: u32 = 3;
const HEADER_BYTES: usize = 8;

/// What a prefix of a client's bytes proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PacketVerdict {
    /// Undecided: nothing is wrong so far.
    NeedMore,
    /// A whole packet.
    Packet {
        /// What it says.
        packet: FirstPacket,
        /// Its length. More bytes may have come after it.
        bytes: usize,
    },
    /// These bytes begin no valid packet of version 3 of the protocol.
    Invalid(InvalidPacket),
}

/// The packet with which a client begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstPacket {
    /// It asks for TLS.
    Ssl,
    /// It asks for encryption by GSSAPI.
    GssEnc,
    /// It cancels the query of another session.
    Cancel(CancelKey),
    /// It begins a session.
    Startup(StartupMessage),
}

/// Why bytes are not a valid packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPacket {
    /// The length is below that of the header, or above [`PACKET_BYTES_MAX`].
    #[error("not a PostgreSQL client: the length of the first packet is out of range")]
    Length,
    /// The content does not fit its code.
    #[error("the first packet of the PostgreSQL client is malformed")]
    Content,
    /// A protocol other than version 3.
    #[error("the PostgreSQL client speaks another version of the protocol than 3")]
    Version,
    /// Bytes behind a request whose answer the client has to wait for: somebody else may have put them there
    /// (CVE-2021-23214).
    #[error("the PostgreSQL client sent bytes before its request for encryption was answered")]
    Smuggled,
    /// A second request for encryption of the same kind, or a request for TLS within TLS.
    #[error("the PostgreSQL client asks for encryption at the wrong time")]
    Repeated,
}

/// The key to cancel a session's queries: a process id and a secret, as in BackendKeyData and CancelRequest. `Debug`
/// does not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey(Box<[u8]>);

impl CancelKey {
    /// The key in the content of a message; `None` if its length is out of range.
    #[must_use]
    pub fn new(content: &[u8]) -> Option<Self> {
        const PROCESS_ID_BYTES: usize = 4;
        let secret_bytes = content.len().checked_sub(PROCESS_ID_BYTES)?;
        let is_in_range = (1..=SECRET_BYTES_MAX).contains(&secret_bytes);
        is_in_range.then(|| Self(content.into()))
    }

    /// The CancelRequest with this key.
    #[must_use]
    pub fn request(&self) -> Vec<u8> {
        let bytes = (HEADER_BYTES + self.0.len()) as u32; // at most 268
        [&bytes.to_be_bytes(), &CODE_CANCEL.to_be_bytes(), &*self.0].concat()
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelKey(…)")
    }
}

/// What routes and the log need of a StartupMessage. The names are cut as the server cuts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartupMessage {
    /// `user`.
    pub user: Box<[u8]>,
    /// `database`; if it is missing or empty, the user's name, as in the server.
    pub database: Box<[u8]>,
}

/// What the bytes received so far prove. `wire` has all of them, from the first. Once there is a verdict other than
/// [`PacketVerdict::NeedMore`], more bytes do not change it.
#[must_use]
pub fn first_packet(wire: &[u8]) -> PacketVerdict {
    let Some((length, rest)) = wire.split_first_chunk() else {
        // The length is big-endian. It is out of range unless its first byte is 0.
        return match wire.first() {
            None | Some(0) => PacketVerdict::NeedMore,
            Some(_) => PacketVerdict::Invalid(InvalidPacket::Length),
        };
    };
    let bytes = u32::from_be_bytes(*length) as usize;
    if !(HEADER_BYTES..=PACKET_BYTES_MAX).contains(&bytes) {
        return PacketVerdict::Invalid(InvalidPacket::Length);
    }
    let Some((code, _)) = rest.split_first_chunk() else {
        return PacketVerdict::NeedMore;
    };
    let Some(content) = wire.get(HEADER_BYTES..bytes) else {
        return PacketVerdict::NeedMore;
    };
    match packet(u32::from_be_bytes(*code), content) {
        Ok(packet) => PacketVerdict::Packet { packet, bytes },
        Err(invalid) => PacketVerdict::Invalid(invalid),
    }
}

fn packet(code: u32, content: &[u8]) -> Result<FirstPacket, InvalidPacket> {
    let packet = match code {
        CODE_SSL if content.is_empty() => Some(FirstPacket::Ssl),
        CODE_GSSENC if content.is_empty() => Some(FirstPacket::GssEnc),
        CODE_CANCEL => CancelKey::new(content).map(FirstPacket::Cancel),
        CODE_SSL | CODE_GSSENC => None,
        version if version >> 16 == MAJOR_VERSION => startup_message(content).map(FirstPacket::Startup),
        _ => return Err(InvalidPacket::Version),
    };
    packet.ok_or(InvalidPacket::Content)
}

/// Reads pairs of a name and a value, each ended by a zero, up to an empty name. Of equal names the last counts, as in
/// the server. `None`: the pairs are incomplete, something follows them, or there is no user.
fn startup_message(content: &[u8]) -> Option<StartupMessage> {
    let (mut user, mut database): (&[u8], &[u8]) = (&[], &[]);
    let mut strings = content.strip_suffix(&[0])?.split(|byte| *byte == 0);
    loop {
        match strings.next()? {
            b"" => break,
            name => {
                let value = strings.next()?;
                match name {
                    b"user" => user = value,
                    b"database" => database = value,
                    _ => {}
                }
            }
        }
    }
    let database = if database.is_empty() { user } else { database };
    let cut = |name: &[u8]| name[..name.len().min(NAME_BYTES_MAX)].into();
    (strings.next().is_none() && !user.is_empty()).then(|| StartupMessage {
        user: cut(user),
        database: cut(database),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn wire(code: u32, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + content.len()).unwrap();
        [&length.to_be_bytes(), &code.to_be_bytes(), content].concat()
    }

    fn startup(content: &[u8]) -> PacketVerdict {
        first_packet(&wire(3 << 16, content))
    }

    fn session(user: &str, database: &str) -> FirstPacket {
        FirstPacket::Startup(StartupMessage {
            user: user.as_bytes().into(),
            database: database.as_bytes().into(),
        })
    }

    const INVALID_CONTENT: PacketVerdict = PacketVerdict::Invalid(InvalidPacket::Content);

    #[test]
    fn a_startup_message_names_user_and_database() {
        let named = |content: &[u8]| match startup(content) {
            PacketVerdict::Packet { packet, bytes } if bytes == content.len() + 8 => packet,
            other => panic!("{other:?}"),
        };
        assert_eq!(named(b"user\0u\0database\0d\0\0"), session("u", "d"));
        assert_eq!(named(b"client_encoding\0UTF8\0user\0u\0\0"), session("u", "u"));
        assert_eq!(named(b"user\0u\0database\0\0\0"), session("u", "u"));
        assert_eq!(named(b"user\0a\0user\0b\0database\0user\0\0"), session("b", "user"));
        assert_eq!(
            named(b"options\0\0user\0u\0\0"),
            session("u", "u"),
            "a value may be empty"
        );
        let long = format!("user\0{}\0\0", "u".repeat(64));
        assert_eq!(named(long.as_bytes()), session(&"u".repeat(63), &"u".repeat(63)));
    }

    #[test]
    fn malformed_startup_messages_are_invalid() {
        let wrong: [&[u8]; 7] = [
            b"",
            b"\0",
            b"database\0d\0\0",
            b"user\0\0\0",
            b"user\0u\0",
            b"user\0u\0\0database\0d\0\0",
            b"user\0u\0database\0\0",
        ];
        for content in wrong {
            assert_eq!(startup(content), INVALID_CONTENT, "{}", content.escape_ascii());
        }
    }

    #[test]
    fn lengths_and_keys_are_accepted_up_to_their_bounds() {
        let packet_of_length = |bytes: u32| first_packet(&[&bytes.to_be_bytes()[..], &[0, 3, 0, 0]].concat());
        assert_eq!(packet_of_length(7), PacketVerdict::Invalid(InvalidPacket::Length));
        assert_eq!(packet_of_length(10_005), PacketVerdict::Invalid(InvalidPacket::Length));
        assert_eq!(packet_of_length(10_004), PacketVerdict::NeedMore);
        for (key_bytes, is_valid) in [(4, false), (5, true), (8, true), (260, true), (261, false)] {
            let verdict = first_packet(&wire(CODE_CANCEL, &vec![7; key_bytes]));
            let is_packet = matches!(verdict, PacketVerdict::Packet { .. });
            assert_eq!(is_packet, is_valid, "{key_bytes} bytes");
        }
    }

    #[test]
    fn other_protocols_and_an_ssl_request_with_content_are_invalid() {
        assert_eq!(first_packet(&wire(CODE_SSL, b"x")), INVALID_CONTENT);
        let version_2 = PacketVerdict::Invalid(InvalidPacket::Version);
        assert_eq!(first_packet(&wire(2 << 16, b"user\0u\0\0")), version_2);
        assert_eq!(
            first_packet(b"GET / HTTP/1.1\r\n\r\n"),
            PacketVerdict::Invalid(InvalidPacket::Length)
        );
    }

    #[test]
    fn a_cancel_request_round_trips_and_its_key_is_not_shown() {
        let sent = wire(CODE_CANCEL, &[0, 0, 4, 210, 1, 2, 3, 4]);
        let PacketVerdict::Packet {
            packet: FirstPacket::Cancel(key),
            ..
        } = first_packet(&sent)
        else {
            panic!("no CancelRequest");
        };
        assert_eq!(key.request(), sent);
        assert_eq!(format!("{key:?}"), "CancelKey(…)");
    }

    fn packets() -> impl Strategy<Value = Vec<u8>> {
        let code = prop_oneof![
            Just(CODE_SSL),
            Just(CODE_GSSENC),
            Just(CODE_CANCEL),
            Just(3 << 16),
            any::<u32>()
        ];
        let text = "(user|database|[a-z]{0,4})\0[a-z]{0,4}\0";
        let pairs = proptest::collection::vec(text, 0..4).prop_map(|pairs| (pairs.concat() + "\0").into_bytes());
        let content = prop_oneof![Just(Vec::new()), pairs, proptest::collection::vec(any::<u8>(), 0..300)];
        (code, content).prop_map(|(code, content)| wire(code, &content))
    }

    proptest! {
        #[test]
        fn a_packet_is_undecided_until_its_last_byte_and_later_bytes_change_nothing(
            packet in packets(),
            behind in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let whole = first_packet(&packet);
            prop_assert_ne!(&whole, &PacketVerdict::NeedMore);
            for cut in 0..packet.len() {
                prop_assert_eq!(first_packet(&packet[..cut]), PacketVerdict::NeedMore, "cut at {}", cut);
            }
            prop_assert_eq!(first_packet(&[packet, behind].concat()), whole);
        }

        #[test]
        fn a_decided_verdict_does_not_change(mut bytes in packets(), at in any::<Index>(), byte in any::<u8>()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let whole = first_packet(&bytes);
            let mut verdicts = (0..=bytes.len()).map(|cut| first_packet(&bytes[..cut]));
            let first_decided = verdicts.find(|verdict| *verdict != PacketVerdict::NeedMore);
            prop_assert_eq!(first_decided.unwrap_or(PacketVerdict::NeedMore), whole);
        }
    }
}
