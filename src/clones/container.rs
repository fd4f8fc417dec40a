//! A clone that is a container of Docker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::clone_name::CloneName;
use super::container_follower::ContainerFollower;
use super::own_containers::{HeldContainer, INSTANCE_LABEL, OwnContainers};
use crate::addr::ServerAddr;
use crate::back_off::BackOff;
use crate::docker::{ContainerSpec, DockerEngine, DockerError};
use crate::error::chain;
use crate::scale::CloneContainer;
use crate::units::format_duration;

/// The label with the name of the clone.
const CLONE_LABEL: &str = "acequia.clone";

/// How long to wait until the follower has reported the end of a container. Longer than the follower itself waits for
/// the end of the log.
const FOLLOWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A container that has been started.
pub(super) struct RunningContainer {
    held: HeldContainer,
    /// The task that reads the log and returns how the container has ended. `None`: it has returned.
    follower: Option<AbortOnDropHandle<String>>,
}

/// Pulls the image of a clone, if the engine does not have it.
///
/// # Errors
/// The engine does not answer, or cannot pull the image.
pub(super) async fn pull(container: &CloneContainer, name: &CloneName) -> Result<(), String> {
    let CloneContainer { image, socket, .. } = container;
    let found = async {
        let engine = DockerEngine::connect(socket).await?;
        let is_there = engine.has_image(image).await?;
        Ok((engine, is_there))
    };
    let (engine, is_there) = found.await.map_err(|error: DockerError| chain(&*error))?;
    if is_there {
        return Ok(());
    }
    let CloneName { pool, clone } = name;
    tracing::info!(%pool, %clone, %image, "pulling the image");
    let began = Instant::now();
    let failed = |error: DockerError| format!("image `{image}` is not there and cannot be pulled: {}", chain(&*error));
    engine.pull(image).await.map_err(failed)?;
    tracing::info!(%pool, %clone, %image, took = format_duration(began.elapsed()), "the image is there");
    Ok(())
}

impl RunningContainer {
    /// Starts a container. If this fails, or if its future is dropped, the container is removed.
    ///
    /// # Errors
    /// There is no keeper that would remove it; or the engine does not answer, does not start it, or gives it no
    /// address.
    pub(super) async fn start(
        container: &CloneContainer,
        name: &CloneName,
        own: &Arc<OwnContainers>,
    ) -> Result<(Self, ServerAddr), String> {
        own.prepare(&container.socket).await?;
        let held = own.hold(&container.socket, &name.clone);
        Self::run(container, name, own, held)
            .await
            .map_err(|error| chain(&*error))
    }

    async fn run(
        container: &CloneContainer,
        name: &CloneName,
        own: &OwnContainers,
        held: HeldContainer,
    ) -> Result<(Self, ServerAddr), DockerError> {
        let engine = DockerEngine::connect(&container.socket).await?;
        let port = container.port.to_string();
        let environment = name.environment(&port, &container.env);
        let began = SystemTime::now();
        let spec = ContainerSpec {
            name: &held.place.name,
            image: &container.image,
            env: environment.map(|(key, value)| format!("{key}={value}")).collect(),
            labels: BTreeMap::from([(INSTANCE_LABEL, &*own.instance), (CLONE_LABEL, &*name.clone)]),
            network: container.network.as_deref(),
        };
        engine.create(&spec).await?;
        engine.start(&held.place.name).await?;
        let follower = ContainerFollower::new(held.place.clone(), name.clone(), began);
        let mut started = Self {
            follower: Some(AbortOnDropHandle::new(tokio::spawn(follower.run()))),
            held,
        };
        match engine.address(&started.held.place.name).await? {
            Some(ip) => Ok((started, ServerAddr::new(SocketAddr::new(ip, container.port)))),
            // A container that has ended has no address.
            None => Err(match timeout(FOLLOWER_TIMEOUT, started.ended()).await {
                Ok(how) => format!("it has ended before its first good check: {how}").into(),
                Err(_) => "it has no address in its network".into(),
            }),
        }
    }

    /// The name of the container.
    pub(super) fn name(&self) -> &str {
        &self.held.place.name
    }

    /// Waits until it has ended. Returns how. Cancel safe.
    pub(super) async fn ended(&mut self) -> String {
        let how = match &mut self.follower {
            Some(follower) => follower.await.ok(),
            None => None,
        };
        self.follower = None;
        how.unwrap_or_else(|| "it has ended".into())
    }

    /// Asks the container to end, kills it after `kill_after`, and removes it. If that fails, it is tried again. At
    /// `too_late`, one last request kills and removes the container.
    pub(super) async fn stop(mut self, kill_after: Duration, name: &CloneName, too_late: impl Future<Output = ()>) {
        let CloneName { pool, clone } = name;
        let stopped = async {
            let (mut back_off, mut is_logged) = (BackOff::default(), false);
            while let Err(error) = self.try_stop(kill_after).await {
                if !is_logged {
                    tracing::warn!(%pool, %clone, error = chain(&*error), "the container of a clone cannot be stopped: this is tried again");
                }
                is_logged = true;
                back_off.pause().await;
            }
        };
        let removed = tokio::select! {
            () = stopped => Ok(()),
            () = too_late => self.held.place.remove().await,
        };
        match removed {
            Ok(()) => self.held.mark_removed(),
            Err(error) => {
                let (container, error) = (self.name(), chain(&*error));
                tracing::warn!(%pool, %clone, container, error, "the container of a clone cannot be removed: it may still run");
            }
        }
    }

    async fn try_stop(&mut self, kill_after: Duration) -> Result<(), DockerError> {
        let place = self.held.place.clone();
        let engine = DockerEngine::connect(&place.socket).await?;
        engine.stop(&place.name, kill_after).await?;
        // The follower reads the end of the log before the container is removed.
        let _ = timeout(FOLLOWER_TIMEOUT, self.ended()).await;
        engine.remove(&place.name).await
    }
}
