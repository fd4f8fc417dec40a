//! The options of `server` and `default-server` (configuration manual, section 5.2).

use std::time::Duration;

use super::super::imported::{ImportedServer, SESSIONS_MAX, is_file, is_protocol, keep_first};
use super::super::number::{clamped_integer, duration, port};
use super::address;
use crate::config::address::ip;
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
    pub(super) checks_use_tls: Option<bool>,
    /// `check-send-proxy`
    pub(super) checks_send_proxy: bool,
    /// `check-sni`
    pub(super) check_name: Option<String>,
    pub(super) has_agent: bool,
    pub(super) agent_port: Option<u16>,
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
    /// `alpn`
    pub(super) protocols: Option<Vec<String>>,
    /// `maxconn`; 0: no limit.
    pub(super) sessions_max: Option<u32>,
    /// `source`: an address, or `client` for that of the client.
    pub(super) source: Option<String>,
    pub(super) interval: Option<Duration>,
    pub(super) interval_down: Option<Duration>,
    pub(super) rise: Option<u32>,
    pub(super) fall: Option<u32>,
    pub(super) check_port: Option<u16>,
    pub(super) check_address: Option<String>,
    pub(super) ca_file: Option<String>,
    /// `verify`; without it, what `ssl-server-verify` says.
    pub(super) verifies: bool,
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
const WITH_VALUE: [&str; 41] = [
    "check-alpn",
    "check-pool-conn-name",
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
    "idle-ping",
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
            let value = rest.as_slice().first().map_or("", String::as_str);
            let is_carried_over = self.read_value(word, value);
            // The name of this option has an argument in parentheses.
            let is_proxy_tlv = word.starts_with("set-proxy-v2-tlv-fmt(");
            let has_value = is_carried_over.is_some() || is_proxy_tlv || WITH_VALUE.contains(&word.as_str());
            if !has_value {
                self.left_out.push(word.clone());
                continue;
            }
            if is_carried_over != Some(true) {
                self.left_out.push(format!("{word} {value}"));
            }
            rest.next();
        }
    }

    /// The file of the certificate authorities that verify the server. `None`: the server is not verified, or those of
    /// the system verify it.
    pub(super) fn trusted_ca(&self) -> Option<&str> {
        if !self.verifies {
            return None;
        }
        self.ca_file.as_deref().filter(|file| !file.starts_with('@')) // `@system-ca` is not a file
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
            "check-ssl" => self.checks_use_tls = Some(true),
            "no-check-ssl" => self.checks_use_tls = Some(false),
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

    /// Reads an option with a value. Returns whether the value can be carried over; if not, the value from
    /// `default-server` stays. `None`: `word` is not an option that this function knows.
    fn read_value(&mut self, word: &str, value: &str) -> Option<bool> {
        let text = Some(value);
        Some(match word {
            "weight" => set(&mut self.weight, clamped_integer(value, 0, 256)),
            "inter" => set(&mut self.interval, duration(value, 1)),
            "downinter" => set(&mut self.interval_down, duration(value, 1)),
            "rise" => set(&mut self.rise, clamped_integer(value, 1, 1_000)),
            "fall" => set(&mut self.fall, clamped_integer(value, 1, 1_000)),
            "port" => set(&mut self.check_port, port(value)),
            "addr" => set(&mut self.check_address, text.filter(|text| ip(text).is_ok())),
            "ca-file" => set(&mut self.ca_file, text.filter(|path| is_file(path))),
            "verify" => {
                let is_valid = ["required", "none"].contains(&value);
                if is_valid {
                    self.verifies = value == "required";
                }
                is_valid
            }
            "sni" => set(&mut self.tls_name, sni(value)),
            "verifyhost" => set(&mut self.verified_name, host_name(value)),
            "check-sni" => set(&mut self.check_name, host_name(value)),
            "crt" => set(&mut self.certificate, text.filter(|path| is_file(path))),
            "alpn" => set(&mut self.protocols, protocols(value)),
            "maxconn" => set(&mut self.sessions_max, clamped_integer(value, 0, SESSIONS_MAX)),
            "agent-port" => set(&mut self.agent_port, port(value)),
            "agent-addr" => set(&mut self.agent_address, text.filter(|text| ip(text).is_ok())),
            "agent-inter" => set(&mut self.agent_interval, duration(value, 1)),
            "agent-send" => set(&mut self.agent_send, text),
            "slowstart" => set(&mut self.slow_start, duration(value, 1)),
            "on-marked-down" => {
                self.closes_when_down |= value == "shutdown-sessions";
                value == "shutdown-sessions"
            }
            "on-marked-up" => {
                self.closes_backups_when_up |= value == "shutdown-backup-sessions";
                value == "shutdown-backup-sessions"
            }
            "resolve-prefer" => {
                let family = ["ipv4", "ipv6"].into_iter().find(|family| *family == value);
                set(&mut self.family, family)
            }
            "resolvers" | "init-addr" | "resolve-opts" => true, // the system's resolver is used
            _ => return None,
        })
    }
}

/// Sets an option if there is a value. Returns whether there is one.
fn set<T>(option: &mut Option<T>, value: Option<impl Into<T>>) -> bool {
    let is_valid = value.is_some();
    if let Some(value) = value {
        *option = Some(value.into());
    }
    is_valid
}

/// The value of `sni`, an expression: a host name, or `client` for the name that the client sent.
fn sni(expression: &str) -> Option<String> {
    let constant = expression.strip_prefix("str(").and_then(|rest| rest.strip_suffix(')'));
    let fetch = expression.split(',').next().unwrap_or_default();
    match constant {
        Some(name) => host_name(name),
        None => ["req.ssl_sni", "req_ssl_sni", "ssl_fc_sni"]
            .contains(&fetch)
            .then(|| String::from("client")),
    }
}

/// The protocols of `alpn`, separated by commas, each once. `None`: one is not valid.
pub(super) fn protocols(list: &str) -> Option<Vec<String>> {
    let mut protocols: Vec<String> = list.split(',').map(str::to_owned).collect();
    keep_first(&mut protocols, |protocol| Some(protocol.to_owned()));
    protocols
        .iter()
        .all(|protocol| is_protocol(protocol))
        .then_some(protocols)
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
