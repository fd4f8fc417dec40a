//! Who may use `/api`.
//!
//! Over the Unix socket: whoever can open it. Over TCP a browser on this machine is the danger, which any page may send
//! here: hence the host is checked (DNS rebinding), writes from other sites are refused, and writes need a token.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;
use tokio::task::spawn_blocking;

use super::Admin;
use super::error::Refusal;
use crate::plan::AdminPlan;

/// Longer is no token, but a file named by mistake.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Visitor {
    /// By TCP.
    Tcp {
        /// From there.
        peer: SocketAddr,
        /// Whether the port is bound where only this machine reaches it. By which address this visitor came says
        /// nothing: a relay on this machine may stand in between.
        bound_to_loopback: bool,
    },
    /// By the Unix socket; as whom, where the kernel knows.
    Unix(Option<u32>),
}

impl std::fmt::Display for Visitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { peer, .. } => write!(f, "{}", peer.ip()),
            Self::Unix(Some(uid)) => write!(f, "uid {uid}"),
            Self::Unix(None) => write!(f, "the Unix socket"),
        }
    }
}

/// Lets a request to `/api` pass, or says why not.
pub(super) async fn admit(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if let Visitor::Tcp { bound_to_loopback, .. } = visitor {
        let plan = admin.live.plan();
        let writes = !request.method().is_safe();
        host_is_ours(request.headers(), &plan.admin)?;
        if writes {
            site_is_ours(request.headers())?;
        }
        if writes || !bound_to_loopback {
            has_token(request.headers(), &plan.admin).await?;
        }
    }
    Ok(next.run(request).await)
}

/// A name in `Host` that nobody here has set means that somebody else's name was made to point here.
fn host_is_ours(headers: &HeaderMap, plan: &AdminPlan) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let only = hosts.next().filter(|_| hosts.next().is_none());
    let host = only
        .and_then(|host| host.to_str().ok())
        .filter(|host| !host.contains('@'));
    let authority = host.and_then(|host| host.parse::<Authority>().ok());
    let name = authority
        .as_ref()
        .map_or("", |authority| name_in(authority))
        .trim_end_matches('.');
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let is_ours = bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || plan.hosts.iter().any(|host| name.eq_ignore_ascii_case(host));
    if is_ours {
        return Ok(());
    }
    let what = "this name is not known here: ask by address, or add it to `hosts` in [admin]";
    Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, what))
}

/// The name, if there is nothing beside it but a port: of what follows the brackets of an address nobody has to know.
fn name_in(authority: &Authority) -> &str {
    let (whole, name) = (authority.as_str(), authority.host());
    let is_all = whole
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
    if is_all { name } else { "" }
}

/// Browsers say on whose behalf they ask: the `Sec-Fetch-Site` of Fetch Metadata, the `Origin` of Fetch. Where there is
/// more than one of these headers, all of them must be ours.
fn site_is_ours(headers: &HeaderMap) -> Result<(), Refusal> {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let texts = |name: &HeaderName| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or(""));
    let is_ours = |origin: &str| {
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_some() && host == texts(&header::HOST).next()
    };
    if texts(&SITE).all(|site| site == "same-origin" || site == "none") && texts(&header::ORIGIN).all(is_ours) {
        return Ok(());
    }
    let what = "pages of other sites may not write here";
    Err(Refusal::new(StatusCode::FORBIDDEN, what))
}

async fn has_token(headers: &HeaderMap, plan: &AdminPlan) -> Result<(), Refusal> {
    let Some(path) = plan.token_file.clone() else {
        let what = "this needs a token, and there is none: set `token_file` in [admin], or use the Unix socket";
        return Err(Refusal::new(StatusCode::FORBIDDEN, what));
    };
    let mut all_given = headers.get_all(header::AUTHORIZATION).iter();
    let only = all_given.next().filter(|_| all_given.next().is_none());
    let given = only.map(|value| value.as_bytes());
    let given = given.and_then(|value| value.split_at_checked("Bearer ".len()));
    let Some((_, given)) = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer ")) else {
        let what = "this needs a token: send `Authorization: Bearer` with what is in `token_file` of [admin]";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, what));
    };
    let wanted = spawn_blocking(|| read_token(path)).await;
    let wanted = wanted.unwrap_or_else(|lost| Err(std::io::Error::other(lost)));
    let wanted = wanted.map_err(|error| {
        tracing::warn!(%error, "cannot read `token_file` of [admin]: writes over TCP are refused");
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "`token_file` of [admin] cannot be read",
        )
    })?;
    if wanted.ct_eq(given.trim_ascii()).into() {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::UNAUTHORIZED, "this is not the token"))
}

/// The token, without what is blank around it.
fn read_token(path: PathBuf) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(TOKEN_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    let token = bytes.trim_ascii().to_vec();
    if token.is_empty() || bytes.len() as u64 > TOKEN_BYTES_MAX {
        return Err(std::io::Error::other("it has no token, or is too long for one"));
    }
    Ok(token)
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
    fn hosts() {
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
            assert!(host_is_ours(&headers(&[("host", host)]), &plan).is_ok(), "{host}");
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
            assert!(host_is_ours(&headers(&[("host", host)]), &plan).is_err(), "{host}");
        }
        assert!(host_is_ours(&headers(&[]), &plan).is_err());
        let two = headers(&[("host", "127.0.0.1"), ("host", "127.0.0.1")]);
        assert!(host_is_ours(&two, &plan).is_err(), "RFC 9112, section 3.2");
    }

    #[test]
    fn sites() {
        let of = |extra: &[(&'static str, &'static str)]| {
            let mut all = vec![("host", "127.0.0.1:9090")];
            all.extend(extra);
            site_is_ours(&headers(&all)).is_ok()
        };
        assert!(of(&[]), "no browser");
        assert!(of(&[
            ("sec-fetch-site", "same-origin"),
            ("origin", "http://127.0.0.1:9090")
        ]));
        assert!(of(&[("sec-fetch-site", "none")]));
        assert!(!of(&[("sec-fetch-site", "cross-site")]));
        assert!(!of(&[("sec-fetch-site", "same-site")]));
        assert!(!of(&[("origin", "http://evil.example")]));
        assert!(!of(&[("origin", "null")]));
        assert!(of(&[("sec-fetch-site", "none"), ("sec-fetch-site", "same-origin")]));
        assert!(!of(&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")]));
        assert!(!of(&[
            ("origin", "http://127.0.0.1:9090"),
            ("origin", "http://evil.example")
        ]));
    }

    #[test]
    fn tokens_have_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let file = |bytes: &[u8]| {
            let path = folder.path().join("token");
            std::fs::write(&path, bytes).unwrap();
            read_token(path)
        };
        assert_eq!(file(b"abc\n").unwrap(), b"abc");
        assert!(file(b"\n").is_err());
        assert!(file(&[b'a'; 5000]).is_err());
    }
}
