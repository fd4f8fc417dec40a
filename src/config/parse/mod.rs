//! As typed -> as run. One pass finds every mistake; what comes out without one cannot be wrong.
//!
//! Whoever finds a mistake says it and goes on with a value that would be right, so that the next one is found too.
//! The plan that comes of it is thrown away at the end.

mod address;
mod value;
mod section;
mod limits;
mod route;
mod idle;
mod process;
mod check;
mod health;
mod server;
mod pool;
mod listener;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::file::{Entry, Node, Table, Value};
use super::keys;
use super::report::{Notice, Place, Source};
use crate::addr::ListenAddr;
use crate::plan::{ListenerPlan, Plan, PoolId, PoolPlan, RuntimePlan};
use limits::{ListenerLimits, PoolLimits};
use section::Section;

/// What has been found so far.
struct Mistakes<'a> {
    source: &'a Source,
    found: Vec<Notice>,
    /// Certain only while there is no mistake: what is not used may be used by what is misspelt.
    warnings: Vec<Notice>,
}

impl Mistakes<'_> {
    /// `label` is what to write instead; may be empty.
    fn say(&mut self, place: &Place, what: impl Into<String>, label: impl Into<String>) {
        self.found.push(Notice::mistake(place.clone(), what, label));
    }

    /// Something that works, but hardly as meant.
    fn warn(&mut self, place: &Place, what: impl Into<String>, label: impl Into<String>) {
        self.warnings.push(Notice::warning(place.clone(), what, label));
    }

    /// Another place, in words: `line 3`.
    fn point_to(&self, place: &Place) -> String {
        self.source.point_to(place)
    }
}

/// Reads the whole file; with the plan come warnings.
///
/// # Errors
/// Every mistake in it.
pub(super) fn plan(source: &Source, root: &Table) -> Result<(Plan, Vec<Notice>), Vec<Notice>> {
    let mut mistakes = Mistakes {
        source,
        found: Vec::new(),
        warnings: Vec::new(),
    };
    let plan = whole_plan(root, &mut mistakes);
    if mistakes.found.is_empty() {
        Ok((plan, mistakes.warnings))
    } else {
        Err(mistakes.found)
    }
}

fn whole_plan(root: &Table, m: &mut Mistakes<'_>) -> Plan {
    let file = Section::of_file(root, m);
    let runtime = process::runtime(&file.child("runtime", &keys::RUNTIME, m), m);
    let log = process::log(&file.child("log", &keys::LOG, m), m);
    let defaults = file.child("defaults", &keys::DEFAULTS, m);
    let (of_listeners, of_pools) = limits::defaults(&defaults, m);
    let mut pools = Pools::read(&file, of_pools, m);
    let mut bound = Bound::default();
    let admin = process::admin(&file, &mut bound, m);
    let listeners = listeners(&file, of_listeners, &runtime, &mut pools, &mut bound, m);
    pools.warn_unused(m);
    Plan {
        runtime,
        admin,
        log,
        listeners,
        pools: pools.in_order.into_iter().collect(),
    }
}

fn listeners(
    file: &Section<'_>,
    limits: ListenerLimits,
    runtime: &RuntimePlan,
    pools: &mut Pools<'_>,
    bound: &mut Bound,
    m: &mut Mistakes<'_>,
) -> Vec<Arc<ListenerPlan>> {
    let entries = file.named("listeners", m);
    let is_table = |node: &Node| matches!(node.value, Value::Table(_));
    if entries.is_empty() && file.get("listeners").is_none_or(is_table) {
        m.say(
            &Place::File,
            "there is no listener",
            "add [listeners.NAME] with `bind` and `pool`",
        );
    }
    let mut plans = Vec::with_capacity(entries.len());
    for entry in entries {
        if let Some(plan) = listener::listener(entry, limits, pools, bound, m) {
            idle::connections(runtime, &plan, &entry.place, m);
            plans.push(Arc::new(plan));
        }
    }
    plans
}

/// The pools of the file, to be referred to by name.
struct Pools<'a> {
    entries: &'a [Entry],
    in_order: Vec<Arc<PoolPlan>>,
    /// `None`: it is there, but is no table.
    by_name: HashMap<&'a str, Option<PoolId>>,
    used: HashSet<&'a str>,
}

impl<'a> Pools<'a> {
    fn read(file: &Section<'a>, limits: PoolLimits, m: &mut Mistakes<'_>) -> Self {
        let mut pools = Self {
            entries: file.named("pools", m),
            in_order: Vec::new(),
            by_name: HashMap::new(),
            used: HashSet::new(),
        };
        for entry in pools.entries {
            let plan = pool::pool(entry, limits, m).map(Arc::new);
            let id = plan.is_some().then_some(PoolId(pools.in_order.len()));
            pools.in_order.extend(plan);
            pools.by_name.insert(&entry.key, id);
        }
        pools
    }

    /// The pool a `pool = "…"` means.
    fn find(&mut self, node: &Node, m: &mut Mistakes<'_>) -> Option<PoolId> {
        let name = value::text(node, m)?;
        if let Some((name, id)) = self.by_name.get_key_value(name) {
            self.used.insert(name);
            return *id;
        }
        let names: Vec<&str> = self.in_order.iter().map(|plan| &*plan.name).collect();
        let label = match (keys::near(name, &names), names.as_slice()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, []) => format!("add [pools.{name}]"),
            (None, few) if few.len() <= 8 => format!("there are `{}`", few.join("`, `")),
            _ => String::new(),
        };
        m.say(&node.place, format!("there is no pool `{name}`"), label);
        None
    }

    fn warn_unused(&self, m: &mut Mistakes<'_>) {
        for entry in self
            .entries
            .iter()
            .filter(|entry| !self.used.contains(entry.key.as_str()))
        {
            let what = format!("pool `{}` is never used", entry.key);
            m.warn(&entry.place, what, "no listener and no route leads here");
        }
    }
}

/// Where each address was first bound.
#[derive(Default)]
struct Bound {
    all: HashMap<ListenAddr, Place>,
    /// Of the admin port, which shares its address with no listener. It is read first.
    admin: Option<(ListenAddr, Place)>,
}

impl Bound {
    /// The address at this place, if nobody else has it. Port 0 is a free port, another one each time.
    fn take(&mut self, node: &Node, m: &mut Mistakes<'_>) -> Option<ListenAddr> {
        let read = match &node.value {
            Value::Whole(port) => address::listen(&port.to_string()), // it knows what to say of a port alone
            _ => address::listen(value::text(node, m)?),
        };
        let address = match read {
            Ok(address) => address,
            Err((what, label)) => {
                m.say(&node.place, what, label);
                return None;
            }
        };
        if address.port() == 0 {
            return Some(address);
        }
        let overlapping = self.admin.as_ref().filter(|(admin, _)| admin.overlaps(address));
        if let Some(first) = self.all.get(&address) {
            let label = format!("already on {}", m.point_to(first));
            m.say(&node.place, format!("{address} is bound twice"), label);
        } else if let Some((admin, place)) = overlapping {
            let what = format!("{address} overlaps with {admin}, `bind` of [admin]");
            let label = format!("that is on {}: use another port", m.point_to(place));
            m.say(&node.place, what, label);
        } else {
            self.all.insert(address, node.place.clone());
        }
        Some(address)
    }

    /// The same for the admin port.
    fn take_admin(&mut self, node: &Node, m: &mut Mistakes<'_>) -> Option<ListenAddr> {
        let address = self.take(node, m)?;
        self.admin = Some((address, node.place.clone())).filter(|_| address.port() != 0);
        Some(address)
    }
}
