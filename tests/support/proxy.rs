//! The built acequia binary as a process.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::metrics::Metrics;
use super::process::{Finished, Lines, Process, finished};
use super::{PATIENCE, eventually, wait_for};

pub const BINARY: &str = env!("CARGO_BIN_EXE_acequia");

/// How to start a proxy. A TOML configuration without an `[admin]` section gets one; a JSON configuration is used as
/// is.
pub struct Setup {
    config: String,
    under: Vec<String>,
    unread: bool,
}

impl Setup {
    /// Starts it through a command that replaces itself by acequia (`prlimit`, `setpriv`, `ip netns exec …`).
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts it where the system has no certificate authorities.
    pub fn without_authorities(self) -> Self {
        self.under(&["env", "-u", "SSL_CERT_DIR", "SSL_CERT_FILE=/absent.pem"])
    }

    /// Leaves its standard output unread.
    pub fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// Starts it, and waits until it has logged its addresses.
    pub fn launch(self) -> Proxy {
        let (directory, mut command) = self.command();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take();
        let mut process = Process::adopt(child);
        let unread_stdout = if self.unread {
            stdout
        } else {
            process.stdout = Lines::read(stdout);
            None
        };
        let mut proxy = Proxy {
            process,
            unread_stdout,
            directory,
            listeners: Vec::new(),
            admin: None,
        };
        proxy.read_addresses();
        proxy
    }

    /// Starts it, and waits until it is ready: every server has had its first check.
    pub fn start(self) -> Proxy {
        let proxy = self.launch();
        eventually("acequia is ready", || proxy.get("/ready").0 == 200);
        proxy
    }

    fn command(&self) -> (TempDir, Command) {
        let file = if self.config.starts_with('{') {
            "acequia.json"
        } else {
            "acequia.toml"
        };
        let directory = config_directory(file, &self.config);
        let mut words = self.under.iter().map(String::as_str).chain([BINARY]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["run", "-c"])
            .arg(directory.path().join(file))
            .env("XDG_RUNTIME_DIR", directory.path())
            .current_dir(directory.path());
        (directory, command)
    }
}

/// A directory with this configuration, readable by other users. `[admin]` is added as for [`Setup`].
pub fn config_directory(name: &str, text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    std::fs::write(directory.path().join(name), with_admin(name, text)).unwrap();
    directory
}

fn with_admin(name: &str, text: &str) -> String {
    let admin = if name.ends_with(".json") || text.contains("[admin]") {
        ""
    } else {
        "\n[admin]\nbind = \"127.0.0.1:0\"\n"
    };
    format!("{text}{admin}")
}

thread_local! {
    /// Where commands from [`acequia`] look for the default admin socket. Each test has its own, because it runs on a
    /// thread of its own.
    static RUNTIME_DIR: TempDir = tempfile::tempdir().unwrap();
}

/// The command `acequia` with these arguments.
pub fn acequia(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    RUNTIME_DIR.with(|directory| command.args(arguments).env("XDG_RUNTIME_DIR", directory.path()));
    command
}

/// Runs `acequia check` with this configuration.
pub fn check(config: &str) -> Finished {
    let directory = config_directory("acequia.toml", config);
    finished(acequia(&["check", "-c", "acequia.toml"]).current_dir(directory.path()))
}

/// The exit code and the standard error of [`check`].
pub fn checked(config: &str) -> (Option<i32>, String) {
    let done = check(config);
    (done.code, done.stderr)
}

/// A running acequia. Dropping it kills it.
pub struct Proxy {
    process: Process,
    /// Its standard output while nobody reads it.
    unread_stdout: Option<ChildStdout>,
    directory: TempDir,
    listeners: Vec<(String, SocketAddr)>,
    admin: Option<SocketAddr>,
}

/// Exit code and logs of a proxy that has ended.
#[derive(Debug)]
pub struct Stopped {
    pub code: Option<i32>,
    pub access: Vec<Value>,
    pub log: Vec<Value>,
}

impl Proxy {
    pub fn setup(config: &str) -> Setup {
        Setup {
            config: config.to_owned(),
            under: Vec::new(),
            unread: false,
        }
    }

    /// Starts one and waits until it is ready.
    pub fn start(config: &str) -> Self {
        Self::setup(config).start()
    }

    fn read_addresses(&mut self) {
        // The address of the admin port is logged last.
        eventually("acequia logs its addresses", || {
            let has_ended = self.process.stderr.has_ended(); // read first: if true, the log below is complete
            let is_logged = self.log().iter().any(|line| has_message(line, "admin port"));
            assert!(
                is_logged || !has_ended,
                "expected acequia to start, but it has ended: {:#?}",
                self.process.stderr.lines()
            );
            is_logged
        });
        for line in self.log() {
            let address = || without_interface(&field(&line, "address")).parse().unwrap();
            if has_message(&line, "listening") && field(&line, "address").starts_with("unix:") {
                continue; // the test has chosen the path
            } else if has_message(&line, "listening") {
                self.listeners.push((field(&line, "listener"), address()));
            } else if has_message(&line, "admin port") {
                self.admin = Some(address());
            }
        }
    }

    /// The first address of a listener.
    pub fn at(&self, listener: &str) -> SocketAddr {
        *self
            .addresses(listener)
            .first()
            .unwrap_or_else(|| panic!("no listener {listener}"))
    }

    pub fn addresses(&self, listener: &str) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter(|(name, _)| name == listener)
            .map(|(_, address)| *address)
            .collect()
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("the harness configures an admin port")
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The directory of its configuration, and its working directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts to read its standard output.
    pub fn read_stdout(&mut self) {
        self.process.stdout = Lines::read(self.unread_stdout.take());
    }

    /// Closes the reading end of its standard output.
    pub fn close_stdout(&mut self) {
        self.unread_stdout = None;
    }

    /// Its diagnostic log so far; a line that is not JSON becomes a JSON string.
    pub fn log(&self) -> Vec<Value> {
        parsed(&self.process.stderr)
    }

    /// Its access log so far, if that goes to standard output.
    pub fn access(&self) -> Vec<Value> {
        parsed(&self.process.stdout)
    }

    /// The access log, once it has at least this many lines, sorted by session number. Each worker queues the lines of
    /// its own sessions, so that lines of two workers may come in either order.
    pub fn access_lines(&self, wanted: usize) -> Vec<Value> {
        let mut lines = wait_for("the access log is written", || {
            Some(self.access()).filter(|lines| lines.len() >= wanted)
        });
        lines.sort_by_key(|line| line["session"].as_u64());
        lines
    }

    /// Waits for a line of the access log.
    pub fn wait_for_access(&self, what: &str, is_wanted: impl Fn(&Value) -> bool) {
        eventually(what, || self.access().iter().any(&is_wanted));
    }

    /// The access log, which must have exactly one line.
    pub fn access_line(&self) -> Value {
        let mut lines = self.access_lines(1);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        lines.remove(0)
    }

    /// `GET` on the admin port: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let (head, body) = http_get(self.admin(), path).expect("the admin port answers");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// Replaces its configuration file, by a rename, without reloading it.
    pub fn rewrite(&self, toml: &str) {
        let next = self.directory().join("next.toml");
        std::fs::write(&next, with_admin("acequia.toml", toml)).unwrap();
        std::fs::rename(next, self.directory().join("acequia.toml")).unwrap();
    }

    /// Replaces its configuration and reloads it by SIGHUP; returns whether the reload was accepted.
    pub fn reload(&self, toml: &str) -> bool {
        self.rewrite(toml);
        let before = self.reloads();
        self.signal(Signal::HUP);
        let (accepted, _) = wait_for("the reload is counted", || {
            Some(self.reloads()).filter(|after| *after != before)
        });
        accepted > before.0
    }

    /// The numbers of accepted and of rejected reloads.
    pub fn reloads(&self) -> (f64, f64) {
        let metrics = self.metrics();
        let reloads = |result| metrics.sum("acequia_config_reloads_total", &[("result", result)]);
        (reloads("ok"), reloads("error"))
    }

    /// Runs an `acequia` command against this process, to its end.
    pub fn command(&self, arguments: &[&str]) -> Finished {
        finished(
            acequia(arguments)
                .env("XDG_RUNTIME_DIR", self.directory())
                .current_dir(self.directory()),
        )
    }

    /// Runs a command that must succeed, with `--json`; returns its answer.
    pub fn answer(&self, arguments: &[&str]) -> Value {
        let done = self.command(&[arguments, &["--json"]].concat());
        assert_eq!(done.code, Some(0), "{arguments:?}: {done:#?}");
        serde_json::from_str(&done.stdout).unwrap()
    }

    /// A server's state as `acequia servers` shows it.
    pub fn server(&self, pool: &str, name: &str) -> Value {
        let state = self.answer(&["servers"]);
        let find = |list: &Value, name: &str| {
            let found = list.as_array().unwrap().iter().find(|entry| entry["name"] == name);
            found.unwrap_or_else(|| panic!("no {name} in {list}")).clone()
        };
        find(&find(&state["pools"], pool)["servers"], name)
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics").1)
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Sends SIGTERM and waits for its end.
    pub fn stop(self) -> Stopped {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Stopped {
        let code = self.process.wait().code();
        Stopped {
            code,
            access: self.access(),
            log: self.log(),
        }
    }
}

fn parsed(lines: &Lines) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.clone()));
    lines.lines().iter().map(parse).collect()
}

/// Whether a line of the diagnostic log, in either format, has this message.
fn has_message(line: &Value, message: &str) -> bool {
    match line {
        Value::String(text) => text.contains(&format!(" {message} ")),
        line => line["message"] == message,
    }
}

/// A field of a line of the diagnostic log, in either format.
fn field(line: &Value, key: &str) -> String {
    let in_text = |text: &String| {
        text.split(' ')
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .unwrap()
            .to_owned()
    };
    match line {
        Value::String(text) => in_text(text),
        line => line[key].as_str().unwrap().to_owned(),
    }
}

/// `[fe80::1%eth0]:80` without its scope: the name of an interface is known only in the network namespace of the
/// interface, which may not be that of the test.
fn without_interface(address: &str) -> String {
    match (address.split_once('%'), address.split_once(']')) {
        (Some((ip, _)), Some((_, port))) => format!("{ip}]{port}"),
        _ => address.to_owned(),
    }
}

/// Sends a GET request; returns head and body of the answer.
pub fn http_get(address: SocketAddr, path: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((head.to_owned(), body.to_owned()))
}
