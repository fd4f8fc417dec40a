//! What the sessions of a listener need of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::account::{ListenerSeries, RouteCount, SessionRoute};
use crate::acme::Challenges;
use crate::cancel::CancelTable;
use crate::capacity::ConnectionLimits;
use crate::guard::LineBudget;
use crate::live::{InForce, LiveGuards, LivePool, LivePools, TlsByPool};
use crate::plan::ListenerPlan;
use crate::redirect::Redirect;
use crate::sniff::HelloMemory;
use crate::tls::{ListenerTls, PoolTls};

/// A listener in force: everything that its sessions need of it. A reload makes a new one, with the same `limits`
/// and `series`.
pub struct ListenerState {
    /// Its configuration.
    pub plan: Arc<ListenerPlan>,
    /// The pools of the plan in force, which the routes refer to by index.
    pub pools: LivePools,
    /// Where its clients are redirected to, with the port; `None`: they are served.
    pub(super) redirect: Option<Redirect>,
    /// The TLS that is terminated at it; `None`: all TLS is passed on.
    pub tls: Option<Arc<ListenerTls>>,
    /// The TLS with the servers of the pools.
    pool_tls: Arc<TlsByPool>,
    /// The guards of the plan in force, which listeners and routes refer to by index.
    pub guards: LiveGuards,
    /// How many sessions it may have, and has.
    pub limits: ConnectionLimits,
    /// Its metrics.
    pub series: Arc<ListenerSeries>,
    /// Counts the sessions of each route.
    route_counts: Arc<[Arc<RouteCount>]>,
    /// The budget for bytes that are read before a session has a server.
    pub hello_memory: Arc<HelloMemory>,
    /// The PostgreSQL sessions whose queries may be cancelled.
    pub cancels: Arc<CancelTable>,
    /// The challenges of ACME that are pending.
    pub challenges: Arc<Challenges>,
    /// Bounds the log lines about peers that are refused because they are not trusted.
    pub(super) untrusted_lines: LineBudget,
    has_logged_postgres_request: AtomicBool,
}

impl ListenerState {
    /// The state of a listener with this configuration, which is in force.
    #[must_use]
    pub fn new(
        plan: Arc<ListenerPlan>,
        in_force: &InForce,
        limits: ConnectionLimits,
        series: Arc<ListenerSeries>,
        hello_memory: Arc<HelloMemory>,
        (cancels, challenges): (Arc<CancelTable>, Arc<Challenges>),
    ) -> Self {
        Self {
            redirect: plan.redirect.as_ref().map(|redirect| with_port(redirect, in_force)),
            tls: in_force.tls.listeners.get(&plan.name).cloned(),
            pool_tls: Arc::clone(&in_force.tls.pools),
            pools: in_force.pools.clone(),
            guards: in_force.guards.clone(),
            route_counts: series.configure_routes(plan.routes.routes().iter().map(|route| &route.name)),
            plan,
            limits,
            series,
            hello_memory,
            cancels,
            challenges,
            untrusted_lines: LineBudget::new(),
            has_logged_postgres_request: AtomicBool::new(false),
        }
    }

    /// Counts a session of the route at this index, as open until the result is dropped.
    pub(super) fn count_route(&self, index: usize) -> SessionRoute {
        SessionRoute::open(&self.route_counts[index])
    }

    /// The TLS with the servers of this pool; `None`: connections to them are not encrypted here.
    pub(super) fn tls_with(&self, pool: &LivePool) -> Option<&PoolTls> {
        pool.plan().tls.as_ref()?; // saves most pools the look-up by name
        self.pool_tls.get(pool.name()).map(|tls| &**tls)
    }

    /// Logs that a PostgreSQL client has sent `request` before its ClientHello, so that no route with `sni` or `alpn`
    /// matches. Logs this once for each [`ListenerState`].
    pub(super) fn log_postgres_request(&self, request: &'static str) {
        if !self.has_logged_postgres_request.swap(true, Relaxed) {
            tracing::warn!(
                listener = %self.plan.name,
                reason = request,
                "a PostgreSQL client asks for encryption before it sends a ClientHello, so no `sni` or `alpn` matches: \
                 set protocol = \"postgres\" on the listener"
            );
        }
    }
}

/// The redirect; if it has no port, it gets the port that its target listener is bound to.
fn with_port(redirect: &Redirect, in_force: &InForce) -> Redirect {
    let bound = || {
        let (_, addresses) = in_force
            .listeners()
            .find(|(listener, _)| listener.name == redirect.to)?;
        addresses.iter().find_map(|address| address.port())
    };
    Redirect {
        port: redirect.port.or_else(bound),
        ..redirect.clone()
    }
}
