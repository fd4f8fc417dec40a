//! Pebble, the ACME server for tests, with a name server that resolves every name to 127.0.0.1.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::authority::{Authority, replace};
use super::eventually;
use super::process::{Port, Process};
use super::tls_client::TlsSetup;

/// How Pebble validates names, issues certificates and admits accounts.
pub struct PebbleSetup {
    tls_port: u16,
    http_port: u16,
    validity_seconds: Option<u64>,
    external_keys: Vec<(&'static str, &'static str)>,
}

/// A running Pebble. Dropping it kills it. It keeps its accounts and orders only in memory.
pub struct Pebble {
    authority: Authority,
    files: TempDir,
    process: Option<Process>,
    name_server: Option<Process>,
    directory_port: u16,
    management_port: u16,
    dns_port: u16,
    _ports: Vec<Port>,
}

impl PebbleSetup {
    /// Names are validated at these ports.
    pub fn new(tls_port: u16, http_port: u16) -> Self {
        Self {
            tls_port,
            http_port,
            validity_seconds: None,
            external_keys: Vec::new(),
        }
    }

    /// The certificates that it issues expire after this many seconds.
    pub fn valid_for_seconds(mut self, seconds: u64) -> Self {
        self.validity_seconds = Some(seconds);
        self
    }

    /// Accounts must be bound to this external account, or to another one that is added in the same way.
    pub fn with_external_key(mut self, id: &'static str, key: &'static str) -> Self {
        self.external_keys.push((id, key));
        self
    }

    /// Starts it, with its name server.
    pub fn start(self) -> Pebble {
        let mut pebble = self.start_without_name_server();
        pebble.start_name_server();
        pebble
    }

    /// Starts it. It cannot resolve names until [`Pebble::start_name_server`].
    pub fn start_without_name_server(self) -> Pebble {
        let (authority, files) = (Authority::new("authority of pebble"), tempfile::tempdir().unwrap());
        authority
            .issue(&["localhost", "127.0.0.1"])
            .write(files.path(), "pebble");
        replace(&files.path().join("ca.pem"), &authority.certificate());
        let ports: Vec<_> = (0..3).map(|_| Port::keep()).collect();
        let [directory_port, management_port, dns_port] = [0, 1, 2].map(|index: usize| ports[index].number());
        let mut config = json!({
            "listenAddress": format!("127.0.0.1:{directory_port}"),
            "managementListenAddress": format!("127.0.0.1:{management_port}"),
            "certificate": "pebble.pem",
            "privateKey": "pebble.key",
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": !self.external_keys.is_empty(),
            "externalAccountMACKeys": self.external_keys.into_iter().collect::<std::collections::HashMap<_, _>>(),
        });
        if let Some(seconds) = self.validity_seconds {
            config["certificateValidityPeriod"] = seconds.into();
        }
        replace(
            &files.path().join("pebble.json"),
            &json!({ "pebble": config }).to_string(),
        );
        let mut pebble = Pebble {
            authority,
            files,
            process: None,
            name_server: None,
            directory_port,
            management_port,
            dns_port,
            _ports: ports,
        };
        pebble.start();
        pebble
    }
}

impl Pebble {
    /// Starts the process. After [`Self::stop`], its earlier accounts are gone.
    pub fn start(&mut self) {
        let mut command = Command::new("pebble");
        command
            .args(["-config", "pebble.json", "-dnsserver"])
            .arg(format!("127.0.0.1:{}", self.dns_port))
            .env("PEBBLE_VA_NOSLEEP", "1")
            .current_dir(self.files.path());
        self.process = Some(Process::start(&mut command));
        for port in [self.management_port, self.directory_port] {
            eventually("pebble listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
    }

    pub fn stop(&mut self) {
        self.process = None;
    }

    /// It answers nothing until [`Self::resume`].
    pub fn pause(&self) {
        self.process.as_ref().unwrap().signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.process.as_ref().unwrap().signal(Signal::CONT);
    }

    pub fn start_name_server(&mut self) {
        let port = self.dns_port;
        let mut command = Command::new("pebble-challtestsrv");
        command
            .args(["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-management", "127.0.0.1:0", "-dns01", &format!("127.0.0.1:{port}")]);
        self.name_server = Some(Process::start(&mut command));
        eventually("the name server listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    /// How many certificates the process has issued.
    pub fn issued(&self) -> usize {
        let lines = self.process.as_ref().unwrap().stdout.lines();
        lines.iter().filter(|line| line.contains("Issued certificate")).count()
    }

    /// The address of its directory.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.directory_port).into()
    }

    /// The authority of its own certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The lines `directory` and `ca_file` of a configuration's `[acme.NAME]`.
    pub fn config_lines(&self) -> String {
        let ca_file = self.files.path().join("ca.pem");
        format!(
            "directory = \"https://localhost:{}/dir\"\nca_file = {ca_file:?}\n",
            self.directory_port
        )
    }

    /// A client that trusts the certificates that Pebble issues.
    pub fn client(&self) -> TlsSetup {
        let management = ([127, 0, 0, 1], self.management_port).into();
        let mut client = TlsSetup::trusting(&self.authority)
            .connect(management, "localhost")
            .unwrap();
        client.send(b"GET /roots/0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let response = String::from_utf8(client.read_to_end().0).unwrap();
        TlsSetup::trusting_pem(response.split_once("\r\n\r\n").unwrap().1)
    }
}
