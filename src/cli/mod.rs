//! The commands: one file each.

mod terminal;
pub mod check;
pub mod route;
mod table;
pub mod remote;
pub mod run;
pub mod demo;
pub mod sessions;
pub mod status;
pub mod steer;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config;
use remote::Remote;

/// Something is wrong with the configuration.
pub const EXIT_CONFIG: u8 = 1;

/// It could not bind, or lost what it needs to run.
pub const EXIT_RUN: u8 = 3;

/// A layer-4 load balancer: TCP, and TLS by server name without holding keys.
#[derive(Debug, Parser)]
#[command(name = "acequia", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Balances.
    Run {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Says every mistake of a configuration, and what in it can never happen.
    Check {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Says where a connection would go, and why. Opens no socket.
    Route {
        #[command(flatten)]
        config: ConfigFile,
        /// The listener it comes in at.
        #[arg(long, value_name = "NAME")]
        listener: String,
        /// The server name it asks for; without it: none.
        #[arg(long, value_name = "NAME")]
        sni: Option<String>,
        /// A protocol it offers; may be given more than once.
        #[arg(long, value_name = "PROTOCOL")]
        alpn: Vec<String>,
        /// The address it comes from.
        #[arg(long, value_name = "IP")]
        from: Option<IpAddr>,
    },
    /// Shows what a running acequia is doing.
    Status {
        #[command(flatten)]
        remote: Remote,
    },
    /// Shows the servers of a running acequia, and how they are doing.
    Servers {
        #[command(flatten)]
        remote: Remote,
        /// Only those of this pool.
        pool: Option<String>,
    },
    /// Shows the sessions of a running acequia, or ends one.
    Sessions {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        asked: sessions::Asked,
    },
    /// Steers a server of a running acequia. It holds until it is taken back, reloads included.
    Server {
        #[command(flatten)]
        remote: Remote,
        #[command(subcommand)]
        order: steer::Order,
    },
    /// Has a running acequia read its configuration again.
    Reload {
        #[command(flatten)]
        remote: Remote,
    },
    /// Shows balancing on this machine: starts servers of its own, and says what to try with them.
    Demo,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration [default: ./acequia.toml, then /etc/acequia/acequia.toml]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl Arguments {
    /// Does what the arguments say.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Run { config } => run::run(config.path.as_deref()),
            Command::Demo => demo::run(),
            Command::Status { remote } => status::status(&remote),
            Command::Servers { remote, pool } => status::servers(&remote, pool.as_deref()),
            Command::Sessions { remote, asked } => sessions::run(&remote, &asked),
            Command::Server { remote, order } => steer::server(&remote, &order),
            Command::Reload { remote } => steer::reload(&remote),
            Command::Check { config } => check::run(config.path.as_deref()),
            Command::Route {
                config,
                listener,
                sni,
                alpn,
                from,
            } => {
                let query = route::RouteQuery {
                    listener,
                    sni,
                    alpn,
                    from,
                };
                match config::find(config.path.as_deref()).and_then(|path| config::load(&path)) {
                    Ok(loaded) => route::run(&loaded.plan, &query),
                    Err(report) => {
                        report.print_to_stderr();
                        ExitCode::from(EXIT_CONFIG)
                    }
                }
            }
        }
    }
}
