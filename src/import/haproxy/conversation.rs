//! The conversation of a check with a server: lines `tcp-check send` and `tcp-check expect`, or an option that stands
//! for such lines, `smtpchk` or `ldap-check` (configuration manual, section 4.2).

use super::super::imported::{ImportedSection, quoted};
use super::check_connection::CheckConnection;
use super::line::LineOutcome;

/// A conversation of a check, and how the check connects.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    steps: Vec<ImportedStep>,
    pub(super) connection: CheckConnection,
    /// Whether a `connect` line came after a step. That line and all later lines are about a second connection, and are
    /// left out.
    is_over: bool,
}

/// Why lines about a second connection are left out.
const ONE_CONNECTION: &str = "a check uses one connection";

/// The note on an `expect` that follows another `expect` without a `send` between them.
const SEARCHED_BEHIND: &str =
    "here, this `expect` searches behind the match of the previous `expect`; in HAProxy, both search the same bytes";

/// An entry of `steps` in acequia's configuration; at least one of its fields is set.
#[derive(Debug, Default)]
struct ImportedStep {
    send: Option<String>,
    expect: Option<String>,
}

impl Conversation {
    /// `option smtpchk`
    pub(super) fn smtp(command: &str, domain: &str) -> Self {
        let command = if command == "EHLO" { command } else { "HELO" };
        let domain = if domain.is_empty() { "localhost" } else { domain };
        let mut conversation = Self::default();
        conversation.expect("^220");
        conversation.send(format!("{command} {domain}\r\n"));
        conversation.expect("^250");
        conversation.send(String::from("QUIT\r\n"));
        conversation
    }

    /// `option ldap-check`: an anonymous bind, which must succeed (RFC 4511, section 4.2). The expected bytes are the
    /// resultCode `success` in BER.
    pub(super) fn ldap() -> Self {
        let mut conversation = Self::default();
        conversation.send(String::from("hex:300c020101600702010304008000"));
        conversation.expect(r"\x0a\x01\x00");
        conversation
    }

    pub(super) fn without_steps(connection: CheckConnection) -> Self {
        Self {
            connection,
            ..Self::default()
        }
    }

    pub(super) fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Reads a `tcp-check` line: `what` is its second word, `rest` what follows.
    pub(super) fn read(&mut self, what: &str, rest: &[String]) -> LineOutcome {
        let first = rest.first().map_or("", String::as_str);
        match what {
            "comment" => LineOutcome::Carried,
            "connect" if self.has_steps() => {
                self.is_over = true;
                LineOutcome::LeftOut(ONE_CONNECTION)
            }
            _ if self.is_over => LineOutcome::LeftOut(ONE_CONNECTION),
            "connect" => self.connection.read(rest, false), // the last `connect` before the steps counts
            // A text with `\x` is left out: it has an escape of a byte that is not ASCII (see `super::line`), which
            // acequia's `send` does not know. After `hex:`, acequia's `send` would expect hexadecimal digits.
            "send" if !first.is_empty() && !first.contains("\\x") && !first.starts_with("hex:") => {
                self.send(first.to_owned());
                LineOutcome::Carried
            }
            "send-binary" => {
                self.send(format!("hex:{first}"));
                LineOutcome::Carried
            }
            "expect" => self.read_expect(rest),
            _ => LineOutcome::LeftOut(""),
        }
    }

    /// Reads a `tcp-check expect` line. `rest`: the words after `expect`.
    fn read_expect(&mut self, rest: &[String]) -> LineOutcome {
        let Some((kind, pattern)) = expectation(rest) else {
            return LineOutcome::LeftOut("");
        };
        let follows_expect = self.steps.last().is_some_and(|last| last.expect.is_some());
        match kind {
            "string" => self.expect(&regex::escape(pattern)),
            "rstring" => self.expect(pattern),
            "binary" => {
                let digits: Vec<char> = pattern.chars().collect();
                let bytes = digits
                    .chunks(2)
                    .map(|byte| format!(r"\x{}", byte.iter().collect::<String>()));
                self.expect(&bytes.collect::<String>());
            }
            _ => return LineOutcome::LeftOut(""),
        }
        match follows_expect {
            true => LineOutcome::Noted(String::from(SEARCHED_BEHIND)),
            false => LineOutcome::Carried,
        }
    }

    fn send(&mut self, text: String) {
        self.steps.push(ImportedStep {
            send: Some(text),
            expect: None,
        });
    }

    /// Adds a regular expression that must match what the server sends after the last match.
    ///
    /// At each `send`, HAProxy discards the bytes that it has received, so `^` matches at the beginning of the next
    /// answer. acequia keeps the bytes after the last match, usually the rest of a line, and the next answer comes
    /// behind them. So from the second `expect` on, the flag `(?m)` lets `^` match at the beginning of each line.
    fn expect(&mut self, expression: &str) {
        let has_matched = self.steps.iter().any(|step| step.expect.is_some());
        let flags = if has_matched && has_anchor(expression) {
            "(?m)"
        } else {
            ""
        };
        let expect = Some(format!("{flags}{expression}"));
        match self.steps.last_mut() {
            Some(last) if last.expect.is_none() => last.expect = expect,
            _ => self.steps.push(ImportedStep { send: None, expect }),
        }
    }

    /// Sets the key `steps` of the health section. `takes_steps`: whether the kind of the check has this key.
    pub(super) fn write(&self, takes_steps: bool, health: &mut ImportedSection) {
        if takes_steps {
            let steps: Vec<String> = self.steps.iter().map(ImportedStep::to_toml).collect();
            health.set("steps", format!("[{}]", steps.join(", ")));
        }
    }
}

impl ImportedStep {
    fn to_toml(&self) -> String {
        let key = |key, text: &Option<String>| text.as_ref().map(|text| format!("{key} = {}", quoted(text)));
        let keys = [key("send", &self.send), key("expect", &self.expect)];
        format!("{{ {} }}", keys.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Whether the expression seems to have a `^` that is an anchor, as in `(^220|^250)`. In `\^` and `[^…]`, it is not an
/// anchor. One elsewhere in brackets, as in `[a^]`, is taken for an anchor, too.
fn has_anchor(expression: &str) -> bool {
    let mut carets = expression.match_indices('^');
    carets.any(|(at, _)| !expression[..at].ends_with(['\\', '[']))
}

/// The kind of comparison of an `expect`, such as `string`, and its pattern. `None`: it is negated, or incomplete.
pub(super) fn expectation(words: &[String]) -> Option<(&str, &str)> {
    let mut rest = words.iter().map(String::as_str);
    loop {
        match rest.next()? {
            "min-recv" | "comment" | "ok-status" | "error-status" | "tout-status" | "on-success" | "on-error"
            | "status-code" => drop(rest.next()),
            "!" => return None,
            kind => return Some((kind, rest.next()?)),
        }
    }
}
