//! ErrorResponse: tells a client of PostgreSQL why it is refused, in the clear or within TLS that ends here. A client
//! whose TLS handshake is under way gets an alert instead. So does one that waits for the answer to its SSLRequest:
//! libpq would not print an ErrorResponse there, because anybody may have injected it.
//!
//! ```text
//! "Message Formats" and "Error and Notice Message Fields" in the PostgreSQL documentation
//!   +-----+---------+-----------------------------------------+---+
//!   | 'E' | n (u32) | { field (u8) text 0 }*                  | 0 |
//!   +-----+---------+-----------------------------------------+---+
//! ```

use crate::sniff::postgres::{InvalidPacket, StartupMessage};

/// Why a PostgreSQL client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostgresError {
    /// Its first packet is not valid.
    Packet(InvalidPacket),
    /// The listener refuses sessions in the clear.
    TlsRequired,
    /// No route takes it.
    NoRoute,
    /// A route refuses it.
    Refused,
    /// A guard refuses its address.
    Denied,
    /// The client, or all clients together, have used up what a guard or the servers allow.
    Limited,
    /// There is no server for it.
    NoServer,
}

impl PostgresError {
    /// The SQLSTATE (appendix "PostgreSQL Error Codes" of the documentation).
    const fn code(self) -> &'static str {
        match self {
            Self::Packet(InvalidPacket::Version) => "0A000", // feature_not_supported
            Self::Packet(_) => "08P01",                      // protocol_violation
            Self::TlsRequired | Self::Refused | Self::Denied => "28000", // invalid_authorization_specification
            Self::NoRoute => "3D000",                        // invalid_catalog_name
            Self::Limited => "53300",                        // too_many_connections
            Self::NoServer => "57P03",                       // cannot_connect_now
        }
    }

    fn message(self, startup: Option<&StartupMessage>) -> String {
        let name = |name: &[u8]| String::from_utf8_lossy(name).escape_debug().to_string();
        let (database, user) = startup.map_or_else(Default::default, |startup| {
            (name(&startup.database), name(&startup.user))
        });
        match self {
            Self::Packet(invalid) => invalid.to_string(),
            Self::TlsRequired => "connections without TLS are refused here: set sslmode=require".to_owned(),
            Self::NoRoute => format!("no route takes database \"{database}\" and user \"{user}\""),
            Self::Refused => format!("user \"{user}\" may not connect to database \"{database}\" here"),
            Self::Denied => "connections from this address are refused here".to_owned(),
            Self::Limited => "too many connections".to_owned(),
            Self::NoServer => "no server is available".to_owned(),
        }
    }

    /// The ErrorResponse for the client with this StartupMessage.
    #[must_use]
    pub fn response(self, startup: Option<&StartupMessage>) -> Vec<u8> {
        let mut fields = Vec::new();
        for (field, text) in [
            (b'S', "FATAL"),
            (b'V', "FATAL"),
            (b'C', self.code()),
            (b'M', &self.message(startup)),
        ] {
            fields.push(field);
            fields.extend(text.as_bytes());
            fields.push(0);
        }
        fields.push(0);
        // `n` includes its own 4 bytes. No overflow: names have at most 63 bytes, escaped at most 10 times as many.
        let length = fields.len() as u32 + 4;
        [b"E", &length.to_be_bytes()[..], &fields].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_is_encoded_byte_for_byte() {
        assert_eq!(
            PostgresError::NoServer.response(None),
            *b"E\0\0\0\x32SFATAL\0VFATAL\0C57P03\0Mno server is available\0\0"
        );
    }

    #[test]
    fn the_names_that_a_client_sends_are_escaped_in_the_message() {
        let startup = StartupMessage {
            user: (*b"u\xff\n").into(),
            database: (*b"d").into(),
        };
        let sent = PostgresError::NoRoute.response(Some(&startup));
        let text = String::from_utf8(sent[5..].to_vec()).unwrap();
        assert!(
            text.contains("Mno route takes database \"d\" and user \"u\u{fffd}\\n\"\0\0"),
            "{text:?}"
        );
    }
}
