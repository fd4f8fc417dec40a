//! The files that a plan refers to.

use std::path::Path;

use super::Plan;
use crate::tls::ListenerTlsPlan;

impl Plan {
    /// The files that are read at run time, each with the key that names it.
    #[must_use]
    pub fn files(&self) -> Vec<(String, &Path)> {
        let token = self.admin.token_file.as_deref();
        let mut files: Vec<_> = token
            .map(|path| (String::from("admin.token_file"), path))
            .into_iter()
            .collect();
        for listener in &self.listeners {
            let read = listener.tls.iter().flat_map(ListenerTlsPlan::files);
            files.extend(read.map(|(key, path)| (format!("listeners.{}.tls.{key}", listener.name), path)));
        }
        for pool in &self.pools {
            let read = pool.health.check.iter().flat_map(|check| check.files());
            files.extend(read.map(|(key, path)| (format!("pools.{}.health.{key}", pool.name), path)));
        }
        files
    }
}
