//! Access control of `/api`.
//!
//! Over the Unix socket every client that can open it may do everything. Over TCP a browser is a threat, even on this
//! machine: any web page can cause the browser to send requests here. Therefore the host is checked (DNS rebinding),
//! cross-origin writes are rejected, and writes need a token. On an address that is not loopback, reads need it too.

use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::context::Admin;
use super::error::ApiError;
use crate::blocking::blocking;
use crate::plan::AdminPlan;
use crate::regular_file;
use crate::text::escape;

/// The largest token file, in bytes. A larger one was named by mistake.
const TOKEN_BYTES_MAX: u64 = 4096;

/// The path, without `/api/v1`, that returns the error of the last reload. Over TCP it always needs a token, because
/// the error quotes the configuration.
const RELOAD_ERROR_PATH: &str = "/reload";

/// The path of the streams of events. The origin of its requests is checked, although they change nothing: a page of
/// another origin could use up the streams that are allowed at a time.
const EVENTS_PATH: &str = "/events";

/// How often the token of an open stream is checked again.
const TOKEN_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The most characters of a path that are logged.
const PATH_CHARS_MAX: usize = 200;

/// The client that sent a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum ApiClient {
    /// Over TCP.
    Tcp {
        /// Its address.
        peer: SocketAddr,
        /// Whether the port is bound to a loopback address. If so, reads need no token, except at
        /// [`RELOAD_ERROR_PATH`]. The address of the peer does not count: a client from outside has a loopback address
        /// if it comes through a proxy on this machine.
        bound_to_loopback: bool,
    },
    /// Over the Unix socket, with its user ID where the kernel knows it.
    Unix(Option<u32>),
}

impl std::fmt::Display for ApiClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { peer, .. } => write!(f, "{}", peer.ip()),
            Self::Unix(Some(uid)) => write!(f, "uid {uid}"),
            Self::Unix(None) => write!(f, "the Unix socket"),
        }
    }
}

/// Middleware that rejects requests to `/api` from clients that may not send them. Logs the sender of a rejected
/// request, and of a failed request that was to change something; of many at once, only some.
pub(super) async fn authorize(
    State(admin): State<Arc<Admin>>,
    Extension(client): Extension<ApiClient>,
    mut request: Request,
    next: Next,
) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let (response, is_rejected) = match check_access(&admin, client, (&method, &uri), request.headers()).await {
        Ok(proof) => {
            request.extensions_mut().insert(proof);
            (next.run(request).await, false)
        }
        Err(error) => (error.into_response(), true),
    };
    let status = response.status();
    let has_failed = status.is_client_error() || status.is_server_error();
    if has_failed
        && (is_rejected || !method.is_safe())
        && let Some(suppressed) = admin.access.failure_lines.take_line(Instant::now())
    {
        let path: String = uri.path().chars().take(PATH_CHARS_MAX).collect();
        let path = format!("{}{}", super::API, escape(&path, &[]));
        let suppressed = (suppressed > 0).then_some(suppressed);
        tracing::warn!(%method, %path, status = status.as_u16(), by = %client, suppressed, "API request failed");
    }
    response
}

/// The token that a request needed and had; `None`: it needed none.
#[derive(Clone)]
pub(super) struct TokenProof(Option<Arc<[u8]>>);

impl TokenProof {
    /// Waits until a request with this token would be rejected; for ever if no token was needed. Looks every
    /// [`TOKEN_CHECK_INTERVAL`].
    pub(super) async fn until_invalid(&self, admin: &Admin) {
        let Some(given) = &self.0 else { return pending().await };
        loop {
            sleep(TOKEN_CHECK_INTERVAL).await;
            let plan = admin.live.plan();
            let Ok(file) = token_file(&plan.admin) else { return };
            let checked = check_token(given, file, &admin.access.is_token_unreadable).await;
            if checked.is_err() {
                return;
            }
        }
    }
}

/// Checks that the client may send the request. Returns the token that the request needed.
async fn check_access(
    admin: &Admin,
    client: ApiClient,
    (method, uri): (&Method, &Uri),
    headers: &HeaderMap,
) -> Result<TokenProof, ApiError> {
    if let ApiClient::Tcp { bound_to_loopback, .. } = client {
        let plan = admin.live.plan();
        let is_write = !method.is_safe();
        check_host(headers, &plan.admin)?;
        if is_write || uri.path() == EVENTS_PATH {
            check_origin(headers)?;
        }
        let is_confidential = uri.path() == RELOAD_ERROR_PATH;
        if is_write || !bound_to_loopback || is_confidential {
            let file = token_file(&plan.admin)?;
            let given = token_in(headers)?;
            check_token(given, file, &admin.access.is_token_unreadable).await?;
            return Ok(TokenProof(Some(given.into())));
        }
    }
    Ok(TokenProof(None))
}

/// Rejects an unknown name in `Host`: with DNS rebinding, an attacker's name resolves to this address.
fn check_host(headers: &HeaderMap, plan: &AdminPlan) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let only = hosts.next().filter(|_| hosts.next().is_none());
    let host = only
        .and_then(|host| host.to_str().ok())
        .filter(|host| !host.contains('@'));
    let authority = host.and_then(|host| host.parse::<Authority>().ok());
    let name = authority
        .as_ref()
        .map_or("", |authority| host_without_port(authority))
        .trim_end_matches('.');
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let is_ours = bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || plan.hosts.iter().any(|host| name.eq_ignore_ascii_case(host));
    if is_ours {
        return Ok(());
    }
    let message = "unknown host name: use the address, or add the name to `hosts` in [admin]";
    Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, message))
}

/// The host of an authority. It is empty if anything but a port follows the host: `Authority` also accepts other text
/// after the brackets of an IPv6 address.
fn host_without_port(authority: &Authority) -> &str {
    let (whole, host) = (authority.as_str(), authority.host());
    let is_valid = whole
        .strip_prefix(host)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
    if is_valid { host } else { "" }
}

/// Rejects requests that a browser sends for a page of another origin. Browsers set `Sec-Fetch-Site` (W3C Fetch
/// Metadata) and `Origin` (WHATWG Fetch, section 3.2). If one of these headers is repeated, every value is checked.
fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let texts = |name: &HeaderName| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or(""));
    let is_ours = |origin: &str| {
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_some() && host == texts(&header::HOST).next()
    };
    if texts(&SITE).all(|site| site == "same-origin" || site == "none") && texts(&header::ORIGIN).all(is_ours) {
        return Ok(());
    }
    let message = "pages of another origin may neither change anything nor read events";
    Err(ApiError::new(StatusCode::FORBIDDEN, message))
}

/// The token of a request.
fn token_in(headers: &HeaderMap) -> Result<&[u8], ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let only = values.next().filter(|_| values.next().is_none());
    let parts = only.and_then(|value| value.as_bytes().split_at_checked("Bearer ".len()));
    let bearer = parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    bearer.map(|(_, token)| token.trim_ascii()).ok_or_else(|| {
        let message = "a token is required: send `Authorization: Bearer` with the content of `token_file` in [admin]";
        ApiError::new(StatusCode::UNAUTHORIZED, message)
    })
}

/// The file with the token.
fn token_file(plan: &AdminPlan) -> Result<&Path, ApiError> {
    plan.token_file.as_deref().ok_or_else(|| {
        let message =
            "a token is required, but none is configured: set `token_file` in [admin], or use the Unix socket";
        ApiError::new(StatusCode::FORBIDDEN, message)
    })
}

/// Reads the token in a file, without white space around it.
///
/// # Errors
/// The file cannot be read, is too long, or contains no token.
pub fn token(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    regular_file::read_secret(file, TOKEN_BYTES_MAX, <[u8]>::trim_ascii)
}

/// Compares a token with the content of `token_file`. `is_unreadable` is kept between requests, so that a file that
/// cannot be read is logged once: clients must not be able to fill the log.
async fn check_token(given: &[u8], file: &Path, is_unreadable: &AtomicBool) -> Result<(), ApiError> {
    let path = file.to_owned();
    let expected = blocking(move || token(&path)).await;
    let was_unreadable = is_unreadable.swap(expected.is_err(), Relaxed);
    match &expected {
        Err(error) if !was_unreadable => {
            tracing::warn!(%error, "cannot read `token_file` of [admin]: requests over TCP that need a token are rejected");
        }
        Ok(_) if was_unreadable => tracing::info!("`token_file` of [admin] can be read again"),
        _ => {}
    }
    let unreadable = |_| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "cannot read `token_file` of [admin]");
    let expected = expected.map_err(unreadable)?;
    if expected.as_slice().ct_eq(given).into() {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "wrong token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_host_header_must_be_an_address_localhost_or_a_configured_name() {
        let plan = AdminPlan {
            hosts: vec!["lb.example".into()],
            ..AdminPlan::default()
        };
        for host in [
            "127.0.0.1:9090",
            "[::1]:9090",
            "10.0.0.1",
            "localhost",
            "LOCALHOST:1",
            "LB.example.:80",
        ] {
            assert!(check_host(&headers(&[("host", host)]), &plan).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "lb.example.evil",
            "",
            "localhost.evil",
            "x@localhost.",
            "127.0.0.1.evil",
            "[::1].evil",
            "[::1].evil:80",
        ] {
            assert!(check_host(&headers(&[("host", host)]), &plan).is_err(), "{host}");
        }
        assert!(check_host(&headers(&[]), &plan).is_err());
        let two = headers(&[("host", "127.0.0.1"), ("host", "127.0.0.1")]);
        assert!(check_host(&two, &plan).is_err(), "RFC 9112, section 3.2");
    }

    #[test]
    fn requests_of_other_origins_are_rejected() {
        let is_allowed = |extra: &[(&'static str, &'static str)]| {
            let mut all = vec![("host", "127.0.0.1:9090")];
            all.extend(extra);
            check_origin(&headers(&all)).is_ok()
        };
        assert!(is_allowed(&[]), "no browser");
        assert!(is_allowed(&[
            ("sec-fetch-site", "same-origin"),
            ("origin", "http://127.0.0.1:9090")
        ]));
        assert!(is_allowed(&[("sec-fetch-site", "none")]));
        assert!(!is_allowed(&[("sec-fetch-site", "cross-site")]));
        assert!(!is_allowed(&[("sec-fetch-site", "same-site")]));
        assert!(!is_allowed(&[("origin", "http://evil.example")]));
        assert!(!is_allowed(&[("origin", "null")]));
        assert!(is_allowed(&[
            ("sec-fetch-site", "none"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(!is_allowed(&[
            ("sec-fetch-site", "none"),
            ("sec-fetch-site", "cross-site")
        ]));
        assert!(!is_allowed(&[
            ("origin", "http://127.0.0.1:9090"),
            ("origin", "http://evil.example")
        ]));
    }
}
