//! The files that a plan refers to.

use std::path::Path;

use super::{DiscoverSource, Plan};
use crate::etcd::EtcdPlan;
use crate::tls::{ListenerTlsPlan, PoolTlsPlan};

impl Plan {
    /// The files that are read at run time, each with the key that names it. Not here: the certificates of listeners,
    /// which `tls` checks as it reads them, and lists of servers, which may be missing at the start.
    #[must_use]
    pub fn files(&self) -> Vec<(String, &Path)> {
        let token = self.admin.token_file.as_deref();
        let mut files: Vec<_> = token
            .map(|path| (String::from("admin.token_file"), path))
            .into_iter()
            .collect();
        for acme in &self.acme {
            let read = acme.files().into_iter();
            files.extend(read.map(|(key, path)| (format!("acme.{}.{key}", acme.name), path)));
        }
        let sources = || {
            self.pools
                .iter()
                .filter_map(|pool| Some(&pool.discover.as_ref()?.source))
        };
        // All pools have the same provider of each kind.
        let etcd_of_sources = || {
            sources().find_map(|source| match source {
                DiscoverSource::Etcd { etcd, .. } => Some(&**etcd),
                _ => None,
            })
        };
        let etcd_of_remote = self.remote.as_ref().map(|remote| &*remote.etcd);
        let etcd = etcd_of_remote.or_else(etcd_of_sources);
        let read = etcd.into_iter().flat_map(EtcdPlan::files);
        files.extend(read.map(|(key, path)| (format!("providers.etcd.{key}"), path)));
        let kubeconfig = sources().find_map(|source| match source {
            DiscoverSource::Kubernetes(service) => service.kubernetes.kubeconfig.as_deref(),
            _ => None,
        });
        files.extend(kubeconfig.map(|path| (String::from("providers.kubernetes.kubeconfig"), path)));
        for listener in &self.listeners {
            let read = listener.tls.iter().flat_map(ListenerTlsPlan::files);
            files.extend(read.map(|(key, path)| (format!("listeners.{}.tls.{key}", listener.name), path)));
        }
        for pool in &self.pools {
            if let Some(DiscoverSource::Http(http)) = pool.discover.as_ref().map(|discover| &discover.source) {
                let authorities = http.ca_file.as_deref();
                files.extend(authorities.map(|path| (format!("pools.{}.discover.ca_file", pool.name), path)));
            }
            let read = pool.tls.iter().flat_map(PoolTlsPlan::files);
            files.extend(read.map(|(key, path)| (format!("pools.{}.tls.{key}", pool.name), path)));
            let read = pool.health.check.iter().flat_map(|check| check.files());
            files.extend(read.map(|(key, path)| (format!("pools.{}.health.{key}", pool.name), path)));
        }
        files
    }
}
