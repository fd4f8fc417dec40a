//! Reads the head of one HTTP/1.x request (RFC 9112), as far as a redirect needs it. Pure.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::name::ServerName;

/// The most header fields that a request may have.
const FIELDS_MAX: usize = 100;

/// The parts of a request that a redirect keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The host that the client asked for.
    pub host: Host,
    /// The path with the query: `/a?b=c`. Visible ASCII characters only.
    pub path: Box<str>,
}

/// The host of a request, without its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A host name.
    Name(ServerName),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
}

impl fmt::Display for Host {
    /// As in a URI: an IPv6 address has brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::V4(ip) => ip.fmt(f),
            Self::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}

/// Why a request cannot be redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// It is not an HTTP/1.x request.
    #[error("it is not an HTTP/1.x request")]
    NotHttp,
    /// It has more header fields than are read.
    #[error("it has more than {FIELDS_MAX} header fields")]
    TooManyFields,
    /// `Host` is missing, occurs more than once, or is invalid; or the host in the target is invalid.
    #[error("`Host` is missing or repeated, or a host is invalid")]
    Host,
    /// The target is neither a path nor an absolute URI of the scheme http, or not all of it is visible ASCII.
    #[error("its target is neither a path nor an `http` URI")]
    Target,
}

/// What a prefix of a client's bytes proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpVerdict {
    /// The head is complete.
    Head(RequestHead),
    /// The head has not ended.
    NeedMore,
    /// The request cannot be redirected.
    Invalid(InvalidRequest),
}

/// Finds the end of a head in a growing prefix. Its work is linear in the bytes, however they are cut.
#[derive(Debug, Default)]
pub struct HttpReader {
    /// Bytes of empty lines before the head.
    empty: usize,
    /// Bytes in which no head ends, those in `empty` included.
    scanned: usize,
    /// Whether the first line is complete and is a valid request line.
    has_request_line: bool,
}

impl HttpReader {
    /// Looks at all bytes so far: each call must also pass the bytes of the previous calls.
    pub fn advance(&mut self, bytes: &[u8]) -> HttpVerdict {
        self.empty += empty_lines(&bytes[self.empty..]);
        let head = &bytes[self.empty..];
        // Methods begin with a letter: TLS, and most other binary protocols, are recognized by the first byte. A lone
        // CR may be half of an empty line.
        if head.first().is_some_and(|first| !first.is_ascii_alphabetic()) && head != b"\r" {
            return HttpVerdict::Invalid(InvalidRequest::NotHttp);
        }
        let scanned_of_head = self.scanned.saturating_sub(self.empty);
        if !self.has_request_line
            && let Some(end) = head[scanned_of_head..].iter().position(|byte| *byte == b'\n')
        {
            let line = &head[..=scanned_of_head + end];
            if httparse::Request::new(&mut []).parse(line).is_err() {
                return HttpVerdict::Invalid(InvalidRequest::NotHttp);
            }
            self.has_request_line = true;
        }
        // The end of a head has up to 3 bytes, of which some may have come before.
        let from = self.scanned.saturating_sub(3).max(self.empty);
        let is_complete = bytes[from..].windows(2).any(|pair| pair == b"\n\n")
            || bytes[from..].windows(3).any(|three| three == b"\n\r\n");
        if !is_complete {
            self.scanned = bytes.len();
            return HttpVerdict::NeedMore;
        }
        match read_head(head) {
            Ok(head) => HttpVerdict::Head(head),
            Err(invalid) => HttpVerdict::Invalid(invalid),
        }
    }
}

/// The number of bytes in the empty lines that come first. Old clients send an empty line after the body of a request
/// (RFC 9112, section 2.2).
fn empty_lines(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(next) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
        rest = next;
    }
    bytes.len() - rest.len()
}

fn read_head(bytes: &[u8]) -> Result<RequestHead, InvalidRequest> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(InvalidRequest::TooManyFields),
        Ok(httparse::Status::Partial) | Err(_) => return Err(InvalidRequest::NotHttp),
    }
    let target = request.path.ok_or(InvalidRequest::NotHttp)?;
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(InvalidRequest::Target);
    }
    let mut hosts = request
        .headers
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("host"));
    // Exactly one valid `Host` is required, also where an absolute target replaces it (RFC 9112, section 3.2).
    let (Some(field), None) = (hosts.next(), hosts.next()) else {
        return Err(InvalidRequest::Host);
    };
    let host_of_field = host(std::str::from_utf8(field.value).unwrap_or_default()).ok_or(InvalidRequest::Host)?;
    let (host, path) = match absolute(target) {
        Some((authority, path)) => (host(authority).ok_or(InvalidRequest::Host)?, path),
        None if target.starts_with('/') => (host_of_field, target),
        None => return Err(InvalidRequest::Target),
    };
    let path = if path.starts_with('/') {
        path.into()
    } else {
        format!("/{path}").into()
    };
    Ok(RequestHead { host, path })
}

/// Authority and the rest of a target in absolute form (RFC 9112, section 3.2.2); `None`: it is no `http` URI.
fn absolute(target: &str) -> Option<(&str, &str)> {
    const SCHEME: &str = "http://";
    let (scheme, rest) = target.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some(rest.split_at(end))
}

/// The host of `host [":" port]` (RFC 3986, section 3.2). User information, which an authority may have, is invalid
/// here.
fn host(authority: &str) -> Option<Host> {
    let (host, port) = if let Some(literal) = authority.strip_prefix('[') {
        let (ip, port) = literal.split_once(']')?;
        (Host::V6(ip.parse().ok()?), port)
    } else {
        let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        let host = match name.parse() {
            Ok(ip) => Host::V4(ip),
            Err(_) => Host::Name(ServerName::from_wire(name.as_bytes()).ok()?),
        };
        (host, port)
    };
    let is_port = |text: &str| text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_valid = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    is_valid.then_some(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> HttpVerdict {
        HttpReader::default().advance(text.as_bytes())
    }

    fn host_and_path(text: &str) -> Result<String, InvalidRequest> {
        match read(text) {
            HttpVerdict::Head(head) => Ok(format!("{}{}", head.host, head.path)),
            HttpVerdict::Invalid(invalid) => Err(invalid),
            HttpVerdict::NeedMore => panic!("the head is complete: {text}"),
        }
    }

    #[test]
    fn host_and_path_are_kept() {
        for (request, kept) in [
            ("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "a.example/"),
            ("GET /x?y=%20#z HTTP/1.0\nhost:A.Example:80\n\n", "a.example/x?y=%20#z"),
            (
                "POST /x HTTP/1.1\r\nHost: 192.0.2.1:8080\r\nA: b\r\n\r\nbody",
                "192.0.2.1/x",
            ),
            ("GET / HTTP/1.1\r\nHost: [2001:DB8::1]:80\r\n\r\n", "[2001:db8::1]/"),
            (
                "GET http://b.example/p HTTP/1.1\r\nHost: a.example\r\n\r\n",
                "b.example/p",
            ),
            (
                "GET HTTP://b.example:81?q HTTP/1.1\r\nHost: a.example\r\n\r\n",
                "b.example/?q",
            ),
            (
                "GET //evil.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
                "a.example//evil.example/",
            ),
        ] {
            assert_eq!(host_and_path(request).as_deref(), Ok(kept), "{request}");
        }
    }

    #[test]
    fn an_invalid_request_is_not_redirected() {
        use InvalidRequest::{Host, NotHttp, Target, TooManyFields};
        for (request, reason) in [
            ("GET / HTTP/1.1\r\nA: b\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: b\u{fc}cher.example\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: a.example:80:90\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: a.example/x\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: user@a.example\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Host),
            ("GET http://b.example/ HTTP/1.1\r\nHost:\r\n\r\n", Host),
            ("GET http://b.example/ HTTP/1.1\r\nHost: b\u{fc}/..\r\n\r\n", Host),
            ("GET http:// HTTP/1.1\r\nHost: a.example\r\n\r\n", Host),
            ("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", Target),
            ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", Target),
            ("GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", Target),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NotHttp),
            ("GET /\r\n\r\n", NotHttp),
            ("\r\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n", NotHttp),
            ("\u{16}\u{3}\u{1}", NotHttp),
            // Requests that another parser may read differently.
            ("GET / HTTP/1.1\r\nHost : a.example\r\n\r\n", NotHttp),
            ("GET / HTTP/1.1\r\nHost: a.example\r\n .evil.example\r\n\r\n", NotHttp),
            ("GET / HTTP/1.1\r\nHost: a.example\rHost: b.example\r\n\r\n", NotHttp),
            ("GET / HTTP/1.1\r\n Host: a.example\r\n\r\n", NotHttp),
            ("GET / HTTP/1.1\r\nHost: a.example\u{0}\r\n\r\n", NotHttp),
            ("GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: a.example\r\nhOST: b.example\r\n\r\n", Host),
            ("GET /\tx HTTP/1.1\r\nHost: a.example\r\n\r\n", NotHttp),
        ] {
            assert_eq!(host_and_path(request), Err(reason), "{request}");
        }
        let many = format!(
            "GET / HTTP/1.1\r\nHost: a.example\r\n{}\r\n",
            "A: b\r\n".repeat(FIELDS_MAX)
        );
        assert_eq!(host_and_path(&many), Err(TooManyFields));
    }

    #[test]
    fn empty_lines_before_a_request_are_skipped_however_they_are_cut() {
        let text = b"\r\n\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
        let mut reader = HttpReader::default();
        for end in 0..text.len() {
            assert_eq!(reader.advance(&text[..end]), HttpVerdict::NeedMore, "{end}");
        }
        assert!(matches!(reader.advance(text), HttpVerdict::Head(_)));
        assert!(matches!(HttpReader::default().advance(text), HttpVerdict::Head(_)));
    }

    #[test]
    fn a_head_is_found_however_it_is_cut() {
        let text = b"GET /x HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n";
        let mut reader = HttpReader::default();
        for end in 0..text.len() {
            assert_eq!(reader.advance(&text[..end]), HttpVerdict::NeedMore, "{end}");
        }
        assert!(matches!(reader.advance(text), HttpVerdict::Head(_)));
    }

    proptest! {
        #[test]
        fn kept_hosts_and_paths_are_safe_in_a_header_field(
            host in prop_oneof!["[a-zA-Z0-9.-]{1,20}(:[0-9]{1,5})?", ".{0,40}"],
            target in prop_oneof!["/[ -~]{0,60}", "/.{0,60}", ".{0,60}"],
        ) {
            let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            if let HttpVerdict::Head(head) = read(&request) {
                let kept = format!("{}{}", head.host, head.path);
                prop_assert!(kept.bytes().all(|byte| byte.is_ascii_graphic()), "{kept:?}");
                prop_assert!(head.path.starts_with('/'));
                prop_assert!(!head.host.to_string().contains('/'));
            }
        }

        #[test]
        fn random_bytes_cause_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            let mut reader = HttpReader::default();
            let _ = reader.advance(&bytes[..cut.min(bytes.len())]);
            let _ = reader.advance(&bytes);
        }
    }
}
