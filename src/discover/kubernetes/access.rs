//! How the API server of Kubernetes is reached: its URL, the trusted authorities, and the login. The files are read
//! again before each list and each watch, because tokens and certificates are replaced.

use std::env;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use hyper::Uri;
use hyper::header::HeaderValue;
use rustls::ClientConfig;

use super::credentials::{AccessError, ApiCredentials, Token};
use super::kubeconfig;
use crate::plan::KubernetesPlan;
use crate::tls::{PemText, client_config_of};

/// The directory in a pod with the token of its service account and the authorities of the API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How the API server is reached.
pub(super) struct Access {
    /// Its URL, without a `/` at the end.
    pub(super) url: String,
    /// `None`: it is reached without TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) authorization: Option<HeaderValue>,
    /// The login, as errors name it.
    pub(super) login: String,
}

impl Access {
    /// Reads the files.
    pub(super) fn read(plan: &KubernetesPlan) -> Result<Self, AccessError> {
        let credentials = match &plan.kubeconfig {
            Some(file) => kubeconfig::read(file)?,
            None => in_cluster(Path::new(SERVICE_ACCOUNT), |name| env::var(name).ok())?,
        };
        Self::new(credentials)
    }

    fn new(credentials: ApiCredentials) -> Result<Self, AccessError> {
        let ApiCredentials {
            server,
            trusted,
            token,
            identity,
            name,
        } = credentials;
        let login = match (&token, &identity) {
            (Some(token), _) => token.name.clone(),
            (None, Some((certificate, _))) => certificate.name.display().to_string(),
            (None, None) => format!("{name}, which has neither a token nor a certificate"),
        };
        let url: Option<Uri> = server.parse().ok().filter(has_host_and_no_user);
        let with_tls = match url.as_ref().and_then(Uri::scheme_str) {
            Some("https") => true,
            Some("http") if token.is_none() => false,
            Some("http") => {
                return Err(format!("{name} has a token, which is never sent in the clear: use https").into());
            }
            _ => return Err("`server` is not a URL such as https://HOST:PORT".into()),
        };
        let tls = || client_config_of(trusted.as_ref(), identity.as_ref());
        let authorization = token.as_ref().map(Token::bearer).transpose()?;
        Ok(Self {
            url: server.trim_end_matches('/').to_owned(),
            tls: with_tls.then(tls).transpose()?,
            authorization,
            login,
        })
    }
}

/// Whether the URL has a host, and no user or password.
fn has_host_and_no_user(url: &Uri) -> bool {
    url.authority()
        .is_some_and(|authority| !authority.as_str().contains('@'))
}

/// The credentials in a pod, from environment variables and from the files of its service account. The kubelet
/// replaces the token before it expires.
fn in_cluster(directory: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<ApiCredentials, AccessError> {
    let (host_key, port_key) = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT");
    let (Some(host), Some(port)) = (variable(host_key), variable(port_key)) else {
        let hint = "outside of a cluster, name a file by `kubeconfig` in [providers.kubernetes]";
        return Err(format!("{host_key} and {port_key} are not set: {hint}").into());
    };
    let host = match host.parse() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"), // RFC 3986, section 3.2.2
        _ => host,
    };
    Ok(ApiCredentials {
        server: format!("https://{host}:{port}"),
        trusted: Some(PemText::read(&directory.join("ca.crt"))?),
        token: Some(Token::read(&directory.join("token"))?),
        identity: None,
        name: "the service account".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn authorities_are_parsed_for_tls_only() {
        for (server, is_parsed) in [("https://10.0.0.1:6443", true), ("http://127.0.0.1:8001", false)] {
            let credentials = ApiCredentials {
                server: server.to_owned(),
                trusted: Some(PemText {
                    name: "ca.crt".into(),
                    text: b"no certificate".to_vec().into(),
                }),
                token: None,
                identity: None,
                name: "the test".to_owned(),
            };
            // `trusted` is not valid, so an error shows that it was parsed.
            assert_eq!(Access::new(credentials).is_err(), is_parsed);
        }
    }

    #[test]
    fn credentials_in_a_pod_come_from_variables_and_files() {
        let directory = tempfile::tempdir().unwrap();
        let certificate = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert;
        fs::write(directory.path().join("ca.crt"), certificate.pem()).unwrap();
        fs::write(directory.path().join("token"), "abc\n").unwrap();
        for (host, url) in [
            ("10.96.0.1", "https://10.96.0.1:443"),
            ("fd00::1", "https://[fd00::1]:443"),
        ] {
            let variable = |name: &str| {
                let is_host = name == "KUBERNETES_SERVICE_HOST";
                Some(if is_host { host } else { "443" }.to_owned())
            };
            let access = Access::new(in_cluster(directory.path(), variable).unwrap()).unwrap();
            assert_eq!(access.url, url);
            let authorization = access.authorization.unwrap();
            assert!(authorization == "Bearer abc" && authorization.is_sensitive());
        }
        let error = in_cluster(directory.path(), |_| None).err().unwrap().to_string();
        assert!(error.contains("name a file by `kubeconfig`"), "{error}");
    }
}
