//! The server side of a proxy: a `backend`, or the lines of a `listen` that are not about its clients.

use std::time::Duration;

use super::super::imported::{ImportedPool, ImportedSection, ImportedServer, Remark, quoted, quoted_list};
use super::super::number::duration_value;
use super::IdleTimeouts;
use super::address;
use super::check::Checks;
use super::differences;
use super::line::{Line, LineOutcome, set_duration, set_integer, set_time};
use super::server::{self, ParsedServer, ServerOptions};

/// A backend that is being read.
#[derive(Debug, Default)]
pub(super) struct Backend {
    pool: ImportedPool,
    checks: Checks,
    default_server: ServerOptions,
    /// `source`: an address, or `client` for that of the client. It holds for servers without `source`.
    source: Option<String>,
    servers: Vec<ParsedServer>,
    balance: Option<&'static str>,
    idle_timeouts: IdleTimeouts,
    uses_all_backups: bool,
    /// `timeout queue`
    queue_timeout: Option<Duration>,
    pub(super) remarks: Vec<Remark>,
}

impl Backend {
    /// `verifies`: whether the certificates of servers without `verify` are verified.
    pub(super) fn new(name: &str, verifies: bool) -> Self {
        let mut backend = Self {
            default_server: ServerOptions {
                verifies,
                ..ServerOptions::default()
            },
            ..Self::default()
        };
        name.clone_into(&mut backend.pool.name);
        backend
    }

    /// The timeouts of its sessions.
    pub(super) fn idle_timeouts(&self) -> IdleTimeouts {
        self.idle_timeouts
    }

    /// Reads a line of the section.
    pub(super) fn read(&mut self, line: &Line) -> LineOutcome {
        let words = line.words.as_slice();
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        match (word(0), word(1)) {
            ("balance", policy) => self.balance(policy, word(2)),
            ("hash-type", "consistent") => LineOutcome::Carried, // hashes are always consistent here
            ("default-server", _) => {
                let remarks = self.default_server.read(&words[1..], line.number);
                self.remarks.extend(remarks);
                LineOutcome::Carried
            }
            ("server", _) => self.server(line, word(2), Some(word(1)), words.get(3..)),
            ("server-template", _) => self.server(line, word(3), None, words.get(4..)),
            ("timeout", "server") => set_time(&mut self.idle_timeouts.server, word(2)),
            ("timeout", "tunnel") => set_time(&mut self.idle_timeouts.tunnel, word(2)),
            ("timeout", "connect") => set_duration(&mut self.pool.section, "connect_timeout", word(2)),
            ("timeout", "check") => set_duration(&mut self.pool.health, "timeout", word(2)),
            ("timeout", "server-fin") => {
                LineOutcome::LeftOut("`half_close_timeout` of the listener holds for both sides")
            }
            ("timeout", "queue") => set_time(&mut self.queue_timeout, word(2)),
            ("source", _) => {
                let (source, _) = server::source(&words[1..]);
                if source.is_none() {
                    return LineOutcome::LeftOut("write an address of this machine");
                }
                self.source = source;
                LineOutcome::Carried
            }
            ("retries", text) => set_integer(&mut self.pool.section, "retries", text, 0..=100),
            // A retry goes to another server, unless clients wait for a server to return. Keepalive is on by default.
            ("option", "redispatch" | "srvtcpka" | "tcpka" | "splice-response" | "tcp-smart-connect") => {
                LineOutcome::Carried
            }
            ("option", "allbackups") => {
                self.uses_all_backups = true;
                LineOutcome::Carried
            }
            ("option" | "tcp-check" | "http-check" | "external-check", _) => self.checks.read(line),
            ("description", _) => LineOutcome::Carried,
            ("acl" | "tcp-request", _) => LineOutcome::LeftOut("write a guard for the listeners of this pool"),
            _ => LineOutcome::Foreign,
        }
    }

    fn balance(&mut self, policy: &str, argument: &str) -> LineOutcome {
        let policy_name = policy.split('(').next().unwrap_or_default();
        self.balance = match (policy_name, argument) {
            ("leastconn", _) => Some("least-conn"),
            ("source", _) | ("hash", "src") => Some("source-hash"),
            ("random", _) => Some("random-two"),
            ("roundrobin" | "static-rr", _) => Some("round-robin"),
            _ => None, // an inherited policy does not hold either
        };
        match self.balance {
            Some(_) => LineOutcome::Carried,
            None => LineOutcome::LeftOut("round-robin is used"),
        }
    }

    fn server(&mut self, line: &Line, location: &str, name: Option<&str>, words: Option<&[String]>) -> LineOutcome {
        let mut options = self.default_server.clone();
        let remarks = options.read(words.unwrap_or_default(), line.number);
        let Some(address) = address::server(location) else {
            return LineOutcome::LeftOut(if address::is_unspecified(location) {
                "HAProxy connects to the address that the client has connected to: write it"
            } else {
                "write \"HOST:PORT\" or \"unix:/PATH\""
            });
        };
        self.remarks.extend(remarks);
        let server = ImportedServer {
            address,
            name: name.map(str::to_owned),
            weight: if options.is_disabled { Some(0) } else { options.weight },
            priority: u32::from(options.is_backup),
            sessions_max: options.sessions_max.filter(|limit| *limit > 0),
        };
        self.servers.push(ParsedServer {
            line: line.number,
            server,
            options,
        });
        LineOutcome::Carried
    }

    /// The pool. Some options are set for each server in HAProxy and once for the pool in acequia. The pool gets the
    /// value of its first server. Options of checks are taken from the first server with checks, and `slowstart` from
    /// the first server that has it. Servers with other values get a note, for the keys that `differences` lists.
    /// `on-marked-up` of any server counts.
    pub(super) fn into_pool(mut self) -> ImportedPool {
        self.pool
            .section
            .set("balance", quoted(self.balance.unwrap_or("round-robin")));
        for parsed in &mut self.servers {
            parsed.options.source = parsed.options.source.take().or_else(|| self.source.clone());
        }
        let first = |is_fit: fn(&ServerOptions) -> bool| {
            let mut options = self.servers.iter().map(|parsed| &parsed.options);
            options.find(|options| is_fit(options)).cloned()
        };
        let (checked, with_agent) = (first(|options| options.is_checked), first(|options| options.has_agent));
        match (checked, with_agent) {
            (Some(options), agent) => {
                self.write_health(&options);
                self.note_unchecked(|options| options.is_checked);
                if agent.is_some() {
                    let why = "a pool has one kind of check: `check` of the servers, or check = \"agent\"";
                    self.remarks.push(Remark::left_out(0, "agent-check", why));
                }
            }
            (None, Some(options)) => {
                self.write_agent(&options);
                self.note_unchecked(|options| options.has_agent);
            }
            (None, None) => {
                self.pool.health.keys.clear();
                self.pool.health.set("check", quoted("off"));
            }
        }
        self.order_backups();
        self.write_pool();
        self.write_limits();
        self.pool.section.remarks.extend(self.remarks);
        self.pool.servers = self.servers.into_iter().map(|parsed| parsed.server).collect();
        self.pool
    }

    /// Without `option allbackups`, HAProxy uses only the first backup that works: each backup gets a tier of its own.
    /// From the 255th backup on, all get tier 255, the last one.
    fn order_backups(&mut self) {
        if self.uses_all_backups {
            return;
        }
        let servers = self.servers.iter_mut().map(|parsed| &mut parsed.server);
        for (tier, backup) in (1..).zip(servers.filter(|server| server.priority > 0)) {
            backup.priority = 255.min(tier);
        }
    }

    fn note_unchecked(&mut self, is_checked: fn(&ServerOptions) -> bool) {
        let unchecked = self.servers.iter().filter(|parsed| !is_checked(&parsed.options));
        let notes = unchecked.map(|parsed| {
            let address = &parsed.server.address;
            let text = format!("{address} had no checks; here all servers of a pool have them");
            Remark::note(parsed.line, text)
        });
        self.remarks.extend(notes);
    }

    fn write_health(&mut self, options: &ServerOptions) {
        // HAProxy's checks connect as its sessions do, unless they go to another port or address.
        let goes_elsewhere = options.check_port.is_some() || options.check_address.is_some();
        let checks_use_tls = options.checks_use_tls.unwrap_or(options.is_tls && !goes_elsewhere);
        let (pool, health) = (&mut self.pool.section, &mut self.pool.health);
        let has_tls_settings = self.checks.write(checks_use_tls, pool, health);
        let connection = self.checks.connection();
        let has_proxy = options.proxy_protocol.is_some();
        let sends_proxy = connection.sends_proxy(options.checks_send_proxy || has_proxy && !goes_elsewhere);
        let is_only_connect = health.get("check").is_none();
        if sends_proxy && !has_proxy {
            let why = "checks send a PROXY header only if sessions do";
            health.remarks.push(Remark::left_out(0, "PROXY headers of checks", why));
        } else if has_proxy && !sends_proxy && !is_only_connect {
            let note = "checks send a PROXY header, as sessions do; those of HAProxy send none";
            health.remarks.push(Remark::note(0, note));
        }
        let intervals = [("interval", options.interval), ("interval_down", options.interval_down)];
        for (key, time) in intervals {
            if let Some(time) = time {
                health.set(key, duration_value(time));
            }
        }
        for (key, number) in [("rise", options.rise), ("fall", options.fall)] {
            if let Some(number) = number {
                health.set(key, number.to_string());
            }
        }
        if connection.port().is_some() {
            for parsed in &mut self.servers {
                parsed.options.check_port = None; // replaced by that port: a different value needs no note
            }
        } else if let Some(port) = options.check_port {
            health.set("port", port.to_string());
        }
        if let Some(address) = &options.check_address {
            health.set("address", quoted(address));
        }
        if has_tls_settings && let Some(name) = connection.sni(options.check_name.as_deref()) {
            health.set("sni", quoted(name));
        }
        // If the first server has `ssl`, the checks inherit `verify` and `ca_file` from `[pools.NAME.tls]`.
        let has_pool_tls = self.servers.first().is_some_and(|first| first.options.is_tls);
        if checks_use_tls && has_tls_settings && !has_pool_tls && options.verifies {
            health.set("verify", "true");
            if let Some(ca) = options.trusted_ca() {
                health.set("ca_file", quoted(ca));
            }
        }
    }

    /// `agent-check` of servers that have no other check. `port` and `addr` hold for the agent, too.
    fn write_agent(&mut self, options: &ServerOptions) {
        let health = &mut self.pool.health;
        health.set("check", quoted("agent"));
        if let Some(port) = options.agent_port.or(options.check_port) {
            health.set("port", port.to_string());
        }
        if let Some(address) = options.agent_address.as_ref().or(options.check_address.as_ref()) {
            health.set("address", quoted(address));
        }
        if let Some(time) = options.agent_interval {
            health.set("interval", duration_value(time));
        }
        if let Some(text) = &options.agent_send {
            health.set("send", quoted(text));
        }
    }

    /// `maxconn` of servers, beyond which clients wait.
    fn write_limits(&mut self) {
        let limits: Vec<_> = self.servers.iter().map(|parsed| parsed.server.sessions_max).collect();
        let Some(first) = limits.iter().flatten().next() else {
            return;
        };
        let section = &mut self.pool.section;
        if limits.iter().all(|limit| *limit == Some(*first)) {
            section.set("max_sessions", first.to_string());
            for parsed in &mut self.servers {
                parsed.server.sessions_max = None;
            }
        }
        // Without `timeout queue`, `timeout connect` holds.
        let timeout = match self.queue_timeout.filter(|timeout| !timeout.is_zero()) {
            Some(timeout) => Some(duration_value(timeout)),
            None => section.get("connect_timeout").map(str::to_owned),
        };
        section.set(
            "queue",
            timeout.map_or_else(|| String::from("{}"), |timeout| format!("{{ timeout = {timeout} }}")),
        );
        let note = "the queue has at most 1000 clients, unless `queue` has another `max`; HAProxy's has no limit";
        self.remarks.push(Remark::note(0, note));
    }

    fn write_pool(&mut self) {
        let Some(ParsedServer { options: first, .. }) = self.servers.first() else {
            return;
        };
        let section = &mut self.pool.section;
        if let Some(version) = first.proxy_protocol {
            section.set("proxy_protocol", quoted(version));
        }
        if first.closes_when_down {
            section.set("on_down", quoted("close"));
        }
        if self.servers.iter().any(|parsed| parsed.options.closes_backups_when_up) {
            section.set("on_recover", quoted("close"));
        }
        if let Some(time) = self.servers.iter().find_map(|parsed| parsed.options.slow_start) {
            section.set("slow_start", duration_value(time));
        }
        if let Some(family) = first.family {
            section.set("resolve", quoted(family));
        }
        if first.is_tls {
            self.pool.tls = Some(tls(first));
        }
        self.pool.source.clone_from(&first.source);
        section.remarks.extend(differences::notes(&self.servers));
    }
}

/// `[pools.NAME.tls]`
fn tls(options: &ServerOptions) -> ImportedSection {
    let mut tls = ImportedSection::default();
    if let Some(name) = options.tls_name.as_ref().or(options.verified_name.as_ref()) {
        tls.set("sni", quoted(name));
    }
    if !options.verifies {
        tls.set("verify", "false");
    } else if options.tls_name.is_none() && options.verified_name.is_none() {
        let note = "HAProxy verifies no name without `sni` or `verifyhost`; here the certificate must be for the server's host";
        tls.remarks.push(Remark::note(0, note));
    }
    if let Some(ca) = options.trusted_ca() {
        tls.set("ca_file", quoted(ca));
    }
    if let Some(cert) = &options.certificate {
        tls.set("cert", quoted(cert));
    }
    if let Some(protocols) = &options.protocols {
        tls.set("alpn", quoted_list(protocols));
    }
    tls
}
