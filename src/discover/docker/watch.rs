//! The containers with a label, now and whenever something happens to them.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::container::Container;
use crate::docker::{DockerEngine, DockerError, DockerEvent, DockerEvents};
use crate::plan::LISTED_MAX;

/// After this time without an event, the containers are listed again.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// If events led to a list, the containers are listed again after this time instead of `QUIET_MAX`: Docker reports that
/// a container is paused before its lists say so.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// For all events within this time, the containers are listed once: the start of a container has several events.
const GATHERING: Duration = Duration::from_millis(50);

/// A new connection to the engine also asks for past events, from this long before the last list or, if there was none,
/// before now. They tell which containers have been asked to stop; lists do not. It is longer than nearly all timeouts
/// of `docker stop`. More would seldom help: Docker keeps the last 256 events, of all kinds.
const PAST: Duration = Duration::from_secs(600);

/// The signals that ask a process to end: SIGINT, SIGQUIT and SIGTERM. Most images use one of them (STOPSIGNAL).
const STOP_SIGNALS: [&str; 3] = ["2", "3", "15"];

/// Follows the containers with a label.
pub(in crate::discover) struct ContainerWatch {
    socket: Box<Path>,
    label: Box<str>,
    /// Kept if the engine fails: without it, these containers would get new sessions, which would soon be cut.
    stopping: StoppingContainers,
    /// `None`: the engine is not followed yet, or has failed.
    followed: Option<FollowedEngine>,
    /// When the containers were last listed, by any connection to the engine.
    listed_at: Option<SystemTime>,
}

/// An engine whose events are followed.
struct FollowedEngine {
    engine: DockerEngine,
    events: DockerEvents,
    /// When its containers were last listed.
    listed_at: Option<Instant>,
    /// Whether events led to the last list.
    listed_after_events: bool,
}

impl ContainerWatch {
    /// For the containers with this label, `KEY` or `KEY=VALUE`.
    pub(in crate::discover) fn new(socket: &Path, label: &str) -> Self {
        Self {
            socket: socket.into(),
            label: label.into(),
            stopping: StoppingContainers::default(),
            followed: None,
            listed_at: None,
        }
    }

    /// The containers. The first time and after an error, they are listed at once, otherwise when something may have
    /// happened to them.
    pub(in crate::discover) async fn next(&mut self) -> Result<Vec<Container>, DockerError> {
        let mut followed = match self.followed.take() {
            Some(followed) => followed,
            None => self.follow().await?,
        };
        followed.wait(&mut self.stopping).await?;
        let containers = self.list(&followed.engine).await?;
        followed.listed_at = Some(Instant::now());
        self.listed_at = Some(SystemTime::now());
        self.followed = Some(followed);
        Ok(containers)
    }

    /// Events are followed before anything is listed, so that none in between is missed.
    async fn follow(&self) -> Result<FollowedEngine, DockerError> {
        let engine = DockerEngine::connect(&self.socket).await?;
        let now = SystemTime::now();
        let since = self.listed_at.map_or(now, |listed_at| listed_at.min(now)) - PAST;
        Ok(FollowedEngine {
            events: engine.events(since).await?,
            engine,
            listed_at: None,
            listed_after_events: false,
        })
    }

    /// The running containers. A second request asks for those that are not healthy, because the list states the health
    /// only in a text for humans. If the health changes between the two answers, an event follows.
    async fn list(&mut self, engine: &DockerEngine) -> Result<Vec<Container>, DockerError> {
        let labelled_filters = json!({ "label": [self.label] });
        let ill_filters = json!({ "label": [self.label], "health": ["starting", "unhealthy"] });
        let with_stopped = false;
        let mut containers: Vec<Container> = engine.containers(&labelled_filters, with_stopped).await?;
        let ill: Vec<Container> = engine.containers(&ill_filters, with_stopped).await?;
        if containers.len() > LISTED_MAX {
            return Err(format!("more than {LISTED_MAX} containers have the label `{}`", self.label).into());
        }
        let ill_ids: HashSet<&str> = ill.iter().map(|container| &*container.id).collect();
        containers.retain(Container::is_alive);
        self.stopping.retain(&containers);
        for container in &mut containers {
            container.is_draining =
                container.is_paused() || ill_ids.contains(&*container.id) || self.stopping.0.contains(&container.id);
        }
        Ok(containers)
    }
}

impl FollowedEngine {
    /// Waits until the containers are to be listed. The first time, only past events are awaited, which come at once.
    async fn wait(&mut self, stopping: &mut StoppingContainers) -> Result<(), DockerError> {
        let deadline = match self.listed_at {
            None => Instant::now() + GATHERING,
            Some(listed_at) if self.listed_after_events => listed_at + SECOND_LOOK,
            Some(listed_at) => listed_at + QUIET_MAX,
        };
        self.listed_after_events = self.gather_events(deadline, stopping).await?;
        Ok(())
    }

    /// Waits for an event until `deadline`. After the first one, takes those of the next [`GATHERING`], but none after
    /// `deadline`. Returns whether any event came.
    async fn gather_events(
        &mut self,
        deadline: Instant,
        stopping: &mut StoppingContainers,
    ) -> Result<bool, DockerError> {
        let mut has_events = false;
        let mut end = deadline;
        // `timeout_at` alone would go on after `end` for as long as another event is ready.
        while Instant::now() < end
            && let Ok(event) = timeout_at(end, self.events.next()).await
        {
            stopping.note(&event?);
            has_events = true;
            end = end.min(Instant::now() + GATHERING); // only the first event moves it
        }
        Ok(has_events)
    }
}

/// The containers that were asked to end, and have not ended yet. Lists do not distinguish them from others.
#[derive(Default)]
struct StoppingContainers(HashSet<String>);

impl StoppingContainers {
    fn note(&mut self, event: &DockerEvent) {
        let is_container = event.object_type == "container";
        let id = &event.actor.id;
        match (&*event.action, &event.actor.attributes.signal) {
            ("kill", Some(signal)) if is_container && STOP_SIGNALS.contains(&&**signal) => {
                self.0.insert(id.clone());
            }
            ("die" | "start", _) if is_container => {
                self.0.remove(id);
            }
            _ => {}
        }
    }

    /// Keeps those that are listed.
    fn retain(&mut self, listed: &[Container]) {
        let listed: HashSet<&str> = listed.iter().map(|container| &*container.id).collect();
        self.0.retain(|id| listed.contains(&**id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(events: &[&str]) -> Vec<String> {
        let mut stopping = StoppingContainers::default();
        for event in events {
            stopping.note(&serde_json::from_str(event).unwrap());
        }
        let mut ids: Vec<_> = stopping.0.into_iter().collect();
        ids.sort();
        ids
    }

    fn kill(id: &str, signal: u8) -> String {
        let actor = format!(r#"{{"ID": "{id}", "Attributes": {{"image": "i", "signal": "{signal}"}}}}"#);
        format!(r#"{{"Type": "container", "Action": "kill", "Actor": {actor}}}"#)
    }

    #[test]
    fn a_container_counts_as_stopping_from_the_signal_to_its_end() {
        let died = r#"{"Type": "container", "Action": "die", "Actor": {"ID": "a", "Attributes": {"exitCode": "0"}}}"#;
        assert_eq!(noted(&[&kill("a", 15), &kill("b", 3), &kill("c", 2)]), ["a", "b", "c"]);
        assert_eq!(noted(&[&kill("a", 15), &kill("b", 3), died]), ["b"]);
    }

    #[test]
    fn other_signals_and_events_of_networks_do_not_count_as_stopping() {
        let network = kill("n", 15).replace("\"container\"", "\"network\"");
        let bare = r#"{"Type": "container", "Action": "kill", "Actor": {"ID": "a"}}"#;
        assert!(noted(&[&kill("a", 1), &kill("b", 10), &network, bare]).is_empty());
    }
}
