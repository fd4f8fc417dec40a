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

/// The label with the server name, or with several, separated by commas.
const SNI_LABEL: &str = "acequia.sni";

/// The label that groups containers: those that announce the same server name are in one pool only if they have the
/// same value of this label, too.
const POOL_LABEL: &str = "acequia.pool";

/// Changes within this time are applied together.
const SETTLE: Duration = Duration::from_millis(200);

/// All announced routes, or why they are not known; `None`: the engine has not answered yet.
pub type AnnouncedAnswer = Option<Result<Arc<[Announcement]>, Reason>>;

/// Follows the announcements of containers while a listener of the plan in force accepts any. Never returns.
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

/// Waits until the plan in force names another engine.
async fn changed(in_force: &mut watch::Receiver<Arc<InForce>>, socket: Option<&Arc<Path>>) {
    let is_another = |now: &Arc<InForce>| now.plan.announcing_engine() != socket;
    if in_force.wait_for(is_another).await.is_err() {
        std::future::pending().await // the process ends
    }
}

/// Follows the containers of the engine at this socket; `None`: no listener accepts announcements. Never returns.
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

/// Sends the announcements of the containers, until the engine fails.
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
/// announces one route with an empty name, which [`Plan::with_announced`](crate::plan::Plan::with_announced) refuses.
fn announcements(container: &Container) -> impl Iterator<Item = Announcement> {
    let label = |key| container.label(key).unwrap_or_default().trim();
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
