//! The options of `server` and `default-server` (configuration manual, section 5.2).

use std::time::Duration;

use super::super::imported::{ImportedServer, Remark, SESSIONS_MAX, is_file, is_protocol, keep_first};
use super::super::number::{clamped_integer, duration, port};
use super::address;
use super::line::{LineOutcome, NO_NUMBER, carried_if, joined, number, set_time};
use crate::config::address::ip;
use crate::name::ServerName;
use crate::units::format_duration;

/// The shortest interval of checks that acequia accepts.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The highest `rise` and `fall` that acequia accepts.
const CHECKS_MAX: u32 = 1_000;

const NO_ZERO: &str = "HAProxy accepts no 0 either";

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
    /// `verify`. The caller sets it to what `ssl-server-verify` says, before the options are read.
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
    /// Reads the words after the address of a server, or after `default-server`. What they say replaces what `self`
    /// says. Returns the remarks about them; `line` is the number of their line.
    pub(super) fn read(&mut self, words: &[String], line: usize) -> Vec<Remark> {
        let mut remarks = Vec::new();
        let mut rest = words;
        while !rest.is_empty() {
            let (outcome, count) = self.read_option(rest);
            let (option, after) = rest.split_at(count.min(rest.len()));
            remarks.extend(outcome.remark_about(line, &joined(option)));
            rest = after;
        }
        remarks
    }

    /// Reads the option with which `words` begins. Returns how many words belong to it.
    fn read_option(&mut self, words: &[String]) -> (LineOutcome, usize) {
        let (word, after) = (words[0].as_str(), &words[1..]);
        if self.read_flag(word) {
            return (LineOutcome::Carried, 1);
        }
        if word == "source" {
            let (source, count) = source(after);
            return (set(&mut self.source, source), 1 + count);
        }
        let value = after.first().map_or("", String::as_str);
        match self.read_value(word, value) {
            // The name of `set-proxy-v2-tlv-fmt(ID)` has an argument, so it cannot be in the list.
            LineOutcome::Foreign if word.starts_with("set-proxy-v2-tlv-fmt(") || WITH_VALUE.contains(&word) => {
                (LineOutcome::Foreign, 2)
            }
            LineOutcome::Foreign => (LineOutcome::Foreign, 1),
            outcome => (outcome, 2),
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

    /// Reads an option without a value. Returns whether `word` is one that this function knows.
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
            "stick" | "non-stick" => {} // about stick tables, whose own lines have a remark
            _ => return false,
        }
        true
    }

    /// Reads an option with a value. `LeftOut`: the option keeps its earlier value, as from `default-server`.
    /// `Foreign`: `word` is not an option that this function knows.
    fn read_value(&mut self, word: &str, value: &str) -> LineOutcome {
        let text = Some(value);
        match word {
            "weight" => match clamped_integer(value, 0, u32::MAX) {
                Some(257..) => LineOutcome::LeftOut("HAProxy accepts no weight above 256 either"),
                weight => set(&mut self.weight, weight),
            },
            "inter" => set_interval(&mut self.interval, value),
            "downinter" => set_interval(&mut self.interval_down, value),
            "rise" => set_count(&mut self.rise, value),
            "fall" => set_count(&mut self.fall, value),
            "port" => set(&mut self.check_port, port(value)),
            "addr" => set(&mut self.check_address, text.filter(|text| ip(text).is_ok())),
            "ca-file" => set(&mut self.ca_file, text.filter(|path| is_file(path))),
            "verify" => {
                let is_valid = ["required", "none"].contains(&value);
                if is_valid {
                    self.verifies = value == "required";
                }
                carried_if(is_valid)
            }
            "sni" => set(&mut self.tls_name, sni(value)),
            "verifyhost" => set(&mut self.verified_name, host_name(value)),
            "check-sni" => set(&mut self.check_name, host_name(value)),
            "crt" => set(&mut self.certificate, text.filter(|path| is_file(path))),
            "alpn" => set(&mut self.protocols, protocols(value)),
            "maxconn" => set_number(&mut self.sessions_max, value, SESSIONS_MAX),
            "agent-port" => set(&mut self.agent_port, port(value)),
            "agent-addr" => set(&mut self.agent_address, text.filter(|text| ip(text).is_ok())),
            "agent-inter" => set_interval(&mut self.agent_interval, value),
            "agent-send" => set(&mut self.agent_send, text),
            "slowstart" => {
                let outcome = set_time(&mut self.slow_start, value);
                self.slow_start.take_if(|time| time.is_zero());
                outcome
            }
            "on-marked-down" => {
                self.closes_when_down |= value == "shutdown-sessions";
                carried_if(value == "shutdown-sessions")
            }
            "on-marked-up" => {
                self.closes_backups_when_up |= value == "shutdown-backup-sessions";
                carried_if(value == "shutdown-backup-sessions")
            }
            "resolve-prefer" => {
                let family = ["ipv4", "ipv6"].into_iter().find(|family| *family == value);
                set(&mut self.family, family)
            }
            "resolvers" | "init-addr" | "resolve-opts" => LineOutcome::Carried, // the system's resolver is used
            _ => LineOutcome::Foreign,
        }
    }
}

/// Sets an option if there is a value.
fn set<T>(option: &mut Option<T>, value: Option<impl Into<T>>) -> LineOutcome {
    let outcome = carried_if(value.is_some());
    if let Some(value) = value {
        *option = Some(value.into());
    }
    outcome
}

fn set_number(option: &mut Option<u32>, text: &str, most: u32) -> LineOutcome {
    match number(text, most) {
        Some((number, outcome)) => {
            *option = Some(number);
            outcome
        }
        None => LineOutcome::LeftOut(NO_NUMBER),
    }
}

/// Sets `rise` or `fall`.
fn set_count(option: &mut Option<u32>, text: &str) -> LineOutcome {
    match clamped_integer(text, 0, 1) {
        Some(0) => LineOutcome::LeftOut(NO_ZERO),
        _ => set_number(option, text, CHECKS_MAX),
    }
}

/// Sets the interval of checks.
fn set_interval(option: &mut Option<Duration>, text: &str) -> LineOutcome {
    match duration(text, 1) {
        Some(Duration::ZERO) => LineOutcome::LeftOut(NO_ZERO),
        Some(time) if time < INTERVAL_MIN => {
            *option = Some(INTERVAL_MIN);
            LineOutcome::Noted(format!(
                "{text} is less than is possible here: {} is used",
                format_duration(INTERVAL_MIN)
            ))
        }
        _ => set_time(option, text),
    }
}

/// Reads the expression of `sni`. Returns a host name, or `client` for the name that the client sent. `None`: it is
/// another expression.
fn sni(expression: &str) -> Option<String> {
    let mut words = expression.split(',');
    let fetch = words.next().unwrap_or_default();
    if words.any(|converter| converter != "lower") {
        return None;
    }
    match fetch.strip_prefix("str(").and_then(|rest| rest.strip_suffix(')')) {
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
