//! A listener in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::account::ListenerSeries;
use crate::live::LivePools;
use crate::plan::ListenerPlan;
use crate::sniff::HelloMemory;

/// A listener as it is in force: what its clients meet.
pub struct Front {
    /// How they are treated.
    pub plan: Arc<ListenerPlan>,
    /// The pools of that plan, to which its routes lead.
    pub pools: LivePools,
    /// Where they are counted.
    pub series: Arc<ListenerSeries>,
    /// What their first bytes are charged to.
    pub hello_memory: Arc<HelloMemory>,
    ssl_request_said: AtomicBool,
}

impl Front {
    /// A listener that is in force from now on.
    #[must_use]
    pub fn new(
        plan: Arc<ListenerPlan>,
        pools: LivePools,
        series: Arc<ListenerSeries>,
        hello_memory: Arc<HelloMemory>,
    ) -> Self {
        Self {
            plan,
            pools,
            series,
            hello_memory,
            ssl_request_said: AtomicBool::new(false),
        }
    }

    /// A client sent an SSLRequest where a ClientHello was expected. The log tells why no name matches, once for each
    /// listener and configuration.
    pub(super) fn ssl_request(&self) {
        if !self.ssl_request_said.swap(true, Relaxed) {
            tracing::warn!(
                listener = %self.plan.name,
                reason = POSTGRES_SSL_REQUEST,
                "a PostgreSQL client asks for TLS by an SSLRequest, which no `sni` or `alpn` matches: \
                 give it a listener without such routes, or set sslnegotiation=direct at the client"
            );
        }
    }
}

/// What the logs call it.
pub(super) const POSTGRES_SSL_REQUEST: &str = "postgres_ssl_request";
