//! Containers: created, started, waited for, stopped, removed.

use std::collections::BTreeMap;
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

    /// Waits until a container has ended. Returns its exit status; `None`: there is no such container. There is no
    /// deadline: it may run for any time.
    pub(crate) async fn ended(&self, container: &str) -> Result<Option<i64>, DockerError> {
        let path = format!("/containers/{container}/wait");
        let response = self.ask_without_limit(Method::POST, &path, None).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            _ => self.json(&response).map(|WaitAnswer { status_code }| Some(status_code)),
        }
    }

    /// Asks a container to end, with the signal that its image names, SIGTERM by default. The engine kills it after
    /// `kill_after`.
    pub(crate) async fn stop(&self, container: &str, kill_after: Duration) -> Result<(), DockerError> {
        let path = format!("/containers/{container}/stop?t={}", kill_after.as_secs());
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

/// A container of `GET /containers/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LabelledContainer {
    id: String,
}

/// Removes the containers with this label, `KEY=VALUE`, whether they run or not. Returns how many there were.
async fn remove_labelled(socket: &Path, label: &str) -> Result<usize, DockerError> {
    let engine = DockerEngine::connect(socket).await?;
    let with_stopped = true;
    let found: Vec<LabelledContainer> = engine.containers(&json!({ "label": [label] }), with_stopped).await?;
    let mut removals = JoinSet::new();
    for LabelledContainer { id } in found {
        let engine = engine.clone();
        removals.spawn(async move { engine.remove(&id).await });
    }
    let removed = removals.len();
    while let Some(result) = removals.join_next().await {
        result??;
    }
    Ok(removed)
}

/// Repeats [`remove_labelled`] until it succeeds, at most until this time.
///
/// # Errors
/// The latest error, if it has not succeeded in time.
pub(crate) async fn remove_labelled_until(socket: &Path, label: &str, until: Instant) -> Result<usize, DockerError> {
    let mut failure = DockerError::from("no answer");
    let attempts = async {
        let mut back_off = BackOff::default();
        loop {
            match remove_labelled(socket, label).await {
                Ok(removed) => return removed,
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
