//! `discover` of a pool.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;

use super::address::InvalidValue;
use super::discover_dns::dns;
use super::providers::Providers;
use super::{Problems, Section, value};
use crate::addr::IpFamily;
use crate::config::file::{Node, Value};
use crate::config::keys;
use crate::plan::{DiscoverPlan, DiscoverSource, DockerSourcePlan, HttpSourcePlan, ServicePort, ServiceSourcePlan};
use crate::pool::MemberConfig;
use crate::text::is_name;

/// The bounds of `settle`. A longer time would only delay changes.
const SETTLE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);

/// The default of `settle`.
const SETTLE_DEFAULT: Duration = Duration::from_millis(200);

/// The bounds of `interval`, the time from an answer of a URL to the next request.
const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// The default of `interval`.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);

/// The keys that name a source, each with an example.
const SOURCES: [(&str, &str); 7] = [
    ("file", r#"file = "/etc/acequia/servers.json""#),
    ("http", r#"http = "https://registry.internal/orders""#),
    ("etcd", r#"etcd = "/services/orders/""#),
    ("docker", r#"docker = "acequia.pool=orders""#),
    ("kubernetes", r#"kubernetes = "default/orders""#),
    ("dns_srv", r#"dns_srv = "_postgres._tcp.orders.internal""#),
    ("dns", r#"dns = "orders.internal:5432""#),
];

/// Where the servers of a pool are listed; `None`: it has no `discover`, or that is not valid.
pub(super) fn discover(
    pool: &Section<'_>,
    defaults: MemberConfig,
    family: IpFamily,
    providers: &Providers,
    problems: &mut Problems<'_>,
) -> Option<DiscoverPlan> {
    let (position, node) = pool.entry("discover")?;
    if pool.get("scale").is_some() {
        problems.error(
            position,
            "this pool has both `scale` and `discover`",
            "remove one of them: clones are started here, listed servers elsewhere",
        );
    }
    let section = Section::open(node, position, &keys::DISCOVER, problems)?;
    let mut named = SOURCES.iter().filter(|(key, _)| section.get(key).is_some());
    let (first, second) = (named.next(), named.next());
    if let (Some((first, _)), Some((second, _))) = (first, second) {
        let message = format!("`discover` has both `{first}` and `{second}`");
        problems.error(
            position,
            message,
            "the servers of a pool come from one source: remove one of them",
        );
        return None;
    }
    let source = match first {
        Some(("file", _)) => value::path(section.get("file")?, problems).map(DiscoverSource::File),
        Some(("http", _)) => http(&section, problems),
        Some(("etcd", _)) => etcd(&section, providers, problems),
        Some(("docker", _)) => docker(&section, providers, problems),
        Some(("kubernetes", _)) => kubernetes(&section, providers, problems),
        Some(("dns_srv" | "dns", _)) => dns(&section, family, problems),
        _ if SOURCES.iter().all(|(key, _)| section.is_missing(key)) => {
            let examples: Vec<_> = SOURCES.iter().map(|(_, example)| *example).collect();
            problems.error(
                position,
                "`discover` names no source",
                format!("write {}", examples.join(", or ")),
            );
            None
        }
        _ => None, // an unknown key, probably meant to be one of these, was reported
    };
    warn_of_keys_of_other_sources(&section, problems);
    let settle = section.duration("settle", SETTLE, problems).unwrap_or(SETTLE_DEFAULT);
    let allow_empty = section.boolean("allow_empty", problems);
    let source = source?;
    Some(DiscoverPlan {
        allow_unix: matches!(source, DiscoverSource::File(_)) && !problems.is_remote(position),
        source,
        settle,
        allow_empty: allow_empty.unwrap_or(false),
        defaults,
    })
}

/// Warns about keys that have no effect with the source of this pool.
fn warn_of_keys_of_other_sources(section: &Section<'_>, problems: &mut Problems<'_>) {
    let keys_with_sources: [(&str, &[&str]); 5] = [
        ("interval", &["http"]),
        ("ca_file", &["http"]),
        ("port", &["docker", "kubernetes"]),
        ("network", &["docker"]),
        ("resolver", &["dns_srv", "dns"]),
    ];
    for (key, sources) in keys_with_sources {
        if let Some((position, _)) = section.entry(key)
            && sources.iter().all(|source| section.get(source).is_none())
        {
            let hint = format!("it belongs to `{}`", sources.join("` or `"));
            problems.warning(position, format!("`{key}` is never used"), hint);
        }
    }
}

fn http(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<DiscoverSource> {
    let url = section.parsed("http", http_url, problems);
    let ca_file = section.path("ca_file", problems);
    Some(DiscoverSource::Http(HttpSourcePlan {
        interval: section
            .duration("interval", INTERVAL, problems)
            .unwrap_or(INTERVAL_DEFAULT),
        ca_file,
        url: url?,
    }))
}

fn http_url(text: &str) -> Result<Uri, InvalidValue> {
    let url = text.parse().ok().filter(|url: &Uri| {
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        let is_without_user = url
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'));
        is_http && is_without_user
    });
    url.ok_or_else(|| {
        let hint = r#"write "https://HOST/PATH" or "http://HOST:PORT/PATH", without a user"#;
        (String::from("invalid URL"), hint.to_owned())
    })
}

fn etcd(section: &Section<'_>, providers: &Providers, problems: &mut Problems<'_>) -> Option<DiscoverSource> {
    let (position, node) = section.entry("etcd")?;
    let hint = "write what the keys of the servers begin with, as in \"/services/orders/\"";
    let prefix = value::string(node, hint, problems)?;
    if prefix.is_empty() {
        problems.error(&node.position, "the prefix is empty", hint);
        return None;
    }
    if !providers.has_etcd {
        let hint = r#"add [providers.etcd] with endpoints = ["https://10.0.0.2:2379"]"#;
        problems.error(position, "the endpoints of etcd are not configured", hint);
    }
    Some(DiscoverSource::Etcd {
        etcd: Arc::clone(providers.etcd.as_ref()?),
        prefix: prefix.into(),
    })
}

fn docker(section: &Section<'_>, providers: &Providers, problems: &mut Problems<'_>) -> Option<DiscoverSource> {
    let node = section.get("docker")?;
    let hint = r#"write "KEY" or "KEY=VALUE", as in "acequia.pool=orders""#;
    let label = value::string(node, hint, problems)?;
    if !is_name(label.split_once('=').map_or(label, |(key, _)| key)) {
        problems.error(&node.position, "this is not the label of a container", hint);
    }
    let port = section.port("port", problems);
    Some(DiscoverSource::Docker(DockerSourcePlan {
        socket: Arc::clone(&providers.docker_socket),
        label: label.into(),
        port,
        network: section.name("network", problems).map(Into::into),
    }))
}

fn kubernetes(section: &Section<'_>, providers: &Providers, problems: &mut Problems<'_>) -> Option<DiscoverSource> {
    let service = section.parsed("kubernetes", kubernetes_service, problems);
    let port = match section.get("port") {
        Some(node) => service_port(node, problems),
        None => Some(ServicePort::Only),
    };
    let (namespace, service) = service?;
    Some(DiscoverSource::Kubernetes(ServiceSourcePlan {
        kubernetes: Arc::clone(&providers.kubernetes),
        namespace,
        service,
        port: port?,
    }))
}

/// The namespace and the name of a Service.
fn kubernetes_service(text: &str) -> Result<(Box<str>, Box<str>), InvalidValue> {
    let parts = text.split_once('/');
    let parts = parts.filter(|(namespace, service)| is_dns_label(namespace) && is_dns_label(service));
    let (namespace, service) = parts.ok_or_else(|| {
        let hint = r#"write "NAMESPACE/SERVICE", as in "default/orders""#;
        (format!("`{text}` is not a Service of Kubernetes"), hint.to_owned())
    })?;
    Ok((namespace.into(), service.into()))
}

/// The port of a Service: a name or a number. A port number in quotes is an error.
fn service_port(node: &Node, problems: &mut Problems<'_>) -> Option<ServicePort> {
    match &node.value {
        Value::String(text) if text.parse::<u16>().is_err() => {
            if !is_dns_label(text) {
                let hint = r#"write the name of a port, as in "pg", or its number, as in 5432"#;
                problems.error(&node.position, format!("`{text}` is not the name of a port"), hint);
                return None;
            }
            Some(ServicePort::Name(text.as_str().into()))
        }
        _ => {
            let number = NonZeroU16::new(value::port(node, problems)?);
            number.map(ServicePort::Number)
        }
    }
}

/// Whether this is a label of RFC 1123, as names of namespaces, Services and their ports are.
fn is_dns_label(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_plain) && !text.starts_with('-') && !text.ends_with('-')
}
