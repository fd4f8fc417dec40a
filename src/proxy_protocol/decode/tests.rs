use proptest::prelude::*;

use super::*;
use crate::proxy_protocol::{ClientInfo, Version, header};

fn addresses(bytes: &[u8]) -> ProxyAddresses {
    match decode(bytes) {
        Decoded::Header(header, length) => {
            assert_eq!(length, bytes.len());
            header.addresses
        }
        other => panic!("{other:?} of {}", bytes.escape_ascii()),
    }
}

fn from_to(from: &str, to: &str) -> ProxyAddresses {
    ProxyAddresses::Tcp {
        client: ClientAddr::new(from.parse().unwrap()),
        local: ListenAddr::new(to.parse().unwrap()),
    }
}

#[test]
fn lines_of_version_1_are_read() {
    let ipv4 = addresses(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n");
    assert_eq!(ipv4, from_to("192.0.2.1:56324", "198.51.100.1:443"));
    let ipv6 = addresses(b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n");
    assert_eq!(ipv6, from_to("[2001:db8::1]:0", "[2001:db8::2]:65535"));
    let mapped = addresses(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6401 1 2\r\n");
    assert_eq!(mapped, from_to("192.0.2.1:1", "198.51.100.1:2"));
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 what ever 1\r\n"] {
        assert_eq!(addresses(line.as_bytes()), ProxyAddresses::Peer);
    }
    let longest =
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(
        (longest.len(), addresses(longest.as_bytes())),
        (LINE_BYTES_MAX, ProxyAddresses::Peer)
    );
}

#[test]
fn invalid_lines_are_distinguished_from_a_missing_header() {
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n",
        "PROXY TCP4 2001:db8::1 198.51.100.1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1\r2\r\n",
    ] {
        assert_eq!(
            decode(line.as_bytes()),
            Decoded::Invalid(InvalidHeader::Line),
            "{line:?}"
        );
    }
    let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat();
    assert_eq!(decode(&long), Decoded::Invalid(InvalidHeader::TooLong));
    for bytes in [
        &b"G"[..],
        b"PROXX",
        b"PROXYTCP4",
        b"\r\n\r\n\0\r\nQUIT ",
        b"\x16\x03\x01",
    ] {
        assert_eq!(decode(bytes), Decoded::Absent, "{}", bytes.escape_ascii());
    }
    assert_eq!(decode(b""), Decoded::NeedMore);
}

/// A header of version 2. `rest`: the addresses, then the TLVs.
fn v2(version_and_command: u8, family_and_type: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[version_and_command, family_and_type], &length, rest].concat()
}

/// Two IPv4 addresses and two ports.
const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

#[test]
fn headers_of_version_2_are_read() {
    assert_eq!(
        addresses(&v2(0x21, 0x11, &IPV4)),
        from_to("192.0.2.1:56324", "198.51.100.1:443")
    );
    let mut ipv6 = [0; 36];
    ipv6[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
    ipv6[31] = 1;
    assert_eq!(addresses(&v2(0x21, 0x21, &ipv6)), from_to("192.0.2.1:0", "[::1]:0"));
    assert_eq!(
        addresses(&v2(0x21, 0x31, &[b'/'; 216])),
        ProxyAddresses::Unix(Box::new([b'/'; 216]))
    );
    for (version_and_command, family_and_type, rest) in [
        (0x20, 0x00, &b""[..]),
        (0x20, 0x11, b"what ever it is"),
        (0x21, 0x00, b"what ever it is"),
        (0x21, 0x12, &IPV4),
    ] {
        assert_eq!(
            addresses(&v2(version_and_command, family_and_type, rest)),
            ProxyAddresses::Peer,
            "{version_and_command:x} {family_and_type:x}"
        );
    }
}

#[test]
fn invalid_headers_of_version_2_say_what_is_wrong() {
    let with = |tlvs: &[u8]| v2(0x21, 0x11, &[&IPV4, tlvs].concat());
    for (bytes, reason) in [
        (v2(0x11, 0x11, &IPV4), InvalidHeader::Version),
        (v2(0x22, 0x11, &IPV4), InvalidHeader::Version),
        (v2(0x21, 0x41, &IPV4), InvalidHeader::Family),
        (v2(0x21, 0x13, &IPV4), InvalidHeader::Family),
        (v2(0x21, 0x11, &IPV4[..11]), InvalidHeader::Length),
        (v2(0x21, 0x31, &[0; 215]), InvalidHeader::Length),
        (with(&[4, 0]), InvalidHeader::Length),
        (with(&[4, 0, 1]), InvalidHeader::Length),
        (with(&[3, 0, 3, 1, 2, 3]), InvalidHeader::Length),
        (with(&[3, 0, 4, 1, 2, 3, 4]), InvalidHeader::Checksum),
        (with(&[&[5, 0, 129][..], &[1; 129]].concat()), InvalidHeader::Length),
        (v2(0x20, 0, &[0; HEADER_BYTES_MAX - 15]), InvalidHeader::TooLong),
    ] {
        assert_eq!(decode(&bytes), Decoded::Invalid(reason), "{}", bytes.escape_ascii());
    }
    let longest = v2(0x20, 0, &[0; HEADER_BYTES_MAX - 16]);
    assert_eq!(addresses(&longest), ProxyAddresses::Peer);
}

#[test]
fn known_tlvs_are_kept_and_others_are_skipped() {
    let tlvs = b"\x04\x00\x03\0\0\0\xe0\x00\x01x\x02\x00\x09a.example\x01\x00\x02h2\x05\x00\x02id\x20\x00\x05\x01\0\0\0\0\x30\x00\x02ns";
    let bytes = v2(0x21, 0x11, &[&IPV4[..], tlvs].concat());
    let Decoded::Header(header, _) = decode(&bytes) else {
        panic!("it is valid")
    };
    assert_eq!(header.authority.as_deref(), Some(&b"a.example"[..]));
    assert_eq!(header.alpn.as_deref(), Some(&b"h2"[..]));
    assert_eq!(header.unique_id.as_deref(), Some(&b"id"[..]));
    assert_eq!(header.ssl.as_deref(), Some(&b"\x01\0\0\0\0"[..]));
}

fn any_socket() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
}

proptest! {
    #[test]
    fn random_bytes_cause_no_panic_and_no_length_beyond_the_input(
        start in proptest::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", &SIGNATURE]),
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [start, &rest].concat();
        if let Decoded::Header(_, length) = decode(&bytes) {
            prop_assert!(length <= bytes.len() && length <= HEADER_BYTES_MAX);
        }
    }

    /// An encoded header is decoded, whatever follows it, and every shorter prefix is undecided. In version 2, which
    /// has a checksum, a changed byte after the length field is noticed, unless it is the type of the checksum.
    #[test]
    fn an_encoded_header_is_decoded_only_if_complete_and_undamaged(
        (client, local) in (any_socket(), any_socket()),
        is_v2: bool,
        follows in proptest::collection::vec(any::<u8>(), 0..20),
        flipped in any::<proptest::sample::Index>(),
    ) {
        let version = if is_v2 { Version::V2 } else { Version::V1 };
        let info = ClientInfo {
            client: ClientAddr::new(client),
            local: ListenAddr::new(local),
            authority: Some("a.example"),
            alpn: None,
            tls: None,
            forwarded: None,
        };
        let header = header(version, &info);
        let whole = [&header[..], &follows].concat();
        for cut in 0..header.len() {
            prop_assert_eq!(decode(&whole[..cut]), Decoded::NeedMore, "cut at {}", cut);
        }
        let Decoded::Header(decoded, length) = decode(&whole) else {
            return Err(TestCaseError::fail("it is valid"));
        };
        prop_assert_eq!(length, header.len());
        if client.is_ipv4() == local.is_ipv4() || is_v2 {
            prop_assert_eq!(&decoded.addresses, &ProxyAddresses::Tcp { client: info.client, local: info.local });
        } else {
            // Version 1 has no line with addresses of two families: `UNKNOWN` is sent.
            prop_assert_eq!(&decoded.addresses, &ProxyAddresses::Peer);
        }
        if is_v2 {
            let mut damaged = header;
            let at = FIXED_BYTES + flipped.index(damaged.len() - FIXED_BYTES);
            // The checksum is the last TLV, of 7 bytes. With another type it would not be verified.
            prop_assume!(at != damaged.len() - 7);
            damaged[at] ^= 1;
            prop_assert!(!matches!(decode(&damaged), Decoded::Header(..)), "byte {}", at);
        }
    }
}
