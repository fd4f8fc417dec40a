//! `option httpchk` and `http-check` (configuration manual, section 4.2).

use std::ops::RangeInclusive;

use super::super::imported::{ImportedSection, quoted};
use super::check_connection::CheckConnection;
use super::conversation::expectation;
use super::line::LineOutcome;
use crate::check::Pattern;

/// The statuses of HTTP.
const STATUSES: RangeInclusive<u16> = 100..=599;

/// A request, and what is expected of the answer.
#[derive(Debug, Default)]
pub(super) struct HttpConversation {
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    /// Header fields, each as `name = value` in TOML.
    fields: Vec<String>,
    /// Ranges of statuses, as in `200-299, 404`.
    statuses: Option<String>,
    /// A regular expression.
    body: Option<String>,
    pub(super) connection: CheckConnection,
    /// Whether a `send` was read.
    has_sent: bool,
    /// Whether lines about a second request have begun.
    is_over: bool,
}

const ONE_REQUEST: &str = "a check sends one request";

impl HttpConversation {
    /// `option httpchk [METHOD] [URI] [VERSION] [HOST]`. Old files have header fields after the version.
    pub(super) fn read_option(&mut self, words: &[String]) -> LineOutcome {
        let (method, rest) = match words {
            [] | [_] => (None, words),
            [method, rest @ ..] => (Some(method), rest),
        };
        // HAProxy's default method is OPTIONS (RFC 9110, section 9.3.7).
        self.method = Some(method.map_or("OPTIONS", String::as_str).to_owned());
        let outcome = rest.first().map_or(LineOutcome::Carried, |path| self.set_path(path));
        if let [_, version, host, ..] = rest
            && !version.contains("\r\n")
        {
            self.add_field("host", host);
        }
        let after_path = rest.get(1..).unwrap_or_default().join(" ");
        for field in after_path.split("\r\n").skip(1).filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once(':').unwrap_or((field, ""));
            self.add_field(name.trim(), value.trim());
        }
        outcome
    }

    /// Sets the path. A path in capital letters is replaced by `/`: it is meant as a method. The `haproxy.cfg` of old
    /// versions of Patroni has `option httpchk GET`, for example. HAProxy reads this single word as the path.
    fn set_path(&mut self, path: &str) -> LineOutcome {
        if !path.is_empty() && path.bytes().all(|byte| byte.is_ascii_uppercase()) {
            self.path = Some("/".to_owned());
            return LineOutcome::Noted(format!("HAProxy asks for the path `{path}`; here it is `/`"));
        }
        self.path = Some(path.to_owned());
        LineOutcome::Carried
    }

    /// Reads a line of `http-check`; `what` is its second word, and `rest` what follows.
    pub(super) fn read(&mut self, what: &str, rest: &[String]) -> LineOutcome {
        let has_expected = self.statuses.is_some() || self.body.is_some();
        self.is_over |= match what {
            "connect" => self.has_sent || has_expected,
            "send" => self.has_sent,
            _ => false,
        };
        match what {
            "comment" => LineOutcome::Carried,
            "send-state" => LineOutcome::LeftOut("checks do not send the header field X-Haproxy-Server-State"),
            _ if self.is_over => LineOutcome::LeftOut(ONE_REQUEST),
            "connect" => self.connection.read(rest, true),
            "send" => {
                self.has_sent = true;
                self.send(rest)
            }
            "expect" => self.expect(rest),
            _ => LineOutcome::LeftOut(""),
        }
    }

    fn send(&mut self, words: &[String]) -> LineOutcome {
        let mut rest = words.iter().map(String::as_str);
        while let Some(option) = rest.next() {
            let mut value = || rest.next().unwrap_or_default();
            match option {
                "meth" => self.method = Some(value().to_owned()),
                "uri" => self.path = Some(value().to_owned()),
                "ver" | "comment" => drop(value()),
                "hdr" => {
                    let (name, text) = (value(), value());
                    if text.contains("%[") {
                        return LineOutcome::LeftOut("a header field is computed");
                    }
                    self.add_field(name, text);
                }
                "body" | "body-lf" => return LineOutcome::LeftOut("requests have no body"),
                _ => return LineOutcome::LeftOut(""),
            }
        }
        LineOutcome::Carried
    }

    fn add_field(&mut self, name: &str, value: &str) {
        match name.to_ascii_lowercase().as_str() {
            "host" => self.host = Some(value.to_owned()),
            "connection" | "content-length" => {} // a check sets these
            _ => self.fields.push(format!("{} = {}", quoted(name), quoted(value))),
        }
    }

    fn expect(&mut self, words: &[String]) -> LineOutcome {
        let is_negated = words.iter().any(|word| word == "!");
        let words: Vec<String> = words.iter().filter(|word| *word != "!").cloned().collect();
        let Some((kind, pattern)) = expectation(&words) else {
            return LineOutcome::LeftOut("");
        };
        let is_listed = |status: u16| {
            let mut entries = pattern
                .split(',')
                .map(|entry| entry.split_once('-').unwrap_or((entry, entry)));
            entries.any(|(first, last)| {
                let bound = |text: &str| text.trim().parse::<u16>();
                matches!((bound(first), bound(last)), (Ok(first), Ok(last)) if (first..=last).contains(&status))
            })
        };
        let is_new = match kind {
            "status" => self.set_statuses(|status| is_listed(status) != is_negated),
            "rstatus" => match Pattern::new(pattern) {
                Ok(expression) => self.set_statuses(|status| expression.is_in(&status.to_string()) != is_negated),
                Err(_) => return LineOutcome::LeftOut("not a regular expression here"),
            },
            "string" if !is_negated => self.body.replace(regex::escape(pattern)).is_none(),
            "rstring" if !is_negated => self.body.replace(pattern.to_owned()).is_none(),
            _ => return LineOutcome::LeftOut(""),
        };
        if is_new {
            LineOutcome::Carried
        } else {
            LineOutcome::Noted(String::from("only the last `expect` of its kind is carried over"))
        }
    }

    /// Sets the statuses to those for which `holds` is true; returns whether none were set before.
    fn set_statuses(&mut self, holds: impl Fn(u16) -> bool) -> bool {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for status in STATUSES.filter(|status| holds(*status)) {
            match ranges.last_mut() {
                Some(last) if *last.end() + 1 == status => *last = *last.start()..=status,
                _ => ranges.push(status..=status),
            }
        }
        let entries = ranges.iter().map(|range| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        });
        self.statuses.replace(entries.collect::<Vec<_>>().join(", ")).is_none()
    }

    /// Sets the keys of the health section.
    pub(super) fn write(&self, health: &mut ImportedSection) {
        let any_status = format!("{}-{}", STATUSES.start(), STATUSES.end());
        let statuses = match (&self.statuses, &self.body) {
            (None, Some(_)) => Some(&any_status), // then HAProxy looks only at the body
            (statuses, _) => statuses.as_ref(),
        };
        let method = self.method.as_ref().filter(|method| *method != "GET");
        let path = self.path.as_ref().filter(|path| *path != "/");
        let texts = [
            ("method", method),
            ("path", path),
            ("host", self.host.as_ref()),
            ("expect", statuses),
            ("body", self.body.as_ref()),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                health.set(key, quoted(text));
            }
        }
        if !self.fields.is_empty() {
            health.set("headers", format!("{{ {} }}", self.fields.join(", ")));
        }
    }
}
