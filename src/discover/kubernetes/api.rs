//! The API of Kubernetes, as far as it is needed to read and watch EndpointSlices.

use std::fmt;
use std::time::Duration;

use form_urlencoded::Serializer;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, USER_AGENT};
use hyper::{Request, StatusCode};
use serde::Deserialize;

use super::access::Access;
use super::credentials::AccessError;
use super::slices::EndpointSlice;
use crate::http_client::{ResponseLines, connect, exchange, in_time, open, take_url};
use crate::plan::ServiceSourcePlan;

/// How long a request and its response may take. Of the response to a watch, only the head counts, unless it is a
/// refusal.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The most slices of one answer. A slice has at most 1000 endpoints, usually 100.
const PAGE_SLICES: u32 = 20;

/// The longest answer, and the longest event of a watch: enough for a page of full slices.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Our name in the audit log of the API server.
const AGENT: &str = concat!("acequia/", env!("CARGO_PKG_VERSION"));

/// Why a request has failed.
pub(super) enum KubernetesError {
    /// The API server no longer has the version that was asked for (410): the slices must be listed again.
    Gone,
    /// Anything else.
    Failed(AccessError),
}

impl From<AccessError> for KubernetesError {
    fn from(error: AccessError) -> Self {
        Self::Failed(error)
    }
}

impl From<String> for KubernetesError {
    fn from(error: String) -> Self {
        Self::Failed(error.into())
    }
}

impl From<&str> for KubernetesError {
    fn from(error: &str) -> Self {
        Self::Failed(error.into())
    }
}

/// The slices of a Service, or a page of them.
#[derive(Deserialize)]
pub(super) struct SliceList {
    pub(super) metadata: SliceListMetadata,
    pub(super) items: Option<Vec<EndpointSlice>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SliceListMetadata {
    pub(super) resource_version: String,
    /// Where the next page begins; empty: there is none.
    #[serde(default, rename = "continue")]
    pub(super) next_page: String,
}

/// A line of a watch, as the API server sends it.
#[derive(Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
enum WatchMessage {
    Added(EndpointSlice),
    Modified(EndpointSlice),
    Deleted(EndpointSlice),
    Bookmark(EndpointSlice),
    Error(ApiStatus),
}

/// An event of a watch.
pub(super) enum SliceEvent {
    /// The slice is new, or has changed.
    Put(EndpointSlice),
    /// The slice is gone.
    Deleted(EndpointSlice),
    /// All events up to this version have been sent. Only the version is set.
    Bookmark(EndpointSlice),
}

/// The error of a failed request, in the words of the API server.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiStatus {
    message: String,
    code: u16,
}

/// The kind of a request, as the API calls it.
#[derive(Clone, Copy)]
enum Verb {
    List,
    Watch,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "list",
            Self::Watch => "watch",
        })
    }
}

/// The slices of a Service in the API.
pub(super) struct SlicesApi<'a> {
    access: Access,
    source: &'a ServiceSourcePlan,
}

impl<'a> SlicesApi<'a> {
    pub(super) fn new(access: Access, source: &'a ServiceSourcePlan) -> Self {
        Self { access, source }
    }

    /// A page of the slices: the one that begins at `next_page`, or the first one if that is empty.
    pub(super) async fn list(&self, next_page: &str) -> Result<SliceList, KubernetesError> {
        let limit = PAGE_SLICES.to_string();
        // An empty `continue` is the same as none.
        let mut request = self.request(&[("limit", &limit), ("continue", next_page)])?;
        let asked = async {
            let stream = connect(&take_url(&mut request)?, self.access.tls.clone()).await?;
            exchange(stream, request, BODY_BYTES_MAX).await
        };
        let response = self.in_time(asked).await?;
        if !response.status().is_success() {
            return Err(self.refusal(Verb::List, response.status(), response.body()));
        }
        // The contents of a wrong answer are not shown: it may come from something else than an API server.
        serde_json::from_slice(response.body()).map_err(|_| "the answer is not a list of EndpointSlices".into())
    }

    /// Watches the slices from this version on. The server ends the watch after `time`.
    pub(super) async fn watch(&self, version: &str, time: Duration) -> Result<SliceWatch, KubernetesError> {
        let mut request = self.request(&[
            ("watch", "true"),
            ("resourceVersion", version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &time.as_secs().to_string()),
        ])?;
        let opened = async {
            let stream = connect(&take_url(&mut request)?, self.access.tls.clone()).await?;
            let mut response = open(stream, request).await?;
            let refusal = response.refusal().await; // here, so that the time limit holds for it, too
            Ok((response, refusal))
        };
        let (response, refusal) = self.in_time(opened).await?;
        match response.status.is_success() {
            true => Ok(SliceWatch(ResponseLines::new(response, BODY_BYTES_MAX))),
            false => Err(self.refusal(Verb::Watch, response.status, &refusal)),
        }
    }

    fn request(&self, parameters: &[(&str, &str)]) -> Result<Request<Full<Bytes>>, AccessError> {
        let ServiceSourcePlan { namespace, service, .. } = self.source;
        let mut query = Serializer::new(String::new());
        query.extend_pairs(parameters);
        query.append_pair("labelSelector", &format!("kubernetes.io/service-name={service}"));
        let (url, query) = (&self.access.url, query.finish());
        let url = format!("{url}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?{query}");
        let mut request = Request::get(url)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, AGENT);
        if let Some(authorization) = &self.access.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        Ok(request.body(Full::default())?)
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, AccessError>>) -> Result<T, AccessError> {
        in_time(REQUEST_TIMEOUT, &self.access.url, answer).await
    }

    /// Why the API server has refused a request, and what to do about it.
    fn refusal(&self, verb: Verb, status: StatusCode, body: &[u8]) -> KubernetesError {
        let ApiStatus { message, .. } = serde_json::from_slice(body).unwrap_or_default();
        let (login, namespace) = (&self.access.login, &self.source.namespace);
        match status {
            // A list that expires before its last page has failed: this is reported, unlike `Gone`.
            StatusCode::GONE if matches!(verb, Verb::Watch) => KubernetesError::Gone,
            StatusCode::UNAUTHORIZED => format!("the API server answers 401: it does not accept {login}").into(),
            StatusCode::FORBIDDEN => format!(
                "403 to {verb}: a Role in namespace `{namespace}` must allow get, list, watch of \
                 endpointslices.discovery.k8s.io: {message}"
            )
            .into(),
            StatusCode::NOT_FOUND => format!(
                "{} answers 404: it has no discovery.k8s.io/v1, which Kubernetes has since version 1.21",
                self.access.url
            )
            .into(),
            _ => format!("the API server answers {status} to {verb}: {message}").into(),
        }
    }
}

/// A watch under way: JSON events, each on a line.
pub(super) struct SliceWatch(ResponseLines);

impl SliceWatch {
    /// The next event; `None`: the server has ended the watch. The caller sets a deadline. Nothing is lost if this
    /// future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<SliceEvent>, KubernetesError> {
        let Some(line) = self.0.next().await? else {
            return Ok(None);
        };
        let event = serde_json::from_slice(&line).map_err(|_| "an event of the watch is not valid")?;
        Ok(Some(match event {
            WatchMessage::Added(slice) | WatchMessage::Modified(slice) => SliceEvent::Put(slice),
            WatchMessage::Deleted(slice) => SliceEvent::Deleted(slice),
            WatchMessage::Bookmark(slice) => SliceEvent::Bookmark(slice),
            WatchMessage::Error(ApiStatus { code: 410, .. }) => return Err(KubernetesError::Gone),
            WatchMessage::Error(ApiStatus { code, message }) => {
                return Err(format!("the watch has failed: {message} ({code})").into());
            }
        }))
    }
}
