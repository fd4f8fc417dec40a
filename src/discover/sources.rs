//! All sources of servers.

use std::sync::Arc;

use super::dns::DnsSource;
use super::docker::DockerSource;
use super::etcd::EtcdSource;
use super::file::{self, FileSource};
use super::http::HttpSource;
use super::kubernetes::KubernetesSource;
use super::source::{ListAnswer, ServerSource};
use crate::plan::{DiscoverPlan, DiscoverSource, PoolPlan};

/// Creates the source that this plan describes.
pub(super) fn open(plan: &DiscoverPlan) -> Box<dyn ServerSource> {
    match &plan.source {
        DiscoverSource::File(path) => Box::new(FileSource::new(path.clone(), plan.defaults)),
        DiscoverSource::Http(http) => Box::new(HttpSource::new(http.clone(), plan.defaults)),
        DiscoverSource::Etcd { etcd, prefix } => Box::new(EtcdSource::new(Arc::clone(etcd), prefix, plan.defaults)),
        DiscoverSource::Docker(docker) => Box::new(DockerSource::new(docker.clone(), plan.defaults)),
        DiscoverSource::Kubernetes(service) => Box::new(KubernetesSource::new(service.clone(), plan.defaults)),
        DiscoverSource::Dns(dns) => Box::new(DnsSource::new(dns.clone(), plan.defaults)),
    }
}

/// What a source lists at this moment; `None`: only a connection would tell.
#[must_use]
pub fn listed_now(plan: &DiscoverPlan) -> Option<ListAnswer> {
    match &plan.source {
        DiscoverSource::File(path) => Some(file::read(path, plan.defaults)),
        DiscoverSource::Http(_)
        | DiscoverSource::Etcd { .. }
        | DiscoverSource::Docker(_)
        | DiscoverSource::Kubernetes(_)
        | DiscoverSource::Dns(_) => None,
    }
}

/// The pool with the servers that its source lists at this moment. The pool is unchanged if [`listed_now`] returns
/// `None` or an error.
#[must_use]
pub fn with_listed_servers(pool: &Arc<PoolPlan>) -> Arc<PoolPlan> {
    match pool.discover.as_ref().and_then(listed_now) {
        Some(Ok(listed)) => Arc::new(PoolPlan {
            entries: listed.servers.into(),
            ..PoolPlan::clone(pool)
        }),
        _ => Arc::clone(pool),
    }
}
