//! `[listeners.NAME.tls]` and `[admin.tls]`.

use super::acme::AcmeAccounts;
use super::list::{alpn_protocol, entries};
use super::pool_tls::certificate_files;
use super::{Problems, Section, route, value};
use crate::config::file::Node;
use crate::config::keys;
use crate::config::report::Position;
use crate::plan::{PoolId, Protocol};
use crate::route::{Route, Target, TlsMode};
use crate::sniff::postgres;
use crate::tls::{CertificateLocation, ClientAuthPlan, ListenerTlsPlan, MinVersion};

/// The configuration keys that name the files of a certificate and of its private key.
const CERTIFICATE_KEYS: [&str; 2] = ["cert", "key"];

/// The TLS of a listener; `None`: the listener terminates no TLS.
pub(super) fn listener_tls(
    listener: &Section<'_>,
    protocol: Protocol,
    acme: &mut AcmeAccounts<'_>,
    problems: &mut Problems<'_>,
) -> Option<ListenerTlsPlan> {
    let (position, node) = listener.entry("tls")?;
    if protocol == Protocol::Mysql {
        let hint = "remove `tls`, or `protocol = \"mysql\"`: MySQL servers send first, and terminate TLS themselves";
        problems.error(position, "the TLS of MySQL clients cannot end here", hint);
    }
    let section = Section::open(node, position, &keys::LISTENER_TLS, problems)?;
    let example = r#"certificates = [{ cert = "shop.pem", key = "shop.key" }]"#;
    let certificates = section.required("certificates", example, problems);
    let certificates = certificates.map_or(&[][..], |node| value::one_or_many(node, problems));
    let versions = [("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];
    Some(ListenerTlsPlan {
        certificates: certificates
            .iter()
            .filter_map(|node| certificate(node, acme, problems))
            .collect(),
        alpn: entries(&section, "alpn", problems, alpn_protocol),
        min_version: section.one_of("min_version", &versions, problems).unwrap_or_default(),
        client_auth: client_auth(&section, problems),
        tickets: section.path("tickets", problems),
        route_alpn: Vec::new(),
    })
}

/// `[admin.tls]`; `None`: the admin port has no TLS.
pub(super) fn admin_tls(admin: &Section<'_>, problems: &mut Problems<'_>) -> Option<ListenerTlsPlan> {
    let (position, node) = admin.entry("tls")?;
    let section = Section::open(node, position, &keys::ADMIN_TLS, problems)?;
    // This only reports a missing key; `certificate_files` reads the value.
    section.required("cert", r#"cert = "admin.pem""#, problems);
    Some(ListenerTlsPlan {
        certificates: vec![CertificateLocation::Files(certificate_files(
            &section,
            CERTIFICATE_KEYS,
            problems,
        )?)],
        alpn: vec![Box::from(*b"http/1.1")],
        min_version: MinVersion::default(),
        client_auth: None,
        tickets: None,
        route_alpn: Vec::new(),
    })
}

fn certificate(node: &Node, acme: &mut AcmeAccounts<'_>, problems: &mut Problems<'_>) -> Option<CertificateLocation> {
    let section = Section::open(node, &node.position, &keys::CERTIFICATE, problems)?;
    if section.entry("acme").is_some() {
        for key in ["cert", "key", "directory"] {
            if let Some((position, _)) = section.entry(key) {
                problems.error(
                    position,
                    format!("this certificate has both `acme` and `{key}`"),
                    "make two entries of it",
                );
            }
        }
        return acme.certificate(&section, problems).map(CertificateLocation::Acme);
    }
    if let Some((position, _)) = section.entry("names")
        && section.is_missing("acme")
    {
        problems.error(
            position,
            "`names` belongs to `acme`",
            "a file says for which names its certificate is",
        );
    }
    match (section.entry("cert"), section.entry("directory")) {
        (Some(_), None) => certificate_files(&section, CERTIFICATE_KEYS, problems).map(CertificateLocation::Files),
        (None, Some((_, directory))) => {
            if let Some((position, _)) = section.entry("key") {
                problems.error(
                    position,
                    "`key` belongs to `cert`",
                    "a directory has the keys beside the certificates",
                );
            }
            value::directory(directory, problems).map(CertificateLocation::Directory)
        }
        (Some(_), Some((position, _))) => {
            problems.error(
                position,
                "this certificate has both `cert` and `directory`",
                "make two entries of it",
            );
            None
        }
        (None, None) => {
            // A misspelt key has been reported already.
            if ["cert", "directory", "acme"].iter().all(|key| section.is_missing(key)) {
                let hint = r#"write { cert = "shop.pem", key = "shop.key" }, { directory = "sites" } or { acme = "NAME", names = […] }"#;
                problems.error(
                    &node.position,
                    "this certificate has neither `cert` nor `directory` nor `acme`",
                    hint,
                );
            }
            None
        }
    }
}

fn client_auth(tls: &Section<'_>, problems: &mut Problems<'_>) -> Option<ClientAuthPlan> {
    let (position, node) = tls.entry("client_auth")?;
    let section = Section::open(node, position, &keys::CLIENT_AUTH, problems)?;
    let ca_file = section.required("ca_file", r#"ca_file = "clients.pem""#, problems);
    let modes = [("require", true), ("request", false)];
    // The default is "require". But an invalid or misspelt `mode` counts as "request", because with "require",
    // `tls_required = false` of a PostgreSQL listener would be reported as a second error.
    let is_required_by_default = section.is_missing("mode");
    Some(ClientAuthPlan {
        is_required: section
            .one_of("mode", &modes, problems)
            .unwrap_or(is_required_by_default),
        crl_file: section.path("crl_file", problems),
        names: entries(&section, "names", problems, route::pattern),
        ca_file: ca_file.and_then(|node| value::path(node, problems))?,
    })
}

/// Warns about certificates of a listener, or its `alpn`, that are never used. `has_other_targets`: the listener has a
/// `pool` for sessions that match no route, or routes may be announced later.
pub(super) fn unused_certificates(
    plan: &ListenerTlsPlan,
    routes: &[Route<PoolId>],
    has_other_targets: bool,
    position: &Position,
    problems: &mut Problems<'_>,
) {
    let terminates = |route: &Route<PoolId>| route.tls == TlsMode::Terminate && matches!(route.to, Target::Pool(_));
    if !has_other_targets && !routes.iter().any(terminates) {
        problems.warning(
            position,
            "the certificates are never used",
            "every route has tls = \"pass\" or refuse = true",
        );
    } else if !plan.alpn.is_empty()
        && !has_other_targets
        && routes.iter().all(|route| !terminates(route) || !route.alpn.is_empty())
    {
        problems.warning(
            position,
            "`alpn` is never used",
            "every route that terminates TLS has its own `alpn`",
        );
    }
}

/// Sets `route_alpn` to the `alpn` lists of the routes that terminate TLS, without duplicates. A PostgreSQL listener
/// without `alpn` gets the ALPN protocol of PostgreSQL: clients that start TLS without an SSLRequest require it.
pub(super) fn set_alpn(plan: &mut ListenerTlsPlan, routes: &[Route<PoolId>], protocol: Protocol) {
    let has_own_alpn = |route: &&Route<PoolId>| route.tls == TlsMode::Terminate && !route.alpn.is_empty();
    plan.route_alpn = routes
        .iter()
        .filter(has_own_alpn)
        .map(|route| route.alpn.clone())
        .collect();
    plan.route_alpn.sort();
    plan.route_alpn.dedup();
    if plan.alpn.is_empty() && protocol.is_postgres() {
        plan.alpn.push(postgres::ALPN.into());
    }
}
