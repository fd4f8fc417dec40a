//! Converts the tree of a file to a [`Plan`]. One pass finds all errors, except servers that lead back to their own
//! pool through listeners: `circles` looks for these afterwards, if there are no other errors. A plan from a file
//! without errors is valid.
//!
//! A function that finds an error adds it to [`Problems`] and continues with a valid value, so that later errors are
//! found too. The plan of a file with errors is dropped at the end.

mod problems;
pub(crate) use crate::addr_text as address;
mod value;
mod section;
mod list;
mod named;
mod bound_addresses;
mod limits;
mod pool_tls;
mod check;
mod health;
mod server;
mod providers;
mod discover_dns;
mod remote;
mod discover;
mod retiring;
mod clone_kind;
mod scale;
mod bind_source;
mod pool;
mod pools;
mod route;
mod double_tls;
mod acme;
mod tls;
mod unused;
mod process;
mod guard;
mod accept_proxy;
mod redirect;
mod announce;
mod listener;
mod circles;

use std::path::PathBuf;
use std::sync::Arc;

use super::file::Table;
use super::keys;
use super::report::{InputText, Position, Problem};
use crate::plan::{ListenerPlan, Plan, RuntimePlan};
use acme::AcmeAccounts;
use bound_addresses::BoundAddresses;
use guard::Guards;
use limits::ListenerSettings;
use pools::Pools;
use problems::Problems;
use providers::Providers;
use section::Section;

/// Converts the whole file. Returns the plan and the warnings. `known_errors` were found while the texts of `input`
/// were merged.
///
/// # Errors
/// All errors in the file, with the known ones.
pub(super) fn plan(
    input: &InputText,
    root: &Table,
    known_errors: Vec<Problem>,
) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
    let mut problems = Problems::new(input, known_errors);
    let plan = parse_file(root, &mut problems);
    problems.finish(plan)
}

fn parse_file(root: &Table, problems: &mut Problems<'_>) -> Plan {
    let file = Section::root(root, problems);
    let providers = Providers::read(&file, problems);
    let remote = remote::remote(&file, &providers, problems);
    problems.set_remote_trust(remote.as_ref().map(|remote| remote.allowed.clone()).unwrap_or_default());
    let runtime = file.child("runtime", &keys::RUNTIME, problems);
    let is_state_dir_missing = runtime.is_missing("state_dir");
    // An empty path replaces an invalid one, so that `[acme]` does not report it as missing, too.
    let state_dir = runtime.directory("state_dir", problems);
    let state_dir = state_dir.or_else(|| (!is_state_dir_missing).then(PathBuf::new));
    let runtime = process::runtime(&runtime, problems);
    let log = process::log(&file.child("log", &keys::LOG, problems), problems);
    let defaults = file.child("defaults", &keys::DEFAULTS, problems);
    let (listener_settings, pool_settings) = limits::defaults(&defaults, problems);
    let mut pools = Pools::read(&file, pool_settings, &providers, problems);
    let mut bound = BoundAddresses::default();
    let admin = process::admin(&file, &mut bound, problems);
    let mut guards = Guards::read(&file, problems);
    let mut acme = AcmeAccounts::read(&file, state_dir.as_deref(), problems);
    let mut names = Names {
        pools: &mut pools,
        guards: &mut guards,
        acme: &mut acme,
        providers: &providers,
    };
    let listeners = listeners(&file, listener_settings, &runtime, &mut names, &mut bound, problems);
    pools.warn_unused(problems);
    pools.warn_of_small_port_ranges(problems);
    if state_dir.is_none() {
        pools.warn_of_leftover_containers(problems);
    }
    match file.entry("remote") {
        Some((position, _)) if state_dir.is_none() => warn_of_forgotten_text(position, problems),
        Some(_) => {}
        None => providers.warn_unused(&pools.in_order, &listeners, problems),
    }
    guards.warn_unused(problems);
    acme.warn(&listeners, &guards.in_order, problems);
    let plan = Plan {
        runtime,
        state_dir,
        admin,
        log,
        remote,
        acme: acme.in_order,
        guards: guards.in_order,
        listeners,
        pools: pools.into_plans(),
        announced_route_counts: Vec::new(),
        refused_announcements: Vec::new(),
    };
    if !problems.has_errors() {
        circles::reject(&file, &plan, problems);
    }
    plan
}

fn warn_of_forgotten_text(position: &Position, problems: &mut Problems<'_>) {
    let message = "after a start, nothing is served until the store answers";
    let hint = "add state_dir = \"/var/lib/acequia\" to [runtime]: it keeps the text that was in force last";
    problems.warning(position, message, hint);
}

fn listeners(
    file: &Section<'_>,
    settings: ListenerSettings,
    runtime: &RuntimePlan,
    names: &mut Names<'_, '_>,
    bound: &mut BoundAddresses,
    problems: &mut Problems<'_>,
) -> Vec<Arc<ListenerPlan>> {
    let entries = file.subsections("listeners", problems);
    // With `[remote]`, the listeners come from the texts of a store. At the start no text has been read yet.
    let texts_are_awaited = !file.is_missing("remote") && !problems.has_texts();
    if entries.is_empty() && !texts_are_awaited && !file.is_unknown("listeners") {
        problems.error(
            &Position::File,
            "no listener is configured",
            "add [listeners.NAME] with `bind` and `pool`",
        );
    }
    let mut plans = Vec::with_capacity(entries.len());
    let mut redirects = Vec::new();
    for entry in entries {
        if let Some((plan, redirect)) = listener::listener(entry, settings, names, bound, problems) {
            unused::connection_limit(runtime, &plan, &entry.position, problems);
            redirects.extend(redirect.map(|redirect| (plans.len(), redirect)));
            plans.push(plan);
        }
    }
    redirect::resolve(&mut plans, redirects, entries, problems);
    plans.into_iter().map(Arc::new).collect()
}

/// What listeners and routes refer to by name.
struct Names<'n, 'a> {
    pools: &'n mut Pools<'a>,
    guards: &'n mut Guards<'a>,
    acme: &'n mut AcmeAccounts<'a>,
    providers: &'n Providers,
}
