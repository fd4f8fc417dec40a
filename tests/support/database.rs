//! Real databases: PostgreSQL and Redis.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::client::Client;
use super::eventually;
use super::process::{Port, Process, must};

/// A Redis server, on a port that stays its own when it dies.
pub struct Redis {
    port: Port,
    process: Process,
}

impl Redis {
    pub fn start() -> Self {
        let port = Port::keep();
        let process = Self::run(&port);
        Self { port, process }
    }

    fn run(port: &Port) -> Process {
        let number = port.number().to_string();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &number,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let process = Process::start(&mut command);
        eventually("redis answers", || Client::try_connect(port.address).is_ok());
        process
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// The same port again.
    pub fn restart(&mut self) {
        self.process = Self::run(&self.port);
    }

    /// A number of `INFO`.
    pub fn info(&self, key: &str) -> u64 {
        let answer = super::client::ask(self.address(), b"INFO\r\nQUIT\r\n");
        let text = String::from_utf8(answer).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {key} in {text}")).parse().unwrap()
    }
}

/// A PostgreSQL server of its own, trusting everybody, with nothing kept safe on disk.
pub struct Postgres {
    port: Port,
    // In this order: the process ends before its folder goes.
    _process: Process,
    _folder: TempDir,
}

impl Postgres {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let owner = ["chown", "postgres", folder.path().to_str().unwrap()];
        must(Command::new(owner[0]).args(&owner[1..]));
        let initdb = program("initdb");
        must(
            as_postgres(&initdb, folder.path())
                .args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"])
                .arg(&data),
        );
        let port = Port::keep();
        let mut command = as_postgres(&program("postgres"), folder.path());
        command
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-p", &port.number().to_string()]);
        command.args(["-h", "127.0.0.1", "-c", "fsync=off", "-c", "log_connections=off"]);
        let process = Process::start(&mut command);
        let ready = || super::process::finished(&mut psql(port.address, "SELECT 1")).code == Some(0);
        eventually("PostgreSQL answers", ready);
        Self {
            port,
            _process: process,
            _folder: folder,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address
    }
}

/// `psql` with one statement, its answer bare.
pub fn psql(address: SocketAddr, statement: &str) -> Command {
    let mut command = to_postgres("psql", address);
    command.args(["-X", "-q", "-t", "-A", "-c", statement]);
    command
}

/// `pgbench`, to the database `postgres`.
pub fn pgbench(address: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = to_postgres("pgbench", address);
    command.args(arguments).env("PGDATABASE", "postgres");
    command
}

fn to_postgres(name: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(program(name));
    command.args([
        "-h",
        &address.ip().to_string(),
        "-p",
        &address.port().to_string(),
        "-U",
        "postgres",
    ]);
    command
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program)
        .current_dir(folder);
    command
}

/// A program of the newest PostgreSQL installed.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let newest = versions
        .map(|entry| entry.unwrap().path())
        .max()
        .expect("a version of it");
    newest.join("bin").join(name)
}
