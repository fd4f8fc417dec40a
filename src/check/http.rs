//! The check `http`: the server answers a request with a certain status and, if configured, a certain body.
//!
//! Each connection carries one request, in HTTP/1.1 (RFC 9112). Redirects are not followed.

mod statuses;

use std::convert::Infallible;
use std::error::Error as _;
use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{join, split};

use super::bounded::Bounded;
use super::pattern::Pattern;
use super::stream::CheckStream;
use super::tls::{TlsCheck, TlsProbe, open, optional_settings};
use super::{Check, CheckFailure, CheckKind, CheckPass, CheckTarget, Probe, RunningCheck};
use crate::error::{chain, with_context};
use crate::pool::AgentSettings;
pub use statuses::{StatusList, StatusListError};

/// The kind.
pub static KIND: CheckKind = CheckKind {
    name: "http",
    health_keys: &[
        "method",
        "path",
        "host",
        "headers",
        "expect",
        "wrong_role",
        "wrong_role_body",
        "body",
        "tls",
        "sni",
        "verify",
        "ca_file",
    ],
    pool_keys: &[],
    service: None,
};

/// The longest head of a response, in bytes: as in HAProxy.
const HEAD_BYTES_MAX: usize = 1 << 14;

/// The most header fields of a response.
const FIELDS_MAX: usize = 100;

/// The part of a body that is searched, in bytes.
const BODY_BYTES_MAX: usize = 1 << 16;

/// The most bytes that are read for a response: its head, its body with the framing of chunks, and informational
/// responses (1xx) before it.
const RESPONSE_BYTES_MAX: u64 = 1 << 18;

/// The check `http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// The method; not CONNECT.
    pub method: Method,
    /// The path, with a query if there is one.
    pub path: Uri,
    /// `Host`; `None`: the host name of the server, or its address, and the port if it is not the usual one; for a Unix
    /// socket, `localhost`.
    pub host: Option<HeaderValue>,
    /// More header fields. They may contain secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The statuses that pass.
    pub expect: StatusList,
    /// The statuses of a server that works but has another role than its pool needs.
    pub wrong_role: StatusList,
    /// If a response has a status of `wrong_role`, this must be found in the first 64 KiB of its body: else the server
    /// does not work. `None`: the status is enough.
    pub wrong_role_body: Option<Pattern>,
    /// If a response has a status of `expect`, this must be found in the first 64 KiB of its body.
    pub body: Option<Pattern>,
    /// `None`: no TLS. [`TlsCheck::alpn`] is empty, because the probe sets it.
    pub tls: Option<TlsCheck>,
}

impl Check for HttpCheck {
    fn kind(&self) -> &'static CheckKind {
        &KIND
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let Self {
            method,
            path,
            host,
            headers,
            expect,
            wrong_role,
            wrong_role_body,
            body,
            tls,
        } = self;
        let regex = |pattern: &Option<Pattern>| format!("{:?}", pattern.as_ref().map(Pattern::as_str));
        let mut settings = vec![
            ("health.method", method.to_string()),
            ("health.path", path.to_string()),
            ("health.host", format!("{host:?}")),
            ("health.headers", format!("{headers:?}")),
            ("health.expect", format!("{expect:?}")),
            ("health.wrong_role", format!("{wrong_role:?}")),
            ("health.wrong_role_body", regex(wrong_role_body)),
            ("health.body", regex(body)),
        ];
        settings.extend(optional_settings(tls.as_ref()));
        settings
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.tls.iter().flat_map(TlsCheck::files).collect()
    }

    fn tells_wrong_role(&self) -> bool {
        !self.wrong_role.is_empty()
    }

    fn reads_certificate(&self) -> bool {
        self.tls.is_some()
    }

    fn probe(self: Arc<Self>, target: CheckTarget) -> Box<dyn Probe> {
        Box::new(HttpProbe::new(self, target))
    }
}

struct HttpProbe {
    check: Arc<HttpCheck>,
    host: HeaderValue,
    target: CheckTarget,
    tls: Option<TlsProbe>,
}

impl Probe for HttpProbe {
    fn run(&self) -> RunningCheck<'_> {
        Box::pin(async {
            let (stream, certificate) = open(&self.target, self.tls.as_ref()).await?;
            self.ask(stream).await?;
            Ok(CheckPass {
                certificate,
                ..CheckPass::default()
            })
        })
    }
}

impl HttpProbe {
    fn new(check: Arc<HttpCheck>, target: CheckTarget) -> Self {
        let tls = check.tls.clone().map(|tls| {
            // A server that prefers HTTP/2 must not select it.
            let alpn = vec!["http/1.1".into()];
            TlsProbe::new(Arc::new(TlsCheck { alpn, ..tls }), target.clone())
        });
        Self {
            host: check
                .host
                .clone()
                .unwrap_or_else(|| default_host(&target, tls.is_some())),
            check,
            target,
            tls,
        }
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = self.check.method.clone();
        *request.uri_mut() = self.check.path.clone();
        let fields = request.headers_mut();
        fields.insert(HOST, self.host.clone());
        fields.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("acequia/", env!("CARGO_PKG_VERSION"))),
        );
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
        for (name, value) in self.check.headers.iter().cloned() {
            fields.insert(name, value); // a `User-Agent` replaces ours
        }
        request
    }

    /// Sends the request, and judges the response.
    ///
    /// # Errors
    /// The server does not answer in HTTP, or its status or body is not the expected one.
    async fn ask(&self, stream: Box<dyn CheckStream>) -> Result<(), CheckFailure> {
        let (from, to) = split(stream);
        let stream = join(Bounded::new(from, RESPONSE_BYTES_MAX), to);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX).max_headers(FIELDS_MAX);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(http_error)?;
        let exchange = async {
            let response = sender.send_request(self.request()).await.map_err(http_error)?;
            self.judge(response).await
        };
        // Polled here and not spawned, so that the connection closes when the check ends or is dropped. If the
        // connection fails, the exchange fails with the same error.
        let transfer = async {
            let _ = connection.await;
            pending::<Infallible>().await
        };
        tokio::select! {
            judged = exchange => judged,
            never = transfer => match never {},
        }
    }

    async fn judge(&self, response: Response<Incoming>) -> Result<(), CheckFailure> {
        let status = response.status();
        if self.check.wrong_role.contains(status) {
            return Err(self.explain_role(response).await);
        }
        if !self.check.expect.contains(status) {
            return Err(io::Error::other(format!("the server answers {}", describe(status))).into());
        }
        match &self.check.body {
            Some(pattern) => Ok(search(pattern, response.into_body()).await?),
            None => Ok(()),
        }
    }

    /// The meaning of a response with the status of another role. Some services answer with such a status even if they
    /// do not work.
    async fn explain_role(&self, response: Response<Incoming>) -> CheckFailure {
        let answer = describe(response.status());
        let works = match &self.check.wrong_role_body {
            Some(pattern) => search(pattern, response.into_body()).await,
            None => Ok(()),
        };
        match works {
            Ok(()) => CheckFailure::unfit(format!(
                "the server answers {answer}: it has another role, or is behind"
            )),
            Err(error) => CheckFailure::Down {
                reason: format!("the server answers {answer}: {}", chain(&error)),
                agent: AgentSettings::default(),
            },
        }
    }
}

/// Searches the first [`BODY_BYTES_MAX`] of a body.
///
/// # Errors
/// The pattern is not found, or the body is incomplete.
async fn search(pattern: &Pattern, mut body: Incoming) -> io::Result<()> {
    let mut bytes = Vec::new();
    while bytes.len() < BODY_BYTES_MAX
        && let Some(frame) = body.frame().await
    {
        let Ok(data) = frame.map_err(http_error)?.into_data() else {
            continue; // trailers
        };
        bytes.extend_from_slice(&data[..data.len().min(BODY_BYTES_MAX - bytes.len())]);
    }
    let found = pattern.find_end(&bytes).await?;
    found.map(drop).ok_or_else(|| {
        let what = format!(
            "`{}` is not in the first {} bytes of the body",
            pattern.as_str(),
            bytes.len()
        );
        io::Error::other(what)
    })
}

/// The host of the server, as a client that knows its address would name it (RFC 9110, section 7.2); for a Unix socket,
/// `localhost`, as is usual in the URLs for `curl --unix-socket`.
fn default_host(target: &CheckTarget, is_tls: bool) -> HeaderValue {
    let usual = if is_tls { 443 } else { 80 };
    let port = target.address.port().filter(|port| *port != usual);
    let mut text = match (&target.host, target.address.ip()) {
        (Some(host), _) => host.to_string(),
        (None, Some(IpAddr::V6(ip))) => format!("[{ip}]"),
        (None, Some(IpAddr::V4(ip))) => ip.to_string(),
        (None, None) => "localhost".to_owned(),
    };
    text.extend(port.map(|port| format!(":{port}")));
    HeaderValue::from_str(&text).expect("host names and addresses are visible ASCII")
}

fn describe(status: StatusCode) -> String {
    let reason = status
        .canonical_reason()
        .map_or_else(String::new, |reason| format!(" {reason}"));
    format!("{}{reason}", status.as_u16())
}

fn http_error(error: hyper::Error) -> io::Error {
    let context = if error.is_parse_too_large() {
        "the head of the response is too long"
    } else if error.is_parse() {
        "the server does not speak HTTP"
    } else if is_incomplete(&error) {
        "the server closed the connection before it had answered"
    } else if error.is_canceled() {
        // The request was not sent: the server had sent bytes, or reading failed. A clean close: see `is_incomplete`.
        "the server sends or closes before it is asked: it does not speak HTTP"
    } else {
        return io::Error::other(error);
    };
    with_context(io::Error::other(error), context)
}

/// Whether the server closed the connection before the head of the response was complete. If that happens before the
/// request is sent, hyper reports a canceled request, with the close as its cause.
fn is_incomplete(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    error.is_incomplete_message() || cause.is_some_and(hyper::Error::is_incomplete_message)
}

#[cfg(test)]
mod tests;
