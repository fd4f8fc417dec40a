//! A real etcd, and its command-line client `etcdctl`.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::authority::Authority;
use super::eventually;
use super::process::{Finished, Port, Process, finished};

/// An etcd with a directory and ports of its own.
pub struct Etcd {
    directory: TempDir,
    client_port: Port,
    peer_port: Port,
    process: Option<Process>,
    /// The directory of [`TlsFiles`], if this etcd speaks TLS.
    tls: Option<PathBuf>,
    /// The password of the user `root`, once logins are needed.
    password: RefCell<Option<String>>,
}

/// A directory with the certificates of etcd (`server`), of its clients (`client`) and of their authority (`ca`).
pub struct TlsFiles(TempDir);

impl TlsFiles {
    pub fn new(authority: &Authority) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        authority
            .issue(&["localhost", "127.0.0.1"])
            .write(files.0.path(), "server");
        // Once logins are needed, etcd's JSON gateway refuses client certificates with a common name.
        authority
            .issue_without_common_name("client")
            .write(files.0.path(), "client");
        fs::write(files.at("ca.pem"), authority.certificate()).unwrap();
        files
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A key with its value and its lease.
pub struct Entry {
    pub key: String,
    pub value: String,
    /// In hexadecimal digits, as `etcdctl` takes it; `0`: none.
    pub lease: String,
}

impl Etcd {
    pub fn start() -> Self {
        Self::start_as(None)
    }

    /// An etcd that lets in only clients that use TLS and have a certificate of the authority.
    pub fn start_with_tls(files: &TlsFiles) -> Self {
        Self::start_as(Some(files.0.path().to_owned()))
    }

    fn start_as(tls: Option<PathBuf>) -> Self {
        let mut etcd = Self {
            directory: tempfile::tempdir().unwrap(),
            client_port: Port::keep(),
            peer_port: Port::keep(),
            process: None,
            tls,
            password: RefCell::default(),
        };
        etcd.begin();
        etcd
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port.number())
    }

    /// The directory of its data and of the files of a test.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the process: the first time with no data, later with the data that it left.
    pub fn begin(&mut self) {
        let peer = format!("http://127.0.0.1:{}", self.peer_port.number());
        let url = self.url();
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.directory.path().join("data"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--enable-v2=false"]);
        if let Some(tls) = &self.tls {
            command.arg("--client-cert-auth");
            command.arg("--trusted-ca-file").arg(tls.join("ca.pem"));
            command.arg("--cert-file").arg(tls.join("server.pem"));
            command.arg("--key-file").arg(tls.join("server.key"));
        }
        self.process = Some(Process::start(
            command.env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH),
        ));
        eventually("etcd answers", || self.try_ctl(&["get", "a"]).code == Some(0));
    }

    /// Kills the process; its data stays.
    pub fn stop(&mut self) {
        self.process.take().unwrap().kill();
    }

    fn try_ctl(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url()]);
        if let Some(tls) = &self.tls {
            command.arg("--cacert").arg(tls.join("ca.pem"));
            command.arg("--cert").arg(tls.join("client.pem"));
            command.arg("--key").arg(tls.join("client.key"));
        }
        if let Some(password) = &*self.password.borrow() {
            command.args(["--user", &format!("root:{password}")]);
        }
        finished(command.args(["--write-out", "json"]).args(arguments))
    }

    /// Runs an `etcdctl` command that must succeed; returns its answer.
    pub fn ctl(&self, arguments: &[&str]) -> Value {
        let done = self.try_ctl(arguments);
        assert_eq!(done.code, Some(0), "{arguments:?}: {done:#?}");
        serde_json::from_str(&done.stdout).unwrap_or_default()
    }

    /// Puts a key; returns its revision.
    pub fn put(&self, key: &str, value: &str) -> i64 {
        self.ctl(&["put", "--", key, value])["header"]["revision"]
            .as_i64()
            .unwrap()
    }

    pub fn delete(&self, key: &str) {
        self.ctl(&["del", key]);
    }

    /// The keys with this prefix.
    pub fn get(&self, prefix: &str) -> Vec<Entry> {
        let answer = self.ctl(&["get", "--prefix", prefix]);
        let kvs = answer["kvs"].as_array().cloned().unwrap_or_default();
        let entry = |kv: Value| Entry {
            key: from_base64(&kv["key"]),
            value: from_base64(&kv["value"]),
            lease: format!("{:x}", kv["lease"].as_i64().unwrap_or(0)),
        };
        kvs.into_iter().map(entry).collect()
    }

    /// Discards the history before this revision; the current values stay.
    pub fn compact(&self, revision: i64) {
        self.ctl(&["compaction", &revision.to_string()]);
    }

    /// From now on only the user `root` with this password is let in.
    pub fn enable_login(&self, password: &str) {
        self.ctl(&["user", "add", &format!("root:{password}")]);
        self.ctl(&["role", "add", "root"]);
        self.ctl(&["user", "grant-role", "root", "root"]);
        self.ctl(&["auth", "enable"]);
        self.password.replace(Some(password.to_owned()));
    }
}

fn from_base64(value: &Value) -> String {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default());
    String::from_utf8(bytes.unwrap()).unwrap()
}
