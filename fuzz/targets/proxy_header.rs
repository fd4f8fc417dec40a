//! The decoder of PROXY headers decides once, whatever follows, and never reads beyond what was sent.
#![no_main]

use acequia::proxy_protocol::{Decoded, HEADER_BYTES_MAX, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = decode(bytes);
    let decided = (0..=bytes.len())
        .map(|cut| decode(&bytes[..cut]))
        .find(|decoded| *decoded != Decoded::NeedMore);
    assert_eq!(
        decided.unwrap_or(Decoded::NeedMore),
        whole,
        "expected the verdict to stay"
    );
    if let Decoded::Header(header, length) = whole {
        assert!(length <= bytes.len() && length <= HEADER_BYTES_MAX);
        assert!(header.unique_id.is_none_or(|id| id.len() <= 128));
    }
});
