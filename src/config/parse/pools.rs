//! Converts `[pools]`, and finds the pools that listeners and routes refer to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::limits::PoolSettings;
use super::{Problems, Section, pool, value};
use crate::config::file::{KeyValue, Node, Value};
use crate::config::suggest;
use crate::plan::{PoolId, PoolPlan, PoolPlans};

/// The longest list of names in a hint.
const NAMES_LISTED_MAX: usize = 8;

/// The pools of the file, by name.
pub(super) struct Pools<'a> {
    entries: &'a [KeyValue],
    /// Their plans, without those of pools that could not be converted.
    pub(super) in_order: Vec<Arc<PoolPlan>>,
    /// `None`: the pool exists, but is not a table.
    by_name: HashMap<&'a str, Option<PoolId>>,
    used: HashSet<&'a str>,
}

impl<'a> Pools<'a> {
    /// Converts all pools of the file.
    pub(super) fn read(file: &Section<'a>, limits: PoolSettings, problems: &mut Problems<'_>) -> Self {
        let mut pools = Self {
            entries: file.subsections("pools", problems),
            in_order: Vec::new(),
            by_name: HashMap::new(),
            used: HashSet::new(),
        };
        for entry in pools.entries {
            let plan = pool::pool(entry, limits, problems).map(Arc::new);
            let id = plan.is_some().then_some(PoolId(pools.in_order.len()));
            pools.in_order.extend(plan);
            pools.by_name.insert(&entry.key, id);
        }
        pools.check_fallbacks(problems);
        pools
    }

    /// Finds the pools that `fallback` refers to, and reports cycles.
    fn check_fallbacks(&mut self, problems: &mut Problems<'_>) {
        let fallback = |entry: &'a KeyValue| match &entry.node.value {
            Value::Table(pool) => pool.entries.iter().find(|key| key.key == "fallback"),
            _ => None,
        };
        let mut next = HashMap::new();
        for entry in self.entries {
            if let Some(key) = fallback(entry)
                && let Some(id) = self.find(&key.node, problems)
            {
                next.insert(&*entry.key, (self.entries_name(id), &key.node.position));
            }
        }
        let mut done = HashSet::new();
        for entry in self.entries {
            let mut path = Vec::new();
            let mut name = entry.key.as_str();
            while let Some((following, position)) = next.get(name).filter(|_| !done.contains(name)) {
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

    /// The name of a pool as it is in the file.
    fn entries_name(&self, id: PoolId) -> &'a str {
        let name = &self.in_order[id.0].name;
        let (name, _) = self.by_name.get_key_value(&**name).expect("every plan has an entry");
        name
    }

    /// The pool that `pool = "…"` refers to.
    pub(super) fn find(&mut self, node: &Node, problems: &mut Problems<'_>) -> Option<PoolId> {
        let name = value::string(node, problems)?;
        if let Some((name, id)) = self.by_name.get_key_value(name) {
            self.used.insert(name);
            return *id;
        }
        let names: Vec<&str> = self.in_order.iter().map(|plan| &*plan.name).collect();
        let hint = match (suggest::nearest(name, &names), names.as_slice()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, []) => format!("add [pools.{name}]"),
            (None, few) if few.len() <= NAMES_LISTED_MAX => format!("known pools: `{}`", few.join("`, `")),
            _ => String::new(),
        };
        problems.error(&node.position, format!("unknown pool `{name}`"), hint);
        None
    }

    /// The plans, in the order of the file.
    pub(super) fn into_plans(self) -> PoolPlans {
        self.in_order.into_iter().collect()
    }

    /// Warns of each pool that nothing refers to.
    pub(super) fn warn_unused(&self, problems: &mut Problems<'_>) {
        for entry in self
            .entries
            .iter()
            .filter(|entry| !self.used.contains(entry.key.as_str()))
        {
            let message = format!("pool `{}` is never used", entry.key);
            problems.warning(
                &entry.position,
                message,
                "no listener, route or `fallback` refers to it",
            );
        }
    }
}
