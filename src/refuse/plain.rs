//! Tells a client of MySQL or Redis why it is refused, by an error such as a server sends: in the clear, or within the
//! TLS of a Redis client that is terminated here. The client's program prints it.

/// Why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainRefusal {
    /// No route takes it, or a route or a guard refuses it.
    NotAllowed,
    /// The client, or all clients together, have used up what a guard or the servers allow.
    Limited,
    /// There is no server for it.
    NoServer,
    /// It does not begin with TLS.
    TlsRequired,
}

impl PlainRefusal {
    const fn message(self) -> &'static str {
        match self {
            Self::NotAllowed => "this client may not connect here",
            Self::Limited => "too many connections",
            Self::NoServer => "no server is available",
            Self::TlsRequired => "connections without TLS are refused here",
        }
    }

    /// The ERR packet that a MySQL server sends instead of its greeting ("ERR_Packet" in the MySQL source code
    /// documentation). Before the greeting it has no SQLSTATE.
    ///
    /// ```text
    ///  length (3) | 0 | 0xff | code (2) | message        (the length and the code are little-endian)
    /// ```
    #[must_use]
    pub fn mysql(self) -> Vec<u8> {
        let code: u16 = match self {
            Self::NotAllowed => 1130,  // ER_HOST_NOT_PRIVILEGED
            Self::Limited => 1040,     // ER_CON_COUNT_ERROR
            Self::NoServer => 1053,    // ER_SERVER_SHUTDOWN: drivers try again, or elsewhere
            Self::TlsRequired => 3159, // ER_SECURE_TRANSPORT_REQUIRED
        };
        let length = 3 + self.message().len() as u8; // the messages are short
        let head = [length, 0, 0, 0, 0xff];
        [&head[..], &code.to_le_bytes(), self.message().as_bytes()].concat()
    }

    /// The error that answers any command to Redis ("Simple errors" in the Redis serialization protocol specification).
    /// Where a later attempt may succeed, it is an error after which drivers try again: `LOADING`, which a server sends
    /// while it starts, or the message of a server that has reached its `maxclients`.
    #[must_use]
    pub fn redis(self) -> Vec<u8> {
        let (code, message) = match self {
            Self::NoServer => ("LOADING", self.message()),
            Self::Limited => ("ERR", "max number of clients reached"),
            Self::NotAllowed | Self::TlsRequired => ("ERR", self.message()),
        };
        format!("-{code} {message}\r\n").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_encoded_byte_for_byte() {
        assert_eq!(
            PlainRefusal::NoServer.mysql(),
            b"\x19\0\0\0\xff\x1d\x04no server is available"
        );
        for (refusal, expected) in [
            (PlainRefusal::NotAllowed, "-ERR this client may not connect here\r\n"),
            (PlainRefusal::NoServer, "-LOADING no server is available\r\n"),
            (PlainRefusal::Limited, "-ERR max number of clients reached\r\n"),
        ] {
            assert_eq!(refusal.redis(), expected.as_bytes());
        }
    }
}
