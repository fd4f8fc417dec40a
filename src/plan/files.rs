//! The files that a plan refers to.

use std::path::Path;

use super::{DiscoverSource, Plan};
use crate::etcd::EtcdPlan;
use crate::tls::{ListenerTlsPlan, PoolTlsPlan};

impl Plan {
    /// The files that are read at run time, each with the key that names it. Two kinds are left out: the certificates
    /// and keys of listeners and of the admin port, which [`crate::tls`] checks as it reads them, and lists of servers,
    /// which may be missing at the start.
    #[must_use]
    pub fn files(&self) -> Vec<(String, &Path)> {
        let mut files = self.files_outside_tls();
        for listener in &self.listeners {
            let of_tls = listener.tls.iter().flat_map(ListenerTlsPlan::files); // without certificates
            files.extend(in_section(&format!("listeners.{}.tls", listener.name), of_tls));
        }
        for pool in &self.pools {
            let of_tls = pool.tls.iter().flat_map(PoolTlsPlan::files);
            files.extend(in_section(&format!("pools.{}.tls", pool.name), of_tls));
        }
        files
    }

    /// Those of [`Self::files`] that are not in the TLS settings of a listener or a pool.
    #[must_use]
    pub fn files_outside_tls(&self) -> Vec<(String, &Path)> {
        let token = self.admin.token_file.as_deref();
        let mut files: Vec<_> = in_section("admin", token.map(|path| ("token_file", path))).collect();
        for acme in &self.acme {
            files.extend(in_section(&format!("acme.{}", acme.name), acme.files()));
        }
        let sources = || {
            self.pools
                .iter()
                .filter_map(|pool| Some(&pool.discover.as_ref()?.source))
        };
        // All sources of one kind share one section of `[providers]`, so the first source is enough.
        let etcd_of_sources = || {
            sources().find_map(|source| match source {
                DiscoverSource::Etcd { etcd, .. } => Some(&**etcd),
                _ => None,
            })
        };
        let etcd_of_remote = self.remote.as_ref().map(|remote| &*remote.etcd);
        let etcd = etcd_of_remote.or_else(etcd_of_sources);
        files.extend(in_section("providers.etcd", etcd.into_iter().flat_map(EtcdPlan::files)));
        let kubeconfig = sources().find_map(|source| match source {
            DiscoverSource::Kubernetes(service) => service.kubernetes.kubeconfig.as_deref(),
            _ => None,
        });
        files.extend(in_section(
            "providers.kubernetes",
            kubeconfig.map(|path| ("kubeconfig", path)),
        ));
        for pool in &self.pools {
            if let Some(DiscoverSource::Http(http)) = pool.discover.as_ref().map(|discover| &discover.source) {
                let authorities = http.ca_file.as_deref().map(|path| ("ca_file", path));
                files.extend(in_section(&format!("pools.{}.discover", pool.name), authorities));
            }
            let of_check = pool.health.check.iter().flat_map(|check| check.files());
            files.extend(in_section(&format!("pools.{}.health", pool.name), of_check));
        }
        files
    }
}

/// Puts the name of a section before the keys that name files.
fn in_section<'a>(
    section: &str,
    files: impl IntoIterator<Item = (&'static str, &'a Path)>,
) -> impl Iterator<Item = (String, &'a Path)> {
    let files = files.into_iter();
    files.map(move |(key, path)| (format!("{section}.{key}"), path))
}
