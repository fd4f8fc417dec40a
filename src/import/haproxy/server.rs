//! The options of `server` and `default-server` (configuration manual, section 5.2).

use std::time::Duration;

use super::super::imported::{ImportedServer, SESSIONS_MAX, is_protocol};
use super::super::number::{clamped_integer, duration};
use super::address;
use crate::name::ServerName;

/// A `server` line that was read.
#[derive(Debug)]
pub(super) struct ParsedServer {
    /// The number of the line.
    pub(super) line: usize,
    pub(super) server: ImportedServer,
    pub(super) options: ServerOptions,
}

/// Options of a server.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerOptions {
    pub(super) weight: Option<u32>,
    pub(super) is_backup: bool,
    pub(super) is_disabled: bool,
    pub(super) is_checked: bool,
    /// `check-ssl`; `None`: checks use TLS if sessions do, unless the checks have a port or an address of their own.
    pub(super) is_checked_by_tls: Option<bool>,
    /// `check-send-proxy`
    pub(super) checks_send_proxy: bool,
    /// `check-sni`
    pub(super) check_name: Option<String>,
    pub(super) has_agent: bool,
    pub(super) agent_port: Option<u32>,
    pub(super) agent_address: Option<String>,
    pub(super) agent_interval: Option<Duration>,
    pub(super) agent_send: Option<String>,
    /// `ssl`
    pub(super) is_tls: bool,
    /// `sni`: a host name, or `client` for the name that the client sent.
    pub(super) tls_name: Option<String>,
    /// `verifyhost`
    pub(super) verified_name: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) protocols: Vec<String>,
    pub(super) sessions_max: Option<u32>,
    /// `source`: an address, or `client` for that of the client.
    pub(super) source: Option<String>,
    pub(super) interval: Option<Duration>,
    pub(super) interval_down: Option<Duration>,
    pub(super) rise: Option<u32>,
    pub(super) fall: Option<u32>,
    pub(super) check_port: Option<u32>,
    pub(super) check_address: Option<String>,
    pub(super) ca_file: Option<String>,
    /// `None`: as `ssl-server-verify` says.
    pub(super) verifies: Option<bool>,
    /// `v1` or `v2`
    pub(super) proxy_protocol: Option<&'static str>,
    /// `on-marked-down shutdown-sessions`
    pub(super) closes_when_down: bool,
    /// `on-marked-up shutdown-backup-sessions`
    pub(super) closes_backups_when_up: bool,
    pub(super) slow_start: Option<Duration>,
    /// `resolve-prefer`: `ipv4` or `ipv6`.
    pub(super) family: Option<&'static str>,
    /// Options that are not carried over, each with its value.
    pub(super) left_out: Vec<String>,
}

/// Options with a value that are not carried over.
const WITH_VALUE: [&str; 39] = [
    "check-alpn",
    "check-proto",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "cookie",
    "crl-file",
    "curves",
    "error-limit",
    "fastinter",
    "guid",
    "hash-key",
    "id",
    "init-state",
    "log-bufsize",
    "log-proto",
    "max-reuse",
    "maxqueue",
    "minconn",
    "namespace",
    "npn",
    "observe",
    "on-error",
    "pool-conn-name",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "proto",
    "proxy-v2-options",
    "redir",
    "resolve-net",
    "shard",
    "sigalgs",
    "socks4",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-ut",
    "track",
    "ws",
];

impl ServerOptions {
    /// Reads the words after the address of a server. What they say replaces what `self` says.
    pub(super) fn read(&mut self, words: &[String]) {
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            if self.read_flag(word) {
                continue;
            }
            if word == "source" {
                let (source, count) = source(rest.as_slice());
                match source {
                    Some(source) => self.source = Some(source),
                    None => self
                        .left_out
                        .push(format!("source {}", rest.as_slice()[..count].join(" "))),
                }
                rest = rest.as_slice()[count..].iter();
                continue;
            }
            let is_known = self.read_value(word, || rest.next().map_or("", String::as_str));
            if is_known {
                continue;
            }
            if WITH_VALUE.contains(&word.as_str()) {
                let value = rest.next().map_or("", String::as_str);
                self.left_out.push(format!("{word} {value}"));
            } else {
                self.left_out.push(word.clone());
            }
        }
    }

    /// Reads an option without a value; returns whether it is one.
    fn read_flag(&mut self, word: &str) -> bool {
        match word {
            "backup" => self.is_backup = true,
            "no-backup" => self.is_backup = false,
            "disabled" => self.is_disabled = true,
            "enabled" => self.is_disabled = false,
            "check" => self.is_checked = true,
            "no-check" => self.is_checked = false,
            "check-ssl" => self.is_checked_by_tls = Some(true),
            "no-check-ssl" => self.is_checked_by_tls = Some(false),
            "ssl" => self.is_tls = true,
            "no-ssl" => self.is_tls = false,
            "agent-check" => self.has_agent = true,
            "no-agent-check" => self.has_agent = false,
            "send-proxy" => self.proxy_protocol = Some("v1"),
            "send-proxy-v2" | "send-proxy-v2-ssl" | "send-proxy-v2-ssl-cn" => self.proxy_protocol = Some("v2"),
            "no-send-proxy" | "no-send-proxy-v2" | "no-send-proxy-v2-ssl" | "no-send-proxy-v2-ssl-cn" => {
                self.proxy_protocol = None;
            }
            "check-send-proxy" => self.checks_send_proxy = true,
            "no-check-send-proxy" => self.checks_send_proxy = false,
            "stick" | "non-stick" => {} // stick tables are not carried over
            _ => return false,
        }
        true
    }

    /// Reads an option with a value; returns whether it is one.
    fn read_value<'v>(&mut self, word: &str, value: impl FnOnce() -> &'v str) -> bool {
        match word {
            "weight" => self.weight = clamped_integer(value(), 0, 256).or(self.weight),
            "inter" => self.interval = duration(value(), 1).or(self.interval),
            "downinter" => self.interval_down = duration(value(), 1).or(self.interval_down),
            "rise" => self.rise = clamped_integer(value(), 1, 1_000).or(self.rise),
            "fall" => self.fall = clamped_integer(value(), 1, 1_000).or(self.fall),
            "port" => self.check_port = clamped_integer(value(), 1, 65_535),
            "addr" => self.check_address = Some(value().to_owned()),
            "ca-file" => self.ca_file = Some(value().to_owned()),
            "verify" => self.verifies = Some(value() == "required"),
            "sni" => self.read_name(value()),
            "verifyhost" => self.verified_name = host_name(value()),
            "check-sni" => self.check_name = host_name(value()),
            "crt" => self.certificate = Some(value().to_owned()),
            "alpn" => {
                let protocols = value().split(',').filter(|protocol| is_protocol(protocol));
                self.protocols = protocols.map(str::to_owned).collect();
            }
            "maxconn" => self.sessions_max = clamped_integer(value(), 0, SESSIONS_MAX).filter(|limit| *limit > 0),
            "agent-port" => self.agent_port = clamped_integer(value(), 1, 65_535),
            "agent-addr" => self.agent_address = Some(value().to_owned()),
            "agent-inter" => self.agent_interval = duration(value(), 1),
            "agent-send" => self.agent_send = Some(value().to_owned()),
            "slowstart" => self.slow_start = duration(value(), 1),
            "on-marked-down" => self.closes_when_down = value() == "shutdown-sessions",
            "on-marked-up" => self.closes_backups_when_up = value() == "shutdown-backup-sessions",
            "resolve-prefer" => {
                self.family = match value() {
                    "ipv4" => Some("ipv4"),
                    "ipv6" => Some("ipv6"),
                    _ => None,
                }
            }
            "resolvers" | "init-addr" | "resolve-opts" => drop(value()), // the system's resolver is used
            _ => return false,
        }
        true
    }

    /// Reads `sni`, an expression.
    fn read_name(&mut self, expression: &str) {
        let constant = expression.strip_prefix("str(").and_then(|rest| rest.strip_suffix(')'));
        let fetch = expression.split(',').next().unwrap_or_default();
        self.tls_name = match constant {
            Some(name) => host_name(name),
            None if ["req.ssl_sni", "req_ssl_sni", "ssl_fc_sni"].contains(&fetch) => Some(String::from("client")),
            None => None,
        };
        if self.tls_name.is_none() {
            self.left_out.push(format!("sni {expression}"));
        }
    }
}

/// The text if it is a host name.
pub(super) fn host_name(text: &str) -> Option<String> {
    ServerName::from_config(text).is_ok().then(|| text.to_owned())
}

/// Reads the words after `source`. Returns the address, or `client`, and how many words belong to the option. `None`:
/// it cannot be carried over.
pub(super) fn source(words: &[String]) -> (Option<String>, usize) {
    let address = words.first().map_or("", String::as_str);
    match (words.get(1).map(String::as_str), words.get(2).map(String::as_str)) {
        (Some("usesrc"), Some("client" | "clientip")) => (Some(String::from("client")), 3),
        (Some("usesrc" | "interface"), Some(_)) => (None, 3),
        _ => (address::source(address), words.len().min(1)),
    }
}
