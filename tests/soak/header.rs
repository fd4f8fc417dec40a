//! PROXY headers, as proxies in front of acequia send them.

use std::net::{Ipv4Addr, SocketAddrV4};

use fastrand::Rng;

use crate::records::address_in_header;

/// A header to be sent by a client, and where it is cut.
#[derive(Clone, Copy)]
pub struct Header {
    version: Version,
    /// The share of the header that is sent first, in 65,536ths.
    first_part: u16,
}

#[derive(Clone, Copy)]
enum Version {
    Text,
    /// With a TLV of the type NOOP whose value has this many bytes; without a TLV if 0.
    Binary {
        noop_bytes: u16,
    },
}

/// PP2_TYPE_NOOP.
const NOOP: u8 = 4;

impl Header {
    pub fn any(rng: &mut Rng) -> Self {
        let noop_bytes = if rng.bool() { rng.u16(..3_000) } else { 0 };
        Self {
            version: if rng.bool() {
                Version::Text
            } else {
                Version::Binary { noop_bytes }
            },
            first_part: rng.u16(..),
        }
    }

    /// The header for a session's client, in two parts.
    pub fn parts(self, session: u32) -> [Vec<u8>; 2] {
        let client = SocketAddrV4::new(address_in_header(session), 1024 + (session % 60_000) as u16);
        let server = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443);
        let header = match self.version {
            Version::Text => {
                let ports = (client.port(), server.port());
                format!("PROXY TCP4 {} {} {} {}\r\n", client.ip(), server.ip(), ports.0, ports.1).into_bytes()
            }
            Version::Binary { noop_bytes } => binary(client, server, noop_bytes),
        };
        let (first, second) = header.split_at(header.len() * usize::from(self.first_part) / (1 << 16));
        [first.to_vec(), second.to_vec()]
    }
}

fn binary(client: SocketAddrV4, server: SocketAddrV4, noop_bytes: u16) -> Vec<u8> {
    let tlv = match noop_bytes {
        0 => Vec::new(),
        bytes => [&[NOOP][..], &bytes.to_be_bytes(), &vec![0; usize::from(bytes)]].concat(),
    };
    let length = 12 + tlv.len() as u16; // at most 3,014
    [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
        &length.to_be_bytes()[..],
        &client.ip().octets(),
        &server.ip().octets(),
        &client.port().to_be_bytes(),
        &server.port().to_be_bytes(),
        &tlv,
    ]
    .concat()
}
