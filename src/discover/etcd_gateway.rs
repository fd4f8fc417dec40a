//! The JSON gateway of etcd (API v3, etcd 3.4 and later): requests, and watches.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::error::with_context;
use crate::http_client::{ResponseLines, connect, exchange, open, take_url};
use crate::plan::{EtcdLogin, EtcdPlan};
use crate::regular_file;
use crate::tls::client_config;

/// The time for one request with its response, or for the head of the response of a watch.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest response, and the longest message of a watch: enough for 10,000 keys.
const BODY_BYTES_MAX: usize = 16 << 20;

/// The longest password.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Something that went wrong.
pub(super) type EtcdError = Box<dyn Error + Send + Sync>;

/// A member of etcd, with our login.
pub(super) struct Gateway {
    endpoint: Uri,
    tls: Arc<ClientConfig>,
    token: Option<HeaderValue>,
}

/// All keys of a range, at a revision.
#[derive(Deserialize)]
pub(super) struct RangeResponse {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<EtcdKeyValue>,
    /// Whether there are more keys than were asked for.
    #[serde(default)]
    pub(super) more: bool,
}

#[derive(Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: i64,
}

#[derive(Deserialize)]
pub(super) struct EtcdKeyValue {
    #[serde(deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    /// Empty of a key that was deleted.
    #[serde(default, deserialize_with = "bytes")]
    pub(super) value: Vec<u8>,
}

#[derive(Deserialize)]
struct AuthenticateResponse {
    token: String,
}

#[derive(Deserialize)]
struct WatchMessage {
    result: Option<WatchResponse>,
    error: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct WatchResponse {
    #[serde(default)]
    pub(super) canceled: bool,
    /// Not 0 if the watch needs revisions that are compacted.
    #[serde(default, deserialize_with = "number")]
    pub(super) compact_revision: i64,
    #[serde(default)]
    pub(super) cancel_reason: String,
    #[serde(default)]
    pub(super) events: Vec<EtcdEvent>,
}

#[derive(Deserialize)]
pub(super) struct EtcdEvent {
    #[serde(default, rename = "type")]
    kind: String,
    pub(super) kv: EtcdKeyValue,
}

impl EtcdEvent {
    /// Whether the key was deleted; else it was put. A put has no type, because it is the default.
    pub(super) fn is_delete(&self) -> bool {
        self.kind == "DELETE"
    }
}

/// The JSON form of 64-bit integers is text.
fn number<'de, D: Deserializer<'de>>(value: D) -> Result<i64, D::Error> {
    let text = String::deserialize(value)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn bytes<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(value)?;
    BASE64.decode(text).map_err(serde::de::Error::custom)
}

/// The range of the keys that begin with a prefix, which is not empty.
pub(super) fn range_of(prefix: &str) -> Value {
    // The end is the prefix with its last byte increased; UTF-8 has no byte 255.
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    json!({ "key": BASE64.encode(prefix), "range_end": BASE64.encode(end) })
}

impl Gateway {
    /// Reads the files of the plan, and logs in if there is a user.
    pub(super) async fn connect(endpoint: Uri, plan: Arc<EtcdPlan>) -> Result<Self, EtcdError> {
        let read = spawn_blocking(move || {
            let login = plan.login.as_ref().map(authenticate_request).transpose()?;
            Ok::<_, EtcdError>((client_config(plan.ca_file.as_deref())?, login))
        });
        let (tls, login) = read.await??;
        let mut gateway = Self {
            endpoint,
            tls,
            token: None,
        };
        if let Some(login) = login {
            let AuthenticateResponse { token } = gateway.ask("/v3/auth/authenticate", &login).await?;
            let mut token = HeaderValue::try_from(token)?;
            token.set_sensitive(true);
            gateway.token = Some(token);
        }
        Ok(gateway)
    }

    /// Asks for one answer.
    pub(super) async fn ask<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, EtcdError> {
        let mut request = self.request(path, body)?;
        let asked = async {
            let stream = connect(&take_url(&mut request)?, Arc::clone(&self.tls)).await?;
            exchange(stream, request, BODY_BYTES_MAX).await
        };
        let response = self.in_time(asked).await?;
        if !response.status().is_success() {
            return Err(rejection(response.status(), response.body()));
        }
        // What a wrong body contains is not shown: it could be a token.
        serde_json::from_slice(response.body()).map_err(|_| format!("the answer of {path} is not valid").into())
    }

    /// Watches a range of keys from this revision on.
    pub(super) async fn watch(&self, range: &Value, revision: i64) -> Result<Watch, EtcdError> {
        let mut create = range.clone();
        create["start_revision"] = json!(revision.to_string());
        let mut request = self.request("/v3/watch", &json!({ "create_request": create }))?;
        let opened = async {
            let stream = connect(&take_url(&mut request)?, Arc::clone(&self.tls)).await?;
            open(stream, request).await
        };
        let response = self.in_time(opened).await?;
        if !response.status.is_success() {
            return Err(rejection(response.status, b""));
        }
        Ok(Watch(ResponseLines::new(response, BODY_BYTES_MAX)))
    }

    fn request(&self, path: &str, body: &Value) -> Result<Request<Full<Bytes>>, EtcdError> {
        let mut url = self.endpoint.clone().into_parts();
        url.path_and_query = Some(path.parse()?);
        let mut request = Request::post(Uri::from_parts(url)?).header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        Ok(request.body(Full::from(body.to_string()))?)
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, EtcdError>>) -> Result<T, EtcdError> {
        let in_time = timeout(REQUEST_TIMEOUT, answer).await;
        in_time.unwrap_or_else(|_| Err(format!("{} gives no answer within {REQUEST_TIMEOUT:?}", self.endpoint).into()))
    }
}

fn authenticate_request(login: &EtcdLogin) -> Result<Value, EtcdError> {
    let file = &login.password_file;
    let read = regular_file::read(file, PASSWORD_BYTES_MAX);
    let password = read.map_err(|error| with_context(error, file.display().to_string()))?;
    let password = std::str::from_utf8(&password).map_err(|_| format!("{}: it is not UTF-8", file.display()))?;
    Ok(json!({ "name": login.user, "password": password.trim_end() }))
}

/// What etcd says about a request that has failed.
fn rejection(status: StatusCode, body: &[u8]) -> EtcdError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match body["error"].as_str().or(body["message"].as_str()) {
        Some(error) => format!("etcd answers {status}: {error}").into(),
        None => format!("etcd answers {status}").into(),
    }
}

/// A watch under way: JSON messages, each on a line.
pub(super) struct Watch(ResponseLines);

impl Watch {
    /// The next message. No deadline: the caller has one.
    pub(super) async fn next(&mut self) -> Result<WatchResponse, EtcdError> {
        let line = self.0.next().await?.ok_or("the watch has ended")?;
        let WatchMessage { result, error } = serde_json::from_slice(&line)?;
        result.ok_or_else(|| format!("the watch has failed: {}", error.unwrap_or_default()).into())
    }
}
