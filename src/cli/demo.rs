//! `acequia demo`: balances servers of its own on loopback, and says what to try with them. It needs no file and no
//! other server.

mod configuration;
mod echo;
mod playbill;
mod screen;
mod tls;

use std::fs;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::thread;

use rustix::process::{Signal, getpid, kill_process};
use tempfile::TempDir;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::EXIT_RUN;
use super::run::start_log;
use crate::app::{self, ConfigSource, Failure, Running};
use crate::config;
use screen::Screen;

/// Shows balancing, until a signal ends it.
#[must_use]
pub fn run() -> ExitCode {
    match demonstrate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_RUN)
        }
    }
}

fn demonstrate() -> Result<(), Failure> {
    let failed = |cause| Failure::System {
        what: "cannot show the demo",
        cause,
    };
    let (announce, announced) = oneshot::channel();
    let over = CancellationToken::new();
    let stage = Stage::set(announced, over.clone()).map_err(failed)?;
    let plan = config::read("demo.toml", &stage.configuration(&Gates::ANY))
        .expect("a test reads this text")
        .plan;
    let (_written_before_the_end, _) = start_log(&plan.log);
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let beside = thread::Builder::new().name("demo".to_owned());
    let beside = beside.spawn(move || runtime.block_on(stage.play())).map_err(failed)?;
    let balanced = app::run(plan, ConfigSource::default(), |running| {
        drop(announce.send(running.clone()))
    }); // gone only when it has failed
    over.cancel();
    let played = beside.join().expect("nothing on the stage panics");
    balanced.and(played.map_err(failed))
}

/// What there is beside the balancer: its servers, and what is shown of it.
struct Stage {
    servers: Servers,
    cast: Cast,
    /// For the configuration and the access log; gone when the demo is over.
    folder: TempDir,
    /// Tells where the balancer lets clients in, as soon as it does.
    announced: oneshot::Receiver<Running>,
    over: CancellationToken,
}

impl Stage {
    fn set(announced: oneshot::Receiver<Running>, over: CancellationToken) -> io::Result<Self> {
        let (servers, cast) = Servers::bind()?;
        Ok(Self {
            servers,
            cast,
            folder: tempfile::Builder::new()
                .prefix("acequia-")
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir()?,
            announced,
            over,
        })
    }

    fn configuration(&self, gates: &Gates) -> String {
        configuration::text(gates, &self.cast, self.folder.path())
    }

    /// Plays until it is over. When nobody can be shown anything any more, it ends the process itself.
    async fn play(mut self) -> io::Result<()> {
        let Ok(running) = (&mut self.announced).await else {
            return Ok(()); // the balancer could not begin, and says why
        };
        let over = self.over.clone();
        let shown = self.show(running).await;
        if !over.is_cancelled() {
            kill_process(getpid(), Signal::INT)?;
        }
        shown.or_else(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Ok(()), // the reader has seen enough
            _ => Err(error),
        })
    }

    async fn show(self, running: Running) -> io::Result<()> {
        let gates = Gates::of(&running);
        let path = self.folder.path().join("demo.toml");
        fs::write(path, self.configuration(&gates))?;
        let playbill = playbill::text(&gates, &self.cast, self.folder.path());
        self.servers.serve()?;
        let in_force = running.live.in_force();
        let servers = in_force.pools.iter().flat_map(|pool| pool.servers().to_vec());
        let out = io::stdout();
        Screen::new(out.is_terminal(), out, servers.collect())
            .show(&playbill, &self.over)
            .await
    }
}

/// The servers for TLS: what they are called, and the name in their certificates.
const TLS: [(&str, &str); 3] = [("a", "a.demo.test"), ("b", "*.b.demo.test"), ("c", "c.demo.test")];

/// The servers that send back what they get.
const ECHO: [&str; 3] = ["one", "two", "three"];

/// For open sessions to end in when the demo does.
const DRAIN_SECONDS: u32 = 10;

/// The demo's own servers, in the order of [`TLS`] and [`ECHO`].
struct Servers {
    tls: [TcpListener; 3],
    echo: [TcpListener; 3],
}

/// Where they are.
struct Cast {
    tls: [SocketAddr; 3],
    echo: [SocketAddr; 3],
}

/// Any free port of loopback.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Servers {
    fn bind() -> io::Result<(Self, Cast)> {
        let bind = || {
            let socket = TcpListener::bind(ANY)?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        let servers = Self {
            tls: [bind()?, bind()?, bind()?],
            echo: [bind()?, bind()?, bind()?],
        };
        let [a, b, c] = &servers.tls;
        let [one, two, three] = &servers.echo;
        let cast = Cast {
            tls: [a.local_addr()?, b.local_addr()?, c.local_addr()?],
            echo: [one.local_addr()?, two.local_addr()?, three.local_addr()?],
        };
        Ok((servers, cast))
    }

    /// Serves on the runtime this is called in, for as long as that lives.
    fn serve(self) -> io::Result<()> {
        for (socket, (name, certified)) in self.tls.into_iter().zip(TLS) {
            tokio::spawn(tls::serve(socket.try_into()?, name, tls::acceptor(name, certified)?));
        }
        for (socket, name) in self.echo.into_iter().zip(ECHO) {
            tokio::spawn(echo::serve(socket.try_into()?, name));
        }
        Ok(())
    }
}

/// Where the balancer is met.
struct Gates {
    admin: SocketAddr,
    tls: SocketAddr,
    tcp: SocketAddr,
}

impl Gates {
    /// What is asked for.
    const ANY: Self = Self {
        admin: ANY,
        tls: ANY,
        tcp: ANY,
    };

    /// What was got.
    fn of(running: &Running) -> Self {
        let in_force = running.live.in_force();
        let first = |name: &str| {
            let listener = in_force.listeners().find(|(listener, _)| *listener.name == *name);
            listener.map_or(ANY, |(_, addresses)| addresses[0].socket())
        };
        Self {
            admin: running.admin.map_or(ANY, |admin| admin.socket()),
            tls: first("tls"),
            tcp: first("tcp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> Stage {
        Stage::set(oneshot::channel().1, CancellationToken::new()).unwrap()
    }

    #[test]
    fn the_configuration_has_neither_mistake_nor_warning() {
        let loaded = config::read("demo.toml", &stage().configuration(&Gates::ANY)).unwrap_or_else(|e| panic!("{e}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }

    #[test]
    fn what_is_told_fits_a_terminal() {
        let stage = stage();
        let widest = "127.0.0.1:65535".parse().unwrap();
        let gates = Gates {
            admin: widest,
            tls: widest,
            tcp: widest,
        };
        let text = playbill::text(&gates, &stage.cast, "/tmp/acequia-AbCdEf".as_ref());
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
