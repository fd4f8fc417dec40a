//! The response of a listener that redirects HTTP requests to another listener, which serves https.

use std::sync::Arc;

use crate::name::{NamePattern, Sni};
use crate::sniff::http::{Host, RequestHead};

/// Where requests are redirected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The name of the listener.
    pub to: Arc<str>,
    /// The port in the response: `port` of the configuration, or else that of the listener's first TCP address. `None`
    /// only in a plan: that address has port 0, and the system chooses the port at the start. The state of the
    /// redirecting listener has the chosen port.
    pub port: Option<u16>,
    /// The status code.
    pub status: RedirectStatus,
    /// Only requests for these hosts are redirected; empty: all.
    pub hosts: Vec<NamePattern>,
}

/// The status code of a redirect (RFC 9110, section 15.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectStatus {
    /// 301: permanent; clients may change the method to GET.
    MovedPermanently,
    /// 302: temporary; clients may change the method to GET.
    Found,
    /// 307: temporary.
    Temporary,
    /// 308: permanent.
    Permanent,
}

impl RedirectStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::MovedPermanently, Self::Found, Self::Temporary, Self::Permanent];

    /// The number.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::MovedPermanently => 301,
            Self::Found => 302,
            Self::Temporary => 307,
            Self::Permanent => 308,
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::MovedPermanently => "Moved Permanently",
            Self::Found => "Found",
            Self::Temporary => "Temporary Redirect",
            Self::Permanent => "Permanent Redirect",
        }
    }
}

/// The response to a malformed request, and to one that is not redirected ([`Redirect::response`] is `None`).
pub const BAD_REQUEST: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The response to an HTTP request at a port that expects TLS. nginx answers with the same status.
pub const HTTPS_EXPECTED: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 24\r\n\
     Connection: close\r\n\r\nThis port is for https.\n";

/// The response to a head that has begun and does not end in time (RFC 9110, section 15.5.9).
pub const REQUEST_TIMEOUT: &str = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The response to a head that is too long, or has too many fields (RFC 6585, section 5).
pub const HEAD_TOO_LARGE: &str =
    "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

impl Redirect {
    /// The response to a request. `None`: the host of the request is not redirected.
    #[must_use]
    pub fn response(&self, head: &RequestHead) -> Option<String> {
        if !self.hosts.is_empty() && !self.hosts.iter().any(|pattern| matches_host(pattern, &head.host)) {
            return None;
        }
        let RequestHead { host, path } = head;
        let port = match self.port {
            None | Some(443) => String::new(),
            Some(port) => format!(":{port}"),
        };
        let (code, reason) = (self.status.code(), self.status.reason());
        Some(format!(
            "HTTP/1.1 {code} {reason}\r\nLocation: https://{host}{port}{path}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        ))
    }
}

/// The response to a request of an ACME server (RFC 8555, section 8.3).
#[must_use]
pub fn challenge_response(key_authorization: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n\
         {key_authorization}",
        key_authorization.len()
    )
}

/// Whether the pattern matches the host. No pattern matches an IP address.
fn matches_host(pattern: &NamePattern, host: &Host) -> bool {
    matches!(host, Host::Name(name) if pattern.rank(&Sni::Valid(name.clone())).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ServerName;

    fn redirect(port: u16, hosts: &[&str]) -> Redirect {
        Redirect {
            to: "https".into(),
            port: Some(port),
            status: RedirectStatus::Permanent,
            hosts: hosts
                .iter()
                .map(|host| NamePattern::from_config(host).unwrap())
                .collect(),
        }
    }

    fn head(host: Host) -> RequestHead {
        RequestHead {
            host,
            path: "/a?b=c".into(),
        }
    }

    fn named(name: &str) -> RequestHead {
        head(Host::Name(ServerName::from_config(name).unwrap()))
    }

    #[test]
    fn a_redirect_keeps_host_and_path_and_uses_the_port_of_the_listener() {
        let location = |port, head: &RequestHead| {
            let response = redirect(port, &[]).response(head).unwrap();
            assert!(response.starts_with("HTTP/1.1 308 Permanent Redirect\r\n") && response.ends_with("\r\n\r\n"));
            let line = response.lines().find_map(|line| line.strip_prefix("Location: "));
            line.unwrap().to_owned()
        };
        assert_eq!(location(443, &named("a.example")), "https://a.example/a?b=c");
        assert_eq!(location(8443, &named("a.example")), "https://a.example:8443/a?b=c");
        assert_eq!(
            location(8443, &head(Host::V6("::1".parse().unwrap()))),
            "https://[::1]:8443/a?b=c"
        );
    }

    #[test]
    fn only_configured_hosts_are_redirected() {
        let redirect = redirect(443, &["a.example", "*.b.example"]);
        for (host, is_redirected) in [
            ("a.example", true),
            ("x.b.example", true),
            ("b.example", false),
            ("evil.example", false),
        ] {
            assert_eq!(redirect.response(&named(host)).is_some(), is_redirected, "{host}");
        }
        assert_eq!(redirect.response(&head(Host::V4("192.0.2.1".parse().unwrap()))), None);
    }
}
