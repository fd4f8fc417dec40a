//! The TLS of listeners and of the admin port: read before a plan is put in force, checked, and read again when its
//! files change.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::files::{check_readable, file_warnings, key_file_warning};
use super::pool_tls::{self, load_pool_tls};
use super::{Failure, acme};
use crate::account::Metrics;
use crate::live::{InForce, Live, LiveTls};
use crate::name::{NamePattern, ServerName};
use crate::plan::{ListenerPlan, Plan, PoolId};
use crate::reload::{reload_listener_tls, reload_tls};
use crate::route::{Route, Target, TlsMode};
use crate::tls::{Certificate, CertificateStore, ListenerTls, ListenerTlsPlan, shown_warnings};

/// How often the files are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// Reads the certificates of the admin port and of every listener of the plan, and the files of every pool with TLS.
/// `before`: what is in force, and the metrics that count what is read again. A listener whose TLS settings have not
/// changed keeps its [`ListenerTls`]. Certificates in force are read again only if their files have changed.
///
/// # Errors
/// The first file that cannot be used, for each listener, each pool and the admin port, if its TLS settings are new or
/// have changed. If they are unchanged, such a file is only logged.
pub fn load_tls(plan: &Plan, before: Option<(&InForce, &Metrics)>) -> Result<LiveTls, Vec<Failure>> {
    let mut failures = Vec::new();
    let mut load = |name: &str, section: String, tls_plan: &ListenerTlsPlan| {
        let known = before.and_then(|(before, metrics)| {
            let (_, tls) = before.tls.terminated().find(|(listener, _)| *listener == name)?;
            Some((tls, metrics))
        });
        let loaded = match known {
            Some((tls, metrics)) if tls.plan() == tls_plan => {
                reload_listener_tls(name, tls, metrics);
                Ok(Arc::clone(tls))
            }
            known => {
                let certificates = known.map_or_else(Arc::default, |(tls, _)| tls.certificates());
                ListenerTls::load(tls_plan.clone(), &certificates).map(Arc::new)
            }
        };
        let loaded = loaded.map_err(|cause| failures.push(Failure::Tls { section, cause }));
        loaded.ok()
    };
    let admin = plan.admin.tls.as_ref();
    let admin = admin.and_then(|tls| load("[admin]", String::from("admin.tls"), tls));
    let mut listeners = BTreeMap::new();
    for listener in &plan.listeners {
        let Some(tls_plan) = &listener.tls else { continue };
        let tls = load(&listener.name, format!("listeners.{}.tls", listener.name), tls_plan);
        listeners.extend(tls.map(|tls| (Arc::clone(&listener.name), tls)));
    }
    let pools = Arc::new(load_pool_tls(plan, before, &mut failures));
    match failures.is_empty() {
        true => Ok(LiveTls {
            listeners,
            admin,
            pools,
        }),
        false => Err(failures),
    }
}

/// As [`load_tls`], after a check that all other files of the plan can be read. Also makes the directories of ACME
/// accounts, and returns the warnings about files, directories and TLS.
///
/// # Errors
/// The first other file or directory that cannot be read or used; if there is none, all errors of [`load_tls`].
pub(super) fn check_and_load(
    plan: &Plan,
    before: Option<(&InForce, &Metrics)>,
) -> Result<(LiveTls, Vec<String>), Failure> {
    check_readable(plan)?;
    let mut warnings = acme::make_directories(plan)?;
    let tls = load_tls(plan, before).map_err(Failure::Several)?;
    warnings.extend(file_warnings(plan));
    warnings.extend(tls_warnings(plan, &tls));
    Ok((tls, warnings))
}

/// As [`check_and_load`], at the start. Logs the warnings.
pub(super) fn load_first(plan: &Plan) -> Result<LiveTls, Failure> {
    let (tls, warnings) = check_and_load(plan, None)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(tls)
}

/// The errors of files that are broken. What was read from them before stays in force.
pub(super) fn broken_files(tls: &LiveTls) -> Vec<String> {
    let admin = tls.admin.iter().map(|tls| (String::from("admin.tls"), tls));
    let listeners = tls.listeners.iter();
    let listeners = listeners.map(|(name, tls)| (format!("listeners.{name}.tls"), tls));
    let listener_errors = admin.chain(listeners).flat_map(|(section, tls)| {
        let errors = tls.broken().into_iter();
        errors.map(move |error| format!("{section}: {error}"))
    });
    let pool_errors = tls.by_pool().into_iter().filter_map(|(name, tls)| {
        let error = tls.broken()?;
        Some(format!("pools.{name}.tls: {error}"))
    });
    listener_errors.chain(pool_errors).collect()
}

/// Warnings about the TLS of the plan: it can be used, but parts of it are probably wrong.
#[must_use]
pub fn tls_warnings(plan: &Plan, tls: &LiveTls) -> Vec<String> {
    let mut all = Vec::new();
    let warnings_of_admin = |tls: &Arc<ListenerTls>| certificate_warnings(&tls.certificates());
    let admin = tls.admin.iter().flat_map(warnings_of_admin);
    all.extend(admin.map(|what| format!("admin.tls: {what}")));
    for listener in &plan.listeners {
        let Some(tls) = tls.listeners.get(&listener.name) else {
            continue;
        };
        let store = tls.certificates();
        let mut found = certificate_warnings(&store);
        found.extend(tls.client_auth_warnings());
        found.extend(names_without_certificate(listener, &store));
        found.extend(certificates_without_use(listener, &store));
        let shown = shown_warnings(&found).into_iter();
        all.extend(shown.map(|what| format!("listeners.{}.tls: {what}", listener.name)));
    }
    all.extend(pool_tls::warnings(&tls.pools));
    all
}

/// Warnings about the certificates themselves, and about the modes of the files of their keys.
fn certificate_warnings(store: &CertificateStore) -> Vec<String> {
    let certificates = store.all().iter();
    let warnings = certificates.clone().flat_map(|certificate| {
        let without_names = certificate.names.is_empty().then(|| {
            format!(
                "{}: the certificate is for no host name (it has no DNS name in subjectAltName)",
                certificate.path().display()
            )
        });
        let not_for_servers = (!certificate.is_for_servers).then(|| {
            format!(
                "{}: the certificate is not for servers (extendedKeyUsage): clients refuse it",
                certificate.path().display()
            )
        });
        certificate
            .warnings
            .iter()
            .cloned()
            .chain(without_names)
            .chain(not_for_servers)
    });
    let exposed = certificates.filter_map(|certificate| key_file_warning(certificate.key_path()));
    warnings.chain(exposed).collect()
}

/// The `sni` patterns of routes that terminate TLS and lead to a pool, each with the name of its route.
fn terminated_names(listener: &ListenerPlan) -> impl Iterator<Item = (&Arc<str>, &NamePattern)> {
    let routes = listener.routes.routes().iter();
    let terminating = routes.filter(|route| route.tls == TlsMode::Terminate && matches!(route.to, Target::Pool(_)));
    terminating.flat_map(|route| route.sni.iter().map(|pattern| (&route.name, pattern)))
}

/// Whether both patterns may match the same name. Wildcards of certificates are treated as if they matched any number
/// of labels.
fn may_overlap(one: &NamePattern, other: &NamePattern) -> bool {
    let is_below = |name: &ServerName, suffix: &ServerName| {
        let before = name.as_str().strip_suffix(suffix.as_str());
        before.is_some_and(|before| before.ends_with('.'))
    };
    match (one, other) {
        (NamePattern::Any, _) | (_, NamePattern::Any) => true,
        (NamePattern::Exact(one), NamePattern::Exact(other)) => one == other,
        (NamePattern::Exact(name), NamePattern::Suffix(suffix))
        | (NamePattern::Suffix(suffix), NamePattern::Exact(name)) => is_below(name, suffix),
        (NamePattern::Suffix(one), NamePattern::Suffix(other)) => {
            one == other || is_below(one, other) || is_below(other, one)
        }
    }
}

fn names_without_certificate(listener: &ListenerPlan, store: &CertificateStore) -> Vec<String> {
    let has_certificate = |pattern: &NamePattern| match pattern {
        NamePattern::Exact(name) => !store.for_name(name.as_str()).is_empty(),
        pattern => {
            let mut names = store.all().iter().flat_map(|certificate| &certificate.names);
            names.any(|name| may_overlap(name, pattern))
        }
    };
    let missing = terminated_names(listener).filter(|(_, pattern)| !has_certificate(pattern));
    missing
        .map(|(route, pattern)| {
            format!("no certificate is for `{pattern}` of route `{route}`: clients that ask for it get the first one")
        })
        .collect()
}

fn certificates_without_use(listener: &ListenerPlan, store: &CertificateStore) -> Vec<String> {
    let takes_any = |route: &Route<PoolId>| route.sni.is_empty() && route.tls == TlsMode::Terminate;
    if listener.routes.default().is_some() || listener.routes.routes().iter().any(takes_any) {
        return Vec::new();
    }
    // A name is looked up among the exact patterns, and compared with patterns one by one only if it is not there.
    let (exact, other): (Vec<_>, Vec<_>) = terminated_names(listener)
        .map(|(_, pattern)| pattern)
        .partition(|pattern| matches!(pattern, NamePattern::Exact(_)));
    let exact: HashSet<_> = exact.into_iter().collect();
    let is_used = |name: &NamePattern| {
        exact.contains(name)
            || other.iter().any(|pattern| may_overlap(name, pattern))
            || matches!(name, NamePattern::Suffix(_)) && exact.iter().any(|pattern| may_overlap(name, pattern))
    };
    // A certificate without names is not reported here: `certificate_warnings` reports it.
    let unused =
        |certificate: &&Arc<Certificate>| !certificate.names.is_empty() && !certificate.names.iter().any(is_used);
    // The first certificate is the one for clients whose name has none.
    let unused = store.all().iter().skip(1).filter(unused);
    unused
        .map(|certificate| {
            format!(
                "{}: no route is for a name of this certificate",
                certificate.path().display()
            )
        })
        .collect()
}

/// Regularly looks for files that have changed, and reads them again. Never returns.
pub(super) async fn watch(live: Arc<Live>, metrics: Arc<Metrics>) {
    loop {
        sleep(WATCH_INTERVAL).await;
        let in_force = live.in_force();
        if in_force.tls.terminated().next().is_none() && in_force.tls.pools.is_empty() {
            continue;
        }
        let metrics = Arc::clone(&metrics);
        let read = spawn_blocking(move || drop(reload_tls(&in_force.tls, &metrics)));
        let _ = read.await; // the panic hook has logged a panic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_if_a_name_can_match_both() {
        let overlap = |one, other| {
            let pattern = |text| NamePattern::from_config(text).unwrap();
            let (one, other) = (pattern(one), pattern(other));
            assert_eq!(may_overlap(&one, &other), may_overlap(&other, &one));
            may_overlap(&one, &other)
        };
        assert!(overlap("a.example", "a.example") && overlap("*.example", "a.example") && overlap("*", "a.example"));
        assert!(overlap("*.example", "*.b.example") && overlap("*.example", "*.example"));
        assert!(!overlap("a.example", "b.example") && !overlap("*.example", "example"));
        assert!(!overlap("*.a.example", "*.b.example") && !overlap("*.example", "a.anexample"));
    }
}
