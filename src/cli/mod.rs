//! The command line. Most commands have a file of their own.

mod exit;
mod terminal;
mod table;
mod values;
mod remote;
mod configuration;
pub mod check;
pub mod import;
pub mod init;
mod generate;
pub mod route;
pub mod run;
pub mod demo;
pub mod sessions;
mod primaries;
pub mod status;
pub mod server;
pub mod pool;
pub mod guard;
pub mod reload;
pub mod cert;
#[cfg(feature = "top")]
pub mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use exit::{EXIT_CONFIG, EXIT_RUN};
pub use remote::Remote;

/// A layer-4 load balancer: TCP, and TLS by server name without holding keys.
#[derive(Debug, Parser)]
#[command(name = "acequia", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the load balancer.
    Run {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Check a configuration: print its errors, and warn of parts that have no effect. With `[remote]`, the
    /// configuration texts in that store are checked, too.
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// How the result is printed.
        #[arg(long, default_value = "text")]
        format: check::CheckFormat,
        /// Also resolve the names, check once each server that the configuration or a file lists, and compare the
        /// certificates of servers with the routes.
        #[arg(long)]
        live: bool,
        /// For a configuration of another machine: do not read the files that it names, except lists of networks and,
        /// with `[remote]`, the files of `[providers.etcd]`.
        #[arg(long, conflicts_with = "live")]
        without_files: bool,
    },
    /// Explain where a connection would go, from the configuration and the files that it names. Opens no socket, except
    /// to read the texts of the store that `[remote]` names.
    Route {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        args: route::RouteArgs,
    },
    /// Write a first configuration, from flags or from answers to three questions.
    Init(init::InitArgs),
    /// Convert a configuration of HAProxy or nginx, and print it. What cannot be carried over becomes a comment.
    Import(import::ImportArgs),
    /// Show the listeners and pools of a running acequia.
    Status {
        #[command(flatten)]
        remote: Remote,
    },
    /// Show the servers of a running acequia.
    Servers {
        #[command(flatten)]
        remote: Remote,
        /// Show only the servers of this pool.
        pool: Option<String>,
    },
    /// List the sessions of a running acequia, or end one.
    Sessions {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        args: sessions::SessionsArgs,
    },
    /// Show the servers and sessions of a running acequia, live. Keys drain and enable servers, and end sessions.
    #[cfg(feature = "top")]
    #[command(after_help = format!("Keys:\n{}", top::KEYS))]
    Top {
        #[command(flatten)]
        remote: Remote,
    },
    /// Set or revert an override on a server of a running acequia, or add or remove a server. Overrides survive
    /// reloads, but not a restart; added servers survive reloads and, with `state_dir`, a restart.
    Server {
        #[command(flatten)]
        remote: Remote,
        #[command(subcommand)]
        command: server::ServerCommand,
    },
    /// Show a guard of a running acequia, or deny networks. What is denied here survives reloads, but not a restart.
    #[command(subcommand_negates_reqs = true)]
    Guard {
        #[command(flatten)]
        remote: Remote,
        /// Show this guard: its counts, top sources and denied networks.
        #[arg(required = true)]
        name: Option<String>,
        #[command(subcommand)]
        command: Option<guard::GuardCommand>,
    },
    /// Tell a running acequia which server is the primary of a pool, or how many clones the pool is to have.
    Pool {
        #[command(flatten)]
        remote: Remote,
        #[command(subcommand)]
        command: pool::PoolCommand,
    },
    /// List the certificates of a running acequia, order one by ACME, or make it read their files again.
    Cert {
        #[command(flatten)]
        remote: Remote,
        #[command(subcommand)]
        command: cert::CertCommand,
    },
    /// Make a running acequia reload its configuration.
    Reload {
        #[command(flatten)]
        remote: Remote,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages into a directory.
    #[command(hide = true)]
    Man {
        /// The directory.
        directory: PathBuf,
    },
    /// Hold the clones of a running acequia, which starts this command itself.
    #[command(hide = true)]
    Keeper,
    /// Serve clients of the demo, which starts this command itself.
    #[command(hide = true)]
    DemoServer {
        /// The port.
        port: u16,
    },
    /// Demonstrate load balancing on this machine, with servers of its own and commands to try.
    Demo {
        /// Generate no traffic: only your own clients are shown
        #[arg(long)]
        quiet: bool,
    },
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration [default: ./acequia.toml, then /etc/acequia/acequia.toml]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl Arguments {
    /// Runs the command; returns its exit code.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Run { config } => run::run(config.path.as_deref()),
            Command::Check {
                config,
                format,
                live,
                without_files,
            } => {
                let scope = match (without_files, live) {
                    (true, _) => check::CheckScope::WithoutFiles,
                    (_, true) => check::CheckScope::Live,
                    _ => check::CheckScope::Files,
                };
                check::run(config.path.as_deref(), format, scope)
            }
            Command::Route { config, args } => route::run(config.path.as_deref(), &args),
            Command::Init(args) => init::run(&args),
            Command::Import(args) => import::run(&args),
            Command::Status { remote } => status::status(&remote),
            Command::Servers { remote, pool } => status::servers(&remote, pool.as_deref()),
            Command::Sessions { remote, args } => sessions::run(&remote, &args),
            #[cfg(feature = "top")]
            Command::Top { remote } => top::run(&remote),
            Command::Server { remote, command } => server::run(&remote, &command),
            Command::Guard { remote, name, command } => match (command, name) {
                (Some(command), _) => guard::run(&remote, &command),
                // clap requires the name if there is no subcommand
                (None, name) => guard::show(&remote, &name.unwrap_or_default()),
            },
            Command::Pool { remote, command } => pool::run(&remote, &command),
            Command::Cert { remote, command } => cert::run(&remote, &command),
            Command::Reload { remote } => reload::run(&remote),
            Command::Completions { shell } => generate::completions(shell),
            Command::Man { directory } => generate::man(&directory),
            Command::Keeper => keeper(),
            Command::DemoServer { port } => demo::serve(port),
            Command::Demo { quiet } => demo::run(quiet),
        }
    }
}

fn keeper() -> ExitCode {
    match crate::scale::keeper::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acequia keeper: {}", crate::error::chain(&error));
            ExitCode::from(EXIT_RUN)
        }
    }
}
