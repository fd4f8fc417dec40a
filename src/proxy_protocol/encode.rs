//! Encodes the header that servers get.

use std::net::{IpAddr, SocketAddr};

use super::decode::{ProxyAddresses, ProxyHeader};
use super::wire::{
    CRC32C, FIXED_BYTES, SIGNATURE, TCP_OVER_IPV4, TCP_OVER_IPV6, TYPE_ALPN, TYPE_AUTHORITY, TYPE_CRC32C, TYPE_SSL,
    TYPE_UNIQUE_ID, UNIX_BYTES, UNIX_STREAM, VERSION_2_PROXY,
};
use crate::addr::{ClientAddr, ListenAddr, UnixPath};
use crate::tls::TlsSummary;

const SSL_VERSION: u8 = 0x21;
const SSL_COMMON_NAME: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERTIFICATE_IN_CONNECTION: u8 = 0x02;
const CLIENT_CERTIFICATE_IN_SESSION: u8 = 0x04;

/// A version of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Version 1, text.
    V1,
    /// Version 2, binary.
    V2,
}

/// The contents of the header about the client's connection.
#[derive(Clone, Copy, Debug)]
pub struct ClientInfo<'a> {
    /// The client's address.
    pub client: ClientAddr,
    /// The address that the client connected to: ours, or the one in `forwarded`.
    pub local: ListenAddr,
    /// The server name that the client asked for (version 2 only).
    pub authority: Option<&'a str>,
    /// The ALPN protocol (version 2 only): the agreed one, if the client's TLS is terminated here; otherwise the first
    /// that the client offers, because the server has not selected one yet.
    pub alpn: Option<&'a [u8]>,
    /// The client's TLS, if it is terminated here (version 2 only).
    pub tls: Option<&'a TlsSummary>,
    /// The header of the peer in front. What it says of the client is passed on, unless `authority`, `alpn` or `tls`
    /// says it already (version 2 only).
    pub forwarded: Option<&'a ProxyHeader>,
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
/// `UNKNOWN` in version 1 (section 2.1 of the specification allows the line to end after this word).
#[must_use]
pub const fn local_header(version: Version) -> &'static [u8] {
    match version {
        Version::V1 => b"PROXY UNKNOWN\r\n",
        Version::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`
fn encode_v1(info: &ClientInfo<'_>) -> String {
    let (family, from, to) = match info.tcp_addresses() {
        Some((from @ SocketAddr::V4(_), to @ SocketAddr::V4(_))) => ("TCP4", from, to),
        Some((from @ SocketAddr::V6(_), to @ SocketAddr::V6(_))) => ("TCP6", from, to),
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

/// ```text
/// signature(12) | 0x21 | family | length(2) | from | to | from port(2) | to port(2) | { type | length(2) | value }*
/// ```
/// Unix sockets have no ports. The checksum (section 2.2.3) is over the whole header, with its own value set to zero.
fn encode_v2(info: &ClientInfo<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend(SIGNATURE);
    push_addresses(&mut bytes, info);
    let forwarded = info.forwarded;
    let forwarded_alpn = forwarded.and_then(|header| header.alpn.as_deref());
    let forwarded_authority = forwarded.and_then(|header| header.authority.as_deref());
    let forwarded_ssl = forwarded.and_then(|header| header.ssl.as_deref());
    let tls = info.tls.map(encode_tls);
    for (kind, value) in [
        (TYPE_ALPN, info.alpn.or(forwarded_alpn)),
        (
            TYPE_AUTHORITY,
            info.authority.map(str::as_bytes).or(forwarded_authority),
        ),
        (TYPE_UNIQUE_ID, forwarded.and_then(|header| header.unique_id.as_deref())),
        (TYPE_SSL, tls.as_deref().or(forwarded_ssl)),
    ] {
        if let Some(value) = value {
            push_value(&mut bytes, kind, value);
        }
    }
    push_value(&mut bytes, TYPE_CRC32C, &[0; 4]);
    // This fits into 16 bits: at most 216 bytes for addresses, 4,096 from a header that was read, 258 for ALPN, 256 for
    // the authority, about 350 for TLS, and 7 for the checksum.
    let length = (bytes.len() - FIXED_BYTES) as u16;
    bytes[FIXED_BYTES - 2..FIXED_BYTES].copy_from_slice(&length.to_be_bytes());
    let checksum = CRC32C.checksum(&bytes);
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Version, command, family, room for the length, and the addresses.
fn push_addresses(bytes: &mut Vec<u8>, info: &ClientInfo<'_>) {
    let Some((from, to)) = info.tcp_addresses() else {
        bytes.extend([VERSION_2_PROXY, UNIX_STREAM, 0, 0]);
        bytes.extend(info.unix_paths());
        return;
    };
    let (from, to) = same_family(from, to);
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
}

impl ClientInfo<'_> {
    /// Where the client connected from and to; `None`: it is on a Unix socket, ours or that of the peer in front.
    fn tcp_addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self.forwarded.map(|header| &header.addresses) {
            Some(ProxyAddresses::Unix(_)) => None,
            _ => self.client.socket().zip(self.local.socket()),
        }
    }

    /// The paths of both ends of a client's Unix socket. Those in the header of the peer in front are passed on. On a
    /// socket of ours, the path of the client's end is left empty: clients seldom bind their end to a path.
    fn unix_paths(&self) -> [u8; UNIX_BYTES] {
        if let Some(ProxyAddresses::Unix(paths)) = self.forwarded.map(|header| &header.addresses) {
            return **paths;
        }
        let mut paths = [0; UNIX_BYTES];
        let local = self.local.unix().map_or("", UnixPath::as_str);
        paths[UNIX_BYTES / 2..][..local.len()].copy_from_slice(local.as_bytes());
        paths
    }
}

/// The value of TYPE_SSL (section 2.2.6).
///
/// ```text
/// client(1) | verify(4) | { type | length(2) | value }*
/// ```
/// `verify` is zero if the client has shown a certificate: only certificates that pass verification are accepted.
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
    bytes.extend((value.len() as u16).to_be_bytes()); // less than 65,536: see `encode_v2`
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
    use crate::proxy_protocol::{Decoded, decode};
    use crate::tls::PeerCertificate;

    fn info<'a>(client: &str, local: &str) -> ClientInfo<'a> {
        ClientInfo {
            client: ClientAddr::new(client.parse().unwrap()),
            local: ListenAddr::new(local.parse().unwrap()),
            authority: None,
            alpn: None,
            tls: None,
            forwarded: None,
        }
    }

    #[test]
    fn version_2_describes_terminated_tls() {
        let mut tls = TlsSummary {
            version: "1.3",
            cipher: Some("TLS_AES_128_GCM_SHA256".into()),
            group: None,
            resumed: false,
            peer: Some(PeerCertificate {
                subject: "CN=joe".into(),
                common_name: Some("joe".into()),
                fingerprint: "00".into(),
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
    fn an_incoming_header_is_passed_on() {
        let forwarded = ProxyHeader {
            addresses: ProxyAddresses::Unix(Box::new([b'/'; 216])),
            authority: Some((*b"theirs.example").into()),
            alpn: None,
            unique_id: Some((*b"id").into()),
            ssl: Some((*b"\x01\0\0\0\0").into()),
        };
        let mut info = info("192.0.2.1:1", "198.51.100.1:2");
        info.forwarded = Some(&forwarded);
        assert_eq!(header(Version::V1, &info), b"PROXY UNKNOWN\r\n");
        let decoded = |info: &ClientInfo<'_>| match decode(&header(Version::V2, info)) {
            Decoded::Header(header, _) => *header,
            other => panic!("{other:?}"),
        };
        assert_eq!(decoded(&info), forwarded);
        info.authority = Some("ours.example");
        assert_eq!(decoded(&info).authority.as_deref(), Some(&b"ours.example"[..]));
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
