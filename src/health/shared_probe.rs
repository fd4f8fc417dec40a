//! The setup of a server's check, and the check that pools with the same setup share.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::server_check::ServerCheck;
use crate::addr::ServerAddr;
use crate::check::{Check, CheckTarget, Probe};
use crate::plan::PoolPlan;
use crate::pool::{CheckState, ServerSpec};
use crate::tls::PoolTls;

/// How a server is checked. Pools with the same setup share one running check.
#[derive(Clone, Debug)]
pub(super) struct CheckSetup {
    check: Arc<dyn Check>,
    target: CheckTarget,
    interval: Duration,
    interval_down: Duration,
}

impl CheckSetup {
    /// The setup for a server in a pool of this plan; `None`: the server is not checked. `tls`: as for sessions.
    pub(super) fn for_server(plan: &PoolPlan, spec: &ServerSpec, tls: Option<Arc<PoolTls>>) -> Option<Self> {
        let health = &plan.health;
        let check = Arc::clone(health.check.as_ref()?);
        let address = health.address.unwrap_or(spec.address);
        let port = health.port.or(spec.address.port());
        let pool_and_label = || (Arc::clone(&plan.name), Arc::clone(&spec.label));
        Some(Self {
            target: CheckTarget {
                address: port.map_or(address, |port| address.with_port(port)),
                host: spec.host().map(Into::into),
                // As for sessions: what keeps sessions from connecting must also fail a check.
                connect: plan.dial.connect.clone(),
                session_address: spec.address,
                pool_and_server: check.is_of_one_pool().then(pool_and_label),
                timeout: health.timeout,
                tls,
            },
            check,
            interval: health.interval,
            interval_down: health.interval_down,
        })
    }

    /// A new probe: the check of this server, ready to run.
    pub(super) fn probe(&self) -> Box<dyn Probe> {
        Arc::clone(&self.check).probe(self.target.clone())
    }

    /// How long a run may take.
    pub(super) fn timeout(&self) -> Duration {
        self.target.timeout
    }

    /// Where the checks go.
    pub(super) fn address(&self) -> ServerAddr {
        self.target.address
    }

    /// Whether one running check can serve both setups. Pools that speak TLS with their servers do not share checks:
    /// each pool reloads its TLS files by itself.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let Self {
            check,
            target,
            interval,
            interval_down,
        } = self;
        let CheckTarget {
            address,
            host,
            connect,
            session_address,
            pool_and_server,
            timeout,
            tls,
        } = target;
        let same_tls = tls.as_ref().map(Arc::as_ptr) == other.target.tls.as_ref().map(Arc::as_ptr);
        **check == *other.check
            && (address, host, connect, session_address, pool_and_server)
                == (
                    &other.target.address,
                    &other.target.host,
                    &other.target.connect,
                    &other.target.session_address,
                    &other.target.pool_and_server,
                )
            && [interval, interval_down, timeout] == [&other.interval, &other.interval_down, &other.target.timeout]
            && same_tls
    }

    /// The time between the starts of two checks. Where pools differ about the state of the server, the shorter time
    /// counts.
    fn interval(&self, users: &[Arc<ServerCheck>]) -> Duration {
        let is_down = |user: &Arc<ServerCheck>| user.server.check_state() == CheckState::Down;
        let intervals = users.iter().map(|user| match is_down(user) {
            true => self.interval_down,
            false => self.interval,
        });
        intervals.min().unwrap_or(self.interval)
    }
}

/// A running check. Its users are the servers that share it, usually one for each pool. A pool may also have servers
/// with different names at one address.
pub(super) struct SharedProbe {
    setup: CheckSetup,
    probe: Box<dyn Probe>,
    // A blocking mutex: locked for one statement at a time.
    users: Mutex<Vec<Arc<ServerCheck>>>,
    has_joined: Notify,
}

impl SharedProbe {
    /// A check without users yet.
    pub(super) fn new(setup: CheckSetup) -> Self {
        Self {
            probe: setup.probe(),
            setup,
            users: Mutex::default(),
            has_joined: Notify::new(),
        }
    }

    /// How it checks.
    pub(super) fn setup(&self) -> &CheckSetup {
        &self.setup
    }

    /// Adds a user, for which a check runs at once, unless its server is disabled.
    pub(super) fn join(&self, user: Arc<ServerCheck>) {
        self.users.lock().push(user);
        self.has_joined.notify_one();
    }

    /// Removes a user.
    pub(super) fn leave(&self, user: &Arc<ServerCheck>) {
        self.users.lock().retain(|other| !Arc::ptr_eq(other, user));
    }

    fn users(&self) -> Vec<Arc<ServerCheck>> {
        self.users.lock().clone()
    }

    /// The users in whose pool the server is not disabled.
    pub(super) fn active(&self) -> Vec<Arc<ServerCheck>> {
        let mut users = self.users();
        users.retain(|user| !user.server.is_disabled());
        users
    }

    /// The time between the starts of two checks, by the present state of the server.
    pub(super) fn interval(&self) -> Duration {
        self.setup.interval(&self.active())
    }

    /// Waits until the next check is to run: at `due`, or as soon as a user joins whose server is not disabled, or the
    /// server of a user is enabled. While the servers of all users are disabled, no check runs.
    pub(super) async fn wait(&self, due: impl Future<Output = ()>) {
        let mut due = pin!(due);
        loop {
            let users = self.users();
            // Created before the states are read, so that a change in between is not missed.
            let state_changed = wait_for_first(users.iter().map(|user| user.server.admin_state_changed()));
            let mut has_started = false;
            for user in &users {
                has_started |= user.start_if_enabled();
            }
            if has_started {
                return;
            }
            let is_idle = users.iter().all(|user| user.server.is_disabled());
            tokio::select! {
                () = state_changed => {}
                () = self.has_joined.notified() => {}
                () = &mut due, if !is_idle => return,
            }
        }
    }

    /// The check, ready to run.
    pub(super) fn probe(&self) -> &dyn Probe {
        &*self.probe
    }
}

/// Waits until one of these futures is done.
fn wait_for_first(futures: impl Iterator<Item = impl Future<Output = ()>>) -> impl Future<Output = ()> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    poll_fn(move |cx| {
        let is_done = futures.iter_mut().any(|future| future.as_mut().poll(cx).is_ready());
        if is_done { Poll::Ready(()) } else { Poll::Pending }
    })
}
