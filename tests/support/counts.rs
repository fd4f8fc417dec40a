//! Counts that a proxy reports: its sessions, and messages in its diagnostic log.

use super::proxy::Proxy;
use super::{eventually, found};

/// Sessions open now.
pub fn active(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("acequia_sessions_active", &[])
}

/// Waits until so many sessions are open.
pub fn active_becomes(proxy: &Proxy, sessions: usize) {
    eventually("so many sessions are open", || active(proxy) == sessions as f64);
}

/// Sessions that have ended so.
pub fn ended(proxy: &Proxy, ending: &str) -> f64 {
    proxy.metrics().sum("acequia_sessions_total", &[("ending", ending)])
}

/// Waits until so many have.
pub fn ended_becomes(proxy: &Proxy, ending: &str, sessions: usize) {
    found(ending, || (ended(proxy, ending) >= sessions as f64).then_some(()));
    assert_eq!(ended(proxy, ending), sessions as f64, "{ending}");
}

/// Lines of the log that say so.
pub fn said(proxy: &Proxy, message: &str) -> usize {
    proxy.log().iter().filter(|line| line["message"] == message).count()
}
