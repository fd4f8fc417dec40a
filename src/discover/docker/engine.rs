//! The API of a Docker engine over its Unix socket: the containers that run, and what happens to them.
//!
//! Three requests are made, and a proxy before the socket needs to allow no others: `GET /version`, `GET /containers/json`
//! and `GET /events` (Docker Engine API, <https://docs.docker.com/reference/api/engine/>).

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::container::Container;
use crate::error::with_context;
use crate::http_client::{ResponseLines, exchange, open};

/// The time for one request with its response, or for the head of the response with the events.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest response: enough for thousands of containers with many labels.
const BODY_BYTES_MAX: usize = 16 << 20;

/// The longest event. It has the labels of its container.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// What may change the list of containers, or of addresses. Health checks have many other events.
const EVENTS: [&str; 10] = [
    "start",
    "restart",
    "kill",
    "die",
    "pause",
    "unpause",
    "rename",
    "health_status",
    "connect",
    "disconnect",
];

/// The oldest version of the API that is spoken: that of Docker 20.10, and of Podman.
const OLDEST: ApiVersion = ApiVersion(1, 41);

/// The newest version of the API that is spoken. Docker 29 refuses those below 1.44.
const NEWEST: ApiVersion = ApiVersion(1, 51);

/// Something that went wrong.
pub(in crate::discover) type DockerError = Box<dyn Error + Send + Sync>;

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
        format!("it speaks versions {oldest} to {newest} of the API of Docker; needed is one of {OLDEST} to {NEWEST}")
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

/// Something that has happened to a container or a network.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerEvent {
    #[serde(rename = "Type")]
    pub(super) object: String,
    pub(super) action: String,
    pub(super) actor: EventActor,
}

/// What an event has happened to.
#[derive(Default, Deserialize)]
pub(super) struct EventActor {
    #[serde(default, rename = "ID")]
    pub(super) id: String,
    #[serde(default, rename = "Attributes")]
    pub(super) attributes: EventAttributes,
}

/// What an event says besides.
#[derive(Default, Deserialize)]
pub(super) struct EventAttributes {
    /// The number of the signal, of `kill`.
    pub(super) signal: Option<String>,
}

/// A Docker engine.
pub(super) struct DockerEngine {
    socket: PathBuf,
    version: ApiVersion,
}

impl DockerEngine {
    /// Agrees on a version of the API.
    pub(super) async fn connect(socket: &Path) -> Result<Self, DockerError> {
        let mut engine = Self {
            socket: socket.to_owned(),
            version: OLDEST,
        };
        engine.version = agreed_version(&engine.ask("/version").await?)?;
        Ok(engine)
    }

    /// The containers that run and that these filters take.
    pub(super) async fn containers(&self, filters: &Value) -> Result<Vec<Container>, DockerError> {
        let query = query(&[("filters", &filters.to_string())]);
        self.ask(&format!("/v{}/containers/json?{query}", self.version)).await
    }

    /// What happens to containers and networks from this time on.
    pub(super) async fn events(&self, since: SystemTime) -> Result<DockerEvents, DockerError> {
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let filters = json!({ "type": ["container", "network"], "event": EVENTS });
        let query = query(&[("since", &since), ("filters", &filters.to_string())]);
        let path = format!("/v{}/events?{query}", self.version);
        let response = self
            .in_time(async { open(self.stream().await?, get(&path)?).await })
            .await?;
        match response.status {
            StatusCode::OK => Ok(DockerEvents(ResponseLines::new(response, EVENT_BYTES_MAX))),
            status => Err(rejection(status, b"")),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, DockerError> {
        let asked = async { exchange(self.stream().await?, get(path)?, BODY_BYTES_MAX).await };
        let response = self.in_time(asked).await?;
        match response.status() {
            // What a wrong body contains is not shown: labels may have secrets.
            StatusCode::OK => serde_json::from_slice(response.body())
                .map_err(|_| format!("the answer of {} is not valid", self.socket.display()).into()),
            status => Err(rejection(status, response.body())),
        }
    }

    async fn stream(&self) -> Result<UnixStream, DockerError> {
        let connected = UnixStream::connect(&self.socket).await;
        let path = self.socket.display();
        Ok(connected.map_err(|error| with_context(error, format!("cannot connect to {path}")))?)
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, DockerError>>) -> Result<T, DockerError> {
        let late = || format!("{} gives no answer within {REQUEST_TIMEOUT:?}", self.socket.display());
        timeout(REQUEST_TIMEOUT, answer)
            .await
            .unwrap_or_else(|_| Err(late().into()))
    }
}

/// The host is required (RFC 9112, section 3.2), and means nothing on a Unix socket.
fn get(path: &str) -> Result<Request<Full<Bytes>>, DockerError> {
    Ok(Request::get(path).header(HOST, "docker").body(Full::default())?)
}

fn query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// What the engine says about a request that has failed.
fn rejection(status: StatusCode, body: &[u8]) -> DockerError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match body["message"].as_str() {
        Some(message) => format!("Docker answers {status}: {message}").into(),
        None => format!("Docker answers {status}").into(),
    }
}

/// Events as they happen: JSON, each on a line.
pub(super) struct DockerEvents(ResponseLines);

impl DockerEvents {
    /// The next event. One that is not understood tells only that something has happened. No deadline: the caller has one.
    /// None is lost if this future is dropped.
    pub(super) async fn next(&mut self) -> Result<DockerEvent, DockerError> {
        let line = self.0.next().await?.ok_or("the events have ended")?;
        Ok(serde_json::from_slice(&line).unwrap_or_default())
    }
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
    fn an_engine_that_is_too_old_or_too_new_is_refused_with_its_versions() {
        for (oldest, newest) in [("1.12", "1.40"), ("1.52", "1.60"), ("1.12", "2"), ("x", "1.44")] {
            let error = agreed(oldest, newest).unwrap_err();
            let expected = format!("it speaks versions {oldest} to {newest}");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
