//! `acequia demo`: runs the load balancer with servers of its own on loopback, and prints commands to try. It needs no
//! file and no other server.

mod echo;
mod tls;
mod servers;
mod configuration;
mod instructions;
mod screen;
mod traffic;

use std::fs;
use std::io::{self, IsTerminal};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::exit::EXIT_RUN;
use super::run::start_log;
use super::terminal::print_message;
use crate::app::{self, ConfigSource, Failure, Running};
use crate::config;
use crate::error::chain;
use configuration::{CERTIFICATE_FILE, ListenerAddresses};
use screen::Screen;
use servers::{DemoServers, ServerAddresses};

/// Runs the demo until a signal ends it; `quiet`: without demo traffic.
#[must_use]
pub fn run(quiet: bool) -> ExitCode {
    match run_demo(quiet) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_message("error", &chain(&error));
            ExitCode::from(EXIT_RUN)
        }
    }
}

/// Runs one clone of the pool `app`, an echo server on this port, until a signal ends it or it cannot accept a client.
#[must_use]
pub fn serve(port: u16) -> ExitCode {
    let name = std::env::var("ACEQUIA_CLONE").unwrap_or_default();
    let served = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| {
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
                echo::serve(listener, name.into()).await;
                Ok(())
            })
        });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_message("error", &chain(&error));
            ExitCode::from(EXIT_RUN)
        }
    }
}

fn run_demo(quiet: bool) -> Result<(), Failure> {
    let failed = |cause| Failure::System {
        what: "cannot run the demo",
        cause,
    };
    let (announce, running) = oneshot::channel();
    let ended = CancellationToken::new();
    let demo = Demo::bind(running, ended.clone(), quiet).map_err(failed)?;
    let plan = config::read("demo.toml", &demo.configuration(&ListenerAddresses::REQUESTED))
        .expect("a test checks this configuration")
        .plan;
    let (_flushes_on_drop, _) = start_log(&plan.log);
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let thread = thread::Builder::new().name("demo".to_owned());
    let thread = thread.spawn(move || runtime.block_on(demo.run())).map_err(failed)?;
    // Sending fails only if the demo's thread has ended, whose error is returned below.
    let result = app::run(plan, ConfigSource::default(), |running| {
        drop(announce.send(running.clone()))
    });
    ended.cancel();
    let demo_result = thread.join().expect("the demo's thread does not panic");
    result.and(demo_result.map_err(failed))
}

/// Everything in the demo but the load balancer: the servers, the traffic and the output.
struct Demo {
    servers: DemoServers,
    addresses: ServerAddresses,
    /// For the configuration, the access log, the Unix socket and the certificate; removed on drop.
    directory: TempDir,
    /// Receives the load balancer's addresses and what is in force, once it accepts clients.
    running: oneshot::Receiver<Running>,
    /// Cancelled when the load balancer has ended.
    ended: CancellationToken,
    /// Whether the demo makes no traffic of its own.
    is_quiet: bool,
}

impl Demo {
    fn bind(running: oneshot::Receiver<Running>, ended: CancellationToken, is_quiet: bool) -> io::Result<Self> {
        let (servers, addresses) = DemoServers::bind()?;
        let directory = tempfile::Builder::new()
            .prefix("acequia-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()?;
        tls::write_certificate(&directory.path().join(CERTIFICATE_FILE), "edge.demo.test")?;
        Ok(Self {
            servers,
            addresses,
            directory,
            running,
            ended,
            is_quiet,
        })
    }

    fn configuration(&self, listeners: &ListenerAddresses) -> String {
        configuration::text(listeners, &self.addresses, self.directory.path())
    }

    /// Serves and prints until the load balancer has ended. If the terminal closes or the output fails, sends
    /// SIGINT to this process, so that the load balancer ends, too.
    async fn run(mut self) -> io::Result<()> {
        let Ok(running) = (&mut self.running).await else {
            return Ok(()); // the load balancer could not start, and reports why
        };
        let ended = self.ended.clone();
        let mut hang_up = signal(SignalKind::hangup())?;
        let result = select! {
            result = self.serve_and_print(running) => result,
            _ = hang_up.recv() => Ok(()),
        };
        if !ended.is_cancelled() {
            kill_process(getpid(), Signal::INT)?;
        }
        result.or_else(|error| match Errno::from_io_error(&error) {
            Some(Errno::PIPE | Errno::IO) => Ok(()), // the reader or the terminal has gone
            _ => Err(error),
        })
    }

    async fn serve_and_print(self, running: Running) -> io::Result<()> {
        let listeners = ListenerAddresses::new(&running);
        let path = self.directory.path().join("demo.toml");
        fs::write(path, self.configuration(&listeners))?;
        let instructions = instructions::text(&listeners, &self.addresses, self.directory.path());
        self.servers.spawn()?;
        if !self.is_quiet {
            tokio::spawn(traffic::run(listeners)); // ends with this runtime
        }
        let in_force = running.live.in_force();
        let servers = in_force.pools.iter().flat_map(|pool| pool.servers().to_vec());
        let growing = in_force.pool("app").expect("the configuration has it");
        let out = io::stdout();
        Screen::new(out.is_terminal(), out, servers.collect(), Arc::clone(growing.scale()))
            .run(&instructions, &self.ended)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Demo {
        Demo::bind(oneshot::channel().1, CancellationToken::new(), true).unwrap()
    }

    #[test]
    fn the_configuration_has_neither_errors_nor_warnings() {
        let loaded = config::read("demo.toml", &demo().configuration(&ListenerAddresses::REQUESTED))
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }

    #[test]
    fn the_instructions_fit_80_columns() {
        let demo = demo();
        let widest = "127.0.0.1:65535".parse().unwrap();
        let listeners = ListenerAddresses {
            admin: widest,
            tls: widest,
            tcp: widest,
            edge: widest,
            http: widest,
            app: widest,
        };
        let text = instructions::text(&listeners, &demo.addresses, "/tmp/acequia-AbCdEf".as_ref());
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
