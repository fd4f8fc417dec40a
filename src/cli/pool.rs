//! `acequia pool`: says which server is the primary of a pool.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::remote::{ApiRequest, Remote};
use super::server::{ServerArg, encode};
use super::status::server_table;
use crate::admin::bodies::ServerBody;

/// A request about a pool.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Use this server as the primary, although another one may have been, or may be on a higher timeline
    Trust(ServerArg),
}

/// Sends the request and prints the state of the server.
#[must_use]
pub fn run(remote: &Remote, command: &PoolCommand) -> ExitCode {
    let PoolCommand::Trust(ServerArg { server: (pool, server) }) = command;
    let path = format!("/api/v1/pools/{}/trust", encode(pool));
    let body = json!({ "server": server }).to_string();
    remote.request(ApiRequest::post(path, body), |server: ServerBody| {
        Ok(server_table(&[(pool, &server)]))
    })
}
