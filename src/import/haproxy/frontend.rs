//! What is in front: `frontend`, and the first half of `listen`.

use std::time::Duration;

use super::super::imported::{ImportedListener, ImportedRoute, Remark};
use super::super::number::duration;
use super::bind;
use super::condition::{AclTest, Acls, Term};
use super::line::{Line, LineOutcome, set_duration, set_integer};

/// A frontend that is being read.
#[derive(Debug, Default)]
pub(super) struct Frontend {
    listener: ImportedListener,
    acls: Acls,
    /// Networks of `accept` rules, which become `allow` when a rule rejects all others.
    accepted: Vec<String>,
    /// `timeout client`
    pub(super) client_timeout: Option<Duration>,
    /// `default_backend`
    pub(super) pool: Option<String>,
    pub(super) remarks: Vec<Remark>,
}

impl Frontend {
    pub(super) fn new(name: &str) -> Self {
        let mut frontend = Self::default();
        name.clone_into(&mut frontend.listener.name);
        frontend
    }

    pub(super) fn into_listener(mut self) -> ImportedListener {
        self.listener.pool = self.pool;
        self.listener.section.remarks.extend(self.remarks);
        self.listener
    }

    /// Reads a line of the section.
    pub(super) fn read(&mut self, line: &Line) -> LineOutcome {
        let words = line.words.as_slice();
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        let section = &mut self.listener.section;
        match (word(0), word(1)) {
            ("bind", _) => bind::read(line, &mut self.listener),
            ("acl", name) => match self.acls.add(name, words.get(2..).unwrap_or_default()) {
                Some(why) => LineOutcome::LeftOut(why),
                None => LineOutcome::Carried,
            },
            ("default_backend", name) if !name.is_empty() => {
                self.pool = Some(name.to_owned());
                LineOutcome::Carried
            }
            ("use_backend", name) if !name.is_empty() => self.use_backend(line, name),
            ("maxconn", text) => set_integer(section, "max_connections", text, 1..=1 << 30),
            ("backlog", text) => set_integer(section, "backlog", text, 1..=i32::MAX as u32),
            ("timeout", "client") => {
                self.client_timeout = duration(word(2), 1);
                LineOutcome::Carried
            }
            ("timeout", "client-fin") => set_duration(section, "half_close_timeout", word(2)),
            ("tcp-request", "inspect-delay") => set_duration(section, "hello_timeout", word(2)),
            ("tcp-request", "connection" | "content" | "session") => self.tcp_request(line),
            // What these say is always so, or is about the log.
            (
                "option",
                "tcplog" | "httplog" | "dontlognull" | "clitcpka" | "splice-auto" | "splice-request" | "logasap",
            )
            | ("log" | "description" | "log-format", _)
            | ("option", "log-separate-errors" | "tcp-smart-accept" | "socket-stats" | "contstats") => {
                LineOutcome::Carried
            }
            _ => LineOutcome::Foreign,
        }
    }

    fn use_backend(&mut self, line: &Line, pool: &str) -> LineOutcome {
        if pool.contains('%') {
            return LineOutcome::LeftOut("write a route for each name");
        }
        match line.words.get(2).map(String::as_str) {
            Some("if") => self.routes(line, 3, Some(pool)),
            Some("unless") => LineOutcome::LeftOut("write routes for the other clients"),
            _ => {
                self.pool.get_or_insert_with(|| pool.to_owned());
                LineOutcome::Carried
            }
        }
    }

    /// Adds a route for each alternative of the condition that begins at a word.
    fn routes(&mut self, line: &Line, at: usize, pool: Option<&str>) -> LineOutcome {
        let condition = self.acls.condition(line.words.get(at..).unwrap_or_default());
        let mut outcome = LineOutcome::Carried;
        for terms in condition {
            match route(&terms) {
                Ok(mut route) => {
                    route.pool = pool.map(str::to_owned);
                    route.line = line.number;
                    if [&route.sni, &route.alpn, &route.from]
                        .iter()
                        .all(|entries| entries.is_empty())
                    {
                        let is_tls = terms.iter().any(|term| term.test == AclTest::ClientHello);
                        if is_tls {
                            route.sni = vec![String::from("*")];
                            outcome = LineOutcome::Noted(String::from(
                                "TLS clients without a server name do not take this route",
                            ));
                        } else if let Some(pool) = pool {
                            self.pool.get_or_insert_with(|| pool.to_owned());
                            continue;
                        } else {
                            return LineOutcome::LeftOut("it would refuse all clients");
                        }
                    }
                    self.listener.routes.push(route);
                }
                Err(why) => outcome = LineOutcome::LeftOut(why),
            }
        }
        outcome
    }

    /// `tcp-request connection reject if …` and the like.
    fn tcp_request(&mut self, line: &Line) -> LineOutcome {
        let word = |at: usize| line.words.get(at).map_or("", String::as_str);
        let rest = line.words.get(4..).unwrap_or_default();
        match (word(2), word(3)) {
            ("expect-proxy", "layer4") => self.expect_proxy(line),
            ("accept", "if") => {
                let condition = self.acls.condition(rest);
                let networks = condition.iter().filter_map(|terms| match terms.as_slice() {
                    [term] if !term.is_negated => Some(&term.test),
                    _ => None,
                });
                let mut understood = 0;
                for test in networks {
                    match test {
                        AclTest::From(networks) => self.accepted.extend(networks.iter().cloned()),
                        AclTest::ClientHello | AclTest::Always | AclTest::Sni(_) => {}
                        _ => continue,
                    }
                    understood += 1;
                }
                if understood == condition.len() {
                    LineOutcome::Carried
                } else {
                    LineOutcome::LeftOut("")
                }
            }
            ("accept", "") => LineOutcome::Carried,
            ("reject", "") if self.accepted.is_empty() => LineOutcome::LeftOut("it would refuse all clients"),
            ("reject", "") => {
                self.listener.allow.append(&mut self.accepted);
                LineOutcome::Carried
            }
            ("reject", how @ ("if" | "unless")) => self.reject(line, rest, how == "unless"),
            _ => LineOutcome::LeftOut(""),
        }
    }

    fn reject(&mut self, line: &Line, condition: &[String], is_unless: bool) -> LineOutcome {
        let alternatives = self.acls.condition(condition);
        if let [terms] = alternatives.as_slice()
            && let [term] = terms.as_slice()
            && let AclTest::From(networks) = &term.test
        {
            // Several rules that each reject all others would leave only what all of them accept.
            let is_allow = term.is_negated != is_unless;
            if is_allow && !self.listener.allow.is_empty() {
                return LineOutcome::LeftOut("another rule says already who may pass");
            }
            let list = if is_allow {
                &mut self.listener.allow
            } else {
                &mut self.listener.deny
            };
            list.extend(networks.iter().cloned());
            return LineOutcome::Carried;
        }
        if is_unless {
            return LineOutcome::LeftOut("write routes for the clients that may pass");
        }
        self.routes(line, 4, None)
    }

    fn expect_proxy(&mut self, line: &Line) -> LineOutcome {
        let condition = self.acls.condition(line.words.get(5..).unwrap_or_default());
        let [terms] = condition.as_slice() else {
            return LineOutcome::LeftOut("");
        };
        match terms.as_slice() {
            [
                Term {
                    is_negated: false,
                    test: AclTest::From(networks),
                },
            ] => {
                self.listener.proxied_by.clone_from(networks);
                LineOutcome::Carried
            }
            _ => LineOutcome::LeftOut("write accept_proxy = { from = [\"NETWORK\"] }"),
        }
    }
}

/// The route whose conditions are these terms.
fn route(terms: &[Term]) -> Result<ImportedRoute, &'static str> {
    let mut route = ImportedRoute::default();
    for term in terms {
        if let AclTest::Unknown(why) = term.test {
            return Err(why);
        }
        if term.is_negated {
            return Err("write routes for the other clients");
        }
        let (entries, values) = match &term.test {
            AclTest::Sni(names) => (&mut route.sni, names),
            AclTest::Alpn(protocols) => (&mut route.alpn, protocols),
            AclTest::From(networks) => (&mut route.from, networks),
            _ => continue,
        };
        if !entries.is_empty() {
            return Err("two conditions of one kind: write those that both have");
        }
        entries.clone_from(values);
    }
    Ok(route)
}
