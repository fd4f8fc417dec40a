//! A kubeconfig: the file that kubectl reads (v1 of Config). Its current context is used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::credentials::{AccessError, ApiCredentials, Token};
use crate::error::with_context;
use crate::regular_file;
use crate::tls::PemText;

/// The longest file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Keys of a cluster that would change how it is reached, and are not supported.
const CLUSTER_UNSUPPORTED: [&str; 2] = ["proxy-url", "tls-server-name"];

/// Keys of a user that would change who it is, and are not supported. `exec` and `auth-provider` name plugins.
/// A plugin is a program that somebody else has chosen: listing servers must not start one.
const USER_UNSUPPORTED: [&str; 8] = [
    "exec",
    "auth-provider",
    "username",
    "password",
    "as",
    "as-uid",
    "as-groups",
    "as-user-extra",
];

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    current_context: Option<String>,
    clusters: Option<Vec<NamedCluster>>,
    users: Option<Vec<NamedUser>>,
    contexts: Option<Vec<NamedContext>>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: KubeContext,
}

#[derive(Deserialize)]
struct KubeContext {
    cluster: String,
    user: Option<String>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: KubeCluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct KubeCluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    #[serde(flatten)]
    other_keys: BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: KubeUser,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct KubeUser {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    #[serde(flatten)]
    other_keys: BTreeMap<String, IgnoredAny>,
}

/// Reads a kubeconfig, and the files that it names.
///
/// # Errors
/// A file cannot be read or is not valid, or has something that is not supported. Errors show names and paths, but no
/// other values of the file, which may be secret.
pub(super) fn read(file: &Path) -> Result<ApiCredentials, AccessError> {
    let shown = file.display();
    let bytes = regular_file::read(file, FILE_BYTES_MAX).map_err(|error| with_context(error, shown.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{shown}: it is not UTF-8"))?;
    let directory = file.parent().unwrap_or(Path::new("."));
    parse(text, directory, &shown.to_string()).map_err(|error| format!("{shown}: {error}").into())
}

/// The credentials in the text of a file. Paths in the text are relative to `directory`; `shown` names the file in
/// errors.
fn parse(text: &str, directory: &Path, shown: &str) -> Result<ApiCredentials, AccessError> {
    let config: Kubeconfig = serde_saphyr::from_str(text).map_err(|error| match error.location() {
        Some(location) => format!(
            "line {}, column {}: it is not a valid kubeconfig",
            location.line(),
            location.column()
        ),
        None => "it is not a valid kubeconfig".to_owned(),
    })?;
    let current = config.current_context.filter(|name| !name.is_empty());
    let current = current.ok_or("it has no `current-context`")?;
    let contexts = config.contexts.unwrap_or_default();
    let context = contexts.into_iter().find(|context| context.name == current);
    let context = context.ok_or_else(|| format!("it has no context `{current}`"))?.context;
    let (cluster_name, user_name) = (context.cluster, context.user);
    let clusters = config.clusters.unwrap_or_default();
    let cluster = clusters.into_iter().find(|cluster| cluster.name == cluster_name);
    let cluster = cluster
        .ok_or_else(|| format!("it has no cluster `{cluster_name}`"))?
        .cluster;
    let user = match user_name.filter(|name| !name.is_empty()) {
        Some(name) => {
            let users = config.users.unwrap_or_default();
            let found = users.into_iter().find(|user| user.name == name);
            Some(found.ok_or_else(|| format!("it has no user `{name}`"))?)
        }
        None => None,
    };
    let place = ConfigPlace { directory, shown };
    let trusted = cluster.trusted(&cluster_name, place)?;
    let mut credentials = ApiCredentials {
        server: cluster.server,
        trusted,
        token: None,
        identity: None,
        name: format!("cluster `{cluster_name}`"),
    };
    if let Some(NamedUser { name, user }) = user {
        user.check_keys(&name)?;
        credentials.identity = user.identity(&name, place)?;
        credentials.token = user.token(&name, directory)?;
        credentials.name = format!("user `{name}`");
    }
    Ok(credentials)
}

impl KubeCluster {
    /// The authorities; `None`: those of the system. A cluster with something unsupported is an error.
    fn trusted(&self, name: &str, place: ConfigPlace<'_>) -> Result<Option<PemText>, AccessError> {
        check_supported(&self.other_keys, &CLUSTER_UNSUPPORTED, &format!("cluster `{name}`"))?;
        if self.insecure_skip_tls_verify {
            let hint = "name its authorities by `certificate-authority` or `certificate-authority-data`";
            return Err(
                format!("cluster `{name}` has `insecure-skip-tls-verify`, which is not supported: {hint}").into(),
            );
        }
        let data = self.certificate_authority_data.as_ref();
        place.pem("certificate-authority", self.certificate_authority.as_deref(), data)
    }
}

impl KubeUser {
    fn check_keys(&self, name: &str) -> Result<(), AccessError> {
        check_supported(&self.other_keys, &USER_UNSUPPORTED, &format!("user `{name}`"))
            .map_err(|error| format!("{error}: use `token`, `tokenFile` or a client certificate").into())
    }

    /// The certificate and its key.
    fn identity(&self, name: &str, place: ConfigPlace<'_>) -> Result<Option<(PemText, PemText)>, AccessError> {
        let certificate = self.client_certificate.as_deref();
        let certificate = place.pem("client-certificate", certificate, self.client_certificate_data.as_ref())?;
        let key = place.pem("client-key", self.client_key.as_deref(), self.client_key_data.as_ref())?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            _ => Err(format!("user `{name}` needs both `client-certificate` and `client-key`").into()),
        }
    }

    /// The token. A `tokenFile` takes precedence over `token`, because that file is replaced before its token expires.
    fn token(self, name: &str, directory: &Path) -> Result<Option<Token>, AccessError> {
        let file = self.token_file.as_deref().filter(|file| is_set(file));
        match (file, self.token.filter(|token| !token.is_empty())) {
            (Some(file), _) => Token::read(&directory.join(file)).map(Some),
            (None, Some(text)) => Ok(Some(Token {
                text,
                name: format!("the token of user `{name}`"),
            })),
            (None, None) => Ok(None),
        }
    }
}

/// An empty path counts as absent, as for kubectl.
fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// Where a kubeconfig is.
#[derive(Clone, Copy)]
struct ConfigPlace<'a> {
    directory: &'a Path,
    /// The name of its file in errors.
    shown: &'a str,
}

impl ConfigPlace<'_> {
    /// A text in PEM: from the data, else from a file, relative to the directory of the kubeconfig.
    fn pem(self, key: &str, file: Option<&Path>, data: Option<&String>) -> Result<Option<PemText>, AccessError> {
        match (data.filter(|data| !data.is_empty()), file.filter(|file| is_set(file))) {
            (Some(data), _) => {
                let decoded = BASE64
                    .decode(data.trim())
                    .map_err(|_| format!("`{key}-data` is not base64"))?;
                Ok(Some(PemText {
                    name: format!("{key}-data of {}", self.shown).into(),
                    text: decoded.into(),
                }))
            }
            (None, Some(file)) => Ok(Some(PemText::read(&self.directory.join(file))?)),
            (None, None) => Ok(None),
        }
    }
}

fn check_supported(keys: &BTreeMap<String, IgnoredAny>, unsupported: &[&str], whose: &str) -> Result<(), AccessError> {
    match unsupported.iter().find(|key| keys.contains_key(**key)) {
        Some(key) => Err(format!("{whose} has `{key}`, which is not supported").into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
