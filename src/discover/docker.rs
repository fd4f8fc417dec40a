//! Servers that are Docker containers with a given label.

mod container;
mod watch;

pub(super) use container::Container;
pub(super) use watch::ContainerWatch;

use std::collections::BTreeMap;

use super::source::{FollowFuture, Reports, ServerList, ServerSource};
use crate::docker::DockerError;
use crate::error::chain;
use crate::plan::{DockerSourcePlan, ServerEntry};
use crate::pool::MemberConfig;
use crate::text::Reason;

/// Lists, as servers, those containers of a Docker engine that have a given label.
pub(super) struct DockerSource {
    plan: DockerSourcePlan,
    defaults: MemberConfig,
    /// The containers of the latest list that cannot be servers, by name, each with the reason.
    refused: BTreeMap<String, Reason>,
    watch: ContainerWatch,
}

impl DockerSource {
    pub(super) fn new(plan: DockerSourcePlan, defaults: MemberConfig) -> Self {
        Self {
            watch: ContainerWatch::new(&plan.socket, &plan.label),
            plan,
            defaults,
            refused: BTreeMap::new(),
        }
    }

    async fn run(&mut self, reports: &Reports) -> DockerError {
        loop {
            match self.watch.next().await {
                Ok(containers) => reports.report(Ok(self.list(&containers))),
                Err(error) => return error,
            }
        }
    }

    /// The servers in the order of their names. A container that cannot be a server is logged only if the previous
    /// list did not have it, or had it as a server.
    fn list(&mut self, containers: &[Container]) -> ServerList {
        let (mut servers, mut refused) = (Vec::new(), BTreeMap::new());
        for container in containers {
            match container.server(self.plan.network.as_deref(), self.plan.port, self.defaults) {
                Ok(server) => servers.push(server),
                Err(reason) => drop(refused.insert(container.name().to_owned(), reason)),
            }
        }
        servers.sort_by(|a: &ServerEntry, b| a.label().cmp(b.label()));
        for (container, error) in refused.iter().filter(|(name, _)| !self.refused.contains_key(*name)) {
            tracing::warn!(container, %error, label = &*self.plan.label, "a container is not a server");
        }
        let warning = refused.first_key_value().map(|(name, error)| {
            Reason::from(match refused.len() {
                1 => format!("container `{name}` is not a server: {error}"),
                count => format!("{count} containers are not servers; the first is `{name}`: {error}"),
            })
        });
        self.refused = refused;
        ServerList { servers, warning }
    }
}

impl ServerSource for DockerSource {
    fn follow<'a>(&'a mut self, reports: &'a Reports) -> FollowFuture<'a> {
        Box::pin(async { Reason::from(chain(&*self.run(reports).await)) })
    }
}
