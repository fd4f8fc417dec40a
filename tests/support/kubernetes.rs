//! A fake API server of Kubernetes: EndpointSlices, listed in pages and watched. It answers in the same form as
//! kube-apiserver 1.20.2. `kubectl` can read it too.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL};
use serde_json::{Value, json};

use super::authority::{Authority, replace};
use super::eventually;
use super::server::Server;
use super::tls_server::ManualTlsServer;

/// The bearer token that [`ApiServer`] accepts.
pub const TOKEN: &str = "correct-1";

/// A fake API server. It speaks TLS, and wants [`TOKEN`] or, with [`Self::for_certificates`], a certificate of the
/// client.
pub struct ApiServer {
    server: Server,
    shared: Arc<Shared>,
    authority: Authority,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The slices by namespace and name.
    slices: BTreeMap<(String, String), Value>,
    version: u64,
    /// All events since the start, each with its version.
    events: Vec<(u64, Value)>,
    /// Watches and continued lists from a version below this one are refused.
    oldest: u64,
    /// The number of times that all watches were ended.
    ends: u64,
    /// The verb that is forbidden.
    forbidden: Option<&'static str>,
    /// Whether every list is refused as expired.
    expires_lists: bool,
    /// Whether all connections are closed.
    is_unreachable: bool,
    /// Whether the [`ApiServer`] has been dropped.
    is_dropped: bool,
    /// Verb and query of each authenticated request for slices.
    requests: Vec<(String, String)>,
}

/// The status line and the body of the response to a failed request.
type Refusal = (&'static str, Value);

impl ApiServer {
    pub fn start() -> Self {
        Self::with(false)
    }

    /// Starts a server that wants certificates of its [`Self::authority`] instead of a token.
    pub fn for_certificates() -> Self {
        Self::with(true)
    }

    fn with(wants_certificates: bool) -> Self {
        let authority = Authority::new("kubernetes");
        let own = authority.issue(&["127.0.0.1"]);
        let clients = wants_certificates.then_some(&authority);
        let tls = Mutex::new(ManualTlsServer::with(&own, rustls::ALL_VERSIONS, clients));
        let shared = Arc::<Shared>::default();
        let served = Arc::clone(&shared);
        let server = Server::run(move |stream| {
            if served.lock().is_unreachable {
                return;
            }
            let session = tls.lock().unwrap().over(stream);
            if let Ok(mut session) = session {
                // A client without a wanted certificate gets no session.
                let has_certificate = wants_certificates;
                served.serve(&mut session.0, has_certificate);
            }
        });
        Self {
            server,
            shared,
            authority,
        }
    }

    pub fn port(&self) -> u16 {
        self.server.address.port()
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Writes a kubeconfig. `user` is a YAML mapping with the user's credentials. Returns the path of the file.
    pub fn kubeconfig(&self, directory: &Path, user: &str) -> PathBuf {
        let (file, port) = (directory.join("kubeconfig"), self.port());
        let authority = BASE64.encode(self.authority.certificate());
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters:\n- name: fake\n  cluster:\n    server: https://127.0.0.1:{port}\n    \
             certificate-authority-data: {authority}\n\
             contexts:\n- name: test\n  context: {{cluster: fake, user: acequia, namespace: default}}\n\
             users:\n- name: acequia\n  user: {user}\n"
        );
        replace(&file, &text);
        file
    }

    /// Creates or changes a slice of a Service in the namespace `default`.
    pub fn put(&self, service: &str, name: &str, slice: Value) {
        self.change(|state| {
            let key = ("default".to_owned(), name.to_owned());
            let event_type = if state.slices.contains_key(&key) {
                "MODIFIED"
            } else {
                "ADDED"
            };
            let mut slice = slice;
            slice["kind"] = "EndpointSlice".into();
            slice["apiVersion"] = "discovery.k8s.io/v1".into();
            slice["metadata"] = json!({
                "name": name,
                "generateName": format!("{service}-"),
                "namespace": "default",
                "uid": "5f1e3a52-7b1c-4b0e-9d9e-0d7c6a1b2c3d",
                "resourceVersion": (state.version + 1).to_string(),
                "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                    "kubernetes.io/service-name": service,
                },
            });
            state.add(event_type, &slice);
            state.slices.insert(key, slice);
        });
    }

    /// Deletes a slice.
    pub fn delete(&self, name: &str) {
        self.change(|state| {
            let key = ("default".to_owned(), name.to_owned());
            let mut slice = state.slices.remove(&key).unwrap();
            slice["metadata"]["resourceVersion"] = (state.version + 1).to_string().into();
            state.add("DELETED", &slice);
        });
    }

    /// Sends a bookmark to all watches that want bookmarks. Returns its version.
    pub fn bookmark(&self) -> String {
        self.change(|state| {
            state.version += 10; // changes of other resources
            let version = (state.version + 1).to_string();
            let object = json!({
                "kind": "EndpointSlice",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": { "resourceVersion": version, "creationTimestamp": null },
                "addressType": "",
                "endpoints": null,
                "ports": null,
            });
            state.add("BOOKMARK", &object);
            version
        })
    }

    /// Ends all watches, as when their time is over.
    pub fn end_watches(&self) {
        self.change(|state| state.ends += 1);
    }

    /// Makes all versions that clients know too old to continue a list or to start a watch.
    pub fn compact(&self) {
        self.change(|state| {
            state.version += 10; // changes of other resources
            state.oldest = state.version;
        });
    }

    /// Forbids requests with this verb from now on; `None`: allows all.
    pub fn forbid(&self, verb: Option<&'static str>) {
        self.change(|state| state.forbidden = verb);
    }

    /// Sets whether every list is refused as expired.
    pub fn expire_lists(&self, expires_lists: bool) {
        self.change(|state| state.expires_lists = expires_lists);
    }

    /// Sets whether the server closes all connections, also new ones.
    pub fn set_unreachable(&self, is_unreachable: bool) {
        self.change(|state| {
            state.is_unreachable = is_unreachable;
            state.ends += 1;
        });
    }

    /// The queries of the requests with this verb.
    pub fn queries(&self, verb: &str) -> Vec<String> {
        let state = self.shared.lock();
        let of_verb = state.requests.iter().filter(|(requested, _)| requested == verb);
        of_verb.map(|(_, query)| query.clone()).collect()
    }

    /// Waits until this many requests with this verb have come.
    pub fn wait_for(&self, verb: &str, count: usize) {
        eventually("the API server is asked", || self.queries(verb).len() >= count);
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.shared.lock());
        self.shared.changed.notify_all();
        result
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.change(|state| state.is_dropped = true);
    }
}

impl State {
    /// Adds an event of this type with the next version, which the caller has written into the object.
    fn add(&mut self, event_type: &str, object: &Value) {
        self.version += 1;
        self.events
            .push((self.version, json!({ "type": event_type, "object": object })));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Answers one request.
    fn serve(&self, stream: &mut (impl Read + Write), has_certificate: bool) {
        let lines = BufReader::new(&mut *stream).lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let target = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let wanted = format!("Bearer {TOKEN}");
        let is_authenticated = has_certificate
            || head.iter().any(|line| {
                let header = line.split_once(": ");
                header.is_some_and(|(name, value)| name.eq_ignore_ascii_case("authorization") && value == wanted)
            });
        let answer = match is_authenticated {
            true => self.answer(path, query, stream),
            false => Err(status("401 Unauthorized", "Unauthorized", "Unauthorized")),
        };
        let (status, body) = match answer {
            Ok(Some(body)) => ("200 OK", body),
            Ok(None) => return, // it was a watch
            Err(refusal) => refusal,
        };
        let body = body.to_string();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close");
        let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.flush();
    }

    /// The answer; `None`: it has been sent.
    fn answer(&self, path: &str, query: &str, stream: &mut impl Write) -> Result<Option<Value>, Refusal> {
        if let Some(found) = discovery(path) {
            return Ok(Some(found));
        }
        let rest = path.strip_prefix("/apis/discovery.k8s.io/v1/namespaces/");
        let namespace = rest.and_then(|rest| rest.strip_suffix("/endpointslices"));
        let Some(namespace) = namespace else {
            return Err(status(
                "404 Not Found",
                "NotFound",
                "the server could not find the requested resource",
            ));
        };
        let parameters: BTreeMap<_, _> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let is_watch = parameters
            .get("watch")
            .is_some_and(|watch| ["1", "true"].contains(&&**watch));
        let verb = if is_watch { "watch" } else { "list" };
        let mut state = self.lock();
        state.requests.push((verb.to_owned(), query.to_owned()));
        if state.forbidden == Some(verb) {
            let message = format!(
                "endpointslices.discovery.k8s.io is forbidden: User \"system:serviceaccount:edge:acequia\" cannot {verb} \
                 resource \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \"{namespace}\""
            );
            return Err(status("403 Forbidden", "Forbidden", &message));
        }
        if is_watch {
            self.watch(state, namespace, &parameters, stream);
            return Ok(None);
        }
        list(&state, namespace, &parameters).map(Some)
    }

    fn watch<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        namespace: &str,
        parameters: &BTreeMap<String, String>,
        stream: &mut impl Write,
    ) {
        let mut after = parameters
            .get("resourceVersion")
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        let ends = state.ends;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.flush());
        if after < state.oldest {
            let message = format!("too old resource version: {after} ({})", state.oldest);
            let (_, gone) = status("410 Gone", "Expired", &message);
            let _ = send(stream, &json!({ "type": "ERROR", "object": gone }));
            let _ = stream.write_all(b"0\r\n\r\n").and_then(|()| stream.flush());
            return;
        }
        loop {
            let wants_bookmarks = parameters.contains_key("allowWatchBookmarks");
            let is_wanted = |event: &Value| match event["type"] == "BOOKMARK" {
                true => wants_bookmarks,
                false => is_selected(&event["object"], namespace, parameters),
            };
            let news = state
                .events
                .iter()
                .filter(|(version, event)| *version > after && is_wanted(event));
            let news: Vec<Value> = news.map(|(_, event)| event.clone()).collect();
            after = after.max(state.version);
            if news.is_empty() && (state.ends > ends || state.is_dropped) {
                break;
            }
            if news.is_empty() {
                state = self.changed.wait(state).unwrap();
                continue;
            }
            drop(state);
            for event in news {
                if send(stream, &event).is_err() {
                    return; // the client has left
                }
            }
            state = self.lock();
        }
        if !state.is_unreachable {
            let _ = stream.write_all(b"0\r\n\r\n").and_then(|()| stream.flush());
        }
    }
}

fn send(stream: &mut impl Write, event: &Value) -> std::io::Result<()> {
    let line = format!("{event}\n");
    write!(stream, "{:x}\r\n{line}\r\n", line.len())?;
    stream.flush()
}

/// A page of the slices. Its `continue` token holds the version of the list and the name of the last slice of the page.
fn list(state: &State, namespace: &str, parameters: &BTreeMap<String, String>) -> Result<Value, Refusal> {
    let selected = state
        .slices
        .values()
        .filter(|slice| is_selected(slice, namespace, parameters));
    let selected: Vec<Value> = selected.cloned().collect();
    let limit = parameters
        .get("limit")
        .and_then(|limit| limit.parse().ok())
        .filter(|limit| *limit > 0);
    let token = parameters.get("continue").filter(|token| !token.is_empty());
    let (version, start) = match token {
        Some(token) => {
            let token: Value = serde_json::from_slice(&BASE64_URL.decode(token).unwrap()).unwrap();
            let is_before = |slice: &&Value| slice["metadata"]["name"].as_str() < token["start"].as_str();
            (token["rv"].as_u64().unwrap(), selected.iter().filter(is_before).count())
        }
        None => (state.version, 0),
    };
    if version < state.oldest || state.expires_lists {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                       list without the continue parameter, or use the continue token in this response to retrieve the \
                       remainder of the results.";
        return Err(status("410 Gone", "Expired", message));
    }
    let end = (start + limit.unwrap_or(selected.len())).min(selected.len());
    let mut metadata = json!({ "resourceVersion": version.to_string(), "continue": "" });
    if end < selected.len() {
        let last = selected[end - 1]["metadata"]["name"].as_str().unwrap();
        let token = json!({ "v": "meta.k8s.io/v1", "rv": version, "start": format!("{last}\0") });
        metadata["continue"] = BASE64_URL.encode(token.to_string()).into();
        if !parameters.contains_key("labelSelector") {
            metadata["remainingItemCount"] = (selected.len() - end).into();
        }
    }
    Ok(json!({
        "kind": "EndpointSliceList",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": metadata,
        "items": selected[start..end],
    }))
}

fn is_selected(slice: &Value, namespace: &str, parameters: &BTreeMap<String, String>) -> bool {
    let metadata = &slice["metadata"];
    let wanted_label = parameters
        .get("labelSelector")
        .and_then(|selector| selector.split_once('='));
    metadata["namespace"] == namespace && wanted_label.is_none_or(|(key, value)| metadata["labels"][key] == value)
}

fn status(line: &'static str, reason: &str, message: &str) -> Refusal {
    let code: u16 = line[..3].parse().unwrap();
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    (line, status)
}

/// What kubectl asks first: which resources there are.
fn discovery(path: &str) -> Option<Value> {
    let version = json!({ "groupVersion": "discovery.k8s.io/v1", "version": "v1" });
    Some(match path {
        "/api" => json!({ "kind": "APIVersions", "versions": ["v1"] }),
        "/api/v1" => json!({ "kind": "APIResourceList", "groupVersion": "v1", "resources": [] }),
        "/apis" => json!({
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [{ "name": "discovery.k8s.io", "versions": [version], "preferredVersion": version }],
        }),
        "/apis/discovery.k8s.io/v1" => json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": "discovery.k8s.io/v1",
            "resources": [{
                "name": "endpointslices",
                "singularName": "endpointslice",
                "namespaced": true,
                "kind": "EndpointSlice",
                "verbs": ["get", "list", "watch"],
            }],
        }),
        _ => return None,
    })
}
