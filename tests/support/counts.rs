//! Counts that a proxy reports: its sessions, and messages in its diagnostic log.

use serde_json::Value;

use super::proxy::Proxy;
use super::{eventually, wait_for};

/// The number of open sessions.
pub fn active_sessions(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("acequia_sessions_active", &[])
}

/// Waits until exactly this many sessions are open.
pub fn wait_for_active_sessions(proxy: &Proxy, sessions: usize) {
    eventually("the expected number of sessions is open", || {
        active_sessions(proxy) == sessions as f64
    });
}

/// The number of sessions that have ended with this ending.
pub fn ended_sessions(proxy: &Proxy, ending: &str) -> f64 {
    proxy.metrics().sum("acequia_sessions_total", &[("ending", ending)])
}

/// Waits until this many sessions have ended with this ending. More are an error.
pub fn wait_for_ended_sessions(proxy: &Proxy, ending: &str, sessions: usize) {
    eventually(ending, || ended_sessions(proxy, ending) >= sessions as f64);
    assert_eq!(ended_sessions(proxy, ending), sessions as f64, "{ending}");
}

/// Waits until there are this many diagnostic log lines with this message, and returns them. More are an error.
#[track_caller]
pub fn log_lines(proxy: &Proxy, message: &str, wanted: usize) -> Vec<Value> {
    let all = || -> Vec<_> {
        let lines = proxy.log().into_iter();
        lines.filter(|line| line["message"] == message).collect()
    };
    let lines = wait_for(message, || Some(all()).filter(|lines| lines.len() >= wanted));
    assert_eq!(lines.len(), wanted, "{lines:#?}");
    lines
}

/// The number of diagnostic log lines with this message so far.
pub fn log_count(proxy: &Proxy, message: &str) -> usize {
    proxy.log().iter().filter(|line| line["message"] == message).count()
}
