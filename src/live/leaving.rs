//! Servers that leave their pool, and pools that are gone or get another name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::{Departed, InForce, Live, LivePool};
use crate::addr::ServerAddr;
use crate::pool::{Member, ServerId};

impl LivePool {
    /// The servers that have left this pool, or had left it under an earlier name, as long as something holds them.
    /// Each has the cause to close its sessions, if there is one.
    #[must_use]
    pub fn departed(&self) -> Vec<Departed> {
        let mut all = self.departed.still_held();
        if all.is_empty() {
            return all; // nearly always
        }
        let cause_on_leave = self.cause_on_leave();
        let addresses = cause_on_leave.map(|_| self.server_addresses()).unwrap_or_default();
        for departed in &mut all {
            let Some(server) = departed.server.upgrade() else {
                continue;
            };
            let when_primary = departed.known_as_primary.as_deref();
            let superseded = when_primary.and_then(|known| self.supersession(known, &server));
            // `on_leave` does not apply if only the name of the pool or of the server has changed.
            let on_leave_applies = !departed.left_with_pool && !addresses.contains(&server.spec().address);
            let left = cause_on_leave.filter(|_| on_leave_applies);
            departed.cause = superseded.or(departed.cause).or(left);
        }
        all
    }

    /// Remembers as departed the servers of the pool `before` that are not among `members`. Forgets departed servers
    /// that have returned: they are among `members`.
    pub(super) fn note_departures(&self, before: &Self, members: &[Member]) {
        let present = members.iter().map(|server| server.id()).collect();
        self.departed.forget(&present);
        self.departed.extend(before.leaving(&present));
    }

    /// The addresses of the pool's servers.
    fn server_addresses(&self) -> HashSet<ServerAddr> {
        self.servers().iter().map(|server| server.spec().address).collect()
    }

    /// The pool's servers that are not among `present`, each with the cause to close its sessions now.
    fn leaving(&self, present: &HashSet<ServerId>) -> Vec<Departed> {
        let now = Instant::now();
        let servers = self.servers();
        let primary = self.requires_one_primary().then(|| self.roles().known_primary());
        let primary = primary.flatten().map(Arc::new);
        let left = servers.iter().filter(|server| !present.contains(&server.id()));
        let departed = left.map(|server| Departed {
            server: Arc::downgrade(server),
            cause: self.cause(server, now),
            left_with_pool: false,
            known_as_primary: primary
                .clone()
                .filter(|primary| *primary.server == *server.spec().label),
        });
        departed.collect()
    }
}

impl Live {
    /// The servers of pools that are gone, as long as something holds them. Pools that only got another name are not
    /// gone.
    #[must_use]
    pub fn departed_with_pools(&self) -> Vec<Departed> {
        self.gone.still_held()
    }

    /// Remembers the servers of pools that the next plan does not have. If such a pool only gets another name, the pool
    /// of that name remembers them.
    pub(super) fn note_gone_pools(&self, current: &InForce, next: &InForce) {
        let new: Vec<_> = next
            .pools
            .iter()
            .filter(|pool| current.pool(pool.name()).is_none())
            .collect();
        let new_pools = NewPools::new(&new);
        for gone in current.pools.iter().filter(|pool| next.pool(pool.name()).is_none()) {
            let mut departed = gone.departed();
            departed.extend(gone.leaving(&HashSet::new()));
            departed.iter_mut().for_each(|departed| departed.left_with_pool = true);
            let remembered_by = new_pools.renamed_from(gone).map_or(&self.gone, |pool| &*pool.departed);
            remembered_by.extend(departed);
        }
        let servers = new.iter().flat_map(|pool| pool.servers().to_vec());
        let returned: HashSet<_> = servers.map(|server| server.id()).collect();
        let all = next.pools.iter().map(|pool| &*pool.departed);
        all.chain([&self.gone]).for_each(|departed| departed.forget(&returned));
    }
}

/// The pools that are new in a plan. Finds which of them is an earlier pool under another name.
struct NewPools<'p> {
    by_address: HashMap<ServerAddr, Vec<&'p LivePool>>,
    /// Those with a source of servers (`discover`).
    discovered: Vec<&'p LivePool>,
}

impl<'p> NewPools<'p> {
    fn new(new: &[&'p Arc<LivePool>]) -> Self {
        let mut by_address: HashMap<_, Vec<&LivePool>> = HashMap::new();
        for &pool in new {
            for server in pool.servers().iter() {
                by_address.entry(server.spec().address).or_default().push(pool);
            }
        }
        let discovered = new.iter().filter(|pool| pool.plan().discover.is_some());
        Self {
            by_address,
            discovered: discovered.map(|pool| &***pool).collect(),
        }
    }

    /// The new pool that is the pool `gone` under another name. It requires the same role. Besides, it has the address
    /// of a server of `gone`, or the same source of servers, which may not have listed any server yet.
    fn renamed_from(&self, gone: &LivePool) -> Option<&'p LivePool> {
        let has_same_role = |pool: &&&LivePool| pool.plan().health.required.role == gone.plan().health.required.role;
        let servers = gone.servers();
        let with_server = servers
            .iter()
            .filter_map(|server| self.by_address.get(&server.spec().address));
        let has_same_source = |pool: &&&LivePool| pool.plan().discover == gone.plan().discover;
        let with_source = self.discovered.iter().filter(has_same_source);
        with_server.flatten().chain(with_source).find(has_same_role).copied()
    }
}
