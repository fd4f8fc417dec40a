//! The files that a plan names.

use std::path::Path;

use super::{CheckKind, Plan};

impl Plan {
    /// The files that are read while we run, each with the key that names it.
    #[must_use]
    pub fn files(&self) -> Vec<(String, &Path)> {
        let token = self.admin.token_file.as_deref();
        let mut files: Vec<_> = token
            .map(|path| (String::from("admin.token_file"), path))
            .into_iter()
            .collect();
        for pool in &self.pools {
            let (key, path) = match &pool.health.check {
                Some(CheckKind::Tls(tls)) => ("ca_file", tls.ca_file.as_deref()),
                Some(CheckKind::Postgres(postgres)) => {
                    let login = postgres.login.as_ref();
                    ("password_file", login.and_then(|login| login.password_file.as_deref()))
                }
                Some(CheckKind::Tcp) | None => continue,
            };
            files.extend(path.map(|path| (format!("pools.{}.health.{key}", pool.pool.name()), path)));
        }
        files
    }
}
