//! Reads the files of TLS again that have changed: certificates, keys, and everything else that handshakes need.

use std::sync::Arc;

use crate::account::Metrics;
use crate::live::LiveTls;
use crate::text::escape;
use crate::tls::{ListenerTls, PoolTls, TlsReload, shown_warnings};

/// The results of reading again what has changed.
pub struct TlsReloads<'a> {
    /// The listeners by name, and the admin port under the name `[admin]`.
    pub listeners: Vec<(&'a str, &'a ListenerTls, TlsReload)>,
    /// The pools, by name.
    pub pools: Vec<(&'a str, &'a PoolTls, TlsReload)>,
}

/// Reads the files again that have changed, and puts in force what is not broken. Takes time if there are many files.
pub fn reload_tls<'a>(tls: &'a LiveTls, metrics: &Metrics) -> TlsReloads<'a> {
    let reload_listener = |(listener, tls): (&'a str, &'a Arc<ListenerTls>)| {
        (listener, &**tls, reload_listener_tls(listener, tls, metrics))
    };
    let reload_pool = |(pool, tls): (&'a str, &'a PoolTls)| (pool, tls, reload_pool_tls(pool, tls, metrics));
    TlsReloads {
        listeners: tls.terminated().map(reload_listener).collect(),
        pools: tls.by_pool().into_iter().map(reload_pool).collect(),
    }
}

/// Reads the files of one listener again that have changed. Logs the result, and counts it if a file has changed or has
/// become broken.
pub fn reload_listener_tls(listener: &str, tls: &ListenerTls, metrics: &Metrics) -> TlsReload {
    let reload = tls.reload();
    if has_changed(&reload) {
        tracing::info!(
            listener,
            certificates = reload.certificates,
            policy = reload.has_policy_changed,
            "TLS files read again"
        );
    }
    // `reload.warnings` does not contain the warnings about a changed policy.
    let policy_warnings = if reload.has_policy_changed {
        tls.client_auth_warnings()
    } else {
        Vec::new()
    };
    for warning in shown_warnings(&reload.warnings).iter().chain(&policy_warnings) {
        tracing::warn!(listener, "{}", escape(warning, &[]));
    }
    for error in &reload.broken {
        let error = escape(error, &[]);
        tracing::error!(listener, %error, "{BROKEN}");
    }
    count(&reload, metrics);
    reload
}

/// Reads the files of one pool again if one has changed. Logs the result, and counts it if a file has changed or has
/// become broken.
pub fn reload_pool_tls(pool: &str, tls: &PoolTls, metrics: &Metrics) -> TlsReload {
    let reload = tls.reload();
    if has_changed(&reload) {
        tracing::info!(pool, "TLS files read again");
    }
    for warning in &reload.warnings {
        tracing::warn!(pool, "{}", escape(warning, &[]));
    }
    for error in &reload.broken {
        let error = escape(error, &[]);
        tracing::error!(pool, %error, "{BROKEN}");
    }
    count(&reload, metrics);
    reload
}

const BROKEN: &str = "a TLS file is broken: the files read before stay in force";

fn has_changed(reload: &TlsReload) -> bool {
    reload.certificates > 0 || reload.has_policy_changed
}

fn count(reload: &TlsReload, metrics: &Metrics) {
    let has_succeeded = reload.broken.is_empty();
    if has_changed(reload) || !has_succeeded {
        metrics.record_certificate_reload(has_succeeded);
    }
}
