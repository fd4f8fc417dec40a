//! The plan in force, and what it takes over from the one before it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;

use crate::plan::{Plan, PoolPlan};
use crate::pool::health::Checked;
use crate::pool::{Member, Roster};

/// Holds the one plan that is in force; whoever needs it takes it once and works with what it took.
#[derive(Debug)]
pub struct Live {
    plan: ArcSwap<Plan>,
    roster: Arc<Roster>,
    was_checked: AtomicBool,
}

impl Live {
    /// Puts a plan in force.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let roster = Arc::<Roster>::default();
        for pool in &plan.pools {
            pool.settle(&roster);
        }
        Self {
            plan: ArcSwap::from_pointee(plan),
            roster,
            was_checked: AtomicBool::new(false),
        }
    }

    /// The plan in force at this moment.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// All servers there are.
    #[must_use]
    pub fn roster(&self) -> &Arc<Roster> {
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

    /// Whether every server that is checked has had its first check, those behind names included where the names
    /// resolve at all. Once it has been so it stays so: a server that joins later is no reason to take the process out.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        let is_checked = self.was_checked.load(Relaxed) || self.plan.load().pools.iter().all(|pool| all_checked(pool));
        self.was_checked.fetch_or(is_checked, Relaxed);
        is_checked
    }
}

/// What the pool's names were resolved to in the plan before; whether that is something else than is known.
fn take_over(pool: &PoolPlan, before: &PoolPlan) -> bool {
    if before.pool.is_resolved() {
        pool.pool.mark_resolved();
    }
    let known: HashMap<_, _> = before.names().map(|(entry, ..)| (&entry.written, entry)).collect();
    let mut is_news = false;
    for (entry, ..) in pool.names() {
        if let Some(same) = known.get(&entry.written) {
            let addresses = same.addresses.load_full();
            let replaced = entry.addresses.swap(Arc::clone(&addresses));
            is_news |= !Arc::ptr_eq(&replaced, &addresses);
        }
    }
    is_news
}

fn all_checked(pool: &PoolPlan) -> bool {
    let is_resolved = pool.pool.is_resolved() || !pool.has_names();
    let is_checked = |server: &Member| server.checked() != Checked::Unchecked || server.is_disabled();
    is_resolved && pool.pool.servers().iter().all(is_checked)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::addr::{ClientAddr, ServerAddr};
    use crate::pool::health::{Thresholds, Verdict};

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
        before[0].record_check(&Verdict::Fail("gone".into()), THRESHOLDS);
        let after = reload(
            &live,
            r#"{ address = "10.0.0.3:1", name = "b" }, { address = "10.0.0.1:1", weight = 7 }"#,
        );
        assert_eq!(after[1].id(), before[0].id());
        assert_eq!((after[1].checked(), after[1].weight()), (Checked::Down, 7));
        assert_ne!(after[0].id(), before[1].id(), "it has moved");
        assert_eq!(after[0].checked(), Checked::Unchecked);
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
}
