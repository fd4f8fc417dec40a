//! `acequia server`: sets and reverts overrides of a server.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::remote::{ApiRequest, Remote};
use super::status::{absent_server_note, server_table};
use crate::admin::bodies::OverrideBody;

/// The largest weight; the same as in the configuration.
const WEIGHT_MAX: u16 = 256;

/// An override of a server.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Send new sessions to the server again
    Enable(ServerArg),
    /// Stop sending new sessions to the server; keep checking it
    Drain(DrainArgs),
    /// Stop sending new sessions to the server, and stop checking it
    Disable(DrainArgs),
    /// Set the weight of the server
    Weight {
        /// The server.
        #[command(flatten)]
        target: ServerArg,
        /// 0 to 256, or "configured" to revert it
        #[arg(value_parser = parse_weight)]
        weight: WeightArg,
    },
}

/// A weight; `None`: the configured one.
#[derive(Clone, Copy, Debug)]
pub struct WeightArg(Option<u16>);

fn parse_weight(text: &str) -> Result<WeightArg, String> {
    match text {
        "configured" => Ok(WeightArg(None)),
        number => match number.parse() {
            Ok(weight) if weight <= WEIGHT_MAX => Ok(WeightArg(Some(weight))),
            _ => Err(format!("expected 0 to {WEIGHT_MAX}, or \"configured\"")),
        },
    }
}

/// A server, by its pool and name.
#[derive(Debug, clap::Args)]
pub struct ServerArg {
    /// The server, named as in the output of `acequia servers`
    #[arg(value_name = "POOL/SERVER", value_parser = parse_server)]
    pub(super) server: (String, String),
}

/// A server, and what happens to its sessions.
#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    #[command(flatten)]
    target: ServerArg,
    /// Cut its sessions, spread over this time, such as "30s"; without it they end by themselves
    #[arg(long, value_name = "DURATION")]
    close_over: Option<String>,
}

fn parse_server(text: &str) -> Result<(String, String), String> {
    let (pool, server) = text.rsplit_once('/').ok_or("expected POOL/SERVER")?; // the name of a pool may contain a slash
    Ok((pool.to_owned(), server.to_owned()))
}

/// Sets an override and prints the state of the server.
#[must_use]
pub fn run(remote: &Remote, command: &ServerCommand) -> ExitCode {
    let ((pool, server), body) = match command {
        ServerCommand::Enable(target) => (&target.server, json!({ "use": "enabled" })),
        ServerCommand::Drain(args) => (&args.target.server, drain_body("draining", args)),
        ServerCommand::Disable(args) => (&args.target.server, drain_body("disabled", args)),
        ServerCommand::Weight { target, weight } => (&target.server, json!({ "weight": weight.0 })),
    };
    let path = format!("/api/v1/servers/{}/{}", encode(pool), encode(server));
    remote.request(ApiRequest::post(path, body.to_string()), |result: OverrideBody| {
        Ok(match result {
            OverrideBody::Present(server) => server_table(&[(pool, &server)]),
            OverrideBody::Absent(absent) => absent_server_note(&absent),
        })
    })
}

/// A name as part of a path.
pub(super) fn encode(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

fn drain_body(usage: &str, args: &DrainArgs) -> Value {
    match &args.close_over {
        Some(over) => json!({ "use": usage, "close_over": over }),
        None => json!({ "use": usage }),
    }
}
