//! A Docker engine, and requests to it.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::error::with_context;
use crate::http_client::{StreamedResponse, exchange, in_time, open};
use crate::text::Reason;

/// How long most requests may take until the response is complete; if the response has no end, until its head has come.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest response that is read as a whole: enough for thousands of containers with many labels.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Of a response that refuses a stream (of events, of a log, or of the progress of an image's pull), no more is read
/// once this much has come.
const REJECTION_BYTES_MAX: usize = 16 << 10;

/// The oldest version of the API that acequia speaks: that of Docker 20.10, and of Podman. Docker 29 does not speak it.
const OLDEST: ApiVersion = ApiVersion(1, 41);

/// The newest version of the API that acequia speaks.
const NEWEST: ApiVersion = ApiVersion(1, 51);

pub(crate) type DockerError = Box<dyn Error + Send + Sync>;

/// The error of a request that the engine has refused in its answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Rejection(String);

/// A version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ApiVersion(u32, u32);

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// The newest version that both sides speak.
fn agreed_version(VersionAnswer { newest, oldest }: &VersionAnswer) -> Result<ApiVersion, DockerError> {
    let theirs = ApiVersion::parse(newest).zip(ApiVersion::parse(oldest));
    let version = theirs.and_then(|(newest, oldest)| {
        let version = newest.min(NEWEST);
        (version >= oldest.max(OLDEST)).then_some(version)
    });
    version.ok_or_else(|| {
        format!(
            "the engine speaks versions {oldest} to {newest} of Docker's API; needed is one of {OLDEST} to {NEWEST}"
        )
        .into()
    })
}

#[derive(Deserialize)]
struct VersionAnswer {
    #[serde(rename = "ApiVersion")]
    newest: String,
    #[serde(rename = "MinAPIVersion")]
    oldest: String,
}

/// A Docker engine. Each request opens a connection of its own.
#[derive(Clone)]
pub(crate) struct DockerEngine {
    socket: PathBuf,
    version: ApiVersion,
}

impl DockerEngine {
    /// Asks for the versions of the API, and chooses the one to use.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, DockerError> {
        let mut engine = Self {
            socket: socket.to_owned(),
            version: OLDEST,
        };
        let exchange = engine.exchange(request(&Method::GET, "/version", None)?);
        let response = engine.in_time(REQUEST_TIMEOUT, exchange).await?;
        engine.version = agreed_version(&engine.json(&response)?)?;
        Ok(engine)
    }

    /// The containers that match these filters: those that run, and with `with_stopped` all others, too.
    pub(crate) async fn containers<T: DeserializeOwned>(
        &self,
        filters: &Value,
        with_stopped: bool,
    ) -> Result<Vec<T>, DockerError> {
        let query = query(&[("all", &with_stopped.to_string()), ("filters", &filters.to_string())]);
        let path = format!("/containers/json?{query}");
        self.json(&self.ask(Method::GET, &path, None, REQUEST_TIMEOUT).await?)
    }

    /// The response to a request, whatever its status.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Response<Bytes>, DockerError> {
        self.in_time(limit, self.ask_without_limit(method, path, body)).await
    }

    /// As [`Self::ask`], without a deadline: the caller has one, or the engine answers only when something has
    /// happened.
    pub(super) async fn ask_without_limit(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Bytes>, DockerError> {
        self.exchange(request(&method, &self.versioned(path), body)?).await
    }

    /// The response to a request without a body, if it is 200 OK. The body of the response may have no end.
    pub(super) async fn stream(&self, method: Method, path: &str) -> Result<StreamedResponse, DockerError> {
        let opened = async {
            let request = request(&method, &self.versioned(path), None)?;
            let mut response = open(self.dial().await?, request).await?;
            if response.status == StatusCode::OK {
                return Ok(response);
            }
            let mut body = Vec::new();
            while body.len() < REJECTION_BYTES_MAX
                && let Some(bytes) = response.next().await?
            {
                body.extend_from_slice(&bytes);
            }
            Err(rejection(response.status, &body))
        };
        self.in_time(REQUEST_TIMEOUT, opened).await
    }

    /// The body of a response with 200 OK.
    pub(super) fn json<T: DeserializeOwned>(&self, response: &Response<Bytes>) -> Result<T, DockerError> {
        match response.status() {
            // The contents of a wrong body are not shown: labels may have secrets.
            StatusCode::OK => serde_json::from_slice(response.body())
                .map_err(|_| format!("the answer of {} is not valid", self.socket.display()).into()),
            status => Err(rejection(status, response.body())),
        }
    }

    fn versioned(&self, path: &str) -> String {
        format!("/v{}{path}", self.version)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, DockerError> {
        exchange(self.dial().await?, request, BODY_BYTES_MAX).await
    }

    async fn dial(&self) -> Result<UnixStream, DockerError> {
        let connected = UnixStream::connect(&self.socket).await;
        let path = self.socket.display();
        Ok(connected.map_err(|error| with_context(error, format!("cannot connect to {path}")))?)
    }

    async fn in_time<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, DockerError>>,
    ) -> Result<T, DockerError> {
        in_time(limit, self.socket.display(), answer).await
    }
}

/// A request to an engine. Its `Host` header is required (RFC 9112, section 3.2), and means nothing on a Unix socket.
fn request(method: &Method, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, DockerError> {
    let request = Request::builder().method(method).uri(path).header(HOST, "docker");
    Ok(match body {
        Some(body) => request
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string().into())?,
        None => request.body(Full::default())?,
    })
}

pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// A time as the engine reads it.
pub(super) fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}

/// The error of a failed request, in the words of the engine.
pub(super) fn rejection(status: StatusCode, body: &[u8]) -> DockerError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let shown = match body["message"].as_str() {
        Some(message) => format!("Docker answers {status}: {}", Reason::from(message.trim())),
        None => format!("Docker answers {status}"),
    };
    Rejection(shown).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(oldest: &str, newest: &str) -> Result<String, String> {
        let answer = VersionAnswer {
            newest: newest.to_owned(),
            oldest: oldest.to_owned(),
        };
        let version = agreed_version(&answer);
        version
            .map(|version| version.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_newest_version_that_both_sides_speak_is_used() {
        for (docker, oldest, newest, expected) in [
            ("20.10", "1.12", "1.41", "1.41"),
            ("25.0", "1.24", "1.44", "1.44"),
            ("29.0", "1.44", "1.52", "1.51"),
            ("one to come", "1.51", "1.60", "1.51"),
        ] {
            assert_eq!(agreed(oldest, newest).as_deref(), Ok(expected), "Docker {docker}");
        }
    }

    #[test]
    fn an_engine_with_other_api_versions_is_refused_and_the_error_names_them() {
        for (oldest, newest) in [("1.12", "1.40"), ("1.52", "1.60"), ("1.12", "2"), ("x", "1.44")] {
            let error = agreed(oldest, newest).unwrap_err();
            let expected = format!("the engine speaks versions {oldest} to {newest}");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
