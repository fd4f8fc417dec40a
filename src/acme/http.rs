//! The HTTP client of ACME.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::http_client::{connect, exchange, take_url};

/// The time for one request with its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest body of a response, in bytes. A chain of certificates has a few thousand.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Sends requests over https alone, each over a connection of its own. Remembers when the server wants to be asked again.
#[derive(Clone)]
pub(super) struct AcmeHttp {
    tls: Arc<ClientConfig>,
    retry_after: Arc<Mutex<Option<SystemTime>>>,
}

impl AcmeHttp {
    pub(super) fn new(tls: Arc<ClientConfig>) -> Self {
        Self {
            tls,
            retry_after: Arc::default(),
        }
    }

    /// `Retry-After` of the latest response that was an error.
    pub(super) fn retry_after(&self) -> Option<SystemTime> {
        *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(
        self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<BytesResponse, Box<dyn StdError + Send + Sync>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut request = Request::from_parts(head, Full::new(body));
        let url = take_url(&mut request)?;
        if url.scheme_str() != Some("https") {
            return Err(format!("the server names a URL that is not https: {url}").into());
        }
        let stream = connect(&url, self.tls).await?;
        let response = exchange(stream, request, BODY_BYTES_MAX).await?;
        if !response.status().is_success() {
            let at = response.headers().get(RETRY_AFTER).and_then(retry_time);
            *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner) = at;
        }
        let (head, body) = response.into_parts();
        Ok(BytesResponse::from(Response::from_parts(head, Full::new(body))))
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_time(value: &HeaderValue) -> Option<SystemTime> {
    let text = value.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => SystemTime::now().checked_add(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok(),
    }
}

impl HttpClient for AcmeHttp {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let sent = self.clone().send(request);
        Box::pin(async move {
            let sent = timeout(REQUEST_TIMEOUT, sent).await;
            let sent = sent.unwrap_or_else(|_| Err(format!("no response within {REQUEST_TIMEOUT:?}").into()));
            sent.map_err(Error::Other)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_say_when_it_wants_to_be_asked_again_in_seconds_or_by_a_date() {
        let at = |text| retry_time(&HeaderValue::from_static(text));
        let in_an_hour = at("3600").unwrap().duration_since(SystemTime::now()).unwrap();
        assert!((3590..=3600).contains(&in_an_hour.as_secs()), "{in_an_hour:?}");
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000);
        assert_eq!(at("Tue, 01 Jan 2030 00:00:00 GMT"), Some(date));
        for text in ["", "soon", "-5", "99999999999999999999", "18446744073709551615"] {
            assert_eq!(at(text), None, "{text}");
        }
    }
}
