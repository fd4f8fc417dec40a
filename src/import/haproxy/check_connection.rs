//! `connect` of `tcp-check` and of `http-check` (configuration manual, section 4.2).

use super::super::imported::{ImportedSection, quoted};
use super::super::number::clamped_integer;
use super::line::LineOutcome;
use super::server::host_name;

/// How a check connects.
#[derive(Debug, Default)]
pub(super) struct CheckConnection {
    pub(super) is_tls: bool,
    sni: Option<String>,
    port: Option<u32>,
}

impl CheckConnection {
    /// Reads the options of a line. `is_http`: the check speaks HTTP/1.1, whatever `alpn` says.
    pub(super) fn read(&mut self, options: &[String], is_http: bool) -> LineOutcome {
        let mut rest = options.iter();
        while let Some(option) = rest.next() {
            match option.as_str() {
                "ssl" => self.is_tls = true,
                "sni" => self.sni = rest.next().and_then(|name| host_name(name)),
                "port" => self.port = rest.next().and_then(|port| clamped_integer(port, 1, 65_535)),
                "alpn" if is_http => drop(rest.next()),
                "comment" => drop(rest.next()),
                "default" | "linger" | "send-proxy" => {} // checks have no settings of their own for these
                _ => return LineOutcome::LeftOut(""),
            }
        }
        LineOutcome::Carried
    }

    /// Whether it has any setting.
    pub(super) fn is_set(&self) -> bool {
        self.is_tls || self.sni.is_some() || self.port.is_some()
    }

    /// Sets the keys of the health section.
    pub(super) fn write(&self, health: &mut ImportedSection) {
        if let Some(name) = self.sni.as_ref().filter(|_| self.is_tls) {
            health.set("sni", quoted(name));
        }
        self.write_port(health);
    }

    /// Sets `port`, a key of all kinds of checks that connect.
    pub(super) fn write_port(&self, health: &mut ImportedSection) {
        if let Some(port) = self.port {
            health.set("port", port.to_string());
        }
    }
}
