//! `acequia route`: where such a connection would go, and why. Opens no socket and asks no resolver.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::time::Instant;

use super::terminal::{complain, say};
use crate::addr::ClientAddr;
use crate::name::{NameError, ServerName, Sni};
use crate::plan::{ListenerPlan, Plan, PoolPlan, ServerEntry};
use crate::pool::{Member, Policy};
use crate::route::{Explanation, RouteChoice, RouteInput, RouteVerdict};
use crate::sniff::hello::ProtocolList;

/// The connection that is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteQuery {
    /// `--listener`.
    pub listener: String,
    /// `--sni`.
    pub sni: Option<String>,
    /// `--alpn`, in the order given.
    pub alpn: Vec<String>,
    /// `--from`. Without it no `from` condition holds.
    pub from: Option<IpAddr>,
}

/// There is no listener of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no listener `{asked}`; there is {}", .listeners.join(", "))]
pub struct UnknownListener {
    asked: String,
    listeners: Vec<String>,
}

/// Prints the explanation. Exit code 0, or 2 if the listener is unknown.
#[must_use]
pub fn run(plan: &Plan, query: &RouteQuery) -> ExitCode {
    match explain(plan, query) {
        Ok(text) => say(&text),
        Err(error) => {
            complain("error", &error.to_string());
            ExitCode::from(2)
        }
    }
}

/// The explanation, for people.
///
/// # Errors
/// There is no such listener.
pub fn explain(plan: &Plan, query: &RouteQuery) -> Result<String, UnknownListener> {
    let named = |listener: &&Arc<ListenerPlan>| *listener.name == *query.listener;
    let listener = plan.listeners.iter().find(named).ok_or_else(|| UnknownListener {
        asked: query.listener.clone(),
        listeners: plan
            .listeners
            .iter()
            .map(|listener| listener.name.to_string())
            .collect(),
    })?;
    let name = query.sni.as_deref().map(Sni::from_config);
    let alpn = ProtocolList::of(&query.alpn);
    let explanation = listener.routes.explain(&RouteInput {
        name: name.as_ref().and_then(|name| name.as_ref().ok()),
        alpn: &alpn,
        client: query.from.map(|ip| ClientAddr::new((ip, 0).into())),
    });
    let mut text = String::new();
    told(&mut text, listener, query, name.as_ref(), &explanation).expect("writing to a String cannot fail");
    Ok(text)
}

fn told(
    text: &mut String,
    listener: &ListenerPlan,
    query: &RouteQuery,
    name: Option<&Result<Sni, NameError>>,
    explanation: &Explanation<'_, Arc<PoolPlan>>,
) -> fmt::Result {
    client(text, query, name)?;
    notes(text, listener, query, name, explanation)?;
    routes(text, explanation)?;
    let pool = match explanation.choice {
        RouteChoice::Route { route, pool } => {
            writeln!(text, "route {route}: pool {}", pool.pool.name())?;
            pool
        }
        RouteChoice::Default(pool) => {
            writeln!(text, "no route takes it: the listener's pool {}", pool.pool.name())?;
            pool
        }
        RouteChoice::Refused { route } => return writeln!(text, "route {route}: refused"),
        RouteChoice::NoRoute => return writeln!(text, "no route takes it and the listener has no pool: refused"),
    };
    servers(text, pool, query.from)
}

fn client(text: &mut String, query: &RouteQuery, name: Option<&Result<Sni, NameError>>) -> fmt::Result {
    write!(text, "listener {}: a client ", query.listener)?;
    match query.from {
        Some(from) => write!(text, "from {from}")?,
        None => write!(text, "from anywhere")?,
    }
    match name {
        Some(Ok(Sni::Valid(name))) => write!(text, ", sni {name}")?,
        Some(Ok(Sni::Invalid(_))) => {
            let sent = query.sni.as_deref().unwrap_or_default();
            write!(text, ", sni {}", sent.escape_debug())?;
        }
        Some(Err(_)) | None => write!(text, ", no sni")?,
    }
    if query.alpn.is_empty() {
        writeln!(text, ", no alpn")
    } else {
        writeln!(text, ", alpn {}", query.alpn.join(", "))
    }
}

/// What may surprise whoever asks.
fn notes(
    text: &mut String,
    listener: &ListenerPlan,
    query: &RouteQuery,
    name: Option<&Result<Sni, NameError>>,
    explanation: &Explanation<'_, Arc<PoolPlan>>,
) -> fmt::Result {
    if let (Some(sni), Some(name)) = (&query.sni, name) {
        let shown = sni.escape_debug();
        match (name, ServerName::from_config(sni)) {
            (Err(error), _) => writeln!(text, "note: `{shown}` counts as no name: {error}")?,
            (Ok(_), Err(error)) => {
                writeln!(
                    text,
                    "note: `{shown}` is not valid, only `*` and `*.suffix` match it: {error}"
                )?;
            }
            (Ok(_), Ok(_)) => {}
        }
    }
    if !listener.routes.needs_hello() && (query.sni.is_some() || !query.alpn.is_empty()) {
        writeln!(
            text,
            "note: no route has sni or alpn, so this listener does not read them"
        )?;
    }
    if query.from.is_none() && explanation.routes.iter().any(|(route, _)| !route.from.is_empty()) {
        writeln!(text, "note: without --from, no `from` condition holds")?;
    }
    Ok(())
}

fn routes(text: &mut String, explanation: &Explanation<'_, Arc<PoolPlan>>) -> fmt::Result {
    let routes = &explanation.routes;
    let width = routes
        .iter()
        .map(|(route, _)| route.name.chars().count())
        .max()
        .unwrap_or(0);
    writeln!(text)?;
    for (route, verdict) in routes {
        write!(text, "  {:width$}  ", route.name)?;
        match verdict {
            RouteVerdict::Taken(entries) => match entries.describe().as_slice() {
                [] => writeln!(text, "taken")?,
                told => writeln!(text, "taken: {}", told.join("; "))?,
            },
            RouteVerdict::Outranked { by, because } => {
                writeln!(text, "holds, but {by} wins: it {}", because.as_str())?;
            }
            RouteVerdict::PassedOver(unmet) => {
                let unmet: Vec<_> = unmet.iter().map(|condition| condition.wanted(route)).collect();
                writeln!(text, "passed over: {}", unmet.join("; "))?;
            }
        }
    }
    if !routes.is_empty() {
        writeln!(text)?;
    }
    Ok(())
}

fn servers(text: &mut String, pool: &PoolPlan, from: Option<IpAddr>) -> fmt::Result {
    let policy = pool.policy();
    let names: Vec<_> = pool
        .entries
        .iter()
        .filter(|entry| entry.member_config.weight > 0 && entry.fixed().is_none())
        .collect();
    let servers = pool.pool.in_order(from, Instant::now());
    match (policy, from) {
        (Policy::SourceHash, Some(_)) => {
            writeln!(
                text,
                "{}; the servers in the order in which they are tried:",
                policy.as_str()
            )?;
            for (place, server) in (1..).zip(&servers) {
                writeln!(text, "  {place}. {}", fixed(server))?;
            }
            if !names.is_empty() {
                writeln!(
                    text,
                    "and, wherever among these their addresses come, the servers of these names:"
                )?;
            }
        }
        _ => {
            writeln!(text, "{}; the candidates:", policy.as_str())?;
            servers
                .iter()
                .try_for_each(|server| writeln!(text, "  {}", fixed(server)))?;
        }
    }
    names
        .iter()
        .try_for_each(|entry| writeln!(text, "  {}", unresolved(entry)))?;
    if policy == Policy::SourceHash && from.is_none() {
        writeln!(text, "note: with --from, the order in which they are tried")?;
    }
    let idle = pool.entries.iter().filter(|entry| entry.member_config.weight == 0);
    idle.map(|entry| entry.name.as_ref().unwrap_or(&entry.written))
        .try_for_each(|label| writeln!(text, "note: {label} has weight 0 and takes no new session"))
}

fn fixed(server: &Member) -> String {
    let spec = server.spec();
    let address = spec.address.to_string();
    let place = if *spec.label == *address {
        String::new()
    } else {
        format!(" at {address}")
    };
    format!("{}{place}{}", spec.label, weight(server.weight()))
}

fn unresolved(entry: &ServerEntry) -> String {
    let label = entry
        .name
        .as_ref()
        .map(|name| format!("{name} at "))
        .unwrap_or_default();
    format!(
        "{label}{}{}, a name: resolved only while acequia runs",
        entry.written,
        weight(entry.member_config.weight)
    )
}

fn weight(weight: u16) -> String {
    if weight == 1 {
        String::new()
    } else {
        format!(", weight {weight}")
    }
}

#[cfg(test)]
mod tests;
