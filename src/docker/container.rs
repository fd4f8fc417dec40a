//! Containers: created, started, waited for, stopped, removed.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::endpoint::NetworkEndpoint;
use super::engine::{DockerEngine, DockerError, REQUEST_TIMEOUT, rejection};
use crate::back_off::BackOff;

/// How long it may take to create, start or remove a container: its files may be copied.
const FILES_TIMEOUT: Duration = Duration::from_secs(60);

/// A container to create.
pub(crate) struct ContainerSpec<'a> {
    pub(crate) name: &'a str,
    pub(crate) image: &'a str,
    pub(crate) env: Vec<String>,
    pub(crate) labels: BTreeMap<&'a str, &'a str>,
    /// `None`: the default of the engine.
    pub(crate) network: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectAnswer {
    network_settings: InspectedNetworks,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedNetworks {
    networks: BTreeMap<String, NetworkEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WaitAnswer {
    status_code: i64,
}

impl DockerEngine {
    /// Creates a container.
    pub(crate) async fn create(&self, spec: &ContainerSpec<'_>) -> Result<(), DockerError> {
        let body = json!({
            "Image": spec.image,
            "Env": spec.env,
            "Labels": spec.labels,
            "HostConfig": { "NetworkMode": spec.network.unwrap_or("default") },
        });
        let path = format!("/containers/create?name={}", spec.name);
        let response = self.ask(Method::POST, &path, Some(&body), FILES_TIMEOUT).await?;
        expect_status(&response, &[StatusCode::CREATED])
    }

    /// Starts a container.
    pub(crate) async fn start(&self, container: &str) -> Result<(), DockerError> {
        let path = format!("/containers/{container}/start");
        let response = self.ask(Method::POST, &path, None, FILES_TIMEOUT).await?;
        expect_status(&response, &[StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED])
    }

    /// The address of a container in its network; `None`: the container has none.
    pub(crate) async fn address(&self, container: &str) -> Result<Option<IpAddr>, DockerError> {
        let path = format!("/containers/{container}/json");
        let response = self.ask(Method::GET, &path, None, REQUEST_TIMEOUT).await?;
        let InspectAnswer { network_settings } = self.json(&response)?;
        Ok(network_settings.networks.values().find_map(NetworkEndpoint::ip))
    }

    /// Waits until a container has ended, without a deadline. Returns its exit status; `None`: there is no such
    /// container.
    pub(crate) async fn wait(&self, container: &str) -> Result<Option<i64>, DockerError> {
        let path = format!("/containers/{container}/wait");
        let response = self.ask_without_limit(Method::POST, &path, None).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            _ => self.json(&response).map(|WaitAnswer { status_code }| Some(status_code)),
        }
    }

    /// Asks a container to end, with the signal that its image names, SIGTERM by default. The engine kills it after
    /// `kill_after`, rounded up to whole seconds.
    pub(crate) async fn stop(&self, container: &str, kill_after: Duration) -> Result<(), DockerError> {
        let seconds = kill_after.as_millis().div_ceil(1000);
        let path = format!("/containers/{container}/stop?t={seconds}");
        let limit = kill_after.saturating_add(REQUEST_TIMEOUT);
        let response = self.ask(Method::POST, &path, None, limit).await?;
        // It has been stopped, had ended before, or does not exist any more.
        let done = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::NOT_FOUND];
        expect_status(&response, &done)
    }

    /// Removes a container with its anonymous volumes, and kills it if it runs.
    pub(crate) async fn remove(&self, container: &str) -> Result<(), DockerError> {
        let path = format!("/containers/{container}?force=true&v=true");
        let response = self.ask(Method::DELETE, &path, None, FILES_TIMEOUT).await?;
        // A conflict: somebody else removes it now.
        let done = [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND, StatusCode::CONFLICT];
        expect_status(&response, &done)
    }
}

/// A container in the answer to `GET /containers/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LabelledContainer {
    id: String,
}

/// Removes the containers with this label, `KEY=VALUE`, whether they run or not. Adds the IDs of those that are gone to
/// `removed`.
///
/// # Errors
/// The engine cannot be asked for its containers. Or the latest error, if a container cannot be removed; the others are
/// removed nevertheless.
async fn remove_labelled(socket: &Path, label: &str, removed: &mut HashSet<String>) -> Result<(), DockerError> {
    let engine = DockerEngine::connect(socket).await?;
    let with_stopped = true;
    let found: Vec<LabelledContainer> = engine.containers(&json!({ "label": [label] }), with_stopped).await?;
    let mut removals = JoinSet::new();
    for LabelledContainer { id } in found {
        let engine = engine.clone();
        removals.spawn(async move { engine.remove(&id).await.map(|()| id) });
    }
    let mut failure = None;
    while let Some(result) = removals.join_next().await {
        match result? {
            Ok(id) => drop(removed.insert(id)),
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Repeats [`remove_labelled`] until it succeeds, at most until this time. Returns how many of the containers are gone,
/// also if somebody else has removed them meanwhile.
///
/// # Errors
/// The latest error, if it has not succeeded in time; `no answer`, if no attempt has ended.
pub(crate) async fn remove_labelled_until(socket: &Path, label: &str, until: Instant) -> Result<usize, DockerError> {
    let mut failure = DockerError::from("no answer");
    let attempts = async {
        let (mut back_off, mut removed) = (BackOff::default(), HashSet::new());
        loop {
            match remove_labelled(socket, label, &mut removed).await {
                Ok(()) => return removed.len(),
                Err(error) => failure = error,
            }
            back_off.pause().await;
        }
    };
    let removed = timeout_at(until, attempts).await;
    removed.map_err(|_| failure)
}

fn expect_status(response: &Response<Bytes>, accepted: &[StatusCode]) -> Result<(), DockerError> {
    match response.status() {
        status if accepted.contains(&status) => Ok(()),
        status => Err(rejection(status, response.body())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// Answers as an engine with the containers `a`, `b` and `c`. The first attempt to remove `a` fails. Each request
    /// line is added to `requests`.
    async fn serve(listener: UnixListener, requests: Arc<Mutex<Vec<String>>>) {
        let (mut left, mut is_a_busy) = (vec!["a", "b", "c"], true);
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let line = String::from_utf8_lossy(&head).lines().next().unwrap().to_owned();
            let index = left.iter().position(|id| line.contains(&format!("/containers/{id}?")));
            let (status, body) = match index {
                Some(0) if std::mem::take(&mut is_a_busy) => ("500 Error", r#"{"message":"busy"}"#.to_owned()),
                Some(index) => {
                    left.remove(index);
                    ("204 No Content", String::new())
                }
                None if line.contains("/containers/json") => {
                    let list: Vec<_> = left.iter().map(|id| json!({ "Id": id })).collect();
                    ("200 OK", json!(list).to_string())
                }
                None if line.contains("/version") => {
                    let versions = json!({ "ApiVersion": "1.51", "MinAPIVersion": "1.24" });
                    ("200 OK", versions.to_string())
                }
                None => ("204 No Content", String::new()),
            };
            requests.lock().push(line);
            let length = match status {
                "204 No Content" => String::new(),
                _ => format!("Content-Length: {}\r\n", body.len()),
            };
            let answer = format!("HTTP/1.1 {status}\r\n{length}\r\n{body}");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    struct FakeEngine {
        directory: TempDir,
        requests: Arc<Mutex<Vec<String>>>,
        _task: AbortOnDropHandle<()>,
    }

    impl FakeEngine {
        fn start() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let requests = Arc::<Mutex<Vec<String>>>::default();
            let listener = UnixListener::bind(directory.path().join("engine")).unwrap();
            let task = tokio::spawn(serve(listener, Arc::clone(&requests)));
            Self {
                directory,
                requests,
                _task: AbortOnDropHandle::new(task),
            }
        }

        fn socket(&self) -> PathBuf {
            self.directory.path().join("engine")
        }
    }

    #[tokio::test]
    async fn a_failed_removal_is_repeated_the_other_containers_are_removed_once_and_all_are_counted() {
        let fake = FakeEngine::start();
        let removed = remove_labelled_until(&fake.socket(), "k=v", Instant::now() + FILES_TIMEOUT).await;
        assert_eq!(removed.unwrap(), 3);
        let requests = std::mem::take(&mut *fake.requests.lock());
        let deletions = requests.iter().filter(|line| line.starts_with("DELETE")).count();
        assert_eq!(deletions, 4, "each once, and `a` again");
    }

    #[tokio::test]
    async fn the_time_to_stop_is_rounded_up_to_whole_seconds() {
        let fake = FakeEngine::start();
        let engine = DockerEngine::connect(&fake.socket()).await.unwrap();
        engine.stop("x", Duration::from_millis(1500)).await.unwrap();
        let last = fake.requests.lock().last().cloned().unwrap();
        assert!(last.contains("/containers/x/stop?t=2 "), "{last}");
    }
}
