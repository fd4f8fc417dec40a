//! The servers of a pool that are not in its plan: those that its source lists, with the state of the source, and those
//! that operators have added.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{AddedServer, Live, NameAddresses};
use crate::addr::ServerLocation;
use crate::plan::{ListedServer, Lister, PoolPlan, ServerEntry, listed_entries};
use crate::pool::MemberConfig;
use crate::text::Reason;

/// The servers of a pool that are not in its plan. A pool shares them with its successors.
// A std mutex: locked for a few lines, and by no session.
#[derive(Debug, Default)]
pub struct DynamicServers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lists: Lists,
    source: SourceState,
    /// The servers that operators have added, in this order.
    added: Vec<AddedServer>,
}

/// What the lister of a pool has listed.
#[derive(Clone, Debug, Default)]
struct Lists {
    /// The latest list, and who has listed it; `None`: there is none so far.
    listed: Option<(Lister, Arc<[ServerEntry]>)>,
    /// The list before `listed`. It is kept as long as no server of `listed` can be used; empty: none is kept.
    kept: Arc<[ServerEntry]>,
    /// Whether `listed` or `kept` has clones that were started before a reload. They stay as long as the source has
    /// listed nothing that can be used.
    holds_clones: bool,
}

impl Lists {
    /// The lists with which a plan begins that replaces the plan `before`. The list of another lister is forgotten: it
    /// would be out of date when that lister is back. But the pool keeps its earlier servers until its source has
    /// listed servers or a clone runs. If the pool may sleep, it keeps none: clients wake it.
    fn taken_over(&self, plan: &PoolPlan, before: &PoolPlan) -> Self {
        if before.lister() == plan.lister() {
            return self.clone();
        }
        let keeps = |lister: &Lister| *lister == Lister::Source || plan.rules.wake.is_none();
        let Some(lister) = plan.lister().filter(keeps) else {
            return Self::default();
        };
        let listed = self.listed.iter().filter(|(by, _)| before.lister() == Some(*by));
        let listed = listed.flat_map(|(_, listed)| &**listed);
        let mut labels: HashSet<_> = plan.entries.iter().map(ServerEntry::label).collect();
        let earlier = before.entries.iter().chain(listed).chain(&*self.kept);
        let earlier = earlier.filter(|entry| labels.insert(entry.label())).cloned();
        Self {
            listed: Some((lister, earlier.collect())),
            kept: Arc::default(),
            holds_clones: (before.lister(), lister) == (Some(Lister::Clones), Lister::Source),
        }
    }
}

/// The state of the source of a pool's servers.
#[derive(Clone, Debug, Default)]
pub struct SourceState {
    /// Whether its latest answer was usable; `None`: it has not answered yet.
    pub is_up: Option<bool>,
    /// When it last gave a usable answer.
    pub last_success: Option<SystemTime>,
    /// Why its latest answer was not usable.
    pub error: Option<Reason>,
    /// The problems in parts of its latest usable answer.
    pub warning: Option<Reason>,
}

impl SourceState {
    /// See [`DynamicServers::record_success`].
    pub(super) fn record_success(&mut self, at: SystemTime, warning: Option<Reason>) -> bool {
        let next = Self {
            is_up: Some(true),
            last_success: Some(at),
            error: None,
            warning,
        };
        std::mem::replace(self, next).is_up != Some(true)
    }

    /// See [`DynamicServers::record_failure`].
    pub(super) fn record_failure(&mut self, error: Reason) -> bool {
        self.error = Some(error);
        self.is_up.replace(false) != Some(false)
    }
}

/// How many servers a list has added to a pool and removed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListChange {
    /// Servers that are new.
    pub added: usize,
    /// Servers that are no longer listed.
    pub removed: usize,
    /// How many servers of the previous list stay until one of this list can be used.
    pub kept: usize,
}

impl DynamicServers {
    /// The entries of a pool with this plan, which is in force.
    pub(super) fn entries(&self, plan: &PoolPlan) -> Arc<[ServerEntry]> {
        let state = self.lock();
        entries(plan, &state.lists, &state.added)
    }

    /// The entries that a pool will begin with if this plan replaces the plan `before`.
    pub(super) fn entries_after(&self, plan: &PoolPlan, before: &PoolPlan) -> Arc<[ServerEntry]> {
        let state = self.lock();
        entries(plan, &state.lists.taken_over(plan, before), &state.added)
    }

    /// Replaces the plan `before` by this plan, which is in force now.
    pub(super) fn take_over(&self, plan: &PoolPlan, before: &PoolPlan) {
        let mut state = self.lock();
        state.lists = state.lists.taken_over(plan, before);
    }

    /// Whether clones that were started before a reload stay until the source of the pool has listed servers that can
    /// be used.
    #[must_use]
    pub fn holds_clones(&self) -> bool {
        self.lock().lists.holds_clones
    }

    /// Replaces the listed servers. `None`: the list has not changed. The previous list stays in use as long as no
    /// server of the new one can be used: its names may not be resolved yet, or never, or all of them may be our own
    /// listeners.
    fn list(
        &self,
        by: Lister,
        listed: Vec<ServerEntry>,
        can_be_used: impl Fn(&ServerEntry) -> bool,
    ) -> Option<ListChange> {
        let lists = &mut self.lock().lists;
        let held_clones = std::mem::take(&mut lists.holds_clones);
        let before = lists.listed.as_ref().filter(|(before, _)| *before == by);
        if before.is_some_and(|(_, before)| **before == *listed) {
            return None;
        }
        let before: Arc<[_]> = before.map_or_else(Arc::default, |(_, before)| Arc::clone(before));
        let (old, new) = (identities(&before), identities(&listed));
        if listed.is_empty() || listed.iter().any(&can_be_used) {
            lists.kept = Arc::default();
        } else if before.iter().any(&can_be_used) {
            lists.kept = before; // otherwise the list that is kept already stays
        }
        lists.holds_clones = held_clones && !lists.kept.is_empty();
        lists.listed = Some((by, listed.into()));
        Some(ListChange {
            added: new.difference(&old).count(),
            removed: old.difference(&new).count(),
            kept: lists.kept.len(),
        })
    }

    /// Drops the kept list if a server of the latest one can be used by now. Returns whether it did.
    pub(super) fn release_kept(&self, can_be_used: impl Fn(&ServerEntry) -> bool) -> bool {
        let mut state = self.lock();
        let Lists {
            listed,
            kept,
            holds_clones,
        } = &mut state.lists;
        let is_over = !kept.is_empty() && listed.iter().flat_map(|(_, listed)| &**listed).any(can_be_used);
        if is_over {
            (*kept, *holds_clones) = (Arc::default(), false);
        }
        is_over
    }

    /// The latest list of the source, or the previous list as long as no server of the latest can be used; `None`:
    /// there is none so far, or it has clones.
    #[must_use]
    pub fn listed(&self) -> Option<Arc<[ServerEntry]>> {
        let lists = &self.lock().lists;
        let is_lasting = |by| by == Lister::Source && !lists.holds_clones;
        let (_, listed) = lists.listed.as_ref().filter(|(by, _)| is_lasting(*by))?;
        Some(Arc::clone(if lists.kept.is_empty() { listed } else { &lists.kept }))
    }

    /// The servers that operators have added. One of them is not in use while the configuration or the source has
    /// another server of its name.
    #[must_use]
    pub fn added(&self) -> Vec<AddedServer> {
        self.lock().added.clone()
    }

    /// Changes the servers that operators have added.
    pub(super) fn change_added<T>(&self, change: impl FnOnce(&mut Vec<AddedServer>) -> T) -> T {
        change(&mut self.lock().added)
    }

    /// The state of the source.
    #[must_use]
    pub fn source(&self) -> SourceState {
        self.lock().source.clone()
    }

    /// Records that the source has given a usable answer. `warning`: the problems in parts of it. Returns whether its
    /// previous answer was not usable.
    pub fn record_success(&self, at: SystemTime, warning: Option<Reason>) -> bool {
        self.lock().source.record_success(at, warning)
    }

    /// Records that the source has failed, or has given an answer that is not usable. Returns whether the previous
    /// answer was usable, or there was none.
    pub fn record_failure(&self, error: Reason) -> bool {
        self.lock().source.record_failure(error)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entries of a pool with this plan, these lists and these servers that operators have added.
fn entries(plan: &PoolPlan, lists: &Lists, added: &[AddedServer]) -> Arc<[ServerEntry]> {
    // What another lister has listed, before a reload, is not for this plan.
    let listed = lists.listed.as_ref().filter(|(by, _)| plan.lister() == Some(*by));
    match listed.map(|(_, listed)| listed) {
        None if added.is_empty() => Arc::clone(&plan.entries),
        Some(listed) if plan.entries.is_empty() && added.is_empty() && lists.kept.is_empty() => Arc::clone(listed),
        listed => {
            let kept = listed.map_or(&[][..], |_| &*lists.kept);
            let listed = listed.map_or(&[][..], |listed| &**listed);
            let mut entries: Vec<_> = plan.entries.iter().chain(listed).cloned().collect();
            if !kept.is_empty() {
                let latest = identities(listed);
                entries.extend(kept.iter().filter(|entry| !latest.contains(&identity(entry))).cloned());
            }
            let labels: HashSet<_> = entries.iter().map(|entry| Arc::clone(entry.label())).collect();
            // The configuration and the source may have got a server of the same name since.
            let added = added.iter().map(|added| &added.entry);
            let added = added.filter(|entry| !labels.contains(entry.label()));
            entries.extend(added.map(|entry| with_limit_of(plan, entry)));
            entries.into()
        }
    }
}

/// A listed server with the same identity as one of the previous list is the same server.
fn identity(entry: &ServerEntry) -> (Arc<str>, ServerLocation) {
    (Arc::clone(entry.label()), entry.location.clone())
}

fn identities(entries: &[ServerEntry]) -> HashSet<(Arc<str>, ServerLocation)> {
    entries.iter().map(identity).collect()
}

/// An added server with the limit of this plan of its pool, which may differ from that of the time when it was added.
fn with_limit_of(plan: &PoolPlan, added: &ServerEntry) -> ServerEntry {
    ServerEntry {
        member_config: MemberConfig {
            sessions_max: plan.defaults.sessions_max,
            ..added.member_config
        },
        ..added.clone()
    }
}

impl Live {
    /// Replaces the servers that are listed for the pool of this name; those of its plan stay. `None`: nothing has
    /// changed, or there is no such pool, or something else lists its servers since a reload. A listed server of the
    /// same name and address as before stays, with its health, its sessions and its back-off; one that has left gets no
    /// new sessions.
    ///
    /// A pool has one lister, which is the only caller for it.
    pub fn set_servers(&self, pool: &str, by: Lister, listed: Vec<ServerEntry>) -> Option<ListChange> {
        let _changing = self.changing();
        let in_force = self.in_force();
        let pool = in_force.pool(pool).filter(|pool| pool.plan().lister() == Some(by))?;
        let own = self.registry.own_listeners().leading_to(pool.name());
        // Clones that have left are stopped, so that they cannot be kept.
        let can_be_used = |entry: &ServerEntry| by == Lister::Clones || pool.can_use(entry, &own);
        let change = pool.dynamic().list(by, listed, can_be_used)?;
        self.update_dynamic_servers(&in_force, pool);
        self.notify_listed();
        Some(change)
    }

    /// Sets the addresses of names in the pool of this name in force, if there is one, and updates its servers.
    pub fn set_addresses(&self, pool: &str, addresses: NameAddresses) {
        let _changing = self.changing();
        let in_force = self.in_force();
        if let Some(pool) = in_force.pool(pool) {
            if pool.set_addresses(addresses, &self.registry) {
                self.notify_listed();
            }
            self.readmit_servers(&in_force);
        }
    }

    /// The latest lists of the sources of pools, by pool.
    #[must_use]
    pub fn listed_servers(&self) -> BTreeMap<Box<str>, Vec<ListedServer>> {
        let in_force = self.in_force();
        let with_source = in_force.pools.iter().filter(|pool| pool.plan().discover.is_some());
        let listed = with_source.filter_map(|pool| {
            let listed = pool.dynamic().listed()?;
            Some(((**pool.name()).into(), listed.iter().map(Into::into).collect()))
        });
        listed.collect()
    }

    pub(super) fn notify_listed(&self) {
        self.listed_changed.notify_one();
    }

    /// Waits until [`Self::listed_servers`] may have changed. Only one task may wait for that.
    pub async fn listed_changed(&self) {
        self.listed_changed.notified().await;
    }

    /// Begins with servers that the sources of pools had listed before the process was started.
    pub fn restore_listed(&self, listed: BTreeMap<Box<str>, Vec<ListedServer>>) {
        for (name, listed) in listed {
            let Some(plan) = self.plan().pool(&name).and_then(|pool| pool.discover.clone()) else {
                continue;
            };
            let entries = listed_entries(listed, plan.defaults);
            match entries.and_then(|entries| plan.check_listed(&entries).map(|()| entries)) {
                Ok(entries) => drop(self.set_servers(&name, Lister::Source, entries)),
                Err(error) => tracing::warn!(pool = %name, %error, "the servers saved before the start are not valid"),
            }
        }
    }
}
