//! The servers that a client may get.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::addr::ClientHost;
use crate::discover::with_listed_servers;
use crate::live::{LivePool, NameAddresses};
use crate::plan::{PoolPlan, ServerEntry};
use crate::pool::{Member, QueueLimits, ServerRegistry};
use crate::units::format_duration;

/// Writes the servers of a pool, and what happens while they are full.
pub(super) fn write_servers(text: &mut String, pool: &Arc<PoolPlan>, from: Option<IpAddr>) -> fmt::Result {
    let policy = pool.policy();
    let pool = &with_listed_servers(pool);
    let unresolved: Vec<_> = pool
        .entries
        .iter()
        .filter(|entry| entry.member_config.weight > 0 && entry.fixed().is_none())
        .collect();
    // No name is resolved here, so this pool has only the servers with fixed addresses.
    let pool_of_fixed = LivePool::new(Arc::clone(pool), NameAddresses::new(), &ServerRegistry::default());
    let servers = pool_of_fixed.in_order(from.map(ClientHost::Ip), Instant::now());
    match from {
        Some(_) if policy.is_by_client() => {
            writeln!(
                text,
                "{}; the servers in the order in which they are tried:",
                policy.as_str()
            )?;
            for (number, server) in (1..).zip(&servers) {
                writeln!(text, "  {number}. {}", server_line(server))?;
            }
            if !unresolved.is_empty() {
                writeln!(
                    text,
                    "also tried, at unknown places among the servers of their priority:"
                )?;
            }
        }
        _ => {
            writeln!(text, "{}; the candidates:", policy.as_str())?;
            servers
                .iter()
                .try_for_each(|server| writeln!(text, "  {}", server_line(server)))?;
        }
    }
    unresolved
        .iter()
        .try_for_each(|entry| writeln!(text, "  {}", unresolved_line(entry)))?;
    if policy.is_by_client() && from.is_none() {
        writeln!(
            text,
            "note: with --from, the servers are shown in the order in which they are tried"
        )?;
    }
    if let Some(discover) = &pool.discover {
        writeln!(text, "note: the servers are listed by {}", discover.source)?;
    }
    let without_weight = pool.entries.iter().filter(|entry| entry.member_config.weight == 0);
    without_weight
        .map(|entry| entry.name.as_ref().unwrap_or(&entry.written))
        .try_for_each(|label| writeln!(text, "note: {label} has weight 0 and takes no new session"))?;
    write_when_full(text, pool)
}

/// Writes what happens while servers are at their session limits. Only the servers of the best priority count: those of
/// the next one do not stand in for full servers.
fn write_when_full(text: &mut String, pool: &PoolPlan) -> fmt::Result {
    let configs = pool.entries.iter().map(|entry| &entry.member_config);
    let in_use: Vec<_> = configs.filter(|config| config.weight > 0).collect();
    let best = in_use.iter().map(|config| config.priority).min();
    let best_tier = in_use.iter().filter(|config| Some(config.priority) == best);
    let limits: Vec<_> = best_tier.map(|config| config.sessions_max).collect();
    if limits.iter().all(Option::is_none) {
        return Ok(());
    }
    let are_all_limited = limits.iter().all(Option::is_some);
    match &pool.rules.queue {
        Some(QueueLimits { clients_max, timeout }) if pool.policy().is_by_client() => writeln!(
            text,
            "while its server is full: the client waits for it, {} at most; the queue has {clients_max} places",
            format_duration(*timeout)
        ),
        Some(QueueLimits { clients_max, timeout }) if are_all_limited => writeln!(
            text,
            "while all are full: the client waits, {} at most; the queue has {clients_max} places",
            format_duration(*timeout)
        ),
        None if are_all_limited => {
            writeln!(
                text,
                "while all are full: refused (servers_full); otherwise full servers are passed over"
            )
        }
        _ => writeln!(text, "full servers are passed over"),
    }
}

fn server_line(server: &Member) -> String {
    let limit = server
        .sessions_max()
        .map_or_else(String::new, |max| format!(", at most {max} sessions"));
    format!("{}{}{limit}", server.spec(), weight_suffix(server.weight()))
}

fn unresolved_line(entry: &ServerEntry) -> String {
    let label = entry
        .name
        .as_ref()
        .map(|name| format!("{name} at "))
        .unwrap_or_default();
    format!(
        "{label}{}{}, a name: resolved only while acequia runs",
        entry.written,
        weight_suffix(entry.member_config.weight)
    )
}

fn weight_suffix(weight: u16) -> String {
    if weight == 1 {
        String::new()
    } else {
        format!(", weight {weight}")
    }
}
