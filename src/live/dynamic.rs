//! The servers of a pool that are not in its plan. Some are in the list of its lister: its source, or its clones.
//! Operators have added others.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::{AddedServer, Live, NameAddresses};
use crate::addr::ServerLocation;
use crate::plan::{ListedServer, Lister, PoolPlan, ServerEntry, listed_entries};
use crate::pool::MemberConfig;
use crate::text::Reason;

/// The servers of a pool that are not in its plan, and the state of their source. A pool shares them with the pools
/// that replace it at reloads.
// A blocking mutex: locked for a few lines, and by no session.
#[derive(Debug, Default)]
pub struct DynamicServers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lists: Lists,
    source: SourceState,
    /// The servers that operators have added, the earliest first.
    added: Vec<AddedServer>,
}

/// What the lister of a pool has listed.
#[derive(Clone, Debug, Default)]
struct Lists {
    /// The latest list, and its lister; `None`: there is none so far.
    listed: Option<(Lister, Arc<[ServerEntry]>)>,
    /// The servers listed before `listed`, while no server of `listed` can be used; empty: none are kept.
    kept: Arc<[ServerEntry]>,
    /// Whether `listed` or `kept` may have clones, although a reload has given the pool a source. The clones stay until
    /// the source has listed a server that can be used, or gives an empty list.
    holds_clones: bool,
}

impl Lists {
    /// The lists with which `plan` begins when it replaces the plan `before`.
    ///
    /// If the lister is another one, all earlier servers of the pool become the first list of the new lister. So the
    /// pool keeps them until its source has listed servers or a clone runs. A pool of clones that may sleep keeps none:
    /// clients wake it. Nothing is kept for the old lister: its list would be out of date if that lister came back.
    fn taken_over(&self, plan: &PoolPlan, before: &PoolPlan) -> Self {
        if before.lister() == plan.lister() {
            return self.clone();
        }
        let keeps_servers = |lister: &Lister| *lister == Lister::Source || plan.rules.wake.is_none();
        let Some(lister) = plan.lister().filter(keeps_servers) else {
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
            holds_clones: before.lister() == Some(Lister::Clones) && lister == Lister::Source,
        }
    }
}

/// The state of a source: that of a pool's servers, or that of the announced routes.
#[derive(Clone, Debug, Default)]
pub struct SourceState {
    /// Whether the source's latest attempt gave a usable answer; `None`: it has neither answered nor failed yet.
    pub is_up: Option<bool>,
    /// When it last gave a usable answer.
    pub last_success: Option<SystemTime>,
    /// Why its latest attempt gave no usable answer.
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

/// What a new list has changed in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListChange {
    /// How many servers are new.
    pub added: usize,
    /// How many servers are no longer listed.
    pub removed: usize,
    /// How many servers of an earlier list stay until one of this list can be used.
    pub kept: usize,
}

impl DynamicServers {
    /// All entries of the pool: those of its plan, which is in force, and the dynamic ones.
    pub(super) fn entries(&self, plan: &PoolPlan) -> Arc<[ServerEntry]> {
        let state = self.0.lock();
        entries(plan, &state.lists, &state.added)
    }

    /// All entries that the pool will have if `plan` replaces the plan `before`.
    pub(super) fn entries_after(&self, plan: &PoolPlan, before: &PoolPlan) -> Arc<[ServerEntry]> {
        let state = self.0.lock();
        entries(plan, &state.lists.taken_over(plan, before), &state.added)
    }

    /// Takes note that `plan` has replaced the plan `before`.
    pub(super) fn take_over(&self, plan: &PoolPlan, before: &PoolPlan) {
        let mut state = self.0.lock();
        state.lists = state.lists.taken_over(plan, before);
    }

    /// Whether a reload has replaced the clones of the pool by a source that has not yet listed a usable server, or
    /// given an empty list. Until then the clones stay.
    #[must_use]
    pub fn holds_clones(&self) -> bool {
        self.0.lock().lists.holds_clones
    }

    /// Replaces the listed servers. Returns what that has changed; `None`: the list is the same. The previous list
    /// stays in use as long as no server of the new list can be used: its names may have no addresses, or the servers
    /// may be our own listeners. An empty list is applied at once: a source gives one only if `allow_empty` is set.
    fn list(
        &self,
        by: Lister,
        listed: Vec<ServerEntry>,
        can_be_used: impl Fn(&ServerEntry) -> bool,
    ) -> Option<ListChange> {
        let lists = &mut self.0.lock().lists;
        let before = lists.listed.as_ref().filter(|(lister, _)| *lister == by);
        // From now on, `listed` is what the lister itself has listed, so only `kept` can still have clones from before
        // a reload.
        if before.is_some_and(|(_, before)| **before == *listed) {
            lists.holds_clones &= !lists.kept.is_empty();
            return None;
        }
        let before: Arc<[_]> = before.map_or_else(Arc::default, |(_, before)| Arc::clone(before));
        let (old, new) = (identities(&before), identities(&listed));
        if listed.is_empty() || listed.iter().any(&can_be_used) {
            lists.kept = Arc::default();
        } else if before.iter().any(&can_be_used) {
            lists.kept = before;
        } // else neither list can be used: `kept` stays as it is
        lists.holds_clones &= !lists.kept.is_empty();
        lists.listed = Some((by, listed.into()));
        Some(ListChange {
            added: new.difference(&old).count(),
            removed: old.difference(&new).count(),
            kept: lists.kept.len(),
        })
    }

    /// Drops the kept list if a server of the latest one can be used now. Returns whether a list was dropped.
    pub(super) fn release_kept(&self, can_be_used: impl Fn(&ServerEntry) -> bool) -> bool {
        let mut state = self.0.lock();
        let Lists {
            listed,
            kept,
            holds_clones,
        } = &mut state.lists;
        let is_released = !kept.is_empty() && listed.iter().flat_map(|(_, listed)| &**listed).any(can_be_used);
        if is_released {
            (*kept, *holds_clones) = (Arc::default(), false);
        }
        is_released
    }

    /// The list to save for the source: the latest, or the one that is kept as long as no server of the latest can be
    /// used. `None`: there is none so far, the pool has no source, or clones may be in the list.
    #[must_use]
    pub fn listed(&self) -> Option<Arc<[ServerEntry]>> {
        let lists = &self.0.lock().lists;
        let (lister, listed) = lists.listed.as_ref()?;
        if *lister != Lister::Source || lists.holds_clones {
            return None;
        }
        Some(Arc::clone(if lists.kept.is_empty() { listed } else { &lists.kept }))
    }

    /// The servers that operators have added. An added server is not in use while the configuration or the lister has
    /// a server of the same name.
    #[must_use]
    pub fn added(&self) -> Vec<AddedServer> {
        self.0.lock().added.clone()
    }

    /// Changes the servers that operators have added.
    pub(super) fn change_added<T>(&self, change: impl FnOnce(&mut Vec<AddedServer>) -> T) -> T {
        change(&mut self.0.lock().added)
    }

    /// The state of the source.
    #[must_use]
    pub fn source(&self) -> SourceState {
        self.0.lock().source.clone()
    }

    /// Records that the source has given a usable answer. `warning`: the problems in parts of it. Returns whether its
    /// previous answer was not usable, or there was none.
    pub fn record_success(&self, at: SystemTime, warning: Option<Reason>) -> bool {
        self.0.lock().source.record_success(at, warning)
    }

    /// Records that the source has failed, or has given an answer that is not usable. Returns whether the previous
    /// answer was usable, or there was none.
    pub fn record_failure(&self, error: Reason) -> bool {
        self.0.lock().source.record_failure(error)
    }
}

/// All entries of a pool, from its plan, its lists, and the servers that operators have added.
fn entries(plan: &PoolPlan, lists: &Lists, added: &[AddedServer]) -> Arc<[ServerEntry]> {
    // A list of another lister, from before a reload, is not for this plan.
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
            // Since a server was added, the configuration or the lister may have got one with the same name.
            let added = added.iter().map(|added| &added.entry);
            let added = added.filter(|entry| !labels.contains(entry.label()));
            entries.extend(added.map(|entry| with_limit_of(plan, entry)));
            entries.into()
        }
    }
}

/// Listed servers with the same identity are the same server.
fn identity(entry: &ServerEntry) -> (Arc<str>, ServerLocation) {
    (Arc::clone(entry.label()), entry.location.clone())
}

fn identities(entries: &[ServerEntry]) -> HashSet<(Arc<str>, ServerLocation)> {
    entries.iter().map(identity).collect()
}

/// An added server with the session limit of this plan, which may differ from the limit when the server was added.
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
    /// Replaces the servers that are listed for the pool of this name; those of its plan stay. A listed server with the
    /// same name and address as before stays, with its health, its sessions and its back-off. A server that is no
    /// longer listed gets no new sessions, except while the previous list is kept. `by` is the lister that gave the
    /// list, now or before this process began.
    ///
    /// Returns what has changed; `None`: nothing has, there is no such pool, or it has another lister since a reload.
    pub fn set_servers(&self, pool: &str, by: Lister, listed: Vec<ServerEntry>) -> Option<ListChange> {
        let _changing = self.changing();
        let in_force = self.in_force();
        let pool = in_force.pool(pool).filter(|pool| pool.plan().lister() == Some(by))?;
        let own = self.registry.own_listeners().leading_to(pool.name());
        // Clones that are no longer listed are stopped, so the previous list is useless: the new one always counts as
        // usable.
        let can_be_used = |entry: &ServerEntry| by == Lister::Clones || pool.can_use(entry, &own);
        let change = pool.dynamic().list(by, listed, can_be_used)?;
        self.update_dynamic_servers(&in_force, pool);
        self.notify_listed();
        Some(change)
    }

    /// Sets the addresses that the host names in this pool resolve to, and updates its servers. Does nothing if no such
    /// pool is in force.
    pub fn set_addresses(&self, pool: &str, addresses: NameAddresses) {
        let _changing = self.changing();
        let in_force = self.in_force();
        if let Some(pool) = in_force.pool(pool) {
            if pool.set_addresses(addresses, &self.registry) {
                self.notify_listed();
            }
            self.readmit_left_out(&in_force); // servers that were left out because they led back to the pool
        }
    }

    /// The lists to save for the sources of pools ([`DynamicServers::listed`]), by pool.
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

    /// Waits until [`Self::listed_servers`] may have changed, other than by a reload. Only one task may wait for that.
    pub async fn listed_changed(&self) {
        self.listed_changed.notified().await;
    }

    /// Restores the lists of sources that were saved before the process was started.
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
