//! What is in force: a plan, its pools at run time, and the addresses that its listeners are bound to.
//!
//! [`Live`] is the only holder of it, and the only way to change it, for example by [`Live::apply`] for another plan,
//! by [`Live::set_servers`], [`Live::add_server`] and [`Live::set_addresses`] for the servers of a pool, and by
//! [`Live::apply_override`] for an operator's override of a server.

mod recorded_outcome;
mod added;
mod members;
mod cause;
mod departed;
mod dynamic;
mod announcing;
mod guards;
mod pool;
mod closing;
mod leaving;
mod checked;
mod pools;
mod own;
mod serving;
mod inherit;
mod change_watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::iter::repeat;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::addr::ListenAddr;
use crate::plan::{Failback, ListenerPlan, Plan, PoolPlan};
use crate::pool::{AdminState, KnownPrimary, Member, Override, Overrides, Server, ServerPath, ServerRegistry};
use crate::tls::{ListenerTls, PoolTls};
pub use added::{AddServerError, AddedServer, Addition, KeptServer};
use announcing::Announcing;
pub use cause::Cause;
pub use change_watch::{ChangeWatch, INTERVAL_MIN};
pub use departed::Departed;
pub use dynamic::{DynamicServers, ListChange, SourceState};
pub use guards::LiveGuards;
use inherit::inherit_primary;
pub use members::NameAddresses;
pub use own::own_listeners;
pub use pool::{LivePool, PoolInForce};
pub use pools::LivePools;
pub use recorded_outcome::RecordedOutcome;

/// What is in force at one moment. Only the state in its pools, guards and TLS changes.
#[derive(Debug)]
pub struct InForce {
    /// What is configured.
    pub plan: Arc<Plan>,
    /// The pools of the plan, in its order.
    pub pools: LivePools,
    /// The guards of the plan, in its order.
    pub guards: LiveGuards,
    /// The addresses of each listener, in the order of the plan. They have the port that the system chose for port 0.
    pub addresses: Vec<Vec<ListenAddr>>,
    /// The TLS that ends or begins here.
    pub tls: LiveTls,
}

/// The TLS that ends or begins here. Its configuration is replaced when its files change.
#[derive(Clone, Debug, Default)]
pub struct LiveTls {
    /// The TLS of listeners, by listener name.
    pub listeners: BTreeMap<Arc<str>, Arc<ListenerTls>>,
    /// The TLS of the admin port; `None`: it has none.
    pub admin: Option<Arc<ListenerTls>>,
    /// The TLS with the servers of pools, by pool name.
    pub pools: Arc<TlsByPool>,
}

impl LiveTls {
    /// The TLS that is terminated here: that of the admin port as `[admin]`, then that of listeners, sorted by name.
    pub fn terminated(&self) -> impl Iterator<Item = (&str, &Arc<ListenerTls>)> {
        let admin = self.admin.iter().map(|tls| ("[admin]", tls));
        admin.chain(self.listeners.iter().map(|(name, tls)| (&**name, tls)))
    }

    /// The TLS with the servers of pools, sorted by pool name.
    #[must_use]
    pub fn by_pool(&self) -> Vec<(&str, &PoolTls)> {
        let mut pools: Vec<_> = self.pools.iter().map(|(pool, tls)| (&**pool, &**tls)).collect();
        pools.sort_by_key(|(pool, _)| *pool);
        pools
    }
}

/// The TLS with the servers of pools, by pool name.
pub type TlsByPool = HashMap<Arc<str>, Arc<PoolTls>>;

impl InForce {
    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Arc<LivePool>> {
        self.plan.pools.id(name).map(|id| &self.pools[id])
    }

    /// The listeners in the order of the plan, each with the addresses that it is bound to.
    pub fn listeners(&self) -> impl Iterator<Item = (&Arc<ListenerPlan>, &[ListenAddr])> {
        let addresses = self.addresses.iter().map(Vec::as_slice);
        self.plan.listeners.iter().zip(addresses.chain(repeat(&[][..])))
    }

    fn server_paths(&self) -> HashSet<ServerPath> {
        let of_pool = |pool: &Arc<LivePool>| {
            let path = |server: &Member| pool.path_of(server);
            pool.servers().iter().map(path).collect::<Vec<_>>()
        };
        self.pools.iter().flat_map(of_pool).collect()
    }
}

/// Holds what is in force. Readers take it once and work with what they took.
#[derive(Debug)]
pub struct Live {
    in_force: watch::Sender<Arc<InForce>>,
    // A blocking mutex: locked while what is in force changes, so that no address is set in a pool that is being
    // replaced.
    changing: Mutex<()>,
    registry: Arc<ServerRegistry>,
    /// Notified when the servers that sources list have changed.
    listed_changed: Notify,
    /// Notified when operators have added servers, and when added ones were removed.
    added_changed: watch::Sender<()>,
    /// The servers of pools that were removed, not only renamed.
    gone: departed::DepartedServers,
    /// Notified when the announced routes have changed.
    announced_changed: Notify,
    // A blocking mutex: locked for a few lines.
    announcing: Mutex<Announcing>,
    started: Instant,
    was_ready: AtomicBool,
}

/// The author of the overrides that are applied because of `failback`, not by an operator.
const BY_FAILBACK: &str = "failback";

/// How long after its start the process waits for an address of each pool and for the announced routes. Then it can be
/// ready without them, so that the other pools can be used.
const START_WAIT_MAX: Duration = Duration::from_secs(30);

impl Live {
    /// Puts a first plan in force, with the addresses that its listeners are bound to.
    #[must_use]
    pub fn new(plan: Plan, addresses: Vec<Vec<ListenAddr>>) -> Self {
        Self::with_known_primaries(plan, addresses, BTreeMap::new())
    }

    /// As [`Self::new`], with the remembered primaries, by pool.
    #[must_use]
    pub fn with_known_primaries(
        plan: Plan,
        addresses: Vec<Vec<ListenAddr>>,
        primaries: BTreeMap<Box<str>, KnownPrimary>,
    ) -> Self {
        let registry = Arc::new(ServerRegistry::new(primaries));
        let pool = |plan: &Arc<PoolPlan>| {
            let pool = Arc::new(LivePool::new(Arc::clone(plan), NameAddresses::new(), &registry));
            pool.put_in_force(None);
            pool
        };
        let own = own_listeners(&plan, &addresses);
        registry.own_listeners().replace(own, |_| true);
        let in_force = InForce {
            pools: LivePools::new(&plan.pools, pool),
            guards: LiveGuards::new(&plan.guards, None),
            plan: Arc::new(plan),
            addresses,
            tls: LiveTls::default(),
        };
        for pool in in_force.pools.iter() {
            pool.leave_out_own_listeners(&registry);
            inherit_primary(pool, |name| in_force.pool(name), &registry);
        }
        Self {
            in_force: watch::Sender::new(Arc::new(in_force)),
            changing: Mutex::default(),
            registry,
            listed_changed: Notify::new(),
            added_changed: watch::Sender::new(()),
            gone: departed::DepartedServers::default(),
            announced_changed: Notify::new(),
            announcing: Mutex::default(),
            started: Instant::now(),
            was_ready: AtomicBool::new(false),
        }
    }

    /// Adds the TLS that ends or begins here. To be called before anybody reads what is in force.
    ///
    /// # Panics
    /// Somebody holds what they have read.
    #[must_use]
    pub fn with_tls(self, tls: LiveTls) -> Self {
        self.in_force.send_modify(|in_force| {
            Arc::get_mut(in_force).expect("nobody has read it").tls = tls;
        });
        self
    }

    /// What is in force at this moment.
    #[must_use]
    pub fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.borrow())
    }

    /// The plan in force at this moment.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.in_force.borrow().plan)
    }

    /// What is in force, now and whenever another plan is applied.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<InForce>> {
        self.in_force.subscribe()
    }

    /// Prepares the next plan for [`Self::apply`], and changes nothing that is in force. The caller adds the listeners'
    /// addresses and the TLS. `new_names`: by pool, the addresses of names that are new, or wanted in another family.
    ///
    /// A pool that is configured as before stays. In a pool whose configuration has changed, a server whose name and
    /// address are as before stays, with its sessions, its back-off and its health. The health is lost if another role
    /// is required, or if checks begin or end. A session that began under the old plan picks by the old weights. A host
    /// name keeps its addresses of the wanted family, even if the key `name` of its servers changes. May take long.
    #[must_use]
    pub fn prepare(&self, plan: Plan, mut new_names: HashMap<Arc<str>, NameAddresses>) -> InForce {
        let current = self.in_force();
        let pool = |plan: &Arc<PoolPlan>| {
            let addresses = new_names.remove(&plan.name).unwrap_or_default();
            Arc::new(match current.pool(&plan.name) {
                Some(before) if before.plan() == plan => return Arc::clone(before),
                Some(before) => before.successor(Arc::clone(plan), addresses, &self.registry),
                None => LivePool::new(Arc::clone(plan), addresses, &self.registry),
            })
        };
        let pools = LivePools::new(&plan.pools, pool);
        // A pool that stays keeps its old plan. The new one is equal to it, and is dropped.
        let plans = pools.iter().map(|pool| Arc::clone(pool.plan())).collect();
        InForce {
            guards: LiveGuards::new(&plan.guards, Some(&current.guards)),
            plan: Arc::new(Plan { pools: plans, ..plan }),
            pools,
            addresses: Vec::new(),
            tls: LiveTls::default(),
        }
    }

    /// Puts in force what was prepared. Returns it.
    pub fn apply(&self, next: InForce) -> Arc<InForce> {
        let changing = self.changing();
        let current = self.in_force();
        self.set_own_listeners(&next.plan, &next.addresses);
        for pool in next.pools.iter() {
            let before = current.pool(pool.name());
            if before.is_some_and(|before| Arc::ptr_eq(before, pool)) {
                pool.leave_out_own_listeners(&self.registry);
                continue;
            }
            match before {
                Some(before) => pool.catch_up_with(before, &self.registry),
                None => {
                    let named = |name: &str| current.pool(name).or_else(|| next.pool(name));
                    inherit_primary(pool, named, &self.registry);
                }
            }
            pool.leave_out_own_listeners(&self.registry);
            pool.put_in_force(before.map(Arc::as_ref));
            if pool.plan().failback == Failback::Auto {
                self.end_awaiting_failback(pool);
            }
        }
        self.note_gone_pools(&current, &next);
        self.readmit_left_out(&next);
        next.guards.apply_bandwidth(&current.guards);
        let next = Arc::new(next);
        self.in_force.send_replace(Arc::clone(&next));
        self.registry.notify_change();
        self.note_dropped_added(&current, &next);
        drop(changing);
        self.evict_absent_overrides();
        next
    }

    /// Applies an override to all servers of this name, and keeps it for later servers until it is revoked. Returns
    /// all overrides that this name has then.
    pub fn apply_override(&self, name: &ServerPath, change: Override, by: Arc<str>, at: SystemTime) -> Overrides {
        self.registry.apply_override(name, change, by, at)
    }

    /// The servers that have overrides, including those that are held only by sessions.
    #[must_use]
    pub fn overridden(&self) -> Vec<Arc<Server>> {
        self.registry.overridden()
    }

    /// Enables the servers of this pool that await failback. To be called if `failback` of the pool is now "auto".
    fn end_awaiting_failback(&self, pool: &LivePool) {
        for server in pool.servers().iter() {
            if server.overrides().admin_state == AdminState::AwaitingFailback {
                self.override_by_failback(pool, server, Override::Enable);
            }
        }
    }

    /// Keeps a server out of use until an operator enables it, if `failback` of its pool is "manual". To be called when
    /// the server has gone down. Returns whether the server awaits failback; a drained or disabled one does not.
    pub fn await_failback(&self, pool: &str, server: &Server) -> bool {
        let in_force = self.in_force();
        let Some(pool) = in_force
            .pool(pool)
            .filter(|pool| pool.plan().failback == Failback::Manual)
        else {
            return false;
        };
        let overrides = self.override_by_failback(pool, server, Override::AwaitFailback);
        overrides.admin_state == AdminState::AwaitingFailback
    }

    fn override_by_failback(&self, pool: &LivePool, server: &Server, change: Override) -> Overrides {
        self.apply_override(&pool.path_of(server), change, BY_FAILBACK.into(), SystemTime::now())
    }

    /// The overrides of servers that are in no pool of the plan, sorted by name.
    #[must_use]
    pub fn absent_overrides(&self) -> Vec<(ServerPath, Overrides)> {
        if !self.registry.has_overrides() {
            return Vec::new(); // nearly always; saves collecting the names of all servers
        }
        self.registry.absent_overrides(&self.in_force().server_paths())
    }

    /// Removes the oldest overrides of absent servers if there are too many, and logs that. To be called after the
    /// number of absent servers may have grown.
    pub fn evict_absent_overrides(&self) {
        if !self.registry.has_excess_overrides() {
            return;
        }
        let forgotten = self.registry.evict_overrides(&self.in_force().server_paths());
        if let Some((pool, server)) = forgotten.first() {
            let count = forgotten.len();
            tracing::warn!(%pool, %server, count, "too many absent servers have overrides: the oldest overrides were removed");
        }
    }

    /// What the process waits for before it is ready; `None`: it is ready. A remote configuration must be known. Each
    /// server that is checked must have had its first check, and each name its first lookup. In the first 30 s, each
    /// pool that may not sleep must also have an address, and the announced routes must be known. Once ready, the
    /// process stays ready: a server that joins later is no reason to take the process out of service.
    #[must_use]
    pub fn why_not_ready(&self) -> Option<String> {
        if self.was_ready.load(Relaxed) {
            return None;
        }
        let is_starting = self.started.elapsed() < START_WAIT_MAX;
        let in_force = self.in_force();
        let awaits_routes = || in_force.plan.announcing_engine().is_some() && self.announcing().is_up.is_none();
        let routes = || (is_starting && awaits_routes()).then(|| "the first list of announced routes".to_owned());
        let pool = || in_force.pools.iter().find_map(|pool| pool.why_not_ready(is_starting));
        let waits_for = in_force.plan.why_not_ready().or_else(routes).or_else(pool);
        self.was_ready.fetch_or(waits_for.is_none(), Relaxed);
        waits_for
    }

    /// The primaries to be remembered, by pool. Pools that are not configured at present are included.
    #[must_use]
    pub fn known_primaries(&self) -> BTreeMap<Box<str>, KnownPrimary> {
        self.registry.known_primaries()
    }

    /// Waits until [`Self::known_primaries`] may have changed. Only one task may wait for that.
    pub async fn primary_changed(&self) {
        self.registry.primary_changed().await;
    }
}

#[cfg(test)]
mod tests;
