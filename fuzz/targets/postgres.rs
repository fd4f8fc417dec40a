//! The packets with which PostgreSQL clients begin, and the messages of their servers, are read in the same way however
//! the bytes are split.
#![no_main]

use acequia::cancel::BackendReader;
use acequia::sniff::postgres::{FirstPacket, NAME_BYTES_MAX, PACKET_BYTES_MAX, PacketVerdict, first_packet};
use libfuzzer_sys::fuzz_target;

/// The length of the longest prefix that is parsed. The time for all prefixes grows with the square of this.
const PREFIX_BYTES_MAX: usize = 512;

fuzz_target!(|wire: &[u8]| {
    let whole = first_packet(wire);
    let decided = (0..=wire.len().min(PREFIX_BYTES_MAX))
        .map(|cut| first_packet(&wire[..cut]))
        .find(|verdict| *verdict != PacketVerdict::NeedMore);
    match decided {
        Some(decided) => assert_eq!(decided, whole),
        None => assert!(wire.len() > PREFIX_BYTES_MAX || whole == PacketVerdict::NeedMore),
    }
    if let PacketVerdict::Packet { packet, bytes } = &whole {
        assert!(*bytes <= PACKET_BYTES_MAX.min(wire.len()));
        match packet {
            FirstPacket::Cancel(key) => assert_eq!(key.request(), wire[..*bytes]),
            FirstPacket::Startup(message) => {
                let lengths = [message.user.len(), message.database.len()];
                assert!(lengths.iter().all(|length| (1..=NAME_BYTES_MAX).contains(length)));
            }
            FirstPacket::Ssl | FirstPacket::GssEnc => {}
        }
    }
    assert_same_key_from_pieces(wire);
});

/// Asserts that the messages of a server give the same cancel key whether they are read at once or in pieces. The first
/// byte of each piece determines its length.
fn assert_same_key_from_pieces(wire: &[u8]) {
    let mut whole = BackendReader::default();
    let whole_is_done = whole.advance(wire);
    let mut pieces = BackendReader::default();
    let mut pieces_are_done = false;
    let mut left = wire;
    while !pieces_are_done && let Some(first) = left.first() {
        let (piece, rest) = left.split_at(left.len().min(1 + usize::from(*first)));
        pieces_are_done = pieces.advance(piece);
        left = rest;
    }
    assert_eq!((pieces_are_done, pieces.into_key()), (whole_is_done, whole.into_key()));
}
