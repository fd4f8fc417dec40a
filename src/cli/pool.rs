//! `acequia pool`: sets which server is the primary of a pool, or the number of the pool's clones.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::remote::{ApiRequest, Remote};
use super::server::{ServerArg, encode};
use super::status::{ServerLine, clone_table, scale_note, server_table};
use crate::admin::bodies::ServerBody;
use crate::admin::pool_bodies::ScaleBody;
use crate::text::parse_digits;

/// A change of a pool.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Use this server as the primary, even if another server was the primary or is on a higher timeline
    Trust(ServerArg),
    /// Set how many clones the pool has, or leave that to its load
    Scale {
        /// The pool
        pool: String,
        /// A number within `min` and `max` of the pool, or "auto"
        #[arg(value_name = "N|auto", value_parser = parse_clones)]
        clones: CloneCountArg,
    },
}

/// Who decides the number of clones.
#[derive(Clone, Copy, Debug)]
pub enum CloneCountArg {
    /// The load.
    Auto,
    /// The operator, who has set this number.
    Fixed(u32),
}

fn parse_clones(text: &str) -> Result<CloneCountArg, String> {
    match text {
        "auto" => Ok(CloneCountArg::Auto),
        number => match parse_digits(number) {
            Some(count) => Ok(CloneCountArg::Fixed(count)),
            None => Err(String::from("expected a number, or \"auto\"")),
        },
    }
}

/// Sends the request and prints the state of the server, or of the clones.
#[must_use]
pub fn run(remote: &Remote, command: &PoolCommand) -> ExitCode {
    match command {
        PoolCommand::Trust(ServerArg { server: (pool, server) }) => {
            let path = format!("/api/v1/pools/{}/trust", encode(pool));
            let body = json!({ "server": server }).to_string();
            remote.request(ApiRequest::post(path, body), |server: ServerBody| {
                Ok(server_table(&[ServerLine {
                    pool,
                    server: &server,
                    role: Some("primary".to_owned()),
                    origin: None,
                }]))
            })
        }
        PoolCommand::Scale { pool, clones } => {
            let path = format!("/api/v1/pools/{}/scale", encode(pool));
            let body = match clones {
                CloneCountArg::Auto => json!({ "clones": "auto" }).to_string(),
                CloneCountArg::Fixed(count) => json!({ "clones": count }).to_string(),
            };
            remote.request(ApiRequest::post(path, body), |scale: ScaleBody| {
                let note = scale_note(pool, &scale);
                Ok(format!("{note}\n\n{}", clone_table(&[(pool, &scale)])))
            })
        }
    }
}
