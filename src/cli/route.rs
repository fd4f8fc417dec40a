//! `acequia route`: explains where a connection would go. Resolves no server, and connects only if it has to read the
//! configuration from a store.

mod client;
mod servers;
mod termination;

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::configuration;
use super::exit;
use super::terminal::{print, reject_arguments};
use crate::app::load_tls;
use crate::config;
use crate::live::LiveTls;
use crate::name::{NameError, ServerName, Sni};
use crate::plan::{AcceptProxy, ClientOf, Fallback, ListenerPlan, Plan, PoolId, RouteQuestion};
use crate::route::{Explanation, RouteChoice, RouteVerdict, TlsMode};
use crate::tls::ListenerTls;
use client::{explain_peer, write_guards};
use servers::write_servers;
use termination::write_tls;

/// The known facts about the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct RouteArgs {
    /// The listener that accepts the connection
    #[arg(long, value_name = "NAME")]
    pub listener: String,
    /// The server name that the client asks for [default: none]
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,
    /// A protocol that the client offers; may be repeated
    #[arg(long, value_name = "PROTOCOL")]
    pub alpn: Vec<String>,
    /// The address of a balancer in front that connects; --from is then the client in its PROXY header
    #[arg(long, value_name = "IP")]
    pub peer: Option<IpAddr>,
    /// The address of the client; if it is not known, no `from` condition holds
    #[arg(long, value_name = "IP")]
    pub from: Option<IpAddr>,
    /// The database that a PostgreSQL client names, if acequia can read it [default: as --user]
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// The user that a PostgreSQL client names, if acequia can read it
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

impl RouteArgs {
    fn question(&self) -> RouteQuestion<'_> {
        RouteQuestion {
            sni: self.sni.as_deref(),
            alpn: &self.alpn,
            client: self.from,
            database: self.database.as_deref(),
            user: self.user.as_deref(),
        }
    }
}

/// The plan has no listener of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no listener `{name}`; known listeners: {}", .known.join(", "))]
pub struct UnknownListener {
    name: String,
    known: Vec<String>,
}

/// Prints the explanation for the configuration at `path`, otherwise for the one at the default path. Exit code 0; 1 if
/// the configuration is invalid, or the output cannot be written; 3 if the configuration cannot be read; 2 if the
/// listener is unknown.
#[must_use]
pub fn run(path: Option<&Path>, args: &RouteArgs) -> ExitCode {
    let loaded = match config::find(path).and_then(|path| configuration::load(&path)) {
        Ok(loaded) => loaded,
        Err(report) => {
            report.print_to_stderr();
            return exit::for_report(&report);
        }
    };
    // TLS files that cannot be read are no error here: `acequia check` reports them.
    let tls = load_tls(&loaded.plan, None).unwrap_or_default();
    match explain(&loaded.plan, &tls, args) {
        Ok(text) => print(&text),
        Err(error) => reject_arguments(&error.to_string()),
    }
}

/// The explanation as text.
///
/// # Errors
/// The plan has no listener of this name.
pub fn explain(plan: &Plan, tls: &LiveTls, args: &RouteArgs) -> Result<String, UnknownListener> {
    let named = |listener: &&Arc<ListenerPlan>| *listener.name == *args.listener;
    let listener = plan.listeners.iter().find(named).ok_or_else(|| UnknownListener {
        name: args.listener.clone(),
        known: plan
            .listeners
            .iter()
            .map(|listener| listener.name.to_string())
            .collect(),
    })?;
    let mut args = args.clone();
    let mut text = String::new();
    if let Some(peer) = args.peer {
        let client = AcceptProxy::client_of(listener.accept_proxy.as_ref(), peer, args.from);
        text = explain_peer(peer, client);
        match client {
            ClientOf::Refused => return Ok(text),
            ClientOf::Peer(peer) => args.from = Some(peer),
            ClientOf::Named(_) => {}
        }
    }
    let args = &args;
    let parsed_sni = args.sni.as_deref().map(Sni::from_config);
    let explanation = args.question().explain(listener);
    let context = RouteContext {
        plan,
        listener,
        tls: tls.listeners.get(&listener.name),
    };
    write_explanation(&mut text, &context, args, parsed_sni.as_ref(), &explanation)
        .expect("writing to a String cannot fail");
    Ok(text)
}

/// The input of the explanation of a route.
struct RouteContext<'a> {
    plan: &'a Plan,
    listener: &'a ListenerPlan,
    /// The TLS that is terminated at the listener; `None`: no TLS is, or a TLS file of the plan cannot be read.
    tls: Option<&'a Arc<ListenerTls>>,
}

/// Writes the explanation. `parsed_sni`: `Err`: the client counts as one without SNI.
fn write_explanation(
    text: &mut String,
    context: &RouteContext<'_>,
    args: &RouteArgs,
    parsed_sni: Option<&Result<Sni, NameError>>,
    explanation: &Explanation<'_, PoolId>,
) -> fmt::Result {
    let RouteContext { plan, listener, .. } = *context;
    write_client(text, args, parsed_sni)?;
    if let Some(redirect) = &listener.redirect {
        let (to, code) = (&redirect.to, redirect.status.code());
        let port = redirect.port.map(|port| format!(", port {port},")).unwrap_or_default();
        return writeln!(
            text,
            "\nHTTP requests are redirected to https{port} of listener {to} ({code})"
        );
    }
    write_notes(text, listener, args, parsed_sni, explanation)?;
    write_guards(text, plan, &listener.guards, args.from)?;
    write_routes(text, explanation)?;
    let pool = match explanation.choice {
        RouteChoice::Route { route, pool, .. } => {
            let pool = &plan.pools[*pool];
            writeln!(text, "route {}: pool {}", route.name, pool.name)?;
            let of_route = route.guards.iter().filter(|id| !listener.guards.contains(id));
            write_guards(text, plan, of_route, args.from)?;
            pool
        }
        RouteChoice::Default(pool) => {
            let pool = &plan.pools[*pool];
            writeln!(text, "no route takes it: the listener's pool {}", pool.name)?;
            pool
        }
        RouteChoice::Refused { name, .. } => return writeln!(text, "route {name}: refused"),
        RouteChoice::NoRoute => return writeln!(text, "no route takes it and the listener has no pool: refused"),
    };
    let sni = parsed_sni.and_then(|sni| sni.as_ref().ok());
    write_tls(text, listener, context.tls, sni, &explanation.choice)?;
    write_servers(text, pool, args.from)?;
    match &pool.fallback {
        Some(Fallback::Pool(fallback)) => writeln!(text, "if none of them is usable: pool {fallback}"),
        Some(Fallback::Primary) => writeln!(text, "if no replica is usable: the primary among these servers"),
        None => Ok(()),
    }
}

fn write_client(text: &mut String, args: &RouteArgs, parsed_sni: Option<&Result<Sni, NameError>>) -> fmt::Result {
    write!(text, "listener {}: a client ", args.listener)?;
    match args.from {
        Some(from) => write!(text, "from {from}")?,
        None => write!(text, "from anywhere")?,
    }
    match parsed_sni {
        Some(Ok(Sni::Valid(name))) => write!(text, ", sni {name}")?,
        Some(Ok(Sni::Invalid(_))) => {
            let sent = args.sni.as_deref().unwrap_or_default();
            write!(text, ", sni {}", sent.escape_debug())?;
        }
        Some(Err(_)) | None => write!(text, ", no sni")?,
    }
    if args.alpn.is_empty() {
        write!(text, ", no alpn")?;
    } else {
        write!(text, ", alpn {}", args.alpn.join(", "))?;
    }
    for (key, value) in [("database", &args.database), ("user", &args.user)] {
        if let Some(value) = value {
            write!(text, ", {key} {}", value.escape_debug())?;
        }
    }
    writeln!(text)
}

/// Notes on arguments that have no effect, or not the expected one.
fn write_notes(
    text: &mut String,
    listener: &ListenerPlan,
    args: &RouteArgs,
    parsed_sni: Option<&Result<Sni, NameError>>,
    explanation: &Explanation<'_, PoolId>,
) -> fmt::Result {
    let is_tls = args.question().is_tls();
    if let (Some(sni), Some(parsed_sni)) = (&args.sni, parsed_sni) {
        let shown = sni.escape_debug();
        match (parsed_sni, ServerName::from_config(sni)) {
            (Err(error), _) => writeln!(text, "note: `{shown}` counts as no name: {error}")?,
            (Ok(_), Err(error)) => {
                writeln!(
                    text,
                    "note: `{shown}` is not valid, only `*` and `*.suffix` match it: {error}"
                )?;
            }
            (Ok(_), Ok(name)) if listener.accepts_announcement_of(&name) => writeln!(
                text,
                "note: containers may announce `{shown}` here; whether one does, only the process knows"
            )?,
            (Ok(_), Ok(_)) => {}
        }
    }
    if !listener.routes.needs_hello() && is_tls {
        writeln!(
            text,
            "note: no route has sni or alpn, so this listener does not read them"
        )?;
    }
    // A refused client has no TLS mode, but its TLS may be terminated before, to read database and user.
    let passes_tls = listener.routes.tls_mode(&explanation.choice) == Some(TlsMode::Pass);
    let may_terminate = listener.tls.is_some() && !passes_tls;
    if args.database.is_some() || args.user.is_some() {
        if !listener.protocol.is_postgres() {
            writeln!(
                text,
                "note: this listener does not read database and user: it has no protocol = \"postgres\""
            )?;
        } else if is_tls && !may_terminate {
            writeln!(
                text,
                "note: a client with sni or alpn uses TLS, and its database and user are encrypted"
            )?;
        }
    }
    if args.from.is_none() && explanation.routes.iter().any(|(route, _)| !route.from.is_empty()) {
        writeln!(text, "note: without --from, no `from` condition holds")?;
    }
    Ok(())
}

fn write_routes(text: &mut String, explanation: &Explanation<'_, PoolId>) -> fmt::Result {
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
                reasons => writeln!(text, "taken: {}", reasons.join("; "))?,
            },
            RouteVerdict::Outranked { by, because } => {
                writeln!(text, "holds, but {by} wins: it {}", because.as_str())?;
            }
            RouteVerdict::PassedOver(unmet) => {
                let unmet: Vec<_> = unmet.iter().map(|condition| condition.describe_unmet(route)).collect();
                writeln!(text, "passed over: {}", unmet.join("; "))?;
            }
        }
    }
    if !routes.is_empty() {
        writeln!(text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
