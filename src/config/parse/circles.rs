//! Circles: listeners whose sessions would come back to them through servers that are other listeners.

use super::{Problems, Section};
use crate::config::file::Value;
use crate::live::own_listeners;
use crate::plan::{Plan, ServerEntry};
use crate::pool::OwnListeners;

/// Rejects a server that is one of our listeners if the sessions of that listener lead back to the server's pool.
/// Routes with `from` are ignored, and host names of servers are not looked up. To be called only if no errors have
/// been found: then the pool is not a direct target of that listener (this is reported earlier), and fallbacks form no
/// cycle.
pub(super) fn reject(file: &Section<'_>, plan: &Plan, problems: &mut Problems<'_>) {
    let Some(Value::Table(sections)) = file.get("pools").map(|pools| &pools.value) else {
        return;
    };
    let bound: Vec<_> = plan.listeners.iter().map(|listener| listener.bind.clone()).collect();
    let own = OwnListeners::ignoring_interfaces();
    let keep_all = |_: &str| true; // `own` is new: it has no pools to forget
    own.replace(own_listeners(plan, &bound), keep_all);
    for section in &sections.entries {
        let Some(pool) = plan.pools.named(&section.key) else {
            continue;
        };
        let leading = own.leading_to(&pool.name);
        let found = pool.entries.iter().find_map(|server| {
            let listener = leading.at(server.fixed_address()?)?;
            Some((&server.written, listener))
        });
        if let Some((server, listener)) = found {
            let message = format!("`{server}` is listener `{listener}`, which leads back to this pool");
            let hint = "every session would open another one: write the address of the server";
            problems.error(&section.position, message, hint);
        }
        // A circle is found when the last of its pools is examined: the links of the others are then known.
        let addresses = pool.entries.iter().filter_map(ServerEntry::fixed_address);
        own.set_links(&pool.name, addresses);
    }
}
