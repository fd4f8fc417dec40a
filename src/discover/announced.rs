//! Routes that containers of Docker announce by their labels.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::docker::{Container, ContainerWatch};
use crate::back_off::BackOff;
use crate::docker::DockerError;
use crate::error::chain;
use crate::live::{InForce, Live};
use crate::plan::{Announcement, LISTED_MAX};
use crate::pool::MemberConfig;
use crate::text::Reason;

/// The label with the name of the listener. Containers that have it announce routes.
const LISTENER_LABEL: &str = "acequia.listener";

/// The label with the server names of the announced routes, separated by commas.
const SNI_LABEL: &str = "acequia.sni";

/// The label with the group of a container. Containers that announce the same server name at one listener form a pool.
/// All of them must be of the group of the oldest one that is not refused for another reason (none, if it has none);
/// the others are refused.
const POOL_LABEL: &str = "acequia.pool";

/// After the containers were listed, the next list waits for this long, so that all changes meanwhile are applied
/// together.
const SETTLE: Duration = Duration::from_millis(200);

/// All announcements, or why they are not known; `None`: the engine that is followed now has not answered yet, or none
/// is followed.
pub type AnnouncedAnswer = Option<Result<Arc<[Announcement]>, Reason>>;

/// Follows the announcements of containers while the plan in force has a listener that accepts announcements. Never
/// returns.
pub async fn follow_announcements(live: Arc<Live>, answers: watch::Sender<AnnouncedAnswer>) {
    let mut in_force = live.subscribe();
    loop {
        let socket = in_force.borrow_and_update().plan.announcing_engine().cloned();
        tokio::select! {
            () = follow(socket.as_deref(), &answers) => {}
            () = changed(&mut in_force, socket.as_ref()) => answers.send_modify(|answer| *answer = None),
        }
    }
}

/// Waits until [`announcing_engine`](crate::plan::Plan::announcing_engine) of the plan in force is no longer `socket`.
async fn changed(in_force: &mut watch::Receiver<Arc<InForce>>, socket: Option<&Arc<Path>>) {
    let is_another = |now: &Arc<InForce>| now.plan.announcing_engine() != socket;
    if in_force.wait_for(is_another).await.is_err() {
        std::future::pending().await // never happens: `follow_announcements` keeps `Live`, which sends
    }
}

/// Follows the containers of the engine at this socket; with `None`, only waits. Never returns.
async fn follow(socket: Option<&Path>, answers: &watch::Sender<AnnouncedAnswer>) {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    let mut back_off = BackOff::default();
    let mut containers = ContainerWatch::new(socket, LISTENER_LABEL);
    loop {
        let error = watch_containers(&mut containers, answers, &mut back_off).await;
        answers.send_replace(Some(Err(Reason::from(chain(&*error)))));
        back_off.pause().await;
    }
}

/// Sends the announcements of the containers whenever these may have changed. Returns what ends this: a failure of the
/// engine, or too many announcements.
async fn watch_containers(
    containers: &mut ContainerWatch,
    answers: &watch::Sender<AnnouncedAnswer>,
    back_off: &mut BackOff,
) -> DockerError {
    loop {
        let listed = match containers.next().await {
            Ok(listed) => listed,
            Err(error) => return error,
        };
        let announced: Arc<[_]> = listed.iter().flat_map(announcements).collect();
        if announced.len() > LISTED_MAX {
            return format!("more than {LISTED_MAX} routes are announced").into();
        }
        answers.send_replace(Some(Ok(announced)));
        back_off.reset();
        sleep(SETTLE).await;
    }
}

/// The routes that a container announces: one for each name in its [`SNI_LABEL`]. A container without that label
/// announces one route with an empty name. [`Plan::with_announced`](crate::plan::Plan::with_announced) refuses that
/// route, so that operators are told about the container.
fn announcements(container: &Container) -> impl Iterator<Item = Announcement> {
    let label = |key| container.label(key).unwrap_or_default().trim();
    // The labels of the container may name its network and port. For them, `discover` has defaults in the
    // configuration; here there are none.
    let (default_network, default_port) = (None, None);
    let server = container.server(default_network, default_port, MemberConfig::default());
    label(SNI_LABEL).split(',').map(move |sni| Announcement {
        from: container.name().into(),
        created: container.created,
        listener: label(LISTENER_LABEL).into(),
        sni: sni.trim().into(),
        group: container.label(POOL_LABEL).map(Into::into),
        server: server.clone(),
    })
}
