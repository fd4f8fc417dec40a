//! The notes of `acequia status` and `acequia servers` about the servers of a pool.

use super::super::primaries;
use super::{NOTES_MAX, age_text, count_not_shown};
use crate::admin::bodies::{PoolBody, ServerBody};
use crate::admin::pool_bodies::{AddedServerBody, LeftOutBody};

/// A line for each fact about the servers of a pool that an operator should know, such as a name that is not resolved.
pub(super) fn notes(pool: &PoolBody) -> Vec<String> {
    let served_by = pool.served_by.as_ref().map(|server_or_pool| match &pool.primary {
        Some(primary) if primary == server_or_pool => format!("its primary {primary}"),
        _ => format!("pool {server_or_pool}"),
    });
    let fallback = served_by.map(|by| format!("{}: no usable server, new sessions go to {by}", pool.name));
    let unusable = (!pool.usable && fallback.is_none()).then(|| format!("{}: no usable server", pool.name));
    let unresolved = pool.unresolved.iter().take(NOTES_MAX);
    let unresolved = unresolved.map(|name| format!("{}/{name}: not resolved yet", pool.name));
    let more_unresolved = count_not_shown(pool.unresolved.len())
        .map(|more| format!("{}: {more} more names are not resolved yet", pool.name));
    let source = pool.discovery.as_ref().and_then(|discovery| {
        let (name, source) = (&pool.name, &discovery.source);
        match (&discovery.error, &discovery.warning) {
            (Some(error), _) => {
                let servers = match pool.servers.is_empty() {
                    true => "has no servers yet",
                    false => "keeps its last servers",
                };
                Some(format!("{name}: {servers}, because of {source}: {error}"))
            }
            (None, Some(warning)) => Some(format!("{name}: {source}: {warning}")),
            (None, None) => None,
        }
    });
    let added = pool.added.iter().map(|added| added_server_note(added, pool));
    let left_out = pool.left_out.iter().take(NOTES_MAX).map(|server| {
        let LeftOutBody { name, listener, .. } = server;
        format!(
            "{}/{name}: left out, because it is listener `{listener}`, which leads back to the pool",
            pool.name
        )
    });
    let more_left_out =
        count_not_shown(pool.left_out.len()).map(|more| format!("{}: {more} more servers are left out", pool.name));
    let roles = primaries::notes(pool).into_iter();
    let notes = roles.chain(fallback).chain(unusable).chain(source);
    notes
        .chain(added)
        .chain(left_out)
        .chain(more_left_out)
        .chain(unresolved)
        .chain(more_unresolved)
        .collect()
}

/// Who has added a server, until when it stays, and whether the pool uses another server of the same name.
fn added_server_note(added: &AddedServerBody, pool: &PoolBody) -> String {
    let AddedServerBody { name, added_by, .. } = added;
    let end = added.until.as_ref();
    let until = end.map_or_else(String::new, |end| format!(", until {end}"));
    let is_other = |server: &ServerBody| server.name == *name && server.address != added.address;
    let unused = match pool.servers.iter().any(is_other) {
        true => "; not in use, because the pool has another server of this name",
        false => "",
    };
    let age = age_text(&added.added_at);
    format!("{}/{name}: added by {added_by}, {age} ago{until}{unused}", pool.name)
}
