//! Converts `[pools]`, and finds the pools that listeners and routes refer to.

use std::collections::{HashMap, HashSet};
use std::iter::successors;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::limits::PoolSettings;
use super::named::NamedSections;
use super::providers::Providers;
use super::{Problems, Section, pool, value};
use crate::config::file::{KeyValue, Node, Value};
use crate::plan::{Fallback, PoolId, PoolPlan, PoolPlans};

/// The pools of the file, by name.
pub(super) struct Pools<'a> {
    sections: NamedSections<'a, PoolId>,
    /// The plans of the pools that could be converted. A [`PoolId`] is an index into this list.
    pub(super) in_order: Vec<Arc<PoolPlan>>,
    settings: PoolSettings,
}

impl<'a> Pools<'a> {
    /// Converts all pools of the file.
    pub(super) fn read(
        file: &Section<'a>,
        settings: PoolSettings,
        providers: &Providers,
        problems: &mut Problems<'_>,
    ) -> Self {
        let has_pool_primary = has_pool_primary(file);
        let convert = |entry, problems: &mut Problems<'_>| {
            pool::pool(entry, settings, has_pool_primary, providers, problems).map(Arc::new)
        };
        let (sections, in_order) = NamedSections::convert(file, ["pools", "pool"], problems, PoolId, convert);
        let mut pools = Self {
            sections,
            in_order,
            settings,
        };
        pools.check_fallbacks(problems);
        pools
    }

    /// Finds the pools that `fallback` refers to, and reports cycles.
    fn check_fallbacks(&mut self, problems: &mut Problems<'_>) {
        let fallback = |entry: &'a KeyValue| match &entry.node.value {
            Value::Table(pool) => pool.entries.iter().find(|key| key.key == "fallback"),
            _ => None,
        };
        // The name of the fallback of each pool, with the position of that name.
        let mut fallback_names = HashMap::new();
        for entry in self.sections.entries {
            let Some(key) = fallback(entry) else { continue };
            let is_primary = |plan: &Arc<PoolPlan>| plan.fallback == Some(Fallback::Primary);
            if self.plan_of(entry).is_some_and(is_primary) {
                continue; // `primary` is not the name of a pool here
            }
            let is_valid = self.find(&key.node, problems).is_some(); // reports an unknown name
            if is_valid && let Value::String(name) = &key.node.value {
                fallback_names.insert(&*entry.key, (name.as_str(), &key.node.position));
            }
        }
        // Follows the fallbacks from each pool. A path ends at a pool that an earlier path has passed.
        let mut done = HashSet::new();
        for entry in self.sections.entries {
            let mut path = Vec::new();
            let mut name = entry.key.as_str();
            while !done.contains(name)
                && let Some((following, position)) = fallback_names.get(name)
            {
                if let Some(start) = path.iter().position(|passed| *passed == name) {
                    let cycle = [&path[start..], &[name]].concat().join("` -> `");
                    problems.error(
                        position,
                        "the fallbacks of these pools form a cycle",
                        format!("`{cycle}`: remove `fallback` from one of them"),
                    );
                    break;
                }
                path.push(name);
                name = following;
            }
            done.extend(path);
        }
    }

    /// Finds the pool that the value of `pool` or `fallback` names, and marks it as used. Reports an unknown name.
    pub(super) fn find(&mut self, node: &Node, problems: &mut Problems<'_>) -> Option<PoolId> {
        let name = value::string(node, "write the name of a pool: [pools.NAME]", problems)?;
        let hint = (name == Fallback::Primary.name()).then_some(
            "with role = \"replica\", `fallback = \"primary\"` is the primary among the servers of the pool",
        );
        self.sections.find(name, &node.position, hint, problems)
    }

    /// The pools that may serve the sessions of this one: the pool itself, its fallback, the fallback of that, and so
    /// on.
    pub(super) fn serving(&self, id: PoolId) -> impl Iterator<Item = &Arc<PoolPlan>> {
        let plan = |id: PoolId| &self.in_order[id.0];
        let fallback = move |pool: &&Arc<PoolPlan>| match pool.fallback.as_ref()? {
            Fallback::Pool(name) => self.sections.id(name).map(plan),
            Fallback::Primary => None,
        };
        // Bounded also where fallbacks form a cycle, which is reported elsewhere.
        successors(Some(plan(id)), fallback).take(self.in_order.len())
    }

    /// A pool without servers and without settings of its own.
    pub(super) fn default_plan(&self, providers: &Providers, problems: &mut Problems<'_>) -> Option<Arc<PoolPlan>> {
        let plan = pool::default_plan(self.settings, providers, problems)?;
        Some(Arc::new(plan))
    }

    /// The plans, in the order of the file.
    pub(super) fn into_plans(self) -> PoolPlans {
        self.in_order.into_iter().collect()
    }

    /// Warns of each port range that several pools share and that has too few ports for all clones of these pools.
    pub(super) fn warn_of_small_port_ranges(&self, problems: &mut Problems<'_>) {
        let ports_and_max = |plan: &Arc<PoolPlan>| {
            let scale = plan.scale.as_ref()?;
            Some((scale.ports()?.clone(), scale.rules.max))
        };
        // Many pools may have the same range: only distinct ranges are compared with each other.
        let mut max_by_range: HashMap<RangeInclusive<u16>, u32> = HashMap::new();
        for (range, max) in self.in_order.iter().filter_map(ports_and_max) {
            *max_by_range.entry(range).or_default() += max;
        }
        // The number of clones that can only have ports of this range: their pools have this range or a part of it.
        let count_needed = |range: &RangeInclusive<u16>| {
            let sharing = max_by_range
                .iter()
                .filter(|(inner, _)| range.contains(inner.start()) && range.contains(inner.end()));
            sharing.map(|(_, max)| max).sum()
        };
        let needed_by_range: HashMap<_, u32> = max_by_range.keys().map(|range| (range, count_needed(range))).collect();
        let mut warned = HashSet::new();
        for entry in self.sections.entries {
            let Some((range, own)) = self.plan_of(entry).and_then(ports_and_max) else {
                continue;
            };
            let needed = needed_by_range[&range];
            // Too few ports in a range that is not shared are reported as an error of the pool's own keys.
            let is_shared = needed > own;
            if needed as usize > range.len() && is_shared && warned.insert(range.clone()) {
                let (first, last) = (range.start(), range.end());
                let message =
                    format!("{first}-{last} are too few ports: the pools that share them may have {needed} clones");
                problems.warning(&entry.position, message, "write a wider range, or lower `max`");
            }
        }
    }

    /// The plan of a section; `None`: it could not be converted.
    fn plan_of(&self, entry: &KeyValue) -> Option<&Arc<PoolPlan>> {
        self.sections.id(&entry.key).map(|id| &self.in_order[id.0])
    }

    /// Warns of each pool whose containers stay if both this process and its keeper are killed, as in a crash of the
    /// machine. To be called if there is no `state_dir`: without it, the next start does not know them.
    pub(super) fn warn_of_leftover_containers(&self, problems: &mut Problems<'_>) {
        for entry in self.sections.entries {
            if self.plan_of(entry).is_some_and(|plan| plan.has_containers()) {
                let hint = "add state_dir = \"/var/lib/acequia\" to [runtime]: the next start finds and removes them";
                problems.warning(
                    &entry.position,
                    "a crash of this machine may leave containers behind",
                    hint,
                );
            }
        }
    }

    /// Warns of each pool that nothing refers to.
    pub(super) fn warn_unused(&self, problems: &mut Problems<'_>) {
        let hint = "no listener, route or `fallback` refers to it";
        self.sections.warn_unused(hint, problems);
    }
}

/// Whether there is a pool named "primary".
fn has_pool_primary(file: &Section<'_>) -> bool {
    let is_primary = |entry: &KeyValue| *entry.key == *Fallback::Primary.name();
    matches!(file.get("pools"), Some(Node { value: Value::Table(pools), .. }) if pools.entries.iter().any(is_primary))
}
