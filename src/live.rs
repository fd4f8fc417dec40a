//! The plan in force, and what it takes over from the one before it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::addr::ServerAddr;
use crate::plan::{Plan, PoolPlan, ServerEntry};
use crate::pool::{CheckState, Member, Overrides, ServerPath, ServerRegistry};

/// Holds the one plan that is in force; whoever needs it takes it once and works with what it took.
#[derive(Debug)]
pub struct Live {
    plan: ArcSwap<Plan>,
    roster: Arc<ServerRegistry>,
    started: Instant,
    was_ready: AtomicBool,
}

/// After so long a pool without an address no longer keeps the process from being ready: the others are to be used.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(30);

impl Live {
    /// Puts a plan in force.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let roster = Arc::<ServerRegistry>::default();
        for pool in &plan.pools {
            pool.settle(&roster);
        }
        Self {
            plan: ArcSwap::from_pointee(plan),
            roster,
            started: Instant::now(),
            was_ready: AtomicBool::new(false),
        }
    }

    /// The plan in force at this moment.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// All servers there are.
    #[must_use]
    pub fn roster(&self) -> &Arc<ServerRegistry> {
        &self.roster
    }

    /// Makes the next plan ready to be put in force, and changes nothing that is. Pools and listeners that are configured
    /// as before are those there are. In other pools a server of the same pool, name and address stays the one it is, with
    /// its health, its sessions, its back-off; sessions that still go by the plan before find the shares of that one. What a
    /// name was last resolved to holds for it, whatever its servers are called now.
    ///
    /// It takes its time where there are many pools, and may be called from any thread.
    pub fn settle(&self, next: &mut Plan) {
        let now = self.plan();
        next.pools.replace(|pool| {
            let before = now.pool(pool.pool.name());
            if let Some(before) = before {
                if before.is_same(pool) {
                    return Some(Arc::clone(before));
                }
                take_over(pool, before);
            }
            pool.prepare(&self.roster);
            None
        });
        let Plan { listeners, pools, .. } = next;
        let before: HashMap<_, _> = now
            .listeners
            .iter()
            .map(|listener| (&listener.name, listener))
            .collect();
        for listener in listeners {
            if let Some(listener) = Arc::get_mut(listener) {
                for pool in listener.routes.targets_mut() {
                    if let Some(there) = pools.named(pool.pool.name()) {
                        *pool = Arc::clone(there);
                    }
                }
            }
            if let Some(before) = before.get(&listener.name).filter(|before| before.is_same(listener)) {
                *listener = Arc::clone(before);
            }
        }
    }

    /// Puts another plan in force, one that has been settled.
    pub fn swap(&self, next: Plan) -> Arc<Plan> {
        let now = self.plan();
        for pool in &next.pools {
            let before = now.pool(pool.pool.name());
            if before.is_some_and(|before| Arc::ptr_eq(before, pool)) {
                continue;
            }
            // Names may have been resolved anew since it was settled.
            if before.is_some_and(|before| take_over(pool, before)) {
                pool.prepare(&self.roster);
            }
            pool.begin_checks();
        }
        let next = Arc::new(next);
        self.plan.store(Arc::clone(&next));
        next
    }

    /// What was said of servers that no pool of the plan has, in the order of their names.
    #[must_use]
    pub fn absent(&self) -> Vec<(ServerPath, Overrides)> {
        if !self.roster.has_overrides() {
            return Vec::new(); // nearly always; all servers there are need not be gathered then
        }
        self.roster.absent_overrides(&self.server_paths())
    }

    /// Forgets what was said first of servers that are not there, if these are too many, and says so. To be called where
    /// their number may have grown: after an order, after a reload.
    pub fn forget_absent(&self) {
        if !self.roster.has_excess_overrides() {
            return;
        }
        let forgotten = self.roster.evict_overrides(&self.server_paths());
        if let Some((pool, server)) = forgotten.first() {
            let count = forgotten.len();
            tracing::warn!(%pool, %server, count, "too many steered servers are absent: what was said of the first is forgotten");
        }
    }

    fn server_paths(&self) -> HashSet<ServerPath> {
        let plan = self.plan();
        let of_pool = |plan: &Arc<PoolPlan>| {
            let path = |server: &Member| (Arc::clone(plan.pool.name()), Arc::clone(&server.spec().label));
            plan.pool.servers().iter().map(path).collect::<Vec<_>>()
        };
        plan.pools.iter().flat_map(of_pool).collect()
    }

    /// What the process waits for before it is ready; `None`: it is. A server that is checked must have had its first
    /// check, and a name its first lookup. Within 30 s of the start each pool must have an address, too. Once ready it
    /// stays so: a server that joins later is no reason to take the process out.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        if self.was_ready.load(Relaxed) {
            return None;
        }
        let needs_address = self.started.elapsed() < ADDRESS_PATIENCE;
        let plan = self.plan.load();
        let waits_for = plan.pools.iter().find_map(|pool| waits_for(pool, needs_address));
        self.was_ready.fetch_or(waits_for.is_none(), Relaxed);
        waits_for
    }
}

/// What the pool's names were resolved to in the plan before, as far as it is still wanted; whether that is something else
/// than is known. What has just been asked for with another family of addresses is newer.
fn take_over(pool: &PoolPlan, before: &PoolPlan) -> bool {
    if before.pool.is_resolved() {
        pool.pool.mark_resolved();
    }
    let known: HashMap<&str, &ServerEntry> = before.names().map(|(entry, ..)| (&*entry.written, entry)).collect();
    let mut is_news = false;
    for (entry, ..) in pool.names() {
        let now = entry.addresses.load();
        let is_newer = pool.resolve != before.resolve && !now.is_empty();
        let Some(same) = known.get(&*entry.written).filter(|_| !is_newer) else {
            continue;
        };
        let wanted = |address: &&ServerAddr| pool.resolve.includes(address.ip());
        let addresses: Vec<ServerAddr> = same.addresses.load().iter().filter(wanted).copied().collect();
        if !addresses.is_empty() && **now != addresses {
            entry.addresses.store(Arc::new(addresses));
            is_news = true;
        }
    }
    is_news
}

/// What a pool waits for before it is ready.
fn waits_for(pool: &PoolPlan, needs_address: bool) -> Option<String> {
    let name = pool.pool.name();
    let servers = pool.pool.servers();
    if servers.is_empty() && needs_address || pool.has_names() && !pool.pool.is_resolved() {
        let unknown = pool.names().find(|(entry, ..)| entry.addresses.load().is_empty());
        let unknown = unknown.map_or_else(String::new, |(entry, ..)| {
            format!(": `{}` is not resolved yet", entry.written)
        });
        return Some(format!("an address of pool `{name}`{unknown}"));
    }
    let is_unchecked = |server: &&Member| server.check_state() == CheckState::Unchecked && !server.is_disabled();
    let unchecked = servers.iter().find(is_unchecked)?;
    Some(format!(
        "the first checks: `{}` of pool `{name}`",
        unchecked.spec().label
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::ClientAddr;
    use crate::pool::{CheckOutcome, Thresholds};

    const THRESHOLDS: Thresholds = Thresholds { rise: 1, fall: 1 };

    fn plan(servers: &str) -> Plan {
        let text = format!("[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\nservers = [{servers}]");
        crate::config::read("a.toml", &text).ok().unwrap().plan
    }

    fn servers(plan: &Plan) -> Vec<Member> {
        plan.pools[0].pool.servers().to_vec()
    }

    fn reload(live: &Live, text: &str) -> Vec<Member> {
        let mut next = plan(text);
        live.settle(&mut next);
        servers(&live.swap(next))
    }

    #[test]
    fn a_server_stays_itself_by_pool_name_and_address() {
        let live = Live::new(plan(r#""10.0.0.1:1", { address = "10.0.0.2:1", name = "b" }"#));
        let before = servers(&live.plan());
        before[0].record_check(&CheckOutcome::Fail("gone".into()), THRESHOLDS);
        let after = reload(
            &live,
            r#"{ address = "10.0.0.3:1", name = "b" }, { address = "10.0.0.1:1", weight = 7 }"#,
        );
        assert_eq!(after[1].id(), before[0].id());
        assert_eq!((after[1].check_state(), after[1].weight()), (CheckState::Down, 7));
        assert_ne!(after[0].id(), before[1].id(), "it has moved");
        assert_eq!(after[0].check_state(), CheckState::Unchecked);
    }

    #[test]
    fn a_server_that_comes_back_while_somebody_holds_it_is_the_same() {
        let live = Live::new(plan(r#""10.0.0.1:1", "10.0.0.2:1""#));
        let held = servers(&live.plan()).remove(1);
        reload(&live, r#""10.0.0.1:1""#);
        assert_eq!(reload(&live, r#""10.0.0.1:1", "10.0.0.2:1""#)[1].id(), held.id());
    }

    /// The name of the entry is at these addresses from now on.
    fn resolve(live: &Live, entry: usize, addresses: &[&str]) {
        let pool = Arc::clone(&live.plan().pools[0]);
        let addresses = addresses
            .iter()
            .map(|address| ServerAddr::new(address.parse().unwrap()));
        pool.entries[entry].addresses.store(Arc::new(addresses.collect()));
        pool.settle(live.roster());
    }

    fn labels(servers: &[Member]) -> Vec<&str> {
        servers.iter().map(|server| &*server.spec().label).collect()
    }

    #[test]
    fn who_goes_by_the_plan_before_finds_its_shares() {
        let live = Live::new(plan(r#"{ address = "10.0.0.1:1", priority = 3 }"#));
        let before = live.plan();
        let after = reload(&live, r#"{ address = "10.0.0.1:1", weight = 0 }, "10.0.0.2:1""#);
        let shares = |servers: &[Member]| -> Vec<_> { servers.iter().map(|s| (s.weight(), s.priority())).collect() };
        assert_eq!(
            (shares(&servers(&before)), shares(&after)),
            (vec![(1, 3)], vec![(0, 0), (1, 0)])
        );
        let client = ClientAddr::new("192.0.2.1:1".parse().unwrap());
        let lease = before.pools[0].pool.pick(client, &[], Instant::now());
        assert_eq!(lease.map(|lease| lease.server().id()), Some(after[0].id()));
    }

    #[test]
    fn what_a_name_resolved_to_is_taken_over() {
        let live = Live::new(plan(r#""a.test:1""#));
        resolve(&live, 0, &["10.0.0.8:1", "10.0.0.9:1"]);
        let before = servers(&live.plan());
        let kept = reload(&live, r#""b.test:1", { address = "a.test:1", weight = 3 }"#);
        assert_eq!(labels(&kept), ["a.test:1@10.0.0.8", "a.test:1@10.0.0.9"]);
        assert_eq!((kept[0].id(), kept[0].weight()), (before[0].id(), 3));
    }

    #[test]
    fn a_name_whose_servers_are_called_otherwise_is_where_it_was() {
        let live = Live::new(plan(r#""a.test:1""#));
        resolve(&live, 0, &["10.0.0.9:1"]);
        let called = |name: &str| format!(r#"{{ address = "a.test:1", name = "{name}" }}"#);
        assert_eq!(labels(&reload(&live, &called("x"))), ["x@10.0.0.9"]);
        assert_eq!(labels(&reload(&live, &called("y"))), ["y@10.0.0.9"]);
        assert_eq!(labels(&reload(&live, r#""a.test:1""#)), ["a.test:1@10.0.0.9"]);
    }

    #[test]
    fn an_address_of_two_names_stays_when_one_of_them_goes() {
        let live = Live::new(plan(r#""a.test:1", "b.test:1""#));
        resolve(&live, 0, &["10.0.0.9:1"]);
        resolve(&live, 1, &["10.0.0.9:1"]);
        assert_eq!(labels(&servers(&live.plan())), ["a.test:1@10.0.0.9"]);
        assert_eq!(labels(&reload(&live, r#""b.test:1""#)), ["b.test:1@10.0.0.9"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_without_an_address_keeps_it_from_being_ready_for_thirty_seconds() {
        let live = Live::new(plan(r#""a.test:1", "b.test:1""#));
        let pool = Arc::clone(&live.plan().pools[0]);
        let waits = Some("an address of pool `p`: `a.test:1` is not resolved yet".to_owned());
        assert_eq!(live.waits_for(), waits);
        pool.pool.mark_resolved();
        tokio::time::advance(ADDRESS_PATIENCE - Duration::from_millis(1)).await;
        assert_eq!(live.waits_for(), waits, "it does not resolve");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(live.waits_for(), None);
    }

    #[test]
    fn it_is_ready_once_each_pool_has_an_address_and_each_server_its_first_check() {
        let live = Live::new(plan(r#""a.test:1", "b.test:1""#));
        resolve(&live, 1, &["10.0.0.9:1"]);
        assert!(live.waits_for().is_some(), "of the other something may be said yet");
        live.plan().pools[0].pool.mark_resolved();
        let waits = Some("the first checks: `b.test:1@10.0.0.9` of pool `p`".to_owned());
        assert_eq!(live.waits_for(), waits);
        servers(&live.plan())[0].record_check(&CheckOutcome::Fail("gone".into()), THRESHOLDS);
        assert_eq!(live.waits_for(), None);
        reload(&live, r#""c.test:1""#);
        assert_eq!(live.waits_for(), None, "it has been ready");
    }
}
