//! Recognizes a probable close_notify alert without decrypting it.

/// Length of a record's header (RFC 8446, section 5.1).
const HEADER_BYTES: usize = 5;

/// The content type of each encrypted record of TLS 1.3.
const TLS13_TYPE: u8 = 0x17;

/// Length of an encrypted alert of TLS 1.3: alert, content type, authentication tag (RFC 8446, section 5.2).
const TLS13_ALERT_BYTES: u8 = 2 + 1 + 16;

/// The content type of an alert of TLS 1.2.
const TLS12_ALERT_TYPE: u8 = 0x15;

/// Lengths of an encrypted alert of TLS 1.2.
const TLS12_ALERT_BYTES: [u8; 4] = [
    8 + 2 + 16, // AES-GCM: nonce, alert, authentication tag (RFC 5288)
    2 + 16,     // ChaCha20: alert, authentication tag (RFC 7905)
    16 + 32,    // AES-CBC with SHA-1: IV; alert, MAC and padding (RFC 5246, section 6.2.3.2)
    16 + 48,    // AES-CBC with SHA-256: the same
];

/// Whether the bytes end with a record that is as long as an encrypted alert. If this is the last record of a
/// connection, it is probably a close_notify (RFC 8446, section 6.1), or an error alert with the same effect.
pub(super) fn ends_with_close_notify(bytes: &[u8]) -> bool {
    let ends_with = |content_type: u8, length: u8| {
        let start = bytes.len().checked_sub(HEADER_BYTES + usize::from(length));
        start.is_some_and(|start| {
            let header = &bytes[start..start + HEADER_BYTES];
            header[0] == content_type && header[1] == 3 && header[3..] == [0, length]
        })
    };
    ends_with(TLS13_TYPE, TLS13_ALERT_BYTES)
        || TLS12_ALERT_BYTES
            .into_iter()
            .any(|length| ends_with(TLS12_ALERT_TYPE, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content_type: u8, length: u8) -> Vec<u8> {
        let mut record = vec![content_type, 3, 3, 0, length];
        record.resize(HEADER_BYTES + usize::from(length), 0xaa);
        record
    }

    #[test]
    fn an_encrypted_alert_is_recognized_only_at_the_end() {
        let query = record(0x17, 40);
        for alert in [
            record(0x17, 19),
            record(0x15, 26),
            record(0x15, 18),
            record(0x15, 48),
            record(0x15, 64),
        ] {
            assert!(ends_with_close_notify(&alert));
            assert!(ends_with_close_notify(&[&query[..], &alert[..]].concat()));
            assert!(!ends_with_close_notify(&[&alert[..], &query[..]].concat()));
            assert!(!ends_with_close_notify(&alert[1..]));
        }
        assert!(!ends_with_close_notify(&query));
        assert!(!ends_with_close_notify(&[]));
    }
}
