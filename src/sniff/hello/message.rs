//! The ClientHello message itself.
//!
//! ```text
//! ClientHello, RFC 8446 section 4.1.2 (`<n` a length of n bytes, then so much)
//!   legacy_version 2 | random 32 | session_id <1 | cipher_suites <2 | compression_methods <1 | extensions <2
//!                                                                        or the end, before TLS 1.2
//! extension         type 2 | data <2
//!   0       server_name           list <2 of: type 1 (0: host_name) | name <2    RFC 6066 section 3
//!   16      ALPN                  list <2 of: protocol <1                        RFC 7301 section 3.1
//!   43      supported_versions    list <1 of: version 2                          RFC 8446 section 4.2.1
//!   0xfe0d  encrypted_client_hello                                               RFC 9849 section 5
//! ```
//!
//! tls-parser reads what stands before the extensions. The extensions are walked here, because tls-parser's lists end
//! in silence at the first entry they cannot read: an odd extension would hide the server name behind it, and
//! whoever decides by the hello must not see another one than the server does.

use tls_parser::{TlsClientHelloContents, TlsVersion, parse_tls_handshake_client_hello};

use super::alpn::ProtocolList;
use super::cursor::Cursor;
use super::{Alert, Malformed};
use crate::name::{ServerName, Sni};

/// Bytes of a name that is none which are kept for the log, before they are escaped: the longest valid name with its
/// trailing dot, and one more.
pub const RAW_NAME_BYTES_MAX: usize = 255;

/// What a ClientHello says, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The `host_name` (RFC 6066, section 3), valid or not; `None` if there is none, or in its place an IP literal or
    /// nothing.
    pub name: Option<Sni>,
    /// What was sent as `host_name` if that is not a valid name (empty, an IP literal, odd bytes): escaped ASCII, of
    /// at most the first [`RAW_NAME_BYTES_MAX`] bytes. For the log alone.
    pub raw_name: Option<Box<str>>,
    /// Protocols offered (RFC 7301).
    pub alpn: ProtocolList,
    /// The outer encrypted_client_hello extension is there: `name` may be the public name of another. Clients that
    /// do not use ECH send one of noise (GREASE, RFC 9849 section 6.2), which is meant to look alike.
    pub ech: bool,
    /// `supported_versions` has 0x0304.
    pub tls13_offered: bool,
    /// The newest version offered, as on the wire: of `supported_versions` if that names any (RFC 8446, section
    /// 4.2.1: then nothing else counts), else `legacy_version`.
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

/// Reads a whole ClientHello, without the handshake header.
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
        if !seen.first(kind) {
            // RFC 8446, section 4.2.
            return Err(Malformed::new(Alert::IllegalParameter, "an extension twice"));
        }
        match kind {
            SERVER_NAME => {
                if let Some(sent) = host_name(data)? {
                    hello.name = Sni::from_wire(sent);
                    hello.raw_name = hello.server_name().is_none().then(|| for_the_log(sent));
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

/// What stands before the extensions, and their bytes.
fn fields(body: &[u8]) -> Result<TlsClientHelloContents<'_>, Malformed> {
    let Ok((rest, fields)) = parse_tls_handshake_client_hello(body) else {
        return Err(Malformed::undecodable("lengths that do not fit the ClientHello"));
    };
    // tls-parser takes extensions that are cut short for none at all, and leaves them here with whatever else.
    if !rest.is_empty() {
        return Err(Malformed::undecodable(
            "extensions that do not end with the ClientHello",
        ));
    }
    // RFC 8446, section 4.1.2, and all before it: at least one of each. tls-parser takes none.
    if fields.ciphers.is_empty() || fields.comp.is_empty() {
        return Err(Malformed::undecodable("no cipher suite or no compression method"));
    }
    Ok(fields)
}

fn extension<'a>(extensions: &mut Cursor<'a>) -> Option<(u16, Cursor<'a>)> {
    Some((extensions.u16()?, extensions.vector16()?))
}

/// The `host_name` in a server_name extension. All of the list must be well-formed, names of other types too.
///
/// RFC 6066, section 3: at most one name of a type. That holds for types that are not known here as well, for they
/// begin with a length in two bytes, all of them.
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

/// The versions offered, at most 127 by the list's one byte of length, but for those of GREASE (RFC 8701), which
/// stand for nothing.
fn versions(mut data: Cursor<'_>) -> Option<Vec<u16>> {
    let mut list = data.vector8()?;
    let mut versions = Vec::new();
    while !list.is_empty() {
        versions.push(list.u16()?);
    }
    versions.retain(|version| version & 0x0f0f != 0x0a0a);
    data.is_empty().then_some(versions)
}

fn for_the_log(sent: &[u8]) -> Box<str> {
    let kept = sent.len().min(RAW_NAME_BYTES_MAX);
    sent[..kept].escape_ascii().to_string().into()
}

/// The extension types that have been there: a bit each, so that many extensions cost no more than linear time.
struct SeenExtensions([u64; 1 << 10]);

impl Default for SeenExtensions {
    fn default() -> Self {
        Self([0; 1 << 10])
    }
}

impl SeenExtensions {
    /// Whether this type is there for the first time.
    fn first(&mut self, kind: u16) -> bool {
        let word = &mut self.0[usize::from(kind >> 6)];
        let bit = 1 << (kind & 63);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }
}
