//! The admin port of a process, which may be on another machine.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use hyper::Uri;
use hyper::header::HeaderValue;

use super::{Peer, RemoteError};
use crate::cli::values::url;
use crate::error::with_context;
use crate::{admin, http_client, tls};

/// Selects the admin port of a process instead of its socket.
#[derive(Clone, Debug, Args)]
pub(super) struct AdminPort {
    /// The admin port of the process, instead of its socket: https://HOST:PORT, or http://HOST:PORT without [admin.tls]
    #[arg(long, value_name = "URL", value_parser = url, conflicts_with_all = ["socket", "config"], global = true)]
    pub(super) url: Option<Uri>,
    /// With --url: the authorities of the certificate of the admin port, PEM [default: those of the system]
    #[arg(long, value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
    /// With --url: the file with the token, like `[admin] token_file`
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

impl AdminPort {
    /// Whether `--ca-file` or `--token-file` is given without `--url`.
    pub(super) fn lacks_url(&self) -> bool {
        self.url.is_none() && (self.ca_file.is_some() || self.token_file.is_some())
    }

    /// Connects to the port. `url` is the value of [`Self::url`].
    pub(super) async fn connect(&self, url: &Uri) -> Result<Peer, RemoteError> {
        let token = self.token_file.as_deref().map(authorization).transpose();
        let token = token.map_err(RemoteError::TokenFile)?;
        let load_config = || tls::client_config(self.ca_file.as_deref(), None);
        let config = http_client::uses_tls(url).then(load_config).transpose();
        let stream = http_client::connect(url, config.map_err(RemoteError::CaFile)?)
            .await
            .map_err(|error| {
                if tls::has_unknown_issuer(&error) {
                    RemoteError::UnknownIssuer
                } else {
                    RemoteError::AdminPort(error)
                }
            })?;
        let host = url.authority().map_or("", |authority| authority.as_str()).to_owned();
        Ok(Peer { stream, host, token })
    }
}

/// The header field with the token in a file (RFC 6750, section 2.1).
fn authorization(file: &Path) -> io::Result<HeaderValue> {
    let read = || {
        let token = admin::token(file)?;
        let value = HeaderValue::try_from([&b"Bearer "[..], &token[..]].concat());
        let mut value = value.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        value.set_sensitive(true);
        Ok(value)
    };
    read().map_err(|error| with_context(error, file.display().to_string()))
}
