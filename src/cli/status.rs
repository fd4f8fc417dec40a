//! `acequia status` and `acequia servers`: what there is, and how it is doing.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::remote::{Question, Remote, Trouble};
use super::table::{duration, or_dash, table};
use crate::admin::bodies::{AbsentServerBody, ListenerBody, PoolBody, ServerBody, StateBody};
use crate::config::report::counted;

/// Shows listeners and pools.
#[must_use]
pub fn status(remote: &Remote) -> ExitCode {
    remote.ask(Question::get("/api/v1/state"), |state: StateBody| {
        let StateBody { totals, .. } = &state;
        let draining = if state.draining { ", draining" } else { "" };
        let head = format!(
            "acequia {}, up {}{draining}: {} ({} so far), {} of {} servers up\n",
            state.version,
            duration(Duration::from_secs(state.uptime)),
            counted(totals.sessions, "session"),
            totals.sessions_so_far,
            totals.servers_up,
            totals.servers
        );
        Ok(format!(
            "{head}\n{}\n{}{}",
            listeners(&state.listeners),
            pools(&state.pools),
            unseen(&state.pools, &state.absent)
        ))
    })
}

fn listeners(listeners: &[ListenerBody]) -> String {
    let row = |listener: &ListenerBody| {
        [
            listener.name.clone(),
            listener.addresses.join(" "),
            listener.sessions.to_string(),
            (listener.routes.len() + listener.more_routes).to_string(),
            or_dash(listener.pool.clone()),
        ]
    };
    let rows: Vec<_> = listeners.iter().map(row).collect();
    table(
        ["LISTENER", "ADDRESS", "SESSIONS", "ROUTES", "POOL"],
        &rows,
        &["ROUTES"],
    )
}

fn pools(pools: &[PoolBody]) -> String {
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

/// Shows servers: all, or those of a pool.
#[must_use]
pub fn servers(remote: &Remote, pool: Option<&str>) -> ExitCode {
    remote.ask(Question::get("/api/v1/state"), |state: StateBody| {
        let is_wanted = |there: &&PoolBody| pool.is_none_or(|wanted| there.name == wanted);
        let pools: Vec<_> = state.pools.iter().filter(is_wanted).collect();
        let absent = state.absent.iter();
        let absent: Vec<_> = absent
            .filter(|there| pool.is_none_or(|wanted| there.pool == wanted))
            .collect();
        if let (Some(wanted), true, true) = (pool, pools.is_empty(), absent.is_empty()) {
            return Err(Trouble::Refused(format!("there is no pool `{wanted}`")));
        }
        let servers = pools
            .iter()
            .flat_map(|pool| pool.servers.iter().map(|server| (pool.name.as_str(), server)));
        let servers: Vec<_> = servers.collect();
        Ok(of_servers(&servers) + &unseen(pools, absent))
    })
}

/// Names that no server came of yet, and what waits for servers that are not there; with a line before them, if there
/// are any.
fn unseen<'a>(
    pools: impl IntoIterator<Item = &'a PoolBody>,
    absent: impl IntoIterator<Item = &'a AbsentServerBody>,
) -> String {
    let of_pool = |pool: &PoolBody| -> String {
        let note = |name: &String| format!("{}/{name}: not resolved yet\n", pool.name);
        pool.unresolved.iter().map(note).collect()
    };
    let unresolved = pools.into_iter().map(of_pool);
    let notes: String = unresolved.chain(absent.into_iter().map(of_absent)).collect();
    if notes.is_empty() { notes } else { format!("\n{notes}") }
}

/// What waits for a server that is not there.
pub(super) fn of_absent(absent: &AbsentServerBody) -> String {
    let name = format!("{}/{}", absent.pool, absent.name);
    let weight = absent.weight.map(|weight| format!("weight {weight}"));
    if weight.is_none() && absent.usage == "enabled" {
        return format!("{name}: not there, and nothing is kept for it\n");
    }
    let usage = absent.close_over.as_ref().map_or_else(
        || absent.usage.clone(),
        |over| format!("{}, its sessions cut over {over}", absent.usage),
    );
    let said: Vec<_> = [Some(usage), weight].into_iter().flatten().collect();
    let by = or_dash(absent.set_by.clone());
    let ago = absent
        .set_at
        .as_deref()
        .map_or(String::new(), |at| format!(", {} ago", since(at)));
    format!(
        "{name}: not there; kept for when it is: {}: set by {by}{ago}\n",
        said.join(", ")
    )
}

/// One line a server, and below them what cannot be said in a word.
pub(super) fn of_servers(servers: &[(&str, &ServerBody)]) -> String {
    let row = |(pool, server): &(&str, &ServerBody)| {
        [
            format!("{pool}/{}", server.name),
            or_dash(Some(server.address.clone()).filter(|address| *address != server.name)),
            word(server).to_owned(),
            since(&server.since),
            server.usage.clone(),
            server.weight.to_string(),
            server.priority.to_string(),
            server.sessions.to_string(),
        ]
    };
    let head = [
        "SERVER", "ADDRESS", "HEALTH", "FOR", "USE", "WEIGHT", "TIER", "SESSIONS",
    ];
    let rows: Vec<_> = servers.iter().map(row).collect();
    let notes: String = servers.iter().flat_map(|(pool, server)| notes(pool, server)).collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    let spare = ["ADDRESS", "TIER", "FOR", "WEIGHT"];
    format!("{}{gap}{notes}", table(head, &rows, &spare))
}

/// What was wrong at its latest check, and what an operator has said of it.
fn notes(pool: &str, server: &ServerBody) -> impl Iterator<Item = String> {
    let reason = server.reason.as_ref().map(|reason| format!("latest check: {reason}"));
    let said = server.set_by.as_ref().zip(server.set_at.as_ref());
    let said = said.map(|(by, at)| {
        let weight = if server.weight_is_set { ", weight by hand" } else { "" };
        let over = server.close_over.as_ref();
        let over = over.map_or(String::new(), |over| format!(", its sessions cut over {over}"));
        format!("{}{over}{weight}: set by {by}, {} ago", server.usage, since(at))
    });
    let name = format!("{pool}/{}", server.name);
    [reason, said]
        .into_iter()
        .flatten()
        .map(move |note| format!("{name}: {note}\n"))
}

/// What its checks and its connects say, in a word: `up` where the server is up, as API and metrics have it.
fn word(server: &ServerBody) -> &str {
    if server.ejected { "ejected" } else { &server.health }
}

/// How long ago that was.
fn since(time: &str) -> String {
    let at = humantime::parse_rfc3339(time).unwrap_or(SystemTime::UNIX_EPOCH);
    duration(at.elapsed().unwrap_or_default())
}
