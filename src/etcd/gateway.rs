//! One member of etcd, reached over its JSON gateway: requests and watches.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::EtcdError;
use super::messages::{
    AuthenticateResponse, EtcdKeyValue, KeepAliveResponse, KeyRange, LeaseResponse, OperationResponse, ReadResponse,
    StreamMessage, WatchResponse, base64,
};
use super::plan::{EtcdLogin, EtcdPlan};
use crate::blocking::blocking;
use crate::error::with_context;
use crate::http_client::{ResponseLines, connect, exchange, in_time, open, take_url, uses_tls};
use crate::regular_file;
use crate::text::Reason;
use crate::tls::client_config;

/// How long one request with its response may take. For a watch that is accepted, only the head of the response counts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest response, and the longest message of a watch: enough for 10,000 keys with values of 1 KiB.
const BODY_BYTES_MAX: usize = 16 << 20;

/// The longest password.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// A member of etcd, with our login. Each request has a connection and a deadline of its own.
pub struct Gateway {
    endpoint: Uri,
    /// `None`: the endpoint is reached without TLS.
    tls: Option<Arc<ClientConfig>>,
    token: Option<HeaderValue>,
}

/// The number of a lease. Keys that are put with a lease are deleted when it is not kept alive.
#[derive(Clone, Debug)]
pub struct LeaseId(String);

impl LeaseId {
    /// Whether a key has this lease.
    #[must_use]
    pub fn holds(&self, key: &EtcdKeyValue) -> bool {
        *self.0 == *key.lease
    }
}

/// All keys of some ranges, at a revision.
pub(super) struct KeysRead {
    pub(super) revision: i64,
    pub(super) keys: Vec<EtcdKeyValue>,
}

impl Gateway {
    /// Reads the files of the plan that this endpoint needs, and logs in if there is a user.
    pub(super) async fn connect(endpoint: Uri, plan: Arc<EtcdPlan>) -> Result<Self, EtcdError> {
        let with_tls = uses_tls(&endpoint);
        let read = blocking(move || {
            let login = plan.login.as_ref().map(authenticate_request).transpose()?;
            let tls = || client_config(plan.ca_file.as_deref(), plan.identity.as_ref());
            Ok::<_, EtcdError>((with_tls.then(tls).transpose()?, login))
        });
        let (tls, login) = read.await?;
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

    /// Reads the keys of these ranges at one revision. More than `keys_max` in all are an error.
    pub(super) async fn read(&self, ranges: &[KeyRange], keys_max: usize) -> Result<KeysRead, EtcdError> {
        let operation = |range: &KeyRange| {
            let mut request = range.to_json();
            request["limit"] = json!(keys_max);
            json!({ "request_range": request })
        };
        let operations: Vec<_> = ranges.iter().map(operation).collect();
        // A transaction without conditions always succeeds.
        let read: ReadResponse = self.ask("/v3/kv/txn", &json!({ "success": operations })).await?;
        let mut keys = Vec::new();
        for OperationResponse { response_range } in read.responses {
            keys.extend(response_range.kvs);
            if response_range.more || keys.len() > keys_max {
                return Err(format!("there are more than {keys_max} keys").into());
            }
        }
        Ok(KeysRead {
            revision: read.header.revision,
            keys,
        })
    }

    /// Puts a key. The key is deleted when the lease ends.
    ///
    /// # Errors
    /// etcd refuses the request, the lease has expired, or there is no answer in time.
    pub async fn put(&self, key: &str, value: &[u8], lease: &LeaseId) -> Result<(), EtcdError> {
        let put = json!({ "key": base64(key.as_bytes()), "value": base64(value), "lease": lease.0 });
        self.ask::<Value>("/v3/kv/put", &put).await.map(drop)
    }

    /// Asks for a lease of this time, in whole seconds.
    ///
    /// # Errors
    /// etcd refuses the request, or there is no answer in time.
    pub async fn grant(&self, time: Duration) -> Result<LeaseId, EtcdError> {
        let granted: LeaseResponse = self
            .ask("/v3/lease/grant", &json!({ "TTL": time.as_secs().to_string() }))
            .await?;
        Ok(LeaseId(granted.id))
    }

    /// Renews a lease: its time begins anew.
    ///
    /// # Errors
    /// The lease has expired, etcd refuses the request, or there is no answer in time.
    pub async fn keep_alive(&self, lease: &LeaseId) -> Result<(), EtcdError> {
        let kept: StreamMessage<KeepAliveResponse> = self.ask("/v3/lease/keepalive", &json!({ "ID": lease.0 })).await?;
        match kept.result {
            Some(kept) if kept.ttl > 0 => Ok(()),
            Some(_) => Err("the lease has expired".into()),
            None => Err(format!("the lease is not kept: {}", kept.error.unwrap_or_default()).into()),
        }
    }

    /// The value of a key with its lease; `None`: there is no such key.
    ///
    /// # Errors
    /// etcd refuses the request, or there is no answer in time.
    pub async fn get(&self, key: &str) -> Result<Option<EtcdKeyValue>, EtcdError> {
        let read = self.read(&[KeyRange::one(key)], 1).await?;
        Ok(read.keys.into_iter().next())
    }

    /// Makes a request with one answer.
    async fn ask<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, EtcdError> {
        let mut request = self.request(path, body)?;
        let asked = async {
            let stream = connect(&take_url(&mut request)?, self.tls.clone()).await?;
            exchange(stream, request, BODY_BYTES_MAX).await
        };
        let response = self.in_time(asked).await?;
        if !response.status().is_success() {
            return Err(rejection(response.status(), response.body()));
        }
        // The contents of a wrong body are not shown: they may include a token.
        serde_json::from_slice(response.body()).map_err(|_| format!("the answer of {path} is not valid").into())
    }

    /// Watches a range of keys from this revision on.
    pub(super) async fn watch(&self, range: &KeyRange, revision: i64) -> Result<Watch, EtcdError> {
        let mut create = range.to_json();
        create["start_revision"] = json!(revision.to_string());
        let mut request = self.request("/v3/watch", &json!({ "create_request": create }))?;
        let opened = async {
            let stream = connect(&take_url(&mut request)?, self.tls.clone()).await?;
            let mut response = open(stream, request).await?;
            let error_body = response.refusal().await; // empty on success; read within the time limit
            Ok((response, error_body))
        };
        let (response, error_body) = self.in_time(opened).await?;
        if !response.status.is_success() {
            return Err(rejection(response.status, &error_body));
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
        in_time(REQUEST_TIMEOUT, &self.endpoint, answer).await
    }
}

fn authenticate_request(login: &EtcdLogin) -> Result<Value, EtcdError> {
    let file = &login.password_file;
    let read = regular_file::read_secret(file, PASSWORD_BYTES_MAX, <[u8]>::trim_ascii_end);
    let password = read.map_err(|error| with_context(error, file.display().to_string()))?;
    let password = std::str::from_utf8(&password).map_err(|_| format!("{}: it is not UTF-8", file.display()))?;
    Ok(json!({ "name": login.user, "password": password }))
}

/// The error of a failed request, in the words of etcd.
fn rejection(status: StatusCode, body: &[u8]) -> EtcdError {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    let error = json["error"].as_str().or(json["message"].as_str());
    match error.unwrap_or(text.trim()) {
        "" => format!("etcd answers {status}").into(),
        error => format!("etcd answers {status}: {}", Reason::new(error)).into(),
    }
}

/// A watch under way: JSON messages, each on a line.
pub(super) struct Watch(ResponseLines);

impl Watch {
    /// The next message. The caller sets a deadline.
    pub(super) async fn next(&mut self) -> Result<WatchResponse, EtcdError> {
        let line = self.0.next().await?.ok_or("the watch has ended")?;
        let StreamMessage { result, error } = serde_json::from_slice(&line)?;
        result.ok_or_else(|| format!("the watch has failed: {}", error.unwrap_or_default()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_too_long_password_is_not_sent() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let login = EtcdLogin {
            user: "acequia".into(),
            password_file: file.path().to_owned(),
        };
        for (text, sent) in [("secret\n", Some("secret")), ("\n", None), (&"a".repeat(5_000), None)] {
            std::fs::write(&file, text).unwrap();
            let request = authenticate_request(&login).ok();
            assert_eq!(request.as_ref().and_then(|request| request["password"].as_str()), sent);
        }
    }
}
