//! Where the servers of a pool are listed.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use hyper::Uri;

use crate::addr::IpFamily;
use crate::etcd::EtcdPlan;
use crate::pool::MemberConfig;

/// What lists servers of a pool at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lister {
    /// The source that `discover` names.
    Source,
    /// The clones of `scale`.
    Clones,
}

/// `discover` of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscoverPlan {
    /// What lists the servers.
    pub source: DiscoverSource,
    /// Changes within this time are applied together.
    pub settle: Duration,
    /// Whether an empty list is applied; else the last one is kept.
    pub allow_empty: bool,
    /// Whether a list may have servers at Unix sockets. True only if the source is a file, and the configuration that
    /// names it is on this machine. Whoever may write to another source must not reach sockets that only our user may
    /// open, such as our own admin socket.
    pub allow_unix: bool,
    /// The values of the settings that the source leaves out for a listed server.
    pub defaults: MemberConfig,
}

/// The source that `discover` of a pool names. As text, it is shown in logs, API and commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoverSource {
    /// A file.
    File(PathBuf),
    /// A URL.
    Http(HttpSourcePlan),
    /// Keys of etcd.
    Etcd {
        /// How etcd is reached.
        etcd: Arc<EtcdPlan>,
        /// The prefix of the keys; not empty.
        prefix: Box<str>,
    },
    /// Containers of Docker.
    Docker(DockerSourcePlan),
    /// The endpoints of a Service of Kubernetes.
    Kubernetes(ServiceSourcePlan),
    /// Records of DNS.
    Dns(DnsSourcePlan),
}

/// A URL that lists servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSourcePlan {
    /// The URL: `http` or `https`, without a user.
    pub url: Uri,
    /// The time between an answer and the next request, before jitter.
    pub interval: Duration,
    /// The file of the authorities that may issue the certificate of the URL's host; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Containers of a Docker engine that are servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerSourcePlan {
    /// The Unix socket of the engine's API.
    pub socket: Arc<Path>,
    /// The label of these containers: `KEY` or `KEY=VALUE`.
    pub label: Box<str>,
    /// The port of containers without a label for it; `None`: the only TCP port that they expose.
    pub port: Option<u16>,
    /// The network whose addresses are used, for containers without a label for it; `None`: the only network that they
    /// are in.
    pub network: Option<Box<str>>,
}

/// Records of DNS that list servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSourcePlan {
    /// The records that are looked up.
    pub query: DnsQuery,
    /// The only name server that is asked; `None`: those of resolv.conf(5).
    pub resolver: Option<SocketAddr>,
    /// The address family of the servers.
    pub family: IpFamily,
}

/// The records that are looked up in DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsQuery {
    /// The SRV records of this name (RFC 2782), and the addresses of their targets.
    Srv(Name),
    /// The addresses of a host.
    Host {
        /// Its name as written.
        host: Box<str>,
        /// The port of all servers.
        port: u16,
    },
}

/// A Service of Kubernetes whose endpoints are servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSourcePlan {
    /// How Kubernetes is reached.
    pub kubernetes: Arc<KubernetesPlan>,
    /// The namespace of the Service; a label of RFC 1123.
    pub namespace: Box<str>,
    /// The Service; a label of RFC 1123.
    pub service: Box<str>,
    /// The port of its endpoints.
    pub port: ServicePort,
}

/// A port of the endpoints of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServicePort {
    /// The only port.
    Only,
    /// The port of this name.
    Name(Box<str>),
    /// The port with this number: that of the endpoints (`targetPort`), not that of the Service.
    Number(NonZeroU16),
}

/// `[providers.kubernetes]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesPlan {
    /// The file that names the API server and the login; `None`: those of the pod that this process is in.
    pub kubeconfig: Option<PathBuf>,
    /// The zone that this process is in. If all ready endpoints have hints, those whose hints name this zone are
    /// preferred to the others by one tier.
    pub zone: Option<Box<str>>,
}

impl fmt::Display for DiscoverSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Http(HttpSourcePlan { url, .. }) => {
                // Without the query: it may have a token.
                let host = url.authority().map_or("", |authority| authority.as_str());
                write!(f, "{}://{host}{}", url.scheme_str().unwrap_or_default(), url.path())
            }
            Self::Etcd { prefix, .. } => write!(f, "etcd {prefix}"),
            Self::Docker(DockerSourcePlan { label, .. }) => write!(f, "docker {label}"),
            Self::Kubernetes(ServiceSourcePlan { namespace, service, .. }) => {
                write!(f, "kubernetes {namespace}/{service}")
            }
            Self::Dns(dns) => dns.fmt(f),
        }
    }
}

impl fmt::Display for DnsSourcePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.query {
            DnsQuery::Srv(name) => write!(f, "dns_srv {}", name.to_ascii())?,
            DnsQuery::Host { host, port } => write!(f, "dns {host}:{port}")?,
        }
        match self.resolver {
            Some(resolver) => write!(f, " of {resolver}"),
            None => Ok(()),
        }
    }
}
