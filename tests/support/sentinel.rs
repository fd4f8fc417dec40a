//! Redis with replicas and Sentinels.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::client::Client;
use super::eventually;
use super::process::{Port, Process};

/// A Redis server or Sentinel with a directory of its own.
pub struct RedisNode {
    port: Port,
    process: Process,
    directory: TempDir,
}

impl RedisNode {
    /// A server with these settings besides the usual ones, each a line of its configuration.
    pub fn start(settings: &[&str]) -> Self {
        let port = Port::keep();
        let usual = [
            "save \"\"",
            "appendonly no",
            "repl-diskless-sync-delay 0",
            "repl-ping-replica-period 1",
        ];
        Self::run(port, &[&usual[..], settings].concat(), &[])
    }

    /// A server that speaks only TLS.
    pub fn start_tls(certificate: &Path, key: &Path) -> Self {
        let port = Port::keep();
        let settings = [
            format!("tls-port {}", port.number()),
            format!("tls-cert-file {}", certificate.display()),
            format!("tls-key-file {}", key.display()),
            "tls-auth-clients no".to_owned(),
            "port 0".to_owned(),
        ];
        Self::run(port, &settings.each_ref().map(String::as_str), &[])
    }

    /// A replica of another server.
    pub fn replica_of(primary: &Self, settings: &[&str]) -> Self {
        let replicaof = format!("replicaof 127.0.0.1 {}", primary.port.number());
        let settings = [&[replicaof.as_str()][..], settings].concat();
        let replica = Self::start(&settings);
        eventually("the replica is in sync", || {
            replica.ask("INFO replication").contains("master_link_status:up")
        });
        replica
    }

    /// A Sentinel that watches this server under the name `orders`. Its quorum is 1: it needs no other Sentinel.
    pub fn sentinel_of(primary: &Self) -> Self {
        Self::sentinel(primary, 0, 500)
    }

    /// A Sentinel that watches this server under the name `orders`, with the epoch of an earlier failover. It begins
    /// no failover by itself, because it considers a server down only after a minute.
    pub fn sentinel_in_epoch(primary: &Self, epoch: u32) -> Self {
        Self::sentinel(primary, epoch, 60_000)
    }

    fn sentinel(primary: &Self, epoch: u32, down_after_ms: u32) -> Self {
        let port = Port::keep();
        let monitor = format!("sentinel monitor orders 127.0.0.1 {} 1", primary.port.number());
        let lines = [
            format!("sentinel config-epoch orders {epoch}"),
            format!("sentinel current-epoch {epoch}"),
            format!("sentinel down-after-milliseconds orders {down_after_ms}"),
        ];
        let settings = [
            monitor.as_str(),
            &lines[0],
            &lines[1],
            &lines[2],
            "sentinel failover-timeout orders 3000",
        ];
        Self::run(port, &settings, &["--sentinel"])
    }

    fn run(port: Port, settings: &[&str], arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("redis.conf");
        let own = [
            format!("port {}", port.number()),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", directory.path().display()),
        ];
        let lines: Vec<&str> = own.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        std::fs::write(&file, lines.join("\n")).unwrap();
        let process = Process::start(Command::new("redis-server").arg(&file).args(arguments));
        eventually("Redis listens", || Client::try_connect(port.address).is_ok());
        Self {
            port,
            process,
            directory,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// The answer to a command, as the raw text of RESP.
    pub fn ask(&self, command: &str) -> String {
        redis_answer(self.address(), command).unwrap()
    }

    /// Suspends the process, as if the machine hung.
    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Its log lines so far.
    pub fn log(&self) -> Vec<String> {
        self.process.stdout.lines()
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until this Sentinel knows one replica of `orders`.
    pub fn wait_for_replica(&self) {
        eventually("Sentinel knows a replica", || {
            self.ask("SENTINEL MASTER orders").contains("num-slaves\r\n$1\r\n1")
        });
    }

    /// Requests a failover of `orders` until this Sentinel begins it. At first it may know no suitable replica.
    pub fn fail_over(&self) {
        eventually("Sentinel begins a failover", || {
            self.ask("SENTINEL FAILOVER orders") == "+OK\r\n"
        });
    }
}

/// The answer of a server to one inline command, on a new connection; `Err`: the connection failed.
pub fn redis_answer(address: SocketAddr, command: &str) -> std::io::Result<String> {
    let mut client = Client::try_connect(address)?;
    client.0.write_all(format!("{command}\r\n").as_bytes())?;
    // Makes Redis close the connection, after it has answered. Sentinels have no QUIT.
    client.0.shutdown(Shutdown::Write)?;
    let answer = client.try_read_all()?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
