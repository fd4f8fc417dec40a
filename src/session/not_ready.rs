//! Finds out from the first message of a PostgreSQL server whether it takes no sessions now. No IO, no log, no clock.
//!
//! ```text
//! "Message Formats" and "Error and Notice Message Fields" in the PostgreSQL documentation
//!   +-----+---------+-----------------------------------------+---+
//!   | 'E' | n (u32) | { field (u8) text 0 }*                  | 0 |    field C: SQLSTATE, M: message
//!   +-----+---------+-----------------------------------------+---+
//!           n: the bytes of the message without the 'E'
//! ```

/// The longest message that is read. That of a server which starts or stops has about 200 bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

const HEADER_BYTES: usize = 5;

/// SQLSTATEs admin_shutdown, crash_shutdown and cannot_connect_now ("PostgreSQL Error Codes"). In the first message,
/// before any request for authentication, they are about the server and not about the client.
const STATES: [&[u8]; 3] = [b"57P01", b"57P02", b"57P03"];

/// What the first bytes of a server prove.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FirstMessage {
    /// Nothing yet: more bytes are needed.
    NeedMore,
    /// The server takes no sessions now, and says why.
    NotReady(String),
    /// Anything else.
    Other,
}

/// Reads all that a server has sent so far.
pub(super) fn first_message(wire: &[u8]) -> FirstMessage {
    let [kind, a, b, c, d] = match wire.first_chunk::<HEADER_BYTES>() {
        Some(header) => *header,
        None if matches!(wire, [] | [b'E', ..]) => return FirstMessage::NeedMore,
        None => return FirstMessage::Other,
    };
    let message_bytes = 1 + u32::from_be_bytes([a, b, c, d]) as usize;
    if kind != b'E' || !(HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&message_bytes) {
        return FirstMessage::Other;
    }
    let Some(fields) = wire.get(HEADER_BYTES..message_bytes) else {
        return FirstMessage::NeedMore;
    };
    let field = |name: u8| {
        let mut fields = fields.split(|byte| *byte == 0);
        fields.find_map(|field| field.strip_prefix(&[name]))
    };
    if !field(b'C').is_some_and(|state| STATES.contains(&state)) {
        return FirstMessage::Other;
    }
    let message = String::from_utf8_lossy(field(b'M').unwrap_or_default());
    FirstMessage::NotReady(message.escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(fields: &[u8]) -> Vec<u8> {
        let length = u32::try_from(fields.len() + 4).unwrap();
        [b"E", &length.to_be_bytes()[..], fields].concat()
    }

    #[test]
    fn an_error_of_a_server_that_starts_or_stops_is_recognized_once_it_is_whole() {
        for state in ["57P01", "57P02", "57P03"] {
            let fields = format!("SFATAL\0VFATAL\0C{state}\0Mthe database system is starting up\0Fpostmaster.c\0\0");
            let wire = error(fields.as_bytes());
            for cut in 0..wire.len() {
                assert_eq!(first_message(&wire[..cut]), FirstMessage::NeedMore, "cut at {cut}");
            }
            let expected = FirstMessage::NotReady("the database system is starting up".to_owned());
            assert_eq!(first_message(&wire), expected);
            assert_eq!(first_message(&[&wire[..], b"more"].concat()), expected);
        }
    }

    #[test]
    fn other_and_too_long_messages_do_not_count_as_not_ready() {
        let long = error(&[0; MESSAGE_BYTES_MAX]);
        for wire in [
            &b"R"[..],
            b"R\0\0\0\x08\0\0\0\0",
            b"N",
            b"E\0\0\0\x03",
            b"Ecould not fork new process for connection\n\0",
            &long,
            &error(b"C53300\0Msorry, too many clients already\0\0"),
            &error(b"MC57P03\0\0"),
            &error(b""),
        ] {
            assert_eq!(first_message(wire), FirstMessage::Other, "{}", wire.escape_ascii());
        }
    }
}
