//! `acequia guard`: shows a guard, denies networks, and undoes that.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::remote::{ApiRequest, Remote};
use super::server::encode;
use super::status::{age_text, guard_table};
use super::table::{or_dash, table};
use super::values;
use crate::admin::guard_bodies::{DeniedBody, DenyEditBody, GuardDetailBody, SourceCountBody, UndoneBody};

/// A change of a guard.
#[derive(Debug, Subcommand)]
pub enum GuardCommand {
    /// Deny a network; open sessions go on
    Deny {
        /// The guard
        guard: String,
        /// A network, such as 10.0.0.0/8, or an address
        #[arg(value_parser = values::network)]
        network: String,
        /// Only for this time, such as "10m"
        #[arg(long = "for", value_name = "DURATION", value_parser = values::lifetime)]
        time: Option<String>,
        /// Also reset the open sessions from that network that have passed the guard
        #[arg(long)]
        close: bool,
    },
    /// Undo an edit: a denial that was set by `deny`
    Undo {
        /// The guard
        guard: String,
        /// The network or address, as it was denied
        #[arg(value_parser = values::network)]
        network: String,
    },
}

/// Changes a guard.
#[must_use]
pub fn run(remote: &Remote, command: &GuardCommand) -> ExitCode {
    match command {
        GuardCommand::Deny {
            guard,
            network,
            time,
            close,
        } => {
            let body = json!({ "network": network, "for": time, "close": close });
            let request = ApiRequest::post(format!("/api/v1/guards/{}/deny", encode(guard)), body.to_string());
            remote.request(request, |body: DeniedBody| {
                let closed = match body.closed {
                    0 => String::new(),
                    1 => "; 1 open session was reset".to_owned(),
                    closed => format!("; {closed} open sessions were reset"),
                };
                let denies = match body.report_only {
                    true => "has report_only: it only counts clients from",
                    false => "denies",
                };
                Ok(format!("guard {guard} {denies} {}{closed}\n", body.denied))
            })
        }
        GuardCommand::Undo { guard, network } => {
            let path = format!("/api/v1/guards/{}/deny/{}", encode(guard), encode(network));
            remote.request(ApiRequest::delete(path), |UndoneBody { undone }| {
                Ok(format!("guard {guard} no longer denies {undone} by an edit\n"))
            })
        }
    }
}

/// Shows a guard.
#[must_use]
pub fn show(remote: &Remote, name: &str) -> ExitCode {
    let request = ApiRequest::get(format!("/api/v1/guards/{}", encode(name)));
    remote.request(request, |detail: GuardDetailBody| {
        let mut text = guard_table(std::slice::from_ref(&detail.guard));
        let refusals: Vec<_> = detail.guard.refusals.iter().filter(|(_, count)| **count > 0).collect();
        if !refusals.is_empty() {
            let refusals: Vec<_> = refusals
                .iter()
                .map(|(reason, count)| format!("{reason} {count}"))
                .collect();
            text += &format!("\nrefused: {}\n", refusals.join(", "));
        }
        text += &source_table("SESSIONS", &detail.top_sessions);
        text += &source_table("REFUSED", &detail.top_refused);
        let row = |edit: &DenyEditBody| {
            [
                edit.network.clone(),
                edit.set_by.clone(),
                format!("{} ago", age_text(&edit.set_at)),
                or_dash(edit.ends_in.map(|seconds| format!("in {seconds}s"))),
            ]
        };
        let rows: Vec<_> = detail.denied.iter().map(row).collect();
        if !rows.is_empty() {
            text += &format!("\n{}", table(["DENIED", "BY", "SET", "ENDS"], &rows, &[]));
        }
        Ok(text)
    })
}

/// An empty line, and a table of the sources with their counts. If there are no sources, the text is empty.
fn source_table(what: &'static str, sources: &[SourceCountBody]) -> String {
    let rows: Vec<_> = sources
        .iter()
        .map(|source| [source.source.clone(), source.count.to_string()])
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("\n{}", table(["SOURCE", what], &rows, &[]))
}
