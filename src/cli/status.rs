//! `acequia status` and `acequia servers`: what there is, and how it is doing.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::remote::{Question, Remote, duration, or_dash, table};
use crate::admin::answers::{Listener, Pool, Server, State};
use crate::config::report::counted;

/// Shows listeners and pools.
#[must_use]
pub fn status(remote: &Remote) -> ExitCode {
    remote.ask(Question::get("/api/v1/state"), |state: State| {
        let State { totals, .. } = &state;
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
        format!("{head}\n{}\n{}", listeners(&state.listeners), pools(&state.pools))
    })
}

fn listeners(listeners: &[Listener]) -> String {
    let row = |listener: &Listener| {
        [
            listener.name.clone(),
            listener.addresses.join(" "),
            listener.sessions.to_string(),
            (listener.routes.len() + listener.more_routes).to_string(),
            or_dash(listener.pool.clone()),
        ]
    };
    let rows: Vec<_> = listeners.iter().map(row).collect();
    table(["LISTENER", "ADDRESS", "SESSIONS", "ROUTES", "POOL"], &rows)
}

fn pools(pools: &[Pool]) -> String {
    let row = |pool: &Pool| {
        let up = pool.servers.iter().filter(|server| word(server) == "up").count();
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
    table(["POOL", "BALANCE", "SERVERS", "UP", "TIER", "SESSIONS"], &rows)
}

/// Shows servers: all, or those of a pool.
#[must_use]
pub fn servers(remote: &Remote, pool: Option<&str>) -> ExitCode {
    remote.ask(Question::get("/api/v1/state"), |state: State| {
        let pools = state
            .pools
            .iter()
            .filter(|there| pool.is_none_or(|wanted| there.name == wanted));
        let servers = pools.flat_map(|pool| pool.servers.iter().map(|server| (pool.name.as_str(), server)));
        of_servers(servers)
    })
}

/// One line a server.
pub(super) fn of_servers<'a>(servers: impl Iterator<Item = (&'a str, &'a Server)>) -> String {
    let row = |(pool, server): (&str, &Server)| {
        let set_at = server.set_at.as_deref().map(since);
        let set = server
            .set_by
            .as_ref()
            .zip(set_at)
            .map(|(by, ago)| format!("{by}, {ago} ago"));
        let over = server.close_over.as_ref().map(|over| format!(" over {over}"));
        [
            format!("{pool}/{}", server.name),
            or_dash(Some(server.address.clone()).filter(|address| *address != server.name)),
            health(server),
            since(&server.since),
            format!("{}{}", server.usage, over.unwrap_or_default()),
            format!("{}{}", server.weight, if server.weight_is_set { " (set)" } else { "" }),
            server.priority.to_string(),
            server.sessions.to_string(),
            or_dash(set),
        ]
    };
    let head = [
        "SERVER", "ADDRESS", "HEALTH", "FOR", "USE", "WEIGHT", "TIER", "SESSIONS", "SET BY",
    ];
    table(head, &servers.map(row).collect::<Vec<_>>())
}

/// What its checks and its connects say, in a word.
fn word(server: &Server) -> &str {
    if server.ejected { "ejected" } else { &server.health }
}

fn health(server: &Server) -> String {
    match &server.reason {
        Some(reason) => format!("{}: {reason}", word(server)),
        None => word(server).to_owned(),
    }
}

/// How long ago that was.
fn since(time: &str) -> String {
    let at = humantime::parse_rfc3339(time).unwrap_or(SystemTime::UNIX_EPOCH);
    duration(at.elapsed().unwrap_or_default())
}
