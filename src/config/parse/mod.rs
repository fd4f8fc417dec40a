//! Converts the tree of a file to a [`Plan`]. One pass finds all errors; a plan from a file without errors is valid.
//!
//! A function that finds an error adds it to [`Problems`] and continues with a valid value, so that later errors are
//! found too. The plan of a file with errors is dropped at the end.

mod address;
mod value;
mod section;
mod limits;
mod tls;
mod route;
mod unused;
mod process;
mod check;
mod health;
mod server;
mod pool;
mod listener;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::file::{KeyValue, Node, Table, Value};
use super::report::{Position, Problem, SourceText};
use super::{keys, suggest};
use crate::addr::ListenAddr;
use crate::plan::{ListenerPlan, Plan, PoolId, PoolPlan, RuntimePlan};
use limits::{ListenerSettings, PoolSettings};
use section::Section;

/// The problems found so far.
struct Problems<'a> {
    source: &'a SourceText,
    errors: Vec<Problem>,
    /// Reported only if there are no errors: a setting that looks unused may be used by one that is misspelt.
    warnings: Vec<Problem>,
}

impl Problems<'_> {
    /// Adds an error. `hint` is what to write instead; may be empty.
    fn error(&mut self, position: &Position, message: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(Problem::error(position.clone(), message, hint));
    }

    /// Adds a warning: the setting is valid but probably not intended.
    fn warning(&mut self, position: &Position, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(Problem::warning(position.clone(), message, hint));
    }

    /// Another position in words: `line 3`.
    fn describe_position(&self, position: &Position) -> String {
        self.source.describe_position(position)
    }
}

/// Converts the whole file. Returns the plan and the warnings.
///
/// # Errors
/// All errors in the file.
pub(super) fn plan(source: &SourceText, root: &Table) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
    let mut problems = Problems {
        source,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let plan = parse_file(root, &mut problems);
    if problems.errors.is_empty() {
        Ok((plan, problems.warnings))
    } else {
        Err(problems.errors)
    }
}

fn parse_file(root: &Table, problems: &mut Problems<'_>) -> Plan {
    let file = Section::root(root, problems);
    let runtime = process::runtime(&file.child("runtime", &keys::RUNTIME, problems), problems);
    let log = process::log(&file.child("log", &keys::LOG, problems), problems);
    let defaults = file.child("defaults", &keys::DEFAULTS, problems);
    let (listener_limits, pool_limits) = limits::defaults(&defaults, problems);
    let mut pools = Pools::read(&file, pool_limits, problems);
    let mut bound = BoundAddresses::default();
    let admin = process::admin(&file, &mut bound, problems);
    let listeners = listeners(&file, listener_limits, &runtime, &mut pools, &mut bound, problems);
    pools.warn_unused(problems);
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
    limits: ListenerSettings,
    runtime: &RuntimePlan,
    pools: &mut Pools<'_>,
    bound: &mut BoundAddresses,
    problems: &mut Problems<'_>,
) -> Vec<Arc<ListenerPlan>> {
    let entries = file.subsections("listeners", problems);
    let is_table = |node: &Node| matches!(node.value, Value::Table(_));
    if entries.is_empty() && file.get("listeners").is_none_or(is_table) {
        problems.error(
            &Position::File,
            "no listener is configured",
            "add [listeners.NAME] with `bind` and `pool`",
        );
    }
    let mut plans = Vec::with_capacity(entries.len());
    for entry in entries {
        if let Some(plan) = listener::listener(entry, limits, pools, bound, problems) {
            unused::connection_limit(runtime, &plan, &entry.position, problems);
            plans.push(Arc::new(plan));
        }
    }
    plans
}

/// The longest list of names in a hint.
const NAMES_LISTED_MAX: usize = 8;

/// The pools of the file, by name.
struct Pools<'a> {
    entries: &'a [KeyValue],
    in_order: Vec<Arc<PoolPlan>>,
    /// `None`: the pool exists, but is not a table.
    by_name: HashMap<&'a str, Option<PoolId>>,
    used: HashSet<&'a str>,
}

impl<'a> Pools<'a> {
    fn read(file: &Section<'a>, limits: PoolSettings, problems: &mut Problems<'_>) -> Self {
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
        pools
    }

    /// The pool that `pool = "…"` refers to.
    fn find(&mut self, node: &Node, problems: &mut Problems<'_>) -> Option<PoolId> {
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

    fn warn_unused(&self, problems: &mut Problems<'_>) {
        for entry in self
            .entries
            .iter()
            .filter(|entry| !self.used.contains(entry.key.as_str()))
        {
            let message = format!("pool `{}` is never used", entry.key);
            problems.warning(&entry.position, message, "no listener or route refers to it");
        }
    }
}

/// The addresses of all listeners and of `[admin]`, each with the position where it was first bound.
#[derive(Default)]
struct BoundAddresses {
    all: HashMap<ListenAddr, Position>,
    /// The address of the admin port, with which no listener may overlap. It is parsed first.
    admin: Option<(ListenAddr, Position)>,
}

impl BoundAddresses {
    /// Parses an address and adds it, unless it is bound already. Port 0 may be bound often: it stands for any free port.
    fn add(&mut self, node: &Node, problems: &mut Problems<'_>) -> Option<ListenAddr> {
        let parsed = match &node.value {
            Value::Integer(port) => address::listen(&port.to_string()), // reports a port without an address
            _ => address::listen(value::string(node, problems)?),
        };
        let address = match parsed {
            Ok(address) => address,
            Err((message, hint)) => {
                problems.error(&node.position, message, hint);
                return None;
            }
        };
        if address.port() == 0 {
            return Some(address);
        }
        let overlapping = self.admin.as_ref().filter(|(admin, _)| admin.overlaps(address));
        if let Some(first) = self.all.get(&address) {
            let hint = format!("first on {}", problems.describe_position(first));
            problems.error(&node.position, format!("{address} is bound twice"), hint);
        } else if let Some((admin, position)) = overlapping {
            let message = format!("{address} overlaps with {admin}, `bind` of [admin]");
            let hint = format!("that is on {}: use another port", problems.describe_position(position));
            problems.error(&node.position, message, hint);
        } else {
            self.all.insert(address, node.position.clone());
        }
        Some(address)
    }

    /// The same for the admin port.
    fn add_admin(&mut self, node: &Node, problems: &mut Problems<'_>) -> Option<ListenAddr> {
        let address = self.add(node, problems)?;
        self.admin = Some((address, node.position.clone())).filter(|_| address.port() != 0);
        Some(address)
    }
}
