//! A listener in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::account::ListenerSeries;
use crate::capacity::ConnectionLimits;
use crate::live::LivePools;
use crate::plan::ListenerPlan;
use crate::sniff::HelloMemory;
use crate::tls::ListenerTls;

/// A listener in force: what the sessions that it accepts need of it. A reload replaces it as a whole; its limits and its
/// series go on.
pub struct ListenerState {
    /// Its configuration.
    pub plan: Arc<ListenerPlan>,
    /// The pools of the plan in force, which the routes refer to by index.
    pub pools: LivePools,
    /// The TLS that ends at it; `None`: all TLS is passed on.
    pub tls: Option<Arc<ListenerTls>>,
    /// How many sessions it may have, and has.
    pub limits: ConnectionLimits,
    /// The metrics it counts in.
    pub series: Arc<ListenerSeries>,
    /// The budget for bytes that are read before a session has a server.
    pub hello_memory: Arc<HelloMemory>,
    has_logged_ssl_request: AtomicBool,
}

impl ListenerState {
    /// A listener with this configuration.
    #[must_use]
    pub fn new(
        plan: Arc<ListenerPlan>,
        pools: LivePools,
        tls: Option<Arc<ListenerTls>>,
        limits: ConnectionLimits,
        series: Arc<ListenerSeries>,
        hello_memory: Arc<HelloMemory>,
    ) -> Self {
        Self {
            plan,
            pools,
            tls,
            limits,
            series,
            hello_memory,
            has_logged_ssl_request: AtomicBool::new(false),
        }
    }

    /// Logs why no name matches a client that sends an SSLRequest instead of a ClientHello: once for each listener and
    /// configuration.
    pub(super) fn log_ssl_request(&self) {
        if !self.has_logged_ssl_request.swap(true, Relaxed) {
            tracing::warn!(
                listener = %self.plan.name,
                reason = POSTGRES_SSL_REQUEST,
                "a PostgreSQL client asks for TLS by an SSLRequest, which no `sni` or `alpn` matches: \
                 give it a listener without such routes, or set sslnegotiation=direct at the client"
            );
        }
    }
}

/// The word for an SSLRequest in the logs.
pub(super) const POSTGRES_SSL_REQUEST: &str = "postgres_ssl_request";
