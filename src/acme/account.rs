//! The account with an ACME server: opened once, and kept in `account.json` of `state_dir`.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::http::AcmeHttp;
use super::plan::{AcmePlan, ExternalAccount};
use crate::blocking::blocking;
use crate::error::{chain, with_context};
use crate::regular_file;
use crate::text::escape_bounded;
use crate::tls::{TlsFileError, client_config};
use crate::units::format_duration;

/// A longer file is not an account.
const ACCOUNT_BYTES_MAX: u64 = 64 << 10;

/// A longer file is not a key for `eab`.
const KEY_BYTES_MAX: u64 = 4096;

/// The longest text of a server that is kept and shown, in characters.
pub(super) const TEXT_CHARS_MAX: usize = 512;

/// The type of the error of a server that does not know the account (RFC 8555, section 6.7).
pub(super) const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The server refuses, cannot be reached, or does not answer as RFC 8555 or RFC 9773 says.
    #[error("{error}")]
    Server {
        /// The error of the request.
        #[source]
        error: instant_acme::Error,
        /// When the server wants to be asked again, if it says so.
        retry_at: Option<SystemTime>,
    },
    /// The server could not find out that a name is ours.
    #[error("{name} was not validated: {detail}")]
    NotValidated {
        /// The name.
        name: String,
        /// The message of the server.
        detail: String,
    },
    /// The server does not offer the challenge that is configured.
    #[error("the server offers no challenge {0}")]
    NoChallenge(&'static str),
    /// The order was not complete in time.
    #[error("the order was not complete within {}", format_duration(*.0))]
    Timeout(Duration),
    /// A request for a certificate, or the certificate that answers a challenge, cannot be made.
    #[error("cannot make a certificate request or a challenge certificate")]
    Request(#[from] rcgen::Error),
    /// The certificate that the server issued, or an authority of `ca_file`, cannot be used.
    #[error(transparent)]
    File(#[from] TlsFileError),
    /// A file, such as that of the account or of a new certificate, cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl AcmeError {
    /// The text that is shown and kept: the error with its causes, escaped.
    #[must_use]
    pub fn text(&self) -> String {
        escape_bounded(&chain(self), TEXT_CHARS_MAX)
    }

    /// How long from `now` until the server wants to be asked again, if it says so.
    #[must_use]
    pub fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        match self {
            Self::Server { retry_at, .. } => (*retry_at)?.duration_since(now).ok(),
            _ => None,
        }
    }
}

/// The file of an account.
#[derive(Serialize, Deserialize)]
struct AccountFile {
    /// The URL of the server's directory.
    directory: Box<str>,
    contact: Vec<Box<str>>,
    credentials: AccountCredentials,
}

/// An account whose server has answered.
pub(super) struct OpenAccount<'a> {
    pub(super) account: Account,
    http: AcmeHttp,
    plan: &'a AcmePlan,
}

impl<'a> OpenAccount<'a> {
    /// The account of this plan: the kept one, if it is with this server, otherwise a new one.
    pub(super) async fn open(plan: &'a AcmePlan) -> Result<Self, AcmeError> {
        let (http, kept) = read_files(plan).await?;
        let contact: Vec<_> = plan.contact.iter().map(|contact| &**contact).collect();
        let eab = match plan.eab.clone() {
            Some(eab) if kept.is_none() => Some(blocking(move || external_key(&eab)).await?),
            _ => None,
        };
        let builder = Account::builder_with_http(Box::new(http.clone()));
        let opened = async {
            let Some(kept) = kept else {
                let new = NewAccount {
                    contact: &contact,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let (account, credentials) = builder.create(&new, plan.directory.to_string(), eab.as_ref()).await?;
                return Ok((account, Some(credentials)));
            };
            let is_changed = kept.contact != plan.contact;
            // `from_credentials` consumes the credentials, and they are not `Clone`. JSON makes the copy to write.
            let copy = is_changed
                .then(|| serde_json::to_value(&kept.credentials))
                .transpose()?;
            let account = builder.from_credentials(kept.credentials).await?;
            if is_changed {
                account.update_contacts(&contact).await?;
            }
            Ok((account, copy.map(serde_json::from_value).transpose()?))
        };
        let (account, to_write) = opened.await.map_err(|error| handle_server_error(plan, &http, error))?;
        if let Some(credentials) = to_write {
            let file = AccountFile {
                directory: plan.directory.clone(),
                contact: plan.contact.clone(),
                credentials,
            };
            let text = Zeroizing::new(serde_json::to_vec_pretty(&file).map_err(io::Error::other)?);
            let path = plan.account_file();
            blocking(move || regular_file::replace(&path, &text)).await?;
        }
        Ok(Self { account, http, plan })
    }

    /// Whether the latest error of the server says when it wants to be asked again.
    pub(super) fn wants_pause(&self) -> bool {
        self.http.retry_at().is_some()
    }

    /// Handles an error of the server: [`handle_server_error`].
    pub(super) fn handle_error(&self, error: instant_acme::Error) -> AcmeError {
        handle_server_error(self.plan, &self.http, error)
    }
}

/// Converts an error of a request. The result also says when the server wants to be asked again. If the server does not
/// know the account any more, the file of the account is renamed, so that the next attempt opens a new account.
fn handle_server_error(plan: &AcmePlan, http: &AcmeHttp, error: instant_acme::Error) -> AcmeError {
    let is_unknown =
        matches!(&error, instant_acme::Error::Api(problem) if problem.r#type.as_deref() == Some(NO_ACCOUNT));
    if is_unknown {
        let file = plan.account_file();
        // Not awaited: the next attempt comes long after the rename.
        drop(spawn_blocking(move || {
            if let Err(error) = fs::rename(&file, file.with_extension("unknown")) {
                tracing::warn!(file = %file.display(), %error, "cannot put aside an account that the server does not know");
            }
        }));
    }
    AcmeError::Server {
        error,
        retry_at: http.retry_at(),
    }
}

/// The kept account of this plan; unlike [`OpenAccount::open`], never opens a new one. `None`: no account with this
/// server is kept.
pub(super) async fn kept_account(plan: &AcmePlan) -> Result<Option<(Account, AcmeHttp)>, AcmeError> {
    let (http, kept) = read_files(plan).await?;
    let Some(kept) = kept else { return Ok(None) };
    let builder = Account::builder_with_http(Box::new(http.clone()));
    match builder.from_credentials(kept.credentials).await {
        Ok(account) => Ok(Some((account, http))),
        Err(error) => Err(handle_server_error(plan, &http, error)),
    }
}

/// Reads `ca_file`, and returns a client that trusts its authorities. Also reads and returns the kept account; `None`:
/// no account with this server is kept.
async fn read_files(plan: &AcmePlan) -> Result<(AcmeHttp, Option<AccountFile>), AcmeError> {
    let plan = plan.clone();
    blocking(move || {
        let http = AcmeHttp::new(client_config(plan.ca_file.as_deref(), None)?);
        let kept = load(&plan.account_file())?.filter(|kept| kept.directory == plan.directory);
        Ok((http, kept))
    })
    .await
}

fn load(file: &Path) -> io::Result<Option<AccountFile>> {
    let bytes = match regular_file::read_zeroizing(file, ACCOUNT_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(with_context(error, file.display().to_string())),
    };
    let account = serde_json::from_slice(&bytes);
    account.map(Some).map_err(|_| {
        // The error of the parser may quote the key.
        io::Error::other(format!(
            "{}: not an account: remove the file to open a new account",
            file.display()
        ))
    })
}

fn external_key(eab: &ExternalAccount) -> io::Result<ExternalAccountKey> {
    let read = || {
        let text = regular_file::read_secret(&eab.key_file, KEY_BYTES_MAX, <[u8]>::trim_ascii)?;
        let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
        let key = BASE64_URL_SAFE_NO_PAD.decode(&text[..text.len() - padding]);
        key.map(Zeroizing::new)
            .map_err(|_| io::Error::other("not a key in base64url"))
    };
    let key = read().map_err(|error| with_context(error, format!("eab.key_file {}", eab.key_file.display())))?;
    Ok(ExternalAccountKey::new(eab.key_id.to_string(), &key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_too_long_key_is_not_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let eab = ExternalAccount {
            key_id: "id".into(),
            key_file: file.path().to_owned(),
        };
        for (text, is_used) in [("c2VjcmV0cw==\n", true), ("\n", false), (&"A".repeat(8_000), false)] {
            fs::write(&file, text).unwrap();
            assert_eq!(external_key(&eab).is_ok(), is_used);
        }
    }
}
