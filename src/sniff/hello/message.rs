//! Parses a ClientHello message.
//!
//! ```text
//! ClientHello, RFC 8446 section 4.1.2 (`n`: n bytes; `<n`: a vector with a length prefix of n bytes)
//!   legacy_version 2 | random 32 | session_id <1 | cipher_suites <2 | compression_methods <1 | extensions <2
//!                                                                        extensions may be absent before TLS 1.3
//! extension         type 2 | data <2
//!   0       server_name           list <2 of: type 1 (0: host_name) | name <2    RFC 6066 section 3
//!   16      ALPN                  list <2 of: protocol <1                        RFC 7301 section 3.1
//!   43      supported_versions    list <1 of: version 2                          RFC 8446 section 4.2.1
//!   0xfe0d  encrypted_client_hello                                               RFC 9849 section 5
//! ```
//!
//! tls-parser reads the fields before the extensions. The extensions are parsed here, because tls-parser ends its lists
//! without an error at the first entry it cannot read: an unusual extension would hide a server name after it, and the
//! route would not depend on the name that the server sees.

use std::collections::BTreeSet;

use tls_parser::{TlsClientHelloContents, TlsVersion, parse_tls_handshake_client_hello};

use super::alpn::ProtocolList;
use super::cursor::Cursor;
use super::{Alert, Malformed};
use crate::name::{ServerName, Sni};

/// How many bytes of an invalid name are kept for the log; escaping may lengthen them. A valid name has at most 254
/// bytes, its trailing dot included. So the log shows when a name is too long.
pub const RAW_NAME_BYTES_MAX: usize = 255;

/// The fields of a ClientHello that are used, for example for routes, for the access log, and to refuse a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The `host_name` (RFC 6066, section 3), valid or not; `None` if there is none, or if it is empty or an IP
    /// literal.
    pub name: Option<Sni>,
    /// The `host_name` if it is not a valid name (for example empty, or an IP literal): its first
    /// [`RAW_NAME_BYTES_MAX`] bytes, escaped to ASCII. For the access log and the lists of sessions only.
    pub raw_name: Option<Box<str>>,
    /// The ALPN protocols (RFC 7301).
    pub alpn: ProtocolList,
    /// Whether there is an encrypted_client_hello extension: if so, `name` may be only the public name of the provider.
    /// Clients that do not use ECH may send such an extension with random content (GREASE, RFC 9849 section 6.2).
    pub ech: bool,
    /// Whether `supported_versions` contains TLS 1.3 (0x0304).
    pub tls13_offered: bool,
    /// The newest version offered, as its number on the wire. If `supported_versions` lists any, it is the newest
    /// of them: `legacy_version` is then ignored (RFC 8446, section 4.2.1). Otherwise it is `legacy_version`.
    pub newest_version: u16,
}

impl Hello {
    /// The `host_name`, if it is a valid name.
    #[must_use]
    pub fn server_name(&self) -> Option<&ServerName> {
        self.name.as_ref().and_then(Sni::valid)
    }
}

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// NameType `host_name`: RFC 6066, section 3.
const HOST_NAME: u8 = 0;

/// Parses a complete ClientHello without its handshake header.
pub(super) fn read(body: &[u8]) -> Result<Hello, Malformed> {
    let fields = fields(body)?;
    let mut hello = Hello {
        name: None,
        raw_name: None,
        alpn: ProtocolList::default(),
        ech: false,
        tls13_offered: false,
        newest_version: fields.version.0,
    };
    let mut seen = SeenExtensions::default();
    let mut extensions = Cursor::new(fields.ext.unwrap_or_default());
    while !extensions.is_empty() {
        let (kind, data) = extension(&mut extensions).ok_or(Malformed::undecodable("an extension cut short"))?;
        if !seen.insert(kind) {
            // RFC 8446, section 4.2.
            return Err(Malformed::new(Alert::IllegalParameter, "an extension twice"));
        }
        match kind {
            SERVER_NAME => {
                if let Some(sent) = host_name(data)? {
                    hello.name = Sni::from_wire(sent);
                    hello.raw_name = hello.server_name().is_none().then(|| escape_for_log(sent));
                }
            }
            ALPN => hello.alpn = protocols(data).ok_or(Malformed::undecodable("a broken ALPN extension"))?,
            SUPPORTED_VERSIONS => {
                let versions = versions(data).ok_or(Malformed::undecodable("a broken supported_versions extension"))?;
                hello.tls13_offered = versions.contains(&TlsVersion::Tls13.0);
                hello.newest_version = versions.into_iter().max().unwrap_or(hello.newest_version);
            }
            ENCRYPTED_CLIENT_HELLO => hello.ech = true,
            _ => {}
        }
    }
    Ok(hello)
}

/// The fields before the extensions, and the bytes of the extensions.
fn fields(body: &[u8]) -> Result<TlsClientHelloContents<'_>, Malformed> {
    let Ok((rest, fields)) = parse_tls_handshake_client_hello(body) else {
        return Err(Malformed::undecodable("lengths that do not fit the ClientHello"));
    };
    // tls-parser treats truncated extensions as absent, and returns their bytes as the rest.
    if !rest.is_empty() {
        return Err(Malformed::undecodable(
            "extensions that do not end with the ClientHello",
        ));
    }
    // All versions require a cipher suite and a compression method (RFC 8446, section 4.1.2). tls-parser also accepts
    // empty lists.
    if fields.ciphers.is_empty() || fields.comp.is_empty() {
        return Err(Malformed::undecodable("no cipher suite or no compression method"));
    }
    Ok(fields)
}

fn extension<'a>(extensions: &mut Cursor<'a>) -> Option<(u16, Cursor<'a>)> {
    Some((extensions.u16()?, extensions.vector16()?))
}

/// The `host_name` in a server_name extension. The whole list must be well-formed, with at most one name of each type
/// (RFC 6066, section 3). Names of other types are checked too: all types have a length prefix of two bytes.
fn host_name(mut data: Cursor<'_>) -> Result<Option<&[u8]>, Malformed> {
    const BROKEN: Malformed = Malformed::undecodable("a broken server_name extension");
    let mut list = data.vector16().ok_or(BROKEN)?;
    let mut found = None;
    let mut seen = [false; 1 << 8];
    while !list.is_empty() {
        let kind = list.u8().ok_or(BROKEN)?;
        let name = list.vector16().ok_or(BROKEN)?;
        if std::mem::replace(&mut seen[usize::from(kind)], true) {
            return Err(Malformed::new(
                Alert::IllegalParameter,
                "two names of one type in server_name",
            ));
        }
        if kind == HOST_NAME {
            found = Some(name.rest());
        }
    }
    if data.is_empty() { Ok(found) } else { Err(BROKEN) }
}

fn protocols(mut data: Cursor<'_>) -> Option<ProtocolList> {
    let list = data.vector16()?;
    if !data.is_empty() {
        return None;
    }
    ProtocolList::from_wire(list.rest())
}

/// The versions offered, without GREASE values (RFC 8701), which have no meaning. At most 127, because the list has a
/// length prefix of one byte.
fn versions(mut data: Cursor<'_>) -> Option<Vec<u16>> {
    let mut list = data.vector8()?;
    let mut versions = Vec::new();
    while !list.is_empty() {
        versions.push(list.u16()?);
    }
    versions.retain(|version| version & 0x0f0f != 0x0a0a);
    data.is_empty().then_some(versions)
}

fn escape_for_log(sent: &[u8]) -> Box<str> {
    let kept = sent.len().min(RAW_NAME_BYTES_MAX);
    sent[..kept].escape_ascii().to_string().into()
}

/// The extension types seen so far. The types below 256, nearly all that IANA has assigned, have a bit each. Of the
/// others, browsers send a few, but a client may send thousands: so they are looked up in less than linear time.
#[derive(Default)]
struct SeenExtensions {
    low: [u64; 4],
    others: BTreeSet<u16>,
}

impl SeenExtensions {
    /// Adds a type. Returns whether it was not seen before.
    fn insert(&mut self, kind: u16) -> bool {
        let Some(word) = self.low.get_mut(usize::from(kind >> 6)) else {
            return self.others.insert(kind);
        };
        let bit = 1 << (kind & 63);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}
