//! `acequia server` and `acequia reload`: what changes a running process.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::remote::{Question, Remote};
use super::status::{of_absent, of_servers};
use crate::admin::bodies::OverrideBody;
use crate::reload::{Changes, Difference};

/// What is wanted of a server. It holds until it is taken back, reloads included.
#[derive(Debug, Subcommand)]
pub enum Order {
    /// It takes part again
    Enable(Named),
    /// It gets no new session, and is still checked
    Drain(Ending),
    /// It gets no new session, and is not checked
    Disable(Ending),
    /// It gets another share of new sessions
    Weight {
        /// Which
        #[command(flatten)]
        named: Named,
        /// 0 to 256; "configured" takes it back
        #[arg(value_parser = weight)]
        weight: Weight,
    },
}

/// A share; `None`: the configured one.
#[derive(Clone, Copy, Debug)]
pub struct Weight(Option<u16>);

fn weight(text: &str) -> Result<Weight, String> {
    match text {
        "configured" => Ok(Weight(None)),
        number => match number.parse() {
            Ok(weight) if weight <= 256 => Ok(Weight(Some(weight))),
            _ => Err("write 0 to 256, or \"configured\"".to_owned()),
        },
    }
}

/// Which server.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// The server, as `acequia servers` calls it
    #[arg(value_name = "POOL/SERVER", value_parser = named)]
    server: (String, String),
}

/// Which server, and what becomes of its sessions.
#[derive(Debug, clap::Args)]
pub struct Ending {
    #[command(flatten)]
    named: Named,
    /// Over what time its sessions are cut, as in "30s"; without it they end by themselves
    #[arg(long, value_name = "DURATION")]
    close_over: Option<String>,
}

fn named(text: &str) -> Result<(String, String), String> {
    let (pool, server) = text.rsplit_once('/').ok_or("write POOL/SERVER")?; // a pool's name may have one
    Ok((pool.to_owned(), server.to_owned()))
}

/// Steers a server, and shows how it is then.
#[must_use]
pub fn server(remote: &Remote, order: &Order) -> ExitCode {
    let ((pool, server), body) = match order {
        Order::Enable(named) => (&named.server, json!({ "use": "enabled" })),
        Order::Drain(ending) => (&ending.named.server, with_ending("draining", ending)),
        Order::Disable(ending) => (&ending.named.server, with_ending("disabled", ending)),
        Order::Weight { named, weight } => (&named.server, json!({ "weight": weight.0 })),
    };
    let encoded = |name: &str| form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>();
    let path = format!("/api/v1/servers/{}/{}", encoded(pool), encoded(server));
    remote.ask(Question::post(path, body.to_string()), |result: OverrideBody| {
        Ok(match result {
            OverrideBody::Present(server) => of_servers(&[(pool, &server)]),
            OverrideBody::Absent(absent) => of_absent(&absent),
        })
    })
}

fn with_ending(usage: &str, ending: &Ending) -> serde_json::Value {
    match &ending.close_over {
        Some(over) => json!({ "use": usage, "close_over": over }),
        None => json!({ "use": usage }),
    }
}

/// Has the configuration read again, and says what that changed.
#[must_use]
pub fn reload(remote: &Remote) -> ExitCode {
    remote.ask(Question::post("/api/v1/reload", String::new()), |changes: Changes| {
        let mut text = told("listeners", &changes.listeners);
        text += &told("pools", &changes.pools);
        text += &told("servers", &changes.servers);
        for line in changes.changed() {
            text += &format!("{line}\n");
        }
        for key in &changes.needs_restart {
            text += &format!("{key}: changed in the file, but needs a restart\n");
        }
        if !changes.warnings.is_empty() {
            text += &format!("{}\n", changes.warnings);
        }
        Ok(text)
    })
}

/// What came and went, by name; what stayed, by number.
fn told(what: &str, difference: &Difference) -> String {
    let Difference {
        added, removed, kept, ..
    } = difference;
    let (came, went) = (added.len(), removed.len());
    let mut text = format!("{what}: {came} added, {went} removed, {} kept\n", kept.len());
    for (sign, names) in [('+', added), ('-', removed)] {
        for name in names {
            text += &format!("  {sign} {name}\n");
        }
    }
    text
}
