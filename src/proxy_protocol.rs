//! The PROXY protocol header, which names the client of a connection: a codec without IO.
//!
//! Source: "The PROXY protocol, versions 1 & 2", sections 2.1 (text) and 2.2 (binary).

use std::net::{IpAddr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc};

use crate::addr::{ClientAddr, ListenAddr};
use crate::tls::TlsSummary;

/// A version of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Version 1, text.
    V1,
    /// Version 2, binary.
    V2,
}

/// What the header says about the client's connection.
#[derive(Clone, Copy, Debug)]
pub struct ClientInfo<'a> {
    /// The client's address.
    pub client: ClientAddr,
    /// The local address that the client connected to.
    pub local: ListenAddr,
    /// The server name that the client asked for (version 2 only).
    pub authority: Option<&'a str>,
    /// The ALPN protocol (version 2 only): what was agreed, if the client's TLS ends here; else what the client offers first,
    /// because it is not known yet which one the server will select.
    pub alpn: Option<&'a [u8]>,
    /// The client's TLS, if it ends here (version 2 only).
    pub tls: Option<&'a TlsSummary>,
}

/// Encodes the header.
#[must_use]
pub fn header(version: Version, info: &ClientInfo<'_>) -> Vec<u8> {
    match version {
        Version::V1 => encode_v1(info).into_bytes(),
        Version::V2 => encode_v2(info),
    }
}

/// The header of a connection that acequia makes for itself, such as a health check: `LOCAL` in version 2,
/// `UNKNOWN` in version 1 (section 2.1 allows the line to end after it).
#[must_use]
pub const fn local_header(version: Version) -> &'static [u8] {
    match version {
        Version::V1 => b"PROXY UNKNOWN\r\n",
        Version::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`
fn encode_v1(info: &ClientInfo<'_>) -> String {
    let (from, to) = (info.client.socket(), info.local.socket());
    let family = match (from, to) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        _ => return "PROXY UNKNOWN\r\n".to_owned(),
    };
    format!(
        "PROXY {family} {} {} {} {}\r\n",
        from.ip(),
        to.ip(),
        from.port(),
        to.port()
    )
}

/// The first 12 bytes of version 2, chosen so that no other protocol begins with them.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const TYPE_ALPN: u8 = 0x01;
const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_CRC32C: u8 = 0x03;
const TYPE_SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_COMMON_NAME: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERTIFICATE_IN_CONNECTION: u8 = 0x02;
const CLIENT_CERTIFICATE_IN_SESSION: u8 = 0x04;

static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// ```text
/// signature(12) | 0x21 | family | length(2) | from | to | from port(2) | to port(2) | { type | length(2) | value }*
/// ```
/// The checksum (section 2.2.3) is over the whole header, with its own value set to zero.
fn encode_v2(info: &ClientInfo<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend(SIGNATURE);
    let (from, to) = same_family(info.client.socket(), info.local.socket());
    bytes.extend([
        VERSION_2_PROXY,
        if from.is_ipv4() { TCP_OVER_IPV4 } else { TCP_OVER_IPV6 },
        0,
        0,
    ]);
    for address in [from.ip(), to.ip()] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    if let Some(alpn) = info.alpn {
        push_value(&mut bytes, TYPE_ALPN, alpn);
    }
    if let Some(authority) = info.authority {
        push_value(&mut bytes, TYPE_AUTHORITY, authority.as_bytes());
    }
    if let Some(tls) = info.tls {
        push_value(&mut bytes, TYPE_SSL, &encode_tls(tls));
    }
    push_value(&mut bytes, TYPE_CRC32C, &[0; 4]);
    // At most 36 of addresses, 258 of ALPN, 256 of authority, some 350 of TLS, 7 of checksum.
    let length = (bytes.len() - 16) as u16;
    bytes[14..16].copy_from_slice(&length.to_be_bytes());
    let checksum = CRC32C.checksum(&bytes);
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// The value of TYPE_SSL (section 2.2.6).
/// ```text
/// client(1) | verify(4) | { type | length(2) | value }*
/// ```
/// `verify` is zero if the client has shown a certificate, which was verified: no other is accepted.
fn encode_tls(tls: &TlsSummary) -> Vec<u8> {
    let has_certificate = tls.peer.is_some();
    let client = match (has_certificate, tls.resumed) {
        (false, _) => CLIENT_SSL,
        (true, false) => CLIENT_SSL | CLIENT_CERTIFICATE_IN_CONNECTION | CLIENT_CERTIFICATE_IN_SESSION,
        (true, true) => CLIENT_SSL | CLIENT_CERTIFICATE_IN_SESSION,
    };
    let mut bytes = vec![client];
    bytes.extend(u32::from(!has_certificate).to_be_bytes());
    push_value(&mut bytes, SSL_VERSION, format!("TLSv{}", tls.version).as_bytes());
    if let Some(name) = tls.peer.as_ref().and_then(|peer| peer.common_name.as_ref()) {
        push_value(&mut bytes, SSL_COMMON_NAME, name.as_bytes());
    }
    if let Some(cipher) = &tls.cipher {
        push_value(&mut bytes, SSL_CIPHER, cipher.as_bytes());
    }
    bytes
}

fn push_value(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    bytes.push(kind);
    bytes.extend((value.len() as u16).to_be_bytes()); // names have at most 253 bytes, protocols 255, subjects 258
    bytes.extend(value);
}

/// Both addresses in one family: if only one is IPv4 it is mapped to IPv6 (RFC 4291, section 2.5.5.2).
fn same_family(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    if a.is_ipv4() == b.is_ipv4() {
        return (a, b);
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (mapped(a), mapped(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::PeerCertificate;

    fn info<'a>(client: &str, local: &str) -> ClientInfo<'a> {
        ClientInfo {
            client: ClientAddr::new(client.parse().unwrap()),
            local: ListenAddr::new(local.parse().unwrap()),
            authority: None,
            alpn: None,
            tls: None,
        }
    }

    #[test]
    fn version_1_is_encoded_as_text() {
        let v4 = info("192.0.2.1:56324", "198.51.100.1:443");
        assert_eq!(
            header(Version::V1, &v4),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"
        );
        let v6 = info("[2001:db8::1]:1", "[2001:db8::2]:2");
        assert_eq!(header(Version::V1, &v6), b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
        let longest = info(
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
        );
        assert!(header(Version::V1, &longest).len() <= 107, "section 2.1");
    }

    #[test]
    fn version_2_is_encoded_byte_for_byte() {
        let mut info = info("192.0.2.1:56324", "198.51.100.1:443");
        info.authority = Some("a.example");
        info.alpn = Some(b"h2");
        let bytes = header(Version::V2, &info);
        let (start, rest) = bytes.split_at(16);
        assert_eq!(start, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x24");
        let (addresses, values) = rest.split_at(12);
        assert_eq!(addresses, [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb]);
        assert_eq!(&values[..17], b"\x01\x00\x02h2\x02\x00\x09a.example");
        assert_eq!(&values[17..20], [3, 0, 4]);
        let mut zeroed = bytes.clone();
        let at = zeroed.len() - 4;
        zeroed[at..].fill(0);
        assert_eq!(bytes[at..], crc32c_bitwise(&zeroed).to_be_bytes());
    }

    #[test]
    fn version_2_tells_the_tls_that_ends_here() {
        let mut tls = TlsSummary {
            version: "1.3",
            cipher: Some("TLS_AES_128_GCM_SHA256".into()),
            group: None,
            resumed: false,
            peer: Some(PeerCertificate {
                subject: "CN=joe".into(),
                common_name: Some("joe".into()),
                fingerprint: "00".into(),
                not_after: 0,
            }),
        };
        let expected = b"\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x03joe\x23\0\x16TLS_AES_128_GCM_SHA256";
        assert_eq!(encode_tls(&tls), expected);
        let (v4, value) = (
            info("192.0.2.1:1", "198.51.100.1:443"),
            [b"\x20\0\x2e", &expected[..]].concat(),
        );
        let bytes = header(Version::V2, &ClientInfo { tls: Some(&tls), ..v4 });
        assert!(bytes.windows(value.len()).any(|window| window == value));
        tls.resumed = true;
        assert_eq!(encode_tls(&tls)[..5], [5, 0, 0, 0, 0]);
        tls.peer = None;
        assert_eq!(encode_tls(&tls)[..5], [1, 0, 0, 0, 1]);
    }

    #[test]
    fn the_header_of_our_own_connections_is_local() {
        assert_eq!(local_header(Version::V1), b"PROXY UNKNOWN\r\n");
        let (signature, rest) = local_header(Version::V2).split_at(12);
        assert_eq!(signature, SIGNATURE);
        assert_eq!(rest, [0x20, 0, 0, 0], "version 2, LOCAL, no family, nothing after it");
    }

    #[test]
    fn an_ipv4_address_is_mapped_when_the_other_one_is_ipv6() {
        let bytes = header(Version::V2, &info("192.0.2.1:1", "[2001:db8::2]:2"));
        assert_eq!(bytes[13], TCP_OVER_IPV6);
        assert_eq!(bytes[16..32], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
    }

    /// CRC32c (RFC 3720, appendix B.4), a bit at a time.
    fn crc32c_bitwise(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
            })
        })
    }
}
