//! `acequia status` and `acequia servers`: listeners, pools and servers of a running process.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::remote::{ApiRequest, Remote, RemoteError};
use super::table::{duration, or_dash, table};
use crate::admin::bodies::{AbsentServerBody, ListenerBody, PoolBody, ServerBody, StateBody};
use crate::admin::guard_bodies::GuardBody;
use crate::config::report::counted;

/// Prints the listeners and pools.
#[must_use]
pub fn status(remote: &Remote) -> ExitCode {
    remote.request(ApiRequest::get("/api/v1/state"), |state: StateBody| {
        let StateBody { totals, .. } = &state;
        let draining = if state.draining { ", draining" } else { "" };
        let summary = format!(
            "acequia {}, up {}{draining}: {} ({} so far), {} of {} servers up\n",
            state.version,
            duration(Duration::from_secs(state.uptime)),
            counted(totals.sessions, "session"),
            totals.sessions_so_far,
            totals.servers_up,
            totals.servers
        );
        Ok(format!(
            "{summary}\n{}\n{}{}{}{}",
            listener_table(&state.listeners),
            pool_table(&state.pools),
            gap_and_guards(&state.guards),
            tls_notes(&state.listeners),
            missing_server_notes(&state.pools, &state.absent)
        ))
    })
}

fn listener_table(listeners: &[ListenerBody]) -> String {
    let row = |listener: &ListenerBody| {
        [
            listener.name.clone(),
            listener.addresses.join(" "),
            listener.sessions.to_string(),
            (listener.routes.len() + listener.more_routes).to_string(),
            match &listener.redirect {
                Some(to) => format!("redirect to {to}"),
                None => or_dash(listener.pool.clone()),
            },
        ]
    };
    let rows: Vec<_> = listeners.iter().map(row).collect();
    table(
        ["LISTENER", "ADDRESS", "SESSIONS", "ROUTES", "POOL"],
        &rows,
        &["ROUTES"],
    )
}

/// The certificates that end at listeners, and their broken files.
fn tls_notes(listeners: &[ListenerBody]) -> String {
    let mut notes = String::new();
    for listener in listeners {
        let Some(tls) = &listener.tls else { continue };
        let count = counted(tls.certificates, "certificate");
        let first = tls.expires_first.as_deref().unwrap_or("the first");
        notes += &format!("\n{}: {count}, {first} expires {}", listener.name, tls.expires);
        for broken in &tls.broken {
            notes += &format!(
                "\n{}: broken, what was read before stays in force: {broken}",
                listener.name
            );
        }
    }
    if notes.is_empty() { notes } else { notes + "\n" }
}

fn pool_table(pools: &[PoolBody]) -> String {
    let row = |pool: &PoolBody| {
        let up = pool.servers.iter().filter(|server| server.up).count();
        let sessions: u32 = pool.servers.iter().map(|server| server.sessions).sum();
        let tier = or_dash(pool.best_tier.map(|tier| tier.to_string()));
        [
            pool.name.clone(),
            pool.balance.clone(),
            pool.servers.len().to_string(),
            up.to_string(),
            if pool.panic { format!("{tier} (panic)") } else { tier },
            sessions.to_string(),
        ]
    };
    let rows: Vec<_> = pools.iter().map(row).collect();
    table(
        ["POOL", "BALANCE", "SERVERS", "UP", "TIER", "SESSIONS"],
        &rows,
        &["BALANCE"],
    )
}

/// The guards after an empty line; nothing if there are none.
fn gap_and_guards(guards: &[GuardBody]) -> String {
    if guards.is_empty() {
        return String::new();
    }
    format!("\n{}", guard_table(guards))
}

/// A table with a row for each guard.
pub(super) fn guard_table(guards: &[GuardBody]) -> String {
    let row = |guard: &GuardBody| {
        let counts = if guard.report_only {
            &guard.reports
        } else {
            &guard.refusals
        };
        let refused: u64 = counts.values().sum();
        [
            guard.name.clone(),
            guard.sessions.to_string(),
            guard.sources.to_string(),
            if guard.report_only {
                format!("{refused} (reported only)")
            } else {
                refused.to_string()
            },
            guard.edits.to_string(),
        ]
    };
    let rows: Vec<_> = guards.iter().map(row).collect();
    table(
        ["GUARD", "SESSIONS", "SOURCES", "REFUSED", "DENIED BY EDITS"],
        &rows,
        &["SOURCES"],
    )
}

/// Prints the servers: all, or those of a pool.
#[must_use]
pub fn servers(remote: &Remote, pool: Option<&str>) -> ExitCode {
    remote.request(ApiRequest::get("/api/v1/state"), |state: StateBody| {
        let is_selected = |name: &str| pool.is_none_or(|selected| name == selected);
        let pools: Vec<_> = state.pools.iter().filter(|pool| is_selected(&pool.name)).collect();
        let absent = state.absent.iter();
        let absent: Vec<_> = absent.filter(|server| is_selected(&server.pool)).collect();
        if let (Some(name), true, true) = (pool, pools.is_empty(), absent.is_empty()) {
            return Err(RemoteError::Rejected(format!("there is no pool `{name}`")));
        }
        let servers = pools
            .iter()
            .flat_map(|pool| pool.servers.iter().map(|server| (pool.name.as_str(), server)));
        let servers: Vec<_> = servers.collect();
        Ok(server_table(&servers) + &missing_server_notes(pools, absent))
    })
}

/// A line for each unresolved host name and each absent server with overrides, after an empty line if there are any.
fn missing_server_notes<'a>(
    pools: impl IntoIterator<Item = &'a PoolBody>,
    absent: impl IntoIterator<Item = &'a AbsentServerBody>,
) -> String {
    let of_pool = |pool: &PoolBody| -> String {
        let served_by = pool.served_by.as_ref();
        let fallback = served_by.map(|by| format!("{}: no usable server, new sessions go to {by}\n", pool.name));
        let note = |name: &String| format!("{}/{name}: not resolved yet\n", pool.name);
        fallback.into_iter().chain(pool.unresolved.iter().map(note)).collect()
    };
    let unresolved = pools.into_iter().map(of_pool);
    let notes: String = unresolved.chain(absent.into_iter().map(absent_server_note)).collect();
    if notes.is_empty() { notes } else { format!("\n{notes}") }
}

/// The overrides of a server that its pool does not have now.
pub(super) fn absent_server_note(absent: &AbsentServerBody) -> String {
    let name = format!("{}/{}", absent.pool, absent.name);
    let weight = absent.weight.map(|weight| format!("weight {weight}"));
    if weight.is_none() && absent.usage == "enabled" {
        return format!("{name}: not in the pool, no overrides kept\n");
    }
    let usage = absent.close_over.as_ref().map_or_else(
        || absent.usage.clone(),
        |over| format!("{}, its sessions cut over {over}", absent.usage),
    );
    let overrides: Vec<_> = [Some(usage), weight].into_iter().flatten().collect();
    let by = or_dash(absent.set_by.clone());
    let ago = absent
        .set_at
        .as_deref()
        .map_or(String::new(), |at| format!(", {} ago", since(at)));
    format!(
        "{name}: not in the pool, overrides kept: {}: set by {by}{ago}\n",
        overrides.join(", ")
    )
}

/// A table with a row for each server, and below it notes on checks and overrides.
pub(super) fn server_table(servers: &[(&str, &ServerBody)]) -> String {
    let row = |(pool, server): &(&str, &ServerBody)| {
        [
            format!("{pool}/{}", server.name),
            or_dash(Some(server.address.clone()).filter(|address| *address != server.name)),
            health(server).to_owned(),
            since(&server.since),
            server.usage.clone(),
            server.weight.to_string(),
            server.priority.to_string(),
            server.sessions.to_string(),
        ]
    };
    let header = [
        "SERVER", "ADDRESS", "HEALTH", "FOR", "USE", "WEIGHT", "TIER", "SESSIONS",
    ];
    let rows: Vec<_> = servers.iter().map(row).collect();
    let notes: String = servers.iter().flat_map(|(pool, server)| notes(pool, server)).collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    let optional = ["ADDRESS", "TIER", "FOR", "WEIGHT"];
    format!("{}{gap}{notes}", table(header, &rows, &optional))
}

/// The error of the latest check, and the overrides.
fn notes(pool: &str, server: &ServerBody) -> impl Iterator<Item = String> {
    let reason = server.reason.as_ref().map(|reason| format!("latest check: {reason}"));
    let set = server.set_by.as_ref().zip(server.set_at.as_ref());
    let overrides = set.map(|(by, at)| {
        let weight = if server.weight_is_set {
            ", weight overridden"
        } else {
            ""
        };
        let over = server.close_over.as_ref();
        let over = over.map_or(String::new(), |over| format!(", its sessions cut over {over}"));
        format!("{}{over}{weight}: set by {by}, {} ago", server.usage, since(at))
    });
    let name = format!("{pool}/{}", server.name);
    [reason, overrides]
        .into_iter()
        .flatten()
        .map(move |note| format!("{name}: {note}\n"))
}

/// The cell of column HEALTH: `up` if the server is up in the API and in the metrics, and its checks are not refused.
fn health(server: &ServerBody) -> &str {
    if server.ejected { "ejected" } else { &server.health }
}

/// The duration since an RFC 3339 time.
pub(super) fn since(time: &str) -> String {
    let at = humantime::parse_rfc3339(time).unwrap_or(SystemTime::UNIX_EPOCH);
    duration(at.elapsed().unwrap_or_default())
}
