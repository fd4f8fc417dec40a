//! The reply of an agent: words in a line (HAProxy's configuration manual, `agent-check`).

use crate::pool::{AdminState, AgentSettings};

/// The largest percentage of the configured weight. It turns a configured weight of 100 into the largest weight, 256.
const PERCENT_MAX: u16 = 256;

/// The settings in a reply; `None`: the reply does not mention the setting, which stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AgentReply {
    admin_state: Option<AdminState>,
    weight_percent: Option<u16>,
    verdict: Option<AgentVerdict>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum AgentVerdict {
    Up,
    /// With the reason.
    Down(String),
}

impl AgentReply {
    /// Reads a line of words that are separated by spaces, tabs or commas. Letter case does not matter. Text after `#`
    /// is a description. Unknown words are skipped, as by HAProxy. So is `maxconn:`, which HAProxy obeys. `None`:
    /// nothing was received.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
        let line = String::from_utf8_lossy(line);
        let (words, description) = line.split_once('#').unwrap_or((&line, ""));
        let mut reply = Self::default();
        for word in words.split([' ', '\t', ',']) {
            reply.add(&word.to_ascii_lowercase(), description.trim());
        }
        Some(reply)
    }

    fn add(&mut self, word: &str, description: &str) {
        match word {
            "ready" => self.admin_state = Some(AdminState::Enabled),
            "drain" => self.admin_state = Some(AdminState::Draining),
            "maint" => self.admin_state = Some(AdminState::Disabled),
            "up" => self.verdict = Some(AgentVerdict::Up),
            "down" | "fail" | "stopped" => {
                let gap = if description.is_empty() { "" } else { ": " };
                let reason = format!("the agent says: {word}{gap}{description}");
                self.verdict = Some(AgentVerdict::Down(reason));
            }
            _ => {
                let digits = word.strip_suffix('%').unwrap_or_default();
                if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    // A number that does not fit is more than the largest percentage.
                    let percent = digits.parse().unwrap_or(PERCENT_MAX);
                    self.weight_percent = Some(percent.min(PERCENT_MAX));
                }
            }
        }
    }

    /// Changes the settings that the reply mentions. `down`: why the server is down; `None`: it is up.
    pub(super) fn apply(self, settings: &mut AgentSettings, down: &mut Option<String>) {
        settings.admin_state = self.admin_state.unwrap_or(settings.admin_state);
        settings.weight_percent = self.weight_percent.or(settings.weight_percent);
        match self.verdict {
            Some(AgentVerdict::Up) => *down = None,
            Some(AgentVerdict::Down(reason)) => *down = Some(reason),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_words_are_parsed_in_any_order_and_case() {
        let reply = AgentReply::parse(b"UP, ready\t75% maxconn:30\r\nignored").unwrap();
        let expected = AgentReply {
            admin_state: Some(AdminState::Enabled),
            weight_percent: Some(75),
            verdict: Some(AgentVerdict::Up),
        };
        assert_eq!(reply, expected);
        let verdict = AgentReply::parse(b"stopped# for an upgrade\n").unwrap().verdict;
        let reason = "the agent says: stopped: for an upgrade".to_owned();
        assert_eq!(verdict, Some(AgentVerdict::Down(reason)));
        assert_eq!(AgentReply::parse(b""), None, "no reply");
    }

    #[test]
    fn unknown_reply_words_are_ignored() {
        for text in [
            "\n",
            "#up",
            "hello",
            "75",
            "50.5%",
            "-1%",
            "+1%",
            "%",
            "up\u{e9}",
            "maxconn:30",
        ] {
            assert_eq!(
                AgentReply::parse(text.as_bytes()),
                Some(AgentReply::default()),
                "{text:?}"
            );
        }
        let drain = AgentReply {
            admin_state: Some(AdminState::Draining),
            ..AgentReply::default()
        };
        for text in [&b"drain idle"[..], b"\xff drain\n", b"drain 50.5%"] {
            assert_eq!(AgentReply::parse(text), Some(drain.clone()), "{text:?}");
        }
    }

    #[test]
    fn a_weight_percentage_is_at_most_256() {
        for (text, percent) in [("0%", 0), ("256%", 256), ("300%", 256), ("99999999%", 256)] {
            let reply = AgentReply::parse(text.as_bytes()).unwrap();
            assert_eq!(reply.weight_percent, Some(percent), "{text}");
        }
    }
}
