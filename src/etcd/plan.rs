//! `[providers.etcd]`.

use std::path::{Path, PathBuf};

use hyper::Uri;

use crate::tls::CertificateFiles;

/// How etcd is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdPlan {
    /// The URLs of etcd's members, without a path; at least one.
    pub endpoints: Vec<Uri>,
    /// `None`: without a login.
    pub login: Option<EtcdLogin>,
    /// The certificate authorities of the members; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, for members that ask for one. It does not replace `login`: where logins are required, the JSON
    /// gateway of etcd refuses certificates that have a common name.
    pub identity: Option<CertificateFiles>,
}

/// A user of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdLogin {
    /// Its name.
    pub user: Box<str>,
    /// The file with its password.
    pub password_file: PathBuf,
}

impl EtcdPlan {
    /// The files that are read, each with its key of `[providers.etcd]`.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let login = self.login.iter();
        let password = login.map(|login| ("password_file", &*login.password_file));
        let authorities = self.ca_file.iter().map(|path| ("ca_file", &**path));
        let identity = self.identity.iter();
        let identity = identity.flat_map(|files| [("cert_file", &*files.cert), ("key_file", &*files.key)]);
        password.chain(authorities).chain(identity)
    }
}
