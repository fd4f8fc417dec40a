//! The events of containers and networks.

use std::time::SystemTime;

use hyper::Method;
use serde::Deserialize;
use serde_json::json;

use super::engine::{DockerEngine, DockerError, query, timestamp};
use crate::http_client::ResponseLines;

/// The longest event: enough for a container with many labels, because an event has all labels of its container.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Events that may change the list of containers or addresses. Other events are not requested, because there are too
/// many: each run of a health check causes several (`exec_create`, `exec_start`, …).
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

/// Something that has happened to a container or a network.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerEvent {
    /// The type of the object: `container` or `network`.
    #[serde(rename = "Type")]
    pub(crate) object_type: String,
    pub(crate) action: String,
    pub(crate) actor: EventActor,
}

/// The container or network of an event.
#[derive(Default, Deserialize)]
pub(crate) struct EventActor {
    #[serde(default, rename = "ID")]
    pub(crate) id: String,
    #[serde(default, rename = "Attributes")]
    pub(crate) attributes: EventAttributes,
}

/// Further data of an event.
#[derive(Default, Deserialize)]
pub(crate) struct EventAttributes {
    /// For `kill`, the number of the signal.
    pub(crate) signal: Option<String>,
}

impl DockerEngine {
    /// The events of containers and networks from this time on.
    pub(crate) async fn events(&self, since: SystemTime) -> Result<DockerEvents, DockerError> {
        let filters = json!({ "type": ["container", "network"], "event": EVENTS });
        let query = query(&[("since", &timestamp(since)), ("filters", &filters.to_string())]);
        let response = self.stream(Method::GET, &format!("/events?{query}")).await?;
        Ok(DockerEvents(ResponseLines::new(response, EVENT_BYTES_MAX)))
    }
}

/// Events as they happen: JSON, each on a line.
pub(crate) struct DockerEvents(ResponseLines);

impl DockerEvents {
    /// The next event. A line that is not understood gives an event with empty fields, so that the caller knows that
    /// something has happened. The caller sets a deadline. No event is lost if this future is dropped.
    pub(crate) async fn next(&mut self) -> Result<DockerEvent, DockerError> {
        let line = self.0.next().await?.ok_or("the events have ended")?;
        Ok(serde_json::from_slice(&line).unwrap_or_default())
    }
}
