//! Real databases: PostgreSQL and Redis.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use tempfile::TempDir;

use super::client::Client;
use super::eventually;
use super::process::{Port, Process, must};

/// A Redis server on a reserved port, which stays reserved when the server dies.
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

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the server again on the same port.
    pub fn restart(&mut self) {
        self.process = Self::run(&self.port);
    }

    /// A number from `INFO`.
    pub fn info(&self, key: &str) -> u64 {
        let answer = super::client::ask(self.address(), b"INFO\r\nQUIT\r\n");
        let text = String::from_utf8(answer).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {key} in {text}")).parse().unwrap()
    }
}

/// A PostgreSQL server that does not use fsync. It asks only the roles `checker` and `acequia` for passwords.
pub struct Postgres {
    port: Port,
    process: Process,
    directory: TempDir,
}

/// pg_hba.conf: `checker` and `acequia` need their passwords over TCP, but not over the Unix socket.
const HBA: &str = "local all all trust
host all checker,acequia 127.0.0.1/32 scram-sha-256
host all,replication all 127.0.0.1/32 trust
";

impl Drop for Postgres {
    /// Stops the server with SIGINT: a killed server would leave shared memory behind.
    fn drop(&mut self) {
        self.thaw();
        self.process.signal(Signal::INT);
        self.process.wait();
    }
}

impl Postgres {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with these settings, each `key=value`.
    pub fn start_with(settings: &[&str]) -> Self {
        Self::run(Self::initialized(), settings)
    }

    /// A directory with an empty database.
    fn initialized() -> TempDir {
        let directory = directory_of_postgres();
        let data = directory.path().join("data");
        must(
            as_postgres(&program("initdb"), directory.path())
                .args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"])
                .arg(&data),
        );
        std::fs::write(data.join("pg_hba.conf"), HBA).unwrap();
        directory
    }

    /// Starts a server with a self-signed certificate.
    pub fn start_with_tls() -> Self {
        let directory = Self::initialized();
        let made = rcgen::generate_simple_self_signed(["db.example".to_owned()]).unwrap();
        let certificate = Self::write_private(directory.path(), "server.crt", &made.cert.pem());
        let key = Self::write_private(directory.path(), "server.key", &made.signing_key.serialize_pem());
        let files = [("ssl_cert_file", certificate), ("ssl_key_file", key)];
        let files = files.map(|(setting, file)| format!("{setting}={}", file.display()));
        Self::run(directory, &["ssl=on", &files[0], &files[1]])
    }

    /// A streaming replica of another server.
    pub fn replica_of(primary: &Self) -> Self {
        let directory = directory_of_postgres();
        let mut command = as_postgres(&program("pg_basebackup"), directory.path());
        command
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-c",
                "fast",
                "-X",
                "stream",
                "-R",
                "--no-sync",
            ])
            .args(["-p", &primary.port.number().to_string(), "-D"])
            .arg(directory.path().join("data"));
        must(&mut command);
        Self::run(directory, &[])
    }

    fn run(directory: TempDir, settings: &[&str]) -> Self {
        let port = Port::keep();
        let process = Self::spawn(&directory, &port, settings);
        let ready = || super::process::finished(&mut psql(port.address, "SELECT 1")).code == Some(0);
        eventually("PostgreSQL answers", ready);
        Self {
            port,
            process,
            directory,
        }
    }

    /// Stops the server, which ends its sessions, and starts it again on the same port, as a standby with
    /// `hot_standby=off`. Until [`Self::finish_starting`] promotes it, it refuses every session with SQLSTATE 57P03, as
    /// any server does while it starts.
    pub fn restart_slowly(&mut self) {
        self.process.signal(Signal::INT);
        self.process.wait();
        Self::write_private(&self.directory.path().join("data"), "standby.signal", "");
        self.process = Self::spawn(&self.directory, &self.port, &["hot_standby=off"]);
        let refuses = || {
            let refused = super::process::finished(&mut psql(self.port.address, "SELECT 1"));
            refused
                .stderr
                .contains("the database system is not accepting connections")
        };
        eventually("PostgreSQL refuses sessions", refuses);
    }

    /// Lets the server accept sessions after [`Self::restart_slowly`].
    pub fn finish_starting(&self) {
        let mut promote = as_postgres(&program("pg_ctl"), self.directory());
        must(
            promote
                .args(["promote", "--no-wait", "-D"])
                .arg(self.directory().join("data")),
        );
    }

    fn spawn(directory: &TempDir, port: &Port, settings: &[&str]) -> Process {
        let mut command = as_postgres(&program("postgres"), directory.path());
        command
            .arg("-D")
            .arg(directory.path().join("data"))
            .arg("-k")
            .arg(directory.path())
            .args(["-p", &port.number().to_string()]);
        command.args(["-h", "127.0.0.1", "-c", "fsync=off"]);
        for setting in settings {
            command.args(["-c", setting]);
        }
        Process::start(&mut command)
    }

    /// How many of its sessions run `SELECT pg_sleep(600)`.
    pub fn sleepers(&self) -> usize {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'";
        must(&mut psql(self.address(), query)).trim().parse().unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Its log lines so far.
    pub fn log(&self) -> Vec<String> {
        self.process.stderr.lines()
    }

    /// Stops all its processes, as if the machine hung.
    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
        self.signal_children(Signal::STOP);
    }

    /// Continues what [`Self::freeze`] stopped.
    pub fn thaw(&self) {
        self.signal_children(Signal::CONT);
        self.process.signal(Signal::CONT);
    }

    /// Sets the server's soft limit of processes (RLIMIT_NPROC). While its user has that many processes, the server
    /// cannot start another. `None`: as many as the hard limit allows.
    pub fn limit_processes(&self, limit: Option<u64>) {
        let soft = limit.or(getrlimit(Resource::Nproc).maximum);
        let soft = soft.map_or_else(|| "unlimited".to_owned(), |processes| processes.to_string());
        // prlimit runs as the server's user: as another user it would need CAP_SYS_RESOURCE, which containers lack.
        let mut prlimit = as_postgres(Path::new("prlimit"), self.directory());
        must(prlimit.args([format!("--pid={}", self.process.pid()), format!("--nproc={soft}:")]));
    }

    /// Sends a signal to the server's child processes. It surely reaches all of them only while the server's main
    /// process is stopped, and so neither starts nor reaps children.
    fn signal_children(&self, signal: Signal) {
        let own = self.process.pid();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        for pid in pids.filter_map(Pid::from_raw) {
            let _ = kill_process(pid, signal); // it may be gone
        }
    }

    /// Writes a file that only the `postgres` user may read.
    pub fn write_private(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        must(Command::new("chown").arg("postgres").arg(&path));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

fn directory_of_postgres() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    must(Command::new("chown").arg("postgres").arg(directory.path()));
    directory
}

/// `psql` with one statement; prints only values.
pub fn psql(address: SocketAddr, statement: &str) -> Command {
    let mut command = client_program("psql", address);
    command.args(["-X", "-q", "-t", "-A", "-c", statement]);
    command
}

/// The result of a statement over direct TLS. Uses psycopg, because `psql` of Debian 12 does not support direct TLS.
/// `None`: psycopg is not installed; `scripts/test` installs it.
pub fn over_direct_tls(address: SocketAddr, name: &str, ca_file: &Path, statement: &str) -> Option<String> {
    const PYTHON: &str = "
import sys
sys.path.insert(0, sys.argv[1])
import psycopg
with psycopg.connect(sys.argv[2]) as client:
    print(client.execute(sys.argv[3]).fetchone()[0])
";
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/psycopg");
    if !directory.exists() {
        eprintln!("not checked: there is no {}", directory.display());
        return None;
    }
    let connection = format!(
        "host={name} hostaddr={} port={} user=postgres dbname=postgres sslnegotiation=direct sslmode=verify-full sslrootcert={}",
        address.ip(),
        address.port(),
        ca_file.display()
    );
    let mut command = Command::new("python3");
    command
        .args(["-c", PYTHON])
        .arg(directory)
        .args([&connection, statement]);
    Some(must(&mut command).trim_end().to_owned())
}

/// `pgbench` on the database `postgres`.
pub fn pgbench(address: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = client_program("pgbench", address);
    command.args(arguments).env("PGDATABASE", "postgres");
    command
}

/// A client program of PostgreSQL that connects to this address.
fn client_program(name: &str, address: SocketAddr) -> Command {
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

/// Runs a program as the system's user `postgres`: PostgreSQL refuses to run as root.
fn as_postgres(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program)
        .current_dir(directory);
    command
}

/// A program of the newest PostgreSQL installed.
fn program(name: &str) -> PathBuf {
    let versions = Path::new("/usr/lib/postgresql");
    let newest = versions
        .read_dir()
        .expect("PostgreSQL is installed")
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .max()
        .expect("a version of PostgreSQL is installed");
    versions.join(newest.to_string()).join("bin").join(name)
}
