//! The TLS of listeners: read before a plan is put in force, checked, and read again when its files change.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Failure;
use super::files::{self, exposed_key};
use crate::account::Metrics;
use crate::live::{InForce, Live, TlsByListener};
use crate::name::{NamePattern, ServerName};
use crate::plan::{ListenerPlan, Plan, PoolId};
use crate::route::{Route, Target, TlsMode};
use crate::text::escape;
use crate::tls::{Certificate, CertificateStore, ListenerTls, TlsReload};

/// How often the files are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// Warnings about the certificates of a listener that are shown: there may be as many certificates as names on the Internet.
const WARNINGS_MAX: usize = 20;

/// Reads the certificates of every listener of the plan. Where the TLS of a listener is configured as in the plan before, it
/// stays, and only what has changed is read.
///
/// # Errors
/// The first file that cannot be used.
pub fn load_tls(plan: &Plan, before: Option<(&InForce, &Metrics)>) -> Result<TlsByListener, Failure> {
    let mut loaded = TlsByListener::new();
    for listener in &plan.listeners {
        let Some(tls_plan) = &listener.tls else { continue };
        let known = before.and_then(|(before, metrics)| Some((before.tls.get(&listener.name)?, metrics)));
        let tls = match known.filter(|(known, _)| known.plan() == tls_plan) {
            Some((known, metrics)) => {
                record_reload(&listener.name, &known.reload(), metrics);
                Arc::clone(known)
            }
            None => Arc::new(ListenerTls::load(tls_plan.clone()).map_err(|cause| Failure::Tls {
                listener: Arc::clone(&listener.name),
                cause,
            })?),
        };
        loaded.insert(Arc::clone(&listener.name), tls);
    }
    Ok(loaded)
}

/// The same at the start, after a check of all files that the plan names; with the warnings in the log.
///
/// # Errors
/// The first file that cannot be read or used.
pub(super) fn load_first(plan: &Plan) -> Result<TlsByListener, Failure> {
    files::check(plan)?;
    let tls = load_tls(plan, None)?;
    for warning in tls_warnings(plan, &tls) {
        tracing::warn!("{warning}");
    }
    Ok(tls)
}

/// What is probably wrong with the certificates of the plan's listeners, though they can be used.
#[must_use]
pub fn tls_warnings(plan: &Plan, tls: &TlsByListener) -> Vec<String> {
    let mut all = Vec::new();
    for listener in &plan.listeners {
        let Some(tls) = tls.get(&listener.name) else { continue };
        let store = tls.certificates();
        let mut found: Vec<_> = store
            .all()
            .iter()
            .flat_map(|certificate| certificate.warnings.clone())
            .collect();
        found.extend(
            store
                .all()
                .iter()
                .filter_map(|certificate| exposed_key(certificate.key_path())),
        );
        found.extend(names_without_certificate(listener, &store));
        found.extend(certificates_without_use(listener, &store));
        let more = found.len().saturating_sub(WARNINGS_MAX);
        found.truncate(WARNINGS_MAX);
        all.extend(
            found
                .iter()
                .map(|what| format!("listeners.{}.tls: {what}", listener.name)),
        );
        if more > 0 {
            all.push(format!("listeners.{}.tls: {more} more warnings", listener.name));
        }
    }
    all
}

/// The names of routes at which TLS ends, each with the route.
fn terminated_names(listener: &ListenerPlan) -> impl Iterator<Item = (&Arc<str>, &NamePattern)> {
    let routes = listener.routes.routes().iter();
    let terminating = routes.filter(|route| route.tls == TlsMode::Terminate && matches!(route.to, Target::Pool(_)));
    terminating.flat_map(|route| route.sni.iter().map(|pattern| (&route.name, pattern)))
}

/// Whether a name that one pattern matches may match the other. A wildcard of a certificate is for one label only, which is
/// not looked at.
fn may_meet(one: &NamePattern, other: &NamePattern) -> bool {
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
            names.any(|name| may_meet(name, pattern))
        }
    };
    let missing = terminated_names(listener).filter(|(_, pattern)| !has_certificate(pattern));
    missing
        .map(|(route, pattern)| {
            format!("no certificate is for `{pattern}` of route `{route}`: its clients get the first certificate")
        })
        .collect()
}

fn certificates_without_use(listener: &ListenerPlan, store: &CertificateStore) -> Vec<String> {
    let takes_any = |route: &Route<PoolId>| route.sni.is_empty() && route.tls == TlsMode::Terminate;
    if listener.routes.default().is_some() || listener.routes.routes().iter().any(takes_any) {
        return Vec::new();
    }
    // Names are compared with all patterns only if no exact one is the same.
    let (exact, other): (Vec<_>, Vec<_>) = terminated_names(listener)
        .map(|(_, pattern)| pattern)
        .partition(|pattern| matches!(pattern, NamePattern::Exact(_)));
    let exact: HashSet<_> = exact.into_iter().collect();
    let is_used = |name: &NamePattern| {
        exact.contains(name)
            || other.iter().any(|pattern| may_meet(name, pattern))
            || matches!(name, NamePattern::Suffix(_)) && exact.iter().any(|pattern| may_meet(name, pattern))
    };
    let unused = |certificate: &&Arc<Certificate>| !certificate.names.iter().any(is_used);
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

/// Reads the files again when they have changed, until it is dropped.
pub(super) async fn watch(live: Arc<Live>, metrics: Arc<Metrics>) {
    loop {
        sleep(WATCH_INTERVAL).await;
        let in_force = live.in_force();
        if in_force.tls.is_empty() {
            continue;
        }
        let metrics = Arc::clone(&metrics);
        let read = spawn_blocking(move || {
            for (listener, tls) in &in_force.tls {
                record_reload(listener, &tls.reload(), &metrics);
            }
        });
        let _ = read.await; // the panic hook has logged a panic
    }
}

/// Logs and counts what came of reading the files again, if any have changed.
fn record_reload(listener: &str, reload: &TlsReload, metrics: &Metrics) {
    let has_changed = reload.certificates > 0 || reload.policy;
    if has_changed || !reload.broken.is_empty() {
        metrics.record_certificate_reload(reload.broken.is_empty());
    }
    if has_changed {
        tracing::info!(
            listener,
            certificates = reload.certificates,
            policy = reload.policy,
            "TLS files read again"
        );
    }
    for error in &reload.broken {
        let error = escape(error, &[]);
        tracing::error!(listener, %error, "a TLS file is broken: what was read before stays in force");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_meet_if_a_name_can_match_both() {
        let meet = |one, other| {
            let pattern = |text| NamePattern::from_config(text).unwrap();
            let (one, other) = (pattern(one), pattern(other));
            assert_eq!(may_meet(&one, &other), may_meet(&other, &one));
            may_meet(&one, &other)
        };
        assert!(meet("a.example", "a.example") && meet("*.example", "a.example") && meet("*", "a.example"));
        assert!(meet("*.example", "*.b.example") && meet("*.example", "*.example"));
        assert!(!meet("a.example", "b.example") && !meet("*.example", "example"));
        assert!(!meet("*.a.example", "*.b.example") && !meet("*.example", "a.anexample"));
    }
}
