//! `connect` of `tcp-check` and of `http-check` (configuration manual, section 4.2).

use super::super::number::port;
use super::line::LineOutcome;
use super::server::host_name;

/// How a check connects.
#[derive(Debug, Default)]
pub(super) struct CheckConnection {
    /// The options of the last `connect` line. `None`: there is none.
    options: Option<ConnectLine>,
}

/// The options of a `connect` line.
#[derive(Debug, Default)]
struct ConnectLine {
    /// `default`: what the lines of the servers ask for holds, too.
    has_default: bool,
    is_tls: bool,
    sends_proxy: bool,
    sni: Option<String>,
    port: Option<u16>,
}

impl CheckConnection {
    /// Reads the options of a line. They replace those of an earlier line. `is_http`: the check speaks HTTP/1.1,
    /// whatever `alpn` says.
    pub(super) fn read(&mut self, words: &[String], is_http: bool) -> LineOutcome {
        let mut options = ConnectLine::default();
        let mut is_whole = true;
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let mut value = || rest.next().map_or("", String::as_str);
            match word.as_str() {
                "default" => options.has_default = true,
                "ssl" => options.is_tls = true,
                "send-proxy" => options.sends_proxy = true,
                "sni" => {
                    options.sni = host_name(value());
                    is_whole &= options.sni.is_some();
                }
                "port" => {
                    options.port = port(value());
                    is_whole &= options.port.is_some();
                }
                "alpn" if is_http => drop(value()),
                "comment" => drop(value()),
                "linger" => {} // only how the connection is closed after the check
                "addr" | "alpn" | "proto" => {
                    value();
                    is_whole = false;
                }
                _ => is_whole = false,
            }
        }
        let is_second = self.options.replace(options).is_some();
        match (is_whole, is_second) {
            (false, _) => LineOutcome::LeftOut(
                "of this line, only `default`, `ssl`, `send-proxy`, a host name and a port are kept",
            ),
            (true, true) => LineOutcome::Noted(String::from("the connection of an earlier line is not checked")),
            (true, false) => LineOutcome::Carried,
        }
    }

    /// Whether the check uses TLS. `is_tls_by_servers`: whether the lines of the servers ask for that.
    pub(super) fn is_tls(&self, is_tls_by_servers: bool) -> bool {
        self.is_set(is_tls_by_servers, |options| options.is_tls)
    }

    /// Whether the check begins with a PROXY header. `sends_by_servers`: whether the lines of the servers ask for that.
    pub(super) fn sends_proxy(&self, sends_by_servers: bool) -> bool {
        self.is_set(sends_by_servers, |options| options.sends_proxy)
    }

    /// Whether the `connect` line or the lines of the servers set an option. Those of the servers count only without a
    /// `connect` line, or if it has `default` (`tcpcheck_eval_connect` of HAProxy).
    fn is_set(&self, by_servers: bool, by_line: fn(&ConnectLine) -> bool) -> bool {
        match &self.options {
            None => by_servers,
            Some(options) => by_line(options) || options.has_default && by_servers,
        }
    }

    /// The port of the `connect` line. It replaces the ports in the lines of the servers.
    pub(super) fn port(&self) -> Option<u16> {
        self.options.as_ref()?.port
    }

    /// The server name for a check in TLS. `by_servers`: `check-sni` in the lines of the servers, which counts only
    /// without a `connect` line, or if that has `default` and no `sni` (`tcpcheck_eval_connect` of HAProxy).
    pub(super) fn sni<'a>(&'a self, by_servers: Option<&'a str>) -> Option<&'a str> {
        match &self.options {
            None => by_servers,
            Some(options) => options
                .sni
                .as_deref()
                .or_else(|| by_servers.filter(|_| options.has_default)),
        }
    }
}
