//! `acequia server`: sets and reverts overrides of a server, and adds and removes servers.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::remote::{ApiRequest, Remote};
use super::status::{ServerLine, absent_server_note, server_table};
use super::terminal::reject_arguments;
use super::values;
use crate::admin::bodies::OverrideBody;
use crate::admin::pool_bodies::AddedServerBody;
use crate::plan::{ListedServer, WEIGHT_MAX};
use crate::pool::MemberConfig;
use crate::text::parse_digits;

/// A change of a server.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Send new sessions to the server again
    Enable(ServerArg),
    /// Stop sending new sessions to the server; keep checking it
    Drain(DrainArgs),
    /// Stop sending new sessions to the server, and stop checking it
    Disable(DrainArgs),
    /// Add a server to a pool; it stays over a reload and, with `state_dir`, over a restart
    Add(AddArgs),
    /// Remove a server that was added by hand
    Remove(ServerArg),
    /// Set the weight of the server
    Weight {
        /// The server.
        #[command(flatten)]
        target: ServerArg,
        /// 0 to 256, or "configured" for the weight of the configuration
        #[arg(value_parser = parse_weight)]
        weight: WeightArg,
    },
}

/// A server to be added to a pool.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// The pool
    #[arg(value_name = "POOL")]
    pool: String,
    /// The address of the server, such as "10.0.0.7:5432", or a host name and a port
    #[arg(value_name = "ADDRESS")]
    address: String,
    /// Its name; by default its address
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Its weight, 0 to 256; by default 1
    #[arg(long, value_name = "WEIGHT")]
    weight: Option<u16>,
    /// Its tier, 0 (the best) to 255; by default 0
    #[arg(long, value_name = "PRIORITY")]
    priority: Option<u8>,
    /// Remove it after this time, such as "1h"; by default it stays until it is removed
    #[arg(long = "for", value_name = "DURATION", value_parser = values::lifetime)]
    time: Option<String>,
}

/// A weight; `None`: the configured one.
#[derive(Clone, Copy, Debug)]
pub struct WeightArg(Option<u16>);

fn parse_weight(text: &str) -> Result<WeightArg, String> {
    match text {
        "configured" => Ok(WeightArg(None)),
        number => match parse_digits(number) {
            Some(weight) if weight <= WEIGHT_MAX => Ok(WeightArg(Some(weight))),
            _ => Err(format!("expected 0 to {WEIGHT_MAX}, or \"configured\"")),
        },
    }
}

/// The name of a pool, and the name of a server in it.
type PoolAndServer = (String, String);

/// A server, by its pool and name.
#[derive(Debug, clap::Args)]
pub struct ServerArg {
    /// The server, named as in the output of `acequia servers`
    #[arg(value_name = "POOL/SERVER", value_parser = parse_server)]
    pub(super) server: PoolAndServer,
}

/// The arguments of `drain` and `disable`.
#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    #[command(flatten)]
    target: ServerArg,
    /// Cut its sessions, spread over this time, such as "30s"; without it they end by themselves
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    close_over: Option<String>,
}

fn parse_server(text: &str) -> Result<PoolAndServer, String> {
    // The name of a pool may contain slashes, so the last slash separates it from the server. But the name of a server
    // is by default its address, and the address of a Unix socket contains slashes, too.
    let at = text
        .find("/unix:/")
        .or_else(|| text.rfind('/'))
        .ok_or("expected POOL/SERVER")?;
    match (&text[..at], &text[at + 1..]) {
        ("", _) | (_, "") => Err(String::from("expected POOL/SERVER")),
        (pool, server) => Ok((pool.to_owned(), server.to_owned())),
    }
}

/// Requests the change and prints its result.
#[must_use]
pub fn run(remote: &Remote, command: &ServerCommand) -> ExitCode {
    let ((pool, server), body) = match command {
        ServerCommand::Enable(target) => (&target.server, json!({ "use": "enabled" })),
        ServerCommand::Drain(args) => (&args.target.server, drain_body("draining", args)),
        ServerCommand::Disable(args) => (&args.target.server, drain_body("disabled", args)),
        ServerCommand::Add(args) => return add(remote, args),
        ServerCommand::Remove(target) => return remove(remote, &target.server),
        ServerCommand::Weight { target, weight } => (&target.server, json!({ "weight": weight.0 })),
    };
    let path = format!("/api/v1/servers/{}/{}", encode(pool), encode(server));
    remote.request(ApiRequest::post(path, body.to_string()), |result: OverrideBody| {
        Ok(match result {
            OverrideBody::Present(server) => server_table(&[ServerLine {
                pool,
                server: &server,
                role: None,
                origin: None,
            }]),
            OverrideBody::Absent(absent) => absent_server_note(&absent) + "\n",
        })
    })
}

fn add(remote: &Remote, args: &AddArgs) -> ExitCode {
    let AddArgs {
        pool,
        address,
        name,
        weight,
        priority,
        time,
    } = args;
    let server = ListedServer {
        name: name.clone(),
        weight: *weight,
        priority: *priority,
        ..ListedServer::at(address.clone())
    };
    if let Err(why) = server.into_entry(MemberConfig::default()) {
        return reject_arguments(&why);
    }
    let body = json!({ "address": address, "name": name, "weight": weight, "priority": priority, "for": time });
    let path = format!("/api/v1/pools/{}/servers", encode(pool));
    let shown = |AddedServerBody { pool, name, until, .. }| {
        let until = until.map_or_else(String::new, |until| format!(" until {until}"));
        Ok(format!("{pool}/{name}: added{until}\n"))
    };
    remote.request(ApiRequest::post(path, body.to_string()), shown)
}

fn remove(remote: &Remote, (pool, server): &PoolAndServer) -> ExitCode {
    let path = format!("/api/v1/pools/{}/servers/{}", encode(pool), encode(server));
    let shown = |removed: AddedServerBody| Ok(format!("{}/{}: removed\n", removed.pool, removed.name));
    remote.request(ApiRequest::delete(path), shown)
}

/// Encodes a name for the path of a URL.
pub(super) fn encode(name: &str) -> String {
    let encoded: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    encoded.replace('+', "%20") // in a path, `+` is no space
}

fn drain_body(usage: &str, args: &DrainArgs) -> Value {
    match &args.close_over {
        Some(over) => json!({ "use": usage, "close_over": over }),
        None => json!({ "use": usage }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_follows_the_last_slash_or_is_a_socket_path() {
        for (text, pool, server) in [
            ("p/10.0.0.1:1", "p", "10.0.0.1:1"),
            ("a/b/s", "a/b", "s"),
            ("p/unix:/run/a/s.sock", "p", "unix:/run/a/s.sock"),
        ] {
            assert_eq!(parse_server(text), Ok((pool.to_owned(), server.to_owned())));
        }
        for text in ["p", "p/", "/s"] {
            assert!(parse_server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_encoded_for_the_path_of_a_url() {
        assert_eq!(encode("unix:/run/my app+1.sock"), "unix%3A%2Frun%2Fmy%20app%2B1.sock");
    }
}
