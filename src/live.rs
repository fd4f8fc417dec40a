//! The plan in force, and what it takes over from the one before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;

use crate::plan::{Plan, PoolPlan};
use crate::pool::health::Checked;
use crate::pool::{Roster, Server, ServerSpec};

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
            settle(pool, None, &roster);
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

    /// Gives the pools of the next plan the servers there are: a server of the same pool, name and address stays the
    /// one it is, with its health, its sessions, its back-off. What the plan says of it holds at once.
    pub fn settle(&self, next: &Plan) {
        let now = self.plan();
        for pool in &next.pools {
            let before = now.pools.iter().find(|before| before.pool.name() == pool.pool.name());
            settle(pool, before.map(AsRef::as_ref), &self.roster);
        }
    }

    /// Puts another plan in force, one that has been settled.
    pub fn swap(&self, next: Plan) -> Arc<Plan> {
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

/// Servers by address are found in the roster or made; those of names are taken over as they were last resolved.
fn settle(pool: &PoolPlan, before: Option<&PoolPlan>, roster: &Roster) {
    let name = pool.pool.name();
    let mut servers = Vec::new();
    for entry in &pool.entries {
        let specs = match (entry.fixed(), before) {
            (Some(spec), _) => vec![spec],
            (None, Some(before)) => {
                let known = before.pool.servers();
                let same = known
                    .iter()
                    .map(|server| server.spec())
                    .filter(|spec| entry.is_of(spec));
                same.cloned().collect::<Vec<ServerSpec>>()
            }
            (None, None) => Vec::new(),
        };
        let settled = specs
            .into_iter()
            .map(|spec| roster.server(name, spec, entry.allotment, pool.is_checked()));
        servers.extend(settled);
    }
    pool.pool.replace_servers(servers);
    if before.is_some_and(|before| before.pool.is_resolved()) {
        pool.pool.mark_resolved();
    }
}

fn all_checked(pool: &PoolPlan) -> bool {
    let is_resolved = pool.pool.is_resolved() || !pool.has_names();
    let is_checked = |server: &Arc<Server>| server.checked() != Checked::Unchecked || server.is_disabled();
    is_resolved && pool.pool.servers().iter().all(is_checked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::ServerAddr;
    use crate::pool::health::{Thresholds, Verdict};

    const THRESHOLDS: Thresholds = Thresholds { rise: 1, fall: 1 };

    fn plan(servers: &str) -> Plan {
        let text = format!("[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\nservers = [{servers}]");
        crate::config::read("a.toml", &text).ok().unwrap().plan
    }

    fn servers(plan: &Plan) -> Vec<Arc<Server>> {
        plan.pools[0].pool.servers().to_vec()
    }

    fn reload(live: &Live, text: &str) -> Vec<Arc<Server>> {
        let next = plan(text);
        live.settle(&next);
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

    #[test]
    fn what_a_name_resolved_to_is_taken_over() {
        let live = Live::new(plan(r#""a.test:1""#));
        let spec = ServerSpec {
            label: "a.test:1@10.0.0.9".into(),
            identity: "10.0.0.9:1".into(),
            address: ServerAddr::new("10.0.0.9:1".parse().unwrap()),
            resolved_from: Some("a.test:1".into()),
        };
        let pool = Arc::clone(&live.plan().pools[0]);
        let server = live
            .roster()
            .server(pool.pool.name(), spec, pool.entries[0].allotment, true);
        pool.pool.replace_servers(vec![Arc::clone(&server)]);
        let kept = reload(&live, r#""b.test:1", { address = "a.test:1", weight = 3 }"#);
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].id(), kept[0].weight()), (server.id(), 3));
        assert!(
            reload(&live, r#"{ address = "a.test:1", name = "other" }"#).is_empty(),
            "it is called otherwise"
        );
    }
}
