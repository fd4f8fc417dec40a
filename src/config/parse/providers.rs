//! `[providers]`: how Docker, Kubernetes and etcd are reached.

use std::cell::OnceCell;
use std::io;
use std::path::Path;
use std::sync::Arc;

use hyper::Uri;

use super::address::InvalidValue;
use super::list::entries;
use super::pool_tls::identity;
use super::{Problems, Section, value};
use crate::config::keys;
use crate::config::report::Position;
use crate::etcd::{EtcdLogin, EtcdPlan};
use crate::plan::{DiscoverSource, KubernetesPlan, ListenerPlan, PoolPlan};
use crate::user::Users;

/// The default socket of the Docker engine.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// `[providers]`, and the users of this machine.
#[derive(Debug)]
pub(super) struct Providers {
    /// Whether `[providers.etcd]` is in the file, valid or not. Also `true` if `[providers]` is not a table, or if
    /// `providers` or `etcd` is misspelt, so that no second error follows.
    pub(super) has_etcd: bool,
    etcd_position: Option<Position>,
    pub(super) etcd: Option<Arc<EtcdPlan>>,
    docker_position: Option<Position>,
    pub(super) docker_socket: Arc<Path>,
    kubernetes_position: Option<Position>,
    pub(super) kubernetes: Arc<KubernetesPlan>,
    /// Read once, when the first pool names a user.
    users: OnceCell<io::Result<Users>>,
}

impl Providers {
    pub(super) fn read(file: &Section<'_>, problems: &mut Problems<'_>) -> Self {
        let section = file.child("providers", &keys::PROVIDERS, problems);
        let position = |key| section.entry(key).map(|(position, _)| position.clone());
        Self {
            has_etcd: !section.is_missing("etcd") || file.is_unknown("providers"),
            etcd_position: position("etcd"),
            etcd: etcd(&section, problems).map(Arc::new),
            docker_position: position("docker"),
            docker_socket: docker_socket(&section, problems),
            kubernetes_position: position("kubernetes"),
            kubernetes: Arc::new(kubernetes(&section, problems)),
            users: OnceCell::new(),
        }
    }

    /// Why this user of this machine is not found; `None`: the user exists.
    pub(super) fn missing_user(&self, name: &str) -> Option<String> {
        match self.users.get_or_init(Users::read) {
            Ok(users) => users.find(name).err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Warns about providers that no pool and no listener refers to. To be called only if there is no `[remote]`: with
    /// it, the pools and listeners are not in this file.
    pub(super) fn warn_unused(
        &self,
        pools: &[Arc<PoolPlan>],
        listeners: &[Arc<ListenerPlan>],
        problems: &mut Problems<'_>,
    ) {
        let sources = || pools.iter().filter_map(|pool| Some(&pool.discover.as_ref()?.source));
        let uses_etcd = || sources().any(|source| matches!(source, DiscoverSource::Etcd { .. }));
        if let (Some(position), Some(_)) = (&self.etcd_position, &self.etcd)
            && !uses_etcd()
        {
            let hint = r#"no pool has `discover = { etcd = "…" }`, and there is no [remote]"#;
            problems.warning(position, "`[providers.etcd]` is never used", hint);
        }
        let uses_docker = || {
            sources().any(|source| matches!(source, DiscoverSource::Docker(_)))
                || listeners.iter().any(|listener| listener.announce.is_some())
                || pools.iter().any(|pool| pool.has_containers())
        };
        if let Some(position) = &self.docker_position
            && !uses_docker()
        {
            let hint = r#"no pool has `discover = { docker = "…" }` or `scale.docker`, and no listener `announce`"#;
            problems.warning(position, "`[providers.docker]` is never used", hint);
        }
        let uses_kubernetes = || sources().any(|source| matches!(source, DiscoverSource::Kubernetes(_)));
        if let Some(position) = &self.kubernetes_position
            && !uses_kubernetes()
        {
            let hint = r#"no pool has `discover = { kubernetes = "…" }`"#;
            problems.warning(position, "`[providers.kubernetes]` is never used", hint);
        }
    }
}

fn docker_socket(providers: &Section<'_>, problems: &mut Problems<'_>) -> Arc<Path> {
    let section = providers.child("docker", &keys::DOCKER, problems);
    let path = section.get("socket").and_then(|node| {
        let path = value::path(node, problems)?;
        if !path.is_absolute() {
            let hint = format!("write the absolute path of a Unix socket, as in \"{DOCKER_SOCKET}\"");
            problems.error(&node.position, "invalid path of a socket", hint);
        }
        Some(path)
    });
    path.map_or_else(|| Path::new(DOCKER_SOCKET).into(), Into::into)
}

fn etcd(providers: &Section<'_>, problems: &mut Problems<'_>) -> Option<EtcdPlan> {
    let (position, node) = providers.entry("etcd")?;
    let section = Section::open(node, position, &keys::ETCD, problems)?;
    section.required("endpoints", r#"endpoints = ["https://10.0.0.2:2379"]"#, problems);
    let endpoints = entries(&section, "endpoints", problems, endpoint);
    let ca_file = section.path("ca_file", problems);
    let password_file = section.path("password_file", problems);
    let identity = identity(
        &section,
        ["cert_file", "key_file"],
        "/etc/acequia/etcd-client.pem",
        problems,
    );
    let user = section
        .get("user")
        .and_then(|node| value::string(node, "write the name of a user", problems));
    if section.is_missing("user") != section.is_missing("password_file") {
        let hint = "write both, or neither";
        problems.error(position, "`user` and `password_file` belong together", hint);
    }
    let login = user.zip(password_file).map(|(user, password_file)| EtcdLogin {
        user: user.into(),
        password_file,
    });
    let is_plain = |url: &Uri| url.scheme_str() == Some("http");
    if login.is_some() && endpoints.iter().any(is_plain) {
        let hint = "use https:// unless nobody else can read the connection";
        problems.warning(position, "the password is sent in the clear to an endpoint", hint);
    }
    (!endpoints.is_empty()).then_some(EtcdPlan {
        endpoints,
        login,
        ca_file,
        identity,
    })
}

fn kubernetes(providers: &Section<'_>, problems: &mut Problems<'_>) -> KubernetesPlan {
    let section = providers.child("kubernetes", &keys::KUBERNETES, problems);
    let kubeconfig = section.path("kubeconfig", problems);
    KubernetesPlan {
        kubeconfig,
        zone: section.name("zone", problems).map(Into::into),
    }
}

/// The URL of a member of the etcd cluster: a scheme, a host and optionally a port. A user and a password are not
/// allowed in it, because error messages show endpoints.
fn endpoint(text: &str) -> Result<Uri, InvalidValue> {
    let valid = text.parse().ok().filter(|url: &Uri| {
        let is_without_user = url
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'));
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        is_http && is_without_user && url.path_and_query().is_none_or(|path| path == "/")
    });
    valid.ok_or_else(|| {
        let hint = "write \"http://HOST:PORT\" or \"https://HOST:PORT\", without a user and a path";
        (String::from("invalid endpoint"), String::from(hint))
    })
}
