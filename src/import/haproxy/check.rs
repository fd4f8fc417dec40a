//! Health checks: `option pgsql-check` and the like (configuration manual, section 4.2).

use std::mem::take;

use super::super::imported::{ImportedSection, quoted};
use super::check_connection::CheckConnection;
use super::conversation::{Conversation, expectation};
use super::http_check::HttpConversation;
use super::line::{Line, LineOutcome};

const WRITE_EXEC: &str = "write check = \"exec\": its command gets other variables, and no arguments";

/// How the servers of a backend are checked.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// The value of `check`. `None`: no line has set it.
    kind: Option<&'static str>,
    /// Whether an `option` line other than `option tcp-check` has set the kind.
    is_from_option: bool,
    user: Option<String>,
    /// Whether sessions go only to the primary.
    wants_primary: bool,
    http: HttpConversation,
    conversation: Conversation,
}

impl Checks {
    /// Reads an `option`, `tcp-check`, `http-check` or `external-check` line. All `option` lines must be read first.
    pub(super) fn read(&mut self, line: &Line) -> LineOutcome {
        let word = |at: usize| line.words.get(at).map_or("", String::as_str);
        let rest = line.words.get(2..).unwrap_or_default();
        match (word(0), word(1)) {
            ("option", "tcp-check") => {
                self.set("tcp");
                self.is_from_option = false;
                LineOutcome::Carried
            }
            ("option", "ssl-hello-chk") => self.set_option("tls"),
            ("option", "redis-check") => self.set_option("redis"),
            ("option", "pgsql-check") => {
                self.set_option("postgres");
                LineOutcome::Noted(String::from(
                    "with `user` and `password_file` the check also finds the role of a server",
                ))
            }
            ("option", "mysql-check") => {
                self.set_option("mysql");
                self.user = (word(2) == "user" && !word(3).is_empty()).then(|| word(3).to_owned());
                LineOutcome::Carried
            }
            ("option", "httpchk") => {
                self.set_option("http");
                self.http.read_option(rest)
            }
            ("http-check", _) => {
                if self.kind != Some("http") {
                    return LineOutcome::LeftOut("no `option httpchk` selects this kind of check");
                }
                self.http.read(word(1), rest)
            }
            ("option", "smtpchk") => {
                self.set_option("send-expect");
                self.conversation = Conversation::smtp(word(2), word(3));
                LineOutcome::Carried
            }
            ("option", "ldap-check") => {
                self.set_option("send-expect");
                self.conversation = Conversation::ldap();
                LineOutcome::Carried
            }
            ("option", "external-check") => {
                self.set_option("tcp");
                LineOutcome::LeftOut(WRITE_EXEC)
            }
            ("external-check", _) => LineOutcome::LeftOut(WRITE_EXEC),
            ("option", "spop-check") => {
                self.set_option("tcp");
                LineOutcome::LeftOut("there is no check of this kind")
            }
            ("option", "log-health-checks") => LineOutcome::Carried,
            ("tcp-check", _) if self.is_from_option => LineOutcome::LeftOut("another option selects the kind of check"),
            ("tcp-check", _) => self.read_tcp_check(line),
            _ => LineOutcome::Foreign,
        }
    }

    /// Reads a `tcp-check` line. A conversation that begins with PING, AUTH, `info replication` or `role` becomes the
    /// check `redis`, any other one `send-expect`.
    fn read_tcp_check(&mut self, line: &Line) -> LineOutcome {
        let word = |at: usize| line.words.get(at).map_or("", String::as_str);
        let rest = line.words.get(2..).unwrap_or_default();
        let is_first = !self.conversation.has_steps();
        let begins_with = |command: &str| is_first && word(2).starts_with(command);
        match word(1) {
            "send" if begins_with("PING") => {
                self.set("redis");
                LineOutcome::Noted(String::from(
                    "check = \"redis\" sends ROLE, too: for another service with PING write check = \"send-expect\"",
                ))
            }
            "send" if begins_with("info replication") || begins_with("role") => self.set("redis"),
            "send" if begins_with("AUTH ") => {
                self.set("redis");
                LineOutcome::Noted(String::from("write the password of AUTH to a file: `password_file`"))
            }
            "send" if self.kind == Some("redis") && word(2).starts_with("QUIT") => LineOutcome::Carried,
            "expect" if self.kind == Some("redis") => match expectation(rest) {
                Some(("string" | "rstring", "role:master")) => {
                    self.wants_primary = true;
                    LineOutcome::Carried
                }
                Some(("string" | "rstring", "+PONG" | "+OK")) => LineOutcome::Carried,
                _ => LineOutcome::LeftOut(""),
            },
            "connect" | "comment" | "send" | "send-binary" | "expect" => {
                if self.kind == Some("redis") && word(1).starts_with("send") {
                    return LineOutcome::LeftOut("");
                }
                let outcome = self.conversation.read(word(1), rest);
                if self.conversation.has_steps() && matches!(self.kind, None | Some("tcp")) {
                    self.kind = Some("send-expect");
                }
                outcome
            }
            _ => LineOutcome::LeftOut(""),
        }
    }

    /// Sets the kind that an option other than `tcp-check` names.
    fn set_option(&mut self, kind: &'static str) -> LineOutcome {
        self.set(kind);
        self.is_from_option = true;
        LineOutcome::Carried
    }

    /// Sets the kind. If it changes, the settings of the earlier kind are dropped, except those of `tcp-check connect`:
    /// that line stands before the lines that show the kind.
    fn set(&mut self, kind: &'static str) -> LineOutcome {
        if self.kind != Some(kind) {
            let connection = take(&mut self.conversation.connection);
            *self = Self {
                kind: Some(kind),
                conversation: Conversation::without_steps(connection),
                ..Self::default()
            };
        }
        LineOutcome::Carried
    }

    /// How the checks connect.
    pub(super) fn connection(&self) -> &CheckConnection {
        match self.kind {
            Some("http") => &self.http.connection,
            _ => &self.conversation.connection,
        }
    }

    /// Sets the keys of the pool and of its health section. `is_tls_by_servers`: whether the lines of the servers ask
    /// for checks in TLS. Returns whether the checks are in TLS and of a kind that has settings for the verification of
    /// certificates.
    pub(super) fn write(
        &self,
        is_tls_by_servers: bool,
        pool: &mut ImportedSection,
        health: &mut ImportedSection,
    ) -> bool {
        let connection = self.connection();
        let is_tls = connection.is_tls(is_tls_by_servers);
        let kind = match self.kind {
            Some("tcp") | None if is_tls => "tls",
            Some(kind) => kind,
            None => "tcp",
        };
        if kind != "tcp" {
            health.set("check", quoted(kind));
        }
        match kind {
            "http" => self.http.write(health),
            "send-expect" | "tls" => self.conversation.write(kind == "send-expect", health),
            _ => {}
        }
        if let Some(port) = connection.port() {
            health.set("port", port.to_string());
        }
        // The kind `tls` needs no key `tls`.
        let has_tls_key = matches!(kind, "http" | "send-expect" | "redis");
        if has_tls_key && is_tls {
            health.set("tls", "true");
        }
        if let Some(user) = &self.user {
            health.set("user", quoted(user));
        }
        if self.wants_primary {
            pool.set("role", quoted("primary"));
        }
        // The kind `redis` takes these settings from `[pools.NAME.tls]`.
        is_tls && matches!(kind, "http" | "send-expect" | "tls")
    }
}
