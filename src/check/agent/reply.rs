//! The reply of an agent: words in a line (HAProxy's configuration manual, `agent-check`).

use crate::pool::{AdminState, AgentSettings};

/// The largest percentage: that of the largest weight.
const PERCENT_MAX: u16 = 256;

/// What a reply asks for. What it does not mention stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AgentReply {
    admin_state: Option<AdminState>,
    weight_percent: Option<u16>,
    /// `Some(None)`: the server is up; `Some(Some(_))`: it is down, and why.
    down: Option<Option<String>>,
}

impl AgentReply {
    /// Reads a line of words that are separated by spaces, tabs or commas. Letter case does not matter. Text after `#` is a
    /// description. `maxconn:` is ignored: servers have no limit of their own. `None`: a word is unknown, or there is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
        let line = std::str::from_utf8(line).ok()?;
        let (words, description) = line.split_once('#').unwrap_or((line, ""));
        let mut reply = Self::default();
        let mut has_words = false;
        for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
            has_words = true;
            reply.add(&word.to_ascii_lowercase(), description.trim())?;
        }
        has_words.then_some(reply)
    }

    fn add(&mut self, word: &str, description: &str) -> Option<()> {
        match word {
            "ready" => self.admin_state = Some(AdminState::Enabled),
            "drain" => self.admin_state = Some(AdminState::Draining),
            "maint" => self.admin_state = Some(AdminState::Disabled),
            "up" => self.down = Some(None),
            "down" | "fail" | "stopped" => {
                let gap = if description.is_empty() { "" } else { ": " };
                self.down = Some(Some(format!("the agent says: {word}{gap}{description}")));
            }
            _ if word.starts_with("maxconn:") => {}
            _ => {
                let percent = word.strip_suffix('%')?.parse().ok();
                self.weight_percent = Some(percent.filter(|percent| *percent <= PERCENT_MAX)?);
            }
        }
        Some(())
    }

    /// Changes what the reply mentions.
    pub(super) fn apply(self, settings: &mut AgentSettings, down: &mut Option<String>) {
        settings.admin_state = self.admin_state.unwrap_or(settings.admin_state);
        settings.weight_percent = self.weight_percent.or(settings.weight_percent);
        if let Some(said) = self.down {
            *down = said;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_any_order_and_case() {
        let reply = AgentReply::parse(b"UP, ready\t75% maxconn:30\r\nignored").unwrap();
        let expected = AgentReply {
            admin_state: Some(AdminState::Enabled),
            weight_percent: Some(75),
            down: Some(None),
        };
        assert_eq!(reply, expected);
        let down = AgentReply::parse(b"stopped# for an upgrade\n").unwrap().down;
        assert_eq!(down, Some(Some("the agent says: stopped: for an upgrade".to_owned())));
        for text in [
            "",
            "\n",
            "#up",
            "hello",
            "75",
            "257%",
            "-1%",
            "99999999%",
            "%",
            "up\u{e9}",
        ] {
            assert_eq!(AgentReply::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(AgentReply::parse(b"\xff up\n"), None);
    }
}
