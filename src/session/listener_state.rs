//! A listener in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::account::ListenerSeries;
use crate::cancel::CancelTable;
use crate::capacity::ConnectionLimits;
use crate::guard::LineBudget;
use crate::live::{InForce, LiveGuards, LivePools};
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
    /// The guards of the plan in force, which listeners and routes refer to by index.
    pub guards: LiveGuards,
    /// How many sessions it may have, and has.
    pub limits: ConnectionLimits,
    /// The metrics it counts in.
    pub series: Arc<ListenerSeries>,
    /// The budget for bytes that are read before a session has a server.
    pub hello_memory: Arc<HelloMemory>,
    /// Where a query of PostgreSQL is to be cancelled.
    pub cancels: Arc<CancelTable>,
    /// Bounds the log lines about peers that are refused because they are not trusted.
    pub(super) untrusted_lines: LineBudget,
    has_logged_postgres_request: AtomicBool,
}

impl ListenerState {
    /// A listener with this configuration, which is in force.
    #[must_use]
    pub fn new(
        plan: Arc<ListenerPlan>,
        in_force: &InForce,
        limits: ConnectionLimits,
        series: Arc<ListenerSeries>,
        hello_memory: Arc<HelloMemory>,
        cancels: Arc<CancelTable>,
    ) -> Self {
        Self {
            tls: in_force.tls.get(&plan.name).cloned(),
            pools: in_force.pools.clone(),
            guards: in_force.guards.clone(),
            plan,
            limits,
            series,
            hello_memory,
            cancels,
            untrusted_lines: LineBudget::new(),
            has_logged_postgres_request: AtomicBool::new(false),
        }
    }

    /// Logs why no name matches a client that sends an SSLRequest or a GSSENCRequest instead of a ClientHello: once for each
    /// listener and configuration.
    pub(super) fn log_postgres_request(&self, request: &'static str) {
        if !self.has_logged_postgres_request.swap(true, Relaxed) {
            tracing::warn!(
                listener = %self.plan.name,
                reason = request,
                "a PostgreSQL client asks for encryption before its ClientHello, which no `sni` or `alpn` matches: \
                 set protocol = \"postgres\" on the listener"
            );
        }
    }
}
