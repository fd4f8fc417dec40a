//! The HTTP client of ACME.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::http_client::{connect, exchange, take_url};
use crate::units::format_duration;

/// How long one request may take, with its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest body of a response, in bytes. A chain of certificates has a few thousand.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The wait between two requests for renewal information, if the server says nothing about it.
const POLL_INTERVAL_DEFAULT: Duration = Duration::from_secs(6 * 3600);

/// The longest wait that `Retry-After` can cause; a longer one is shortened to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// The error of a request that was not sent, or got no usable answer: none in time, one that is too long, or one that
/// does not come from an ACME server.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct NoAnswer(pub(super) Box<dyn StdError + Send + Sync>);

/// Sends requests over https only, each over a connection of its own. Remembers when the server wants to be asked
/// again.
#[derive(Clone)]
pub(super) struct AcmeHttp {
    tls: Arc<ClientConfig>,
    retry_at: Arc<Mutex<Option<SystemTime>>>,
}

impl AcmeHttp {
    pub(super) fn new(tls: Arc<ClientConfig>) -> Self {
        Self {
            tls,
            retry_at: Arc::default(),
        }
    }

    /// The time in `Retry-After` of the latest response that was an error.
    pub(super) fn retry_at(&self) -> Option<SystemTime> {
        *self.retry_at.lock()
    }

    async fn send(
        self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<BytesResponse, Box<dyn StdError + Send + Sync>> {
        let (head, body) = request.into_parts();
        let is_get = head.method == Method::GET;
        let body = body.collect().await?.to_bytes();
        let mut request = Request::from_parts(head, Full::new(body));
        let url = take_url(&mut request)?;
        if url.scheme_str() != Some("https") {
            return Err(format!("the server names a URL that is not https: {url}").into());
        }
        let stream = connect(&url, Some(self.tls)).await?;
        let mut response = exchange(stream, request, BODY_BYTES_MAX).await?;
        let now = SystemTime::now();
        let header = response.headers_mut().remove(RETRY_AFTER);
        let retry_at = header.and_then(|value| retry_time(&value, now));
        // `instant_acme` reads this header, too. It panics at a time that `SystemTime` cannot hold, so it gets the
        // bounded time. It refuses renewal information without the header; a client should use a default instead (RFC
        // 9773, section 4.3.3). So each response to a GET, the method for renewal information, gets the header.
        let header_time = retry_at.or_else(|| is_get.then(|| now + POLL_INTERVAL_DEFAULT));
        if let Some(header_time) = header_time {
            let seconds = header_time.duration_since(now).unwrap_or_default().as_secs();
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        let status = response.status();
        if !status.is_success() {
            *self.retry_at.lock() = retry_at;
            let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            if !kind.is_some_and(|kind| kind.contains("json")) {
                // No problem document (RFC 8555, section 6.7): something in front of the server may have answered.
                return Err(format!("{url} answers with status {status}").into());
            }
        }
        let (head, body) = response.into_parts();
        Ok(BytesResponse::from(Response::from_parts(head, Full::new(body))))
    }
}

/// The time in `Retry-After`, which has seconds or a date (RFC 9110, section 10.2.3); at most [`RETRY_AFTER_MAX`] from
/// `now`.
fn retry_time(value: &HeaderValue, now: SystemTime) -> Option<SystemTime> {
    let text = value.to_str().ok()?.trim();
    let latest = now + RETRY_AFTER_MAX;
    match text.parse() {
        Ok(seconds) => Some(now + Duration::from_secs(seconds).min(RETRY_AFTER_MAX)),
        Err(_) => httpdate::parse_http_date(text).ok().map(|date| date.min(latest)),
    }
}

impl HttpClient for AcmeHttp {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let sending = self.clone().send(request);
        Box::pin(async move {
            let response = timeout(REQUEST_TIMEOUT, sending)
                .await
                .unwrap_or_else(|_| Err(format!("no response within {}", format_duration(REQUEST_TIMEOUT)).into()));
            response.map_err(|error| Error::Other(Box::new(NoAnswer(error))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_has_seconds_or_a_date_and_is_bounded() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000); // 2030-01-01
        let after = |text| {
            let at = retry_time(&HeaderValue::from_static(text), now)?;
            Some(at.duration_since(now).unwrap_or_default().as_secs())
        };
        assert_eq!(after("3600"), Some(3600));
        assert_eq!(after("Tue, 01 Jan 2030 00:00:07 GMT"), Some(7));
        assert_eq!(after("Tue, 01 Jan 2019 00:00:00 GMT"), Some(0), "at once");
        for text in ["86401", "18446744073709551615", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(after(text), Some(86_400), "{text}");
        }
        for text in ["", "soon", "-5", "99999999999999999999"] {
            assert_eq!(after(text), None, "{text}");
        }
    }
}
