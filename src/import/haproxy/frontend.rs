//! The client side of a proxy: a `frontend`, or the lines of a `listen` that are about its clients.

use std::collections::HashMap;
use std::time::Duration;

use super::super::imported::{ImportedListener, ImportedRoute, Remark};
use super::accepted::{AcceptedClients, networks_of};
use super::bind;
use super::condition::{AclTest, Acls, Term};
use super::line::{Line, LineOutcome, set_duration, set_integer, set_time};

/// The note about a condition that tests whether there is a ClientHello, but not its server name or protocols.
const NAMELESS: &str = "TLS clients without a server name do not take this route";

/// The note about `-m end VALUE` where the value does not begin with a dot.
const PARTIAL: &str = "a longer name that ends with the value, but has no dot before that value, does not match";

const SETTLED: &str = "an earlier line decides about all clients";

/// What to write if the peers of an `expect-proxy` rule are not known as networks.
const NO_PEERS: &str = "write accept_proxy = { from = [\"NETWORK\"] }";

/// A frontend that is being read.
#[derive(Debug, Default)]
pub(super) struct Frontend {
    listener: ImportedListener,
    acls: Acls,
    /// The clients that rules have accepted, by the set of the rules: `connection`, `session` or `content`.
    accepted: HashMap<String, AcceptedClients>,
    /// `timeout client`
    pub(super) client_timeout: Option<Duration>,
    /// The backend that `default_backend` names. A `listen` is its own default.
    pub(super) pool: Option<String>,
    /// The backend of the first `use_backend` for all clients. Then later `use_backend` lines and `default_backend`
    /// have no effect.
    for_all: Option<String>,
    /// The numbers of the lines with `tcp-request connection reject`.
    peer_rule_lines: Vec<usize>,
    pub(super) remarks: Vec<Remark>,
}

impl Frontend {
    pub(super) fn new(name: &str) -> Self {
        let mut frontend = Self::default();
        name.clone_into(&mut frontend.listener.name);
        frontend
    }

    pub(super) fn into_listener(mut self) -> ImportedListener {
        self.listener.pool = self.for_all.or(self.pool);
        // HAProxy applies all rejections before the first `use_backend`.
        self.listener.routes.sort_by_key(|route| route.pool.is_some());
        if !self.listener.proxy_peers.is_empty() {
            let text =
                "HAProxy tests the address of the peer; acequia tests that of the client, which the PROXY header names";
            let notes = self.peer_rule_lines.iter().map(|line| Remark::note(*line, text));
            self.remarks.extend(notes);
        }
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
            ("timeout", "client") => set_time(&mut self.client_timeout, word(2)),
            ("timeout", "client-fin") => set_duration(section, "half_close_timeout", word(2)),
            ("tcp-request", "inspect-delay") => set_duration(section, "hello_timeout", word(2)),
            ("tcp-request", "connection" | "content" | "session") => self.tcp_request(line),
            // These are always in effect here, are about logs and statistics, or save a packet (`tcp-smart-accept`).
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
        if self.for_all.is_some() {
            return LineOutcome::LeftOut("an earlier use_backend takes all clients");
        }
        match line.words.get(2).map(String::as_str) {
            Some("if") => self.routes(line, 3, Some(pool)),
            Some("unless") => LineOutcome::LeftOut("write routes for the other clients"),
            _ => {
                self.for_all = Some(pool.to_owned());
                LineOutcome::Carried
            }
        }
    }

    /// Adds a route for each alternative of the condition, which begins at the word `at`. `pool`: where the clients go;
    /// `None`: they are refused. With a pool, an alternative for all clients sets `for_all` instead. A refusal of names
    /// that are all accepted by earlier lines adds nothing. Returns why an alternative is left out.
    fn routes(&mut self, line: &Line, at: usize, pool: Option<&str>) -> LineOutcome {
        let condition = self.acls.condition(line.words.get(at..).unwrap_or_default());
        let mut outcome = LineOutcome::Carried;
        for terms in condition {
            let mut route = match route(&terms) {
                Ok(route) => route,
                Err(why) => {
                    outcome = LineOutcome::LeftOut(why);
                    continue;
                }
            };
            route.pool = pool.map(str::to_owned);
            route.line = line.number;
            let is_for_tls = terms.iter().any(|term| term.test == AclTest::ClientHello);
            let has_partial = |term: &Term| matches!(term.test, AclTest::Sni { is_partial: true, .. });
            let mut note = |text: &str| self.remarks.push(Remark::note(line.number, text));
            if terms.iter().any(has_partial) {
                note(PARTIAL);
            }
            if is_for_tls && route.sni.is_empty() && route.alpn.is_empty() {
                route.sni = vec![String::from("*")];
                note(NAMELESS);
            }
            match pool {
                None if route.is_for_all() => {
                    outcome = LineOutcome::LeftOut("it would refuse all clients");
                    continue;
                }
                None => {
                    let accepted = &self.accepted[&line.words[1]];
                    if !route.sni.is_empty() && !accepted.remove_names(&mut route.sni) {
                        continue;
                    }
                    self.remarks.extend(accepted.note_on_refusing(&route).remark(line));
                }
                Some(pool) if route.is_for_all() => {
                    self.for_all = Some(pool.to_owned());
                    break;
                }
                Some(_) => {}
            }
            self.listener.routes.push(route);
        }
        outcome
    }

    /// `tcp-request connection reject if …` and the like.
    fn tcp_request(&mut self, line: &Line) -> LineOutcome {
        let word = |at: usize| line.words.get(at).map_or("", String::as_str);
        let expects_proxy = (word(2), word(3)) == ("expect-proxy", "layer4");
        let at = if expects_proxy { 4 } else { 3 }; // where `if` or `unless` is
        let condition = self.acls.condition(line.words.get(at + 1..).unwrap_or_default());
        let accepted = self.accepted.entry(word(1).to_owned()).or_default();
        if accepted.is_settled {
            return LineOutcome::LeftOut(SETTLED);
        }
        let is_about_peer = word(1) == "connection"; // the PROXY header is read after these rules
        match (word(2), word(at)) {
            ("expect-proxy", "if") if expects_proxy => self.expect_proxy(word(1), &condition),
            ("expect-proxy", _) if expects_proxy => LineOutcome::LeftOut(NO_PEERS),
            ("accept", how @ ("if" | "unless")) => accepted.accept(&condition, how == "unless"),
            ("accept", "") => {
                accepted.is_settled = true;
                LineOutcome::Carried
            }
            ("reject", "") => {
                accepted.is_settled = true;
                self.peer_rule_lines.extend(is_about_peer.then_some(line.number));
                let networks = accepted.only(&[]);
                self.allow_only(networks)
            }
            ("reject", how @ ("if" | "unless")) => {
                self.peer_rule_lines.extend(is_about_peer.then_some(line.number));
                self.reject(line, &condition, how == "unless")
            }
            _ => LineOutcome::LeftOut(""),
        }
    }

    /// Accepts only these networks. Carries over only the first such rule: with several, a client must be accepted by
    /// each of them, which one list cannot say.
    fn allow_only(&mut self, networks: Result<Vec<String>, &'static str>) -> LineOutcome {
        match networks {
            Ok(_) if !self.listener.allow.is_empty() => LineOutcome::LeftOut("another rule already says who may pass"),
            Ok(networks) => {
                self.listener.allow = networks;
                LineOutcome::Carried
            }
            Err(why) => LineOutcome::LeftOut(why),
        }
    }

    /// Carries over a rejection. A rejection of networks becomes the shorter list: `allow` for the other networks, or
    /// `deny` for the rejected ones. Any other rejection becomes routes that refuse clients, or is left out if it says
    /// `unless`.
    fn reject(&mut self, line: &Line, alternatives: &[Vec<Term>], is_unless: bool) -> LineOutcome {
        let accepted = &self.accepted[&line.words[1]];
        let (passing, rejected) = (
            networks_of(alternatives, !is_unless),
            networks_of(alternatives, is_unless),
        );
        match (passing, rejected) {
            (Some(passing), rejected) if rejected.as_ref().is_none_or(|rejected| passing.len() < rejected.len()) => {
                let networks = accepted.only(&passing);
                return self.allow_only(networks);
            }
            (_, Some(rejected)) => {
                let (denied, outcome) = accepted.reject(&rejected);
                self.listener.deny.extend(denied);
                return outcome;
            }
            (_, None) => {}
        }
        if is_unless {
            return LineOutcome::LeftOut("write routes for the clients that may pass");
        }
        self.routes(line, 4, None)
    }

    /// `tcp-request connection expect-proxy layer4 if …`; `set` is the set of the rule.
    fn expect_proxy(&mut self, set: &str, alternatives: &[Vec<Term>]) -> LineOutcome {
        let is_unless = false;
        let accepted = &self.accepted[set];
        // HAProxy expects no header from peers that an earlier line accepts.
        let expected = networks_of(alternatives, is_unless).and_then(|networks| accepted.without_accepted(&networks));
        let Some(expected) = expected else {
            return LineOutcome::LeftOut(NO_PEERS);
        };
        let is_exact = !accepted.accepts_beyond_networks();
        if !expected.is_empty() && self.listener.expect_proxy_of(expected) {
            LineOutcome::Noted(String::from(bind::ONLY_EXPECTED))
        } else if is_exact {
            LineOutcome::Carried
        } else {
            LineOutcome::Noted(String::from(
                "peers that an earlier line accepts must send a PROXY header, too",
            ))
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
        let (entries, values) = match &term.test {
            AclTest::Networks(_) => continue,
            _ if term.is_negated => return Err("write routes for the other clients"),
            AclTest::Sni { names, .. } => (&mut route.sni, names),
            AclTest::Alpn(protocols) => (&mut route.alpn, protocols),
            _ => continue, // `ClientHello` and `Always` add no entries
        };
        if !entries.is_empty() {
            return Err("two conditions of one kind: write the values that both have");
        }
        entries.clone_from(values);
    }
    let of_networks = terms.iter().filter(|term| matches!(term.test, AclTest::Networks(_)));
    let of_networks: Vec<Term> = of_networks.cloned().collect();
    if !of_networks.is_empty() {
        let is_unless = false;
        route.from = networks_of(&[of_networks], is_unless).ok_or("too many networks")?;
        if route.from.is_empty() {
            return Err("no client is in these networks");
        }
    }
    Ok(route)
}
