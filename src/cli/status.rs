//! `acequia status` and `acequia servers`: listeners, pools and servers of a running process.

mod announced;
mod pool_notes;
mod store;
mod tls;

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::primaries;
use super::remote::{ApiRequest, Remote, RemoteError};
use super::table::{duration, or_dash, table};
use crate::admin::bodies::{AbsentServerBody, ListenerBody, PoolBody, ServerBody, StateBody};
use crate::admin::guard_bodies::GuardBody;
use crate::admin::pool_bodies::{CloneBody, QueueBody, ScaleBody};
use crate::text::counted;

/// The most notes that are shown about unresolved host names of a pool, about left-out servers of a pool, and about
/// refused announced routes. A further line says how many more there are.
const NOTES_MAX: usize = 10;

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
        ) + &store::line(state.remote.as_ref());
        let unsaved = state.unsaved.iter();
        let parts_with_gaps = [
            gap_and_clones(&state.pools),
            gap_and_guards(&state.guards),
            tls::notes(&state),
            notes_after_gap(unsaved.map(|file| format!("not saved, and forgotten by a restart: {file}"))),
            notes_after_gap(state.announced.iter().flat_map(announced::notes)),
            notes_after_gap(state.pools.iter().flat_map(primaries::refused_checks)),
            pool_and_absent_server_notes(&state.pools, &state.absent),
        ];
        Ok(format!(
            "{summary}\n{}\n{}{}",
            listener_table(&state.listeners),
            pool_table(&state.pools),
            parts_with_gaps.concat()
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

fn pool_table(pools: &[PoolBody]) -> String {
    let row = |pool: &PoolBody| {
        let count = |is: fn(&ServerBody) -> bool| pool.servers.iter().filter(|server| is(server)).count().to_string();
        let tier = or_dash(pool.best_tier.map(|tier| tier.to_string()));
        [
            pool.name.clone(),
            pool.balance.clone(),
            pool.servers.len().to_string(),
            count(|server| server.up),
            count(|server| server.usable),
            if pool.panic { format!("{tier} (panic)") } else { tier },
            or_dash(primaries::primary(pool)),
            pool.sessions().to_string(),
            or_dash(pool.queue.as_ref().map(queue)),
        ]
    };
    let rows: Vec<_> = pools.iter().map(row).collect();
    table(
        [
            "POOL", "BALANCE", "SERVERS", "UP", "USABLE", "TIER", "PRIMARY", "SESSIONS", "QUEUE",
        ],
        &rows,
        &["BALANCE", "QUEUE"],
    )
}

/// How many clients wait, and how many may.
fn queue(queue: &QueueBody) -> String {
    match queue.max {
        Some(max) => format!("{} of {max}", queue.waiting),
        None => queue.waiting.to_string(),
    }
}

/// The clones of pools after an empty line; nothing if no pool grows or shrinks.
fn gap_and_clones(pools: &[PoolBody]) -> String {
    let scaled = pools
        .iter()
        .filter_map(|pool| Some((&*pool.name, pool.scale.as_ref()?)));
    let scaled: Vec<_> = scaled.collect();
    if scaled.is_empty() {
        return String::new();
    }
    let notes: Vec<_> = scaled.iter().map(|(pool, scale)| scale_note(pool, scale)).collect();
    format!("\n{}\n{}\n", clone_table(&scaled), notes.join("\n"))
}

/// How many clones a pool has, and how many it may have.
pub(super) fn scale_note(pool: &str, scale: &ScaleBody) -> String {
    let ScaleBody { min, max, .. } = scale;
    let clones = counted(scale.clones.len(), "clone");
    match (scale.wanted, &scale.set_by) {
        (Some(wanted), Some(by)) => format!("{pool}: {clones} of {min} to {max}, {wanted} wanted by {by}"),
        _ => format!("{pool}: {clones} of {min} to {max}"),
    }
}

/// A table with a row for each clone.
pub(super) fn clone_table(pools: &[(&str, &ScaleBody)]) -> String {
    let row = |pool: &str, clone: &CloneBody| {
        [
            format!("{pool}/{}", clone.name),
            or_dash(clone.address.clone()),
            or_dash(clone.pid.map(|pid| pid.to_string()).or_else(|| clone.container.clone())),
            clone.state.clone(),
            clone.restarts.to_string(),
            or_dash(clone.reason.clone()),
        ]
    };
    let rows_of =
        |(pool, scale): &(&str, &ScaleBody)| scale.clones.iter().map(|clone| row(pool, clone)).collect::<Vec<_>>();
    let rows: Vec<_> = pools.iter().flat_map(rows_of).collect();
    table(
        ["CLONE", "ADDRESS", "PROCESS", "STATE", "RESTARTS", "REASON"],
        &rows,
        &["REASON", "PROCESS"],
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
        let count: u64 = counts.values().sum();
        [
            if guard.absent {
                format!("{} (not configured)", guard.name)
            } else {
                guard.name.clone()
            },
            guard.sessions.to_string(),
            guard.sources.to_string(),
            if guard.report_only {
                format!("{count} (reported only)")
            } else {
                count.to_string()
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
        if let Some(name) = pool
            && pools.is_empty()
            && absent.is_empty()
        {
            return Err(RemoteError::Rejected(format!("there is no pool `{name}`")));
        }
        let servers = pools.iter().flat_map(|pool| {
            pool.servers.iter().map(|server| ServerLine {
                pool: &pool.name,
                server,
                role: primaries::role(pool, server),
                origin: pool.origin_of(server),
            })
        });
        let servers: Vec<_> = servers.collect();
        Ok(server_table(&servers) + &pool_and_absent_server_notes(pools, absent))
    })
}

/// A line for each note: about the servers of pools, unresolved host names, and absent servers with overrides. Before
/// them is an empty line; nothing if there are none.
fn pool_and_absent_server_notes<'a>(
    pools: impl IntoIterator<Item = &'a PoolBody>,
    absent: impl IntoIterator<Item = &'a AbsentServerBody>,
) -> String {
    let notes = pools.into_iter().flat_map(pool_notes::notes);
    notes_after_gap(notes.chain(absent.into_iter().map(absent_server_note)))
}

/// These lines after an empty line; nothing if there are none.
fn notes_after_gap(notes: impl Iterator<Item = String>) -> String {
    let notes: String = notes.map(|note| note + "\n").collect();
    if notes.is_empty() { notes } else { format!("\n{notes}") }
}

/// The overrides of a server that its pool does not have now.
pub(super) fn absent_server_note(absent: &AbsentServerBody) -> String {
    let name = format!("{}/{}", absent.pool, absent.name);
    let weight = absent.weight.map(|weight| format!("weight {weight}"));
    if weight.is_none() && absent.usage == "enabled" {
        return format!("{name}: not in the pool, no overrides kept");
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
        .map_or(String::new(), |at| format!(", {} ago", age_text(at)));
    format!(
        "{name}: not in the pool, overrides kept: {}: set by {by}{ago}",
        overrides.join(", ")
    )
}

/// A row of [`server_table`].
pub(super) struct ServerLine<'a> {
    pub(super) pool: &'a str,
    pub(super) server: &'a ServerBody,
    /// The result of [`primaries::role`].
    pub(super) role: Option<String>,
    /// The result of [`PoolBody::origin_of`].
    pub(super) origin: Option<&'static str>,
}

/// A table with a row for each server, and below it notes on checks and overrides.
pub(super) fn server_table(servers: &[ServerLine<'_>]) -> String {
    let row = |line: &ServerLine<'_>| {
        let ServerLine {
            pool,
            server,
            role,
            origin,
        } = line;
        let is_named_by_address = server.name == server.address;
        [
            format!("{pool}/{}", server.name),
            or_dash((!is_named_by_address).then(|| server.address.clone())),
            or_dash(origin.map(str::to_owned)),
            health(server).to_owned(),
            age_text(&server.since),
            or_dash(role.clone()),
            server.usage.clone(),
            server.weight.to_string(),
            server.priority.to_string(),
            match server.max_sessions {
                Some(max) => format!("{} of {max}", server.sessions),
                None => server.sessions.to_string(),
            },
        ]
    };
    let header = [
        "SERVER", "ADDRESS", "ORIGIN", "HEALTH", "FOR", "ROLE", "USE", "WEIGHT", "TIER", "SESSIONS",
    ];
    let rows: Vec<_> = servers.iter().map(row).collect();
    let notes = servers
        .iter()
        .flat_map(|line| check_and_override_notes(line.pool, line.server));
    let notes: String = notes.collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    let optional = ["ADDRESS", "TIER", "ORIGIN", "FOR", "WEIGHT"];
    format!("{}{gap}{notes}", table(header, &rows, &optional))
}

/// A line for the error of the server's latest check, and one for its overrides.
fn check_and_override_notes(pool: &str, server: &ServerBody) -> impl Iterator<Item = String> {
    let reason = server.reason.as_ref().map(|reason| format!("latest check: {reason}"));
    let set = server.set_by.as_ref().zip(server.set_at.as_ref());
    let overrides = set.map(|(by, at)| {
        let weight = if server.weight_is_set {
            ", weight overridden"
        } else {
            ""
        };
        let time = server.close_over.as_ref();
        let cut = time.map_or(String::new(), |time| format!(", its sessions cut over {time}"));
        format!("{}{cut}{weight}: set by {by}, {} ago", server.usage, age_text(at))
    });
    let name = format!("{pool}/{}", server.name);
    [reason, overrides]
        .into_iter()
        .flatten()
        .map(move |note| format!("{name}: {note}\n"))
}

/// How many notes are not shown, because they exceed [`NOTES_MAX`]; `None`: all are shown.
fn count_not_shown(notes: usize) -> Option<usize> {
    notes.checked_sub(NOTES_MAX).filter(|more| *more > 0)
}

/// The cell of column HEALTH.
fn health(server: &ServerBody) -> &str {
    if server.ejected { "ejected" } else { &server.health }
}

/// The text of [`age`].
pub(super) fn age_text(time: &str) -> String {
    duration(age(time))
}

/// The duration since an RFC 3339 time.
pub(super) fn age(time: &str) -> Duration {
    let at = humantime::parse_rfc3339(time).unwrap_or(SystemTime::UNIX_EPOCH);
    at.elapsed().unwrap_or_default()
}
