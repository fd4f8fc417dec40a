//! Decodes a header that a peer in front sends. Sections are those of "The PROXY protocol, versions 1 & 2".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::wire::{
    CRC32C, FIXED_BYTES, IPV4_BYTES, IPV6_BYTES, SIGNATURE, TCP_OVER_IPV4, TCP_OVER_IPV6, TYPE_ALPN, TYPE_AUTHORITY,
    TYPE_CRC32C, TYPE_SSL, TYPE_UNIQUE_ID, UNIX_BYTES, UNIX_STREAM, VERSION_2_LOCAL, VERSION_2_PROXY,
};
use crate::addr::{ClientAddr, ListenAddr};

/// The longest header that is accepted, in bytes. Version 2 allows 65,551; headers in use stay below 1,000.
pub const HEADER_BYTES_MAX: usize = 4096;

/// The longest line of version 1 (section 2.1), its end included.
const LINE_BYTES_MAX: usize = 107;

/// The longest unique id (section 2.2.5).
const UNIQUE_ID_BYTES_MAX: usize = 128;

const LINE_START: &[u8] = b"PROXY ";

/// The contents of a header about the client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Where the connection comes from.
    pub addresses: ProxyAddresses,
    /// The server name that the client asked for, as it was sent (version 2).
    pub authority: Option<Box<[u8]>>,
    /// The protocol of the client's connection (version 2).
    pub alpn: Option<Box<[u8]>>,
    /// An id of the connection, at most 128 bytes (version 2).
    pub unique_id: Option<Box<[u8]>>,
    /// What the peer says of the client's TLS connection, as it was sent (version 2).
    pub ssl: Option<Box<[u8]>>,
}

/// Where a client's connection comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyAddresses {
    /// The header names no client, so that the peer counts as the client. The connection is the peer's own (`LOCAL`, a
    /// health check for example), or its addresses are not given (`UNKNOWN`, AF_UNSPEC) or not those of a stream.
    Peer,
    /// From a client over TCP.
    Tcp {
        /// The client's address.
        client: ClientAddr,
        /// The address that it connected to.
        local: ListenAddr,
    },
    /// From a Unix socket: both paths, as they were sent.
    Unix(Box<[u8; UNIX_BYTES]>),
}

/// Why a header is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// There is no header, where one is required.
    #[error("there is no PROXY header")]
    Missing,
    /// A header that is longer than [`HEADER_BYTES_MAX`], or a line of version 1 that is longer than 107 bytes.
    #[error("the PROXY header is too long")]
    TooLong,
    /// The line of version 1 does not have the form of section 2.1.
    #[error("the line of the PROXY header is malformed")]
    Line,
    /// It has a version or a command that does not exist.
    #[error("the version or the command of the PROXY header is unknown")]
    Version,
    /// It has an address family or a type of socket that does not exist.
    #[error("the address family or the type of socket of the PROXY header is unknown")]
    Family,
    /// A length in it does not fit its contents, or is not allowed for the type of its TLV.
    #[error("a length in the PROXY header is wrong")]
    Length,
    /// Its checksum does not match.
    #[error("the checksum of the PROXY header is wrong")]
    Checksum,
}

impl InvalidHeader {
    /// The word for the access log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "proxy_header_missing",
            Self::TooLong => "proxy_header_too_long",
            Self::Line => "proxy_header_line",
            Self::Version => "proxy_header_version",
            Self::Family => "proxy_header_family",
            Self::Length => "proxy_header_length",
            Self::Checksum => "proxy_header_checksum",
        }
    }
}

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// So far they may be the beginning of a header.
    NeedMore,
    /// No header.
    Absent,
    /// A header and its length in bytes. What follows is the client's.
    Header(Box<ProxyHeader>, usize),
    /// They begin like a header, but are not a valid one.
    Invalid(InvalidHeader),
}

/// Decodes a header. Its first bytes tell its version.
#[must_use]
pub fn decode(bytes: &[u8]) -> Decoded {
    // If there are fewer bytes than in `start`, the rest may still come.
    let may_begin_with = |start: &[u8]| {
        let length = bytes.len().min(start.len());
        bytes[..length] == start[..length]
    };
    if may_begin_with(&SIGNATURE) {
        return decode_v2(bytes);
    }
    if may_begin_with(LINE_START) {
        return decode_v1(bytes);
    }
    Decoded::Absent
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`
fn decode_v1(bytes: &[u8]) -> Decoded {
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return match bytes.len() {
            ..LINE_BYTES_MAX => Decoded::NeedMore,
            _ => Decoded::Invalid(InvalidHeader::TooLong),
        };
    };
    let words = line[..end]
        .strip_suffix(b"\r")
        .and_then(|line| line.strip_prefix(LINE_START))
        .and_then(|words| std::str::from_utf8(words).ok());
    match words.and_then(addresses_of_line) {
        Some(addresses) => Decoded::Header(Box::new(ProxyHeader::new(addresses)), end + 1),
        None => Decoded::Invalid(InvalidHeader::Line),
    }
}

fn addresses_of_line(words: &str) -> Option<ProxyAddresses> {
    // What follows `UNKNOWN` is to be ignored.
    if words == "UNKNOWN" || words.starts_with("UNKNOWN ") {
        return Some(ProxyAddresses::Peer);
    }
    let words: Vec<_> = words.split(' ').collect();
    let [family, from, to, from_port, to_port] = words.as_slice() else {
        return None;
    };
    let (from, to) = match *family {
        "TCP4" => (address::<Ipv4Addr>(from)?, address::<Ipv4Addr>(to)?),
        "TCP6" => (address::<Ipv6Addr>(from)?, address::<Ipv6Addr>(to)?),
        _ => return None,
    };
    Some(tcp((from, port(from_port)?), (to, port(to_port)?)))
}

fn address<A: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<A>().ok().map(Into::into)
}

/// A decimal number without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

/// An IPv4-mapped IPv6 address is replaced by the IPv4 address.
fn tcp(from: (IpAddr, u16), to: (IpAddr, u16)) -> ProxyAddresses {
    let socket = |(ip, port): (IpAddr, u16)| SocketAddr::new(ip.to_canonical(), port);
    ProxyAddresses::Tcp {
        client: ClientAddr::new(socket(from)),
        local: ListenAddr::new(socket(to)),
    }
}

/// ```text
/// signature(12) | version, command | family, socket type | length(2) | from | to | from port(2) | to port(2) | TLV*
/// TLV: type | length(2) | value
/// ```
fn decode_v2(bytes: &[u8]) -> Decoded {
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else {
        return Decoded::NeedMore;
    };
    let [.., version_and_command, family_and_type, length_high, length_low] = *fixed;
    let header_bytes = FIXED_BYTES + usize::from(u16::from_be_bytes([length_high, length_low]));
    if !matches!(version_and_command, VERSION_2_PROXY | VERSION_2_LOCAL) {
        return Decoded::Invalid(InvalidHeader::Version);
    }
    if header_bytes > HEADER_BYTES_MAX {
        return Decoded::Invalid(InvalidHeader::TooLong);
    }
    let Some(whole) = bytes.get(..header_bytes) else {
        return Decoded::NeedMore;
    };
    let header = match version_and_command {
        // With `LOCAL`, all that follows the length is to be ignored.
        VERSION_2_LOCAL => Ok(ProxyHeader::new(ProxyAddresses::Peer)),
        _ => decode_proxy(whole, family_and_type),
    };
    match header {
        Ok(header) => Decoded::Header(Box::new(header), header_bytes),
        Err(invalid) => Decoded::Invalid(invalid),
    }
}

/// Decodes a header with the command `PROXY`. The high half of `family_and_type` is the address family. The low half is
/// the type of the socket: unspecified, stream or datagram.
fn decode_proxy(whole: &[u8], family_and_type: u8) -> Result<ProxyHeader, InvalidHeader> {
    let address_bytes = match family_and_type >> 4 {
        // AF_UNSPEC: the addresses are to be ignored, and their length is not specified.
        0 => return unspecified(family_and_type),
        1 => IPV4_BYTES,
        2 => IPV6_BYTES,
        3 => UNIX_BYTES,
        _ => return Err(InvalidHeader::Family),
    };
    let rest = &whole[FIXED_BYTES..];
    let (addresses, values) = rest.split_at_checked(address_bytes).ok_or(InvalidHeader::Length)?;
    let mut header = ProxyHeader::new(match family_and_type {
        TCP_OVER_IPV4 => tcp_of::<4>(addresses),
        TCP_OVER_IPV6 => tcp_of::<16>(addresses),
        UNIX_STREAM => ProxyAddresses::Unix(Box::new(addresses.try_into().map_err(|_| InvalidHeader::Length)?)),
        // Datagrams and unspecified types are not supported: section 2.2 tells a receiver to treat them as AF_UNSPEC.
        _ if family_and_type & 0x0f <= 2 => ProxyAddresses::Peer,
        _ => return Err(InvalidHeader::Family),
    });
    header.read_values(whole, values)?;
    Ok(header)
}

/// The header for AF_UNSPEC.
fn unspecified(family_and_type: u8) -> Result<ProxyHeader, InvalidHeader> {
    match family_and_type & 0x0f {
        0..=2 => Ok(ProxyHeader::new(ProxyAddresses::Peer)),
        _ => Err(InvalidHeader::Family),
    }
}

/// Two addresses of `N` bytes and two ports.
fn tcp_of<const N: usize>(addresses: &[u8]) -> ProxyAddresses
where
    IpAddr: From<[u8; N]>,
{
    let ip = |at: usize| addresses[at..].first_chunk::<N>().map(|bytes| IpAddr::from(*bytes));
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    let [from, to] = [ip(0), ip(N)].map(|ip| ip.expect("the caller has measured the addresses"));
    tcp((from, port(2 * N)), (to, port(2 * N + 2)))
}

impl ProxyHeader {
    fn new(addresses: ProxyAddresses) -> Self {
        Self {
            addresses,
            authority: None,
            alpn: None,
            unique_id: None,
            ssl: None,
        }
    }

    /// Reads the TLVs after the addresses. Unknown types are skipped. If a type occurs more than once, the last value
    /// is kept.
    fn read_values(&mut self, whole: &[u8], mut values: &[u8]) -> Result<(), InvalidHeader> {
        while let Some((&kind, rest)) = values.split_first() {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or(InvalidHeader::Length)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (value, rest) = rest.split_at_checked(length).ok_or(InvalidHeader::Length)?;
            match kind {
                TYPE_CRC32C => {
                    let value_at = whole.len() - rest.len() - length;
                    verify(whole, value_at, value)?;
                }
                TYPE_UNIQUE_ID if length > UNIQUE_ID_BYTES_MAX => return Err(InvalidHeader::Length),
                TYPE_UNIQUE_ID => self.unique_id = Some(value.into()),
                TYPE_AUTHORITY => self.authority = Some(value.into()),
                TYPE_ALPN => self.alpn = Some(value.into()),
                TYPE_SSL => self.ssl = Some(value.into()),
                _ => {}
            }
            values = rest;
        }
        Ok(())
    }
}

/// Verifies the checksum (section 2.2.3). It is computed over the whole header, with the 4 bytes of its own value (from
/// index `at`) set to zero.
fn verify(whole: &[u8], at: usize, value: &[u8]) -> Result<(), InvalidHeader> {
    let sent = *value.first_chunk::<4>().ok_or(InvalidHeader::Length)?;
    if value.len() != sent.len() {
        return Err(InvalidHeader::Length);
    }
    let mut digest = CRC32C.digest();
    digest.update(&whole[..at]);
    digest.update(&[0; 4]);
    digest.update(&whole[at + 4..]);
    if digest.finalize() == u32::from_be_bytes(sent) {
        Ok(())
    } else {
        Err(InvalidHeader::Checksum)
    }
}

#[cfg(test)]
mod tests;
