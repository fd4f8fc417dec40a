//! The keys of `check = "send-expect"`.

use std::sync::Arc;

use super::super::value;
use super::pattern::pattern;
use super::reader::KindReader;
use super::tls::optional_tls;
use super::{Problems, Section};
use crate::check::Check;
use crate::check::send_expect::{ConversationStep, KIND, SendExpectCheck};
use crate::config::file::Node;
use crate::config::keys;

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

/// The most entries of `steps`.
const STEPS_MAX: usize = 32;

/// The most bytes of a `send`: more might fill the buffers of a server that reads none.
const SEND_BYTES_MAX: usize = 4096;

/// The prefix of bytes in hexadecimal digits.
const HEX: &str = "hex:";

fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    Arc::new(SendExpectCheck {
        steps: steps(section, problems),
        tls: optional_tls(section, problems),
    })
}

fn steps(section: &Section<'_>, problems: &mut Problems<'_>) -> Vec<ConversationStep> {
    let example = r#"steps = [{ send = "PING\r\n", expect = "PONG" }]"#;
    let Some(node) = section.required("steps", example, problems) else {
        return Vec::new();
    };
    let nodes = value::one_or_many(node, problems);
    if nodes.len() > STEPS_MAX {
        problems.error(&node.position, "too many steps", format!("at most {STEPS_MAX}"));
    }
    nodes.iter().filter_map(|node| step(node, problems)).collect()
}

/// An entry of `steps`: what is sent, and what is expected in return.
fn step(node: &Node, problems: &mut Problems<'_>) -> Option<ConversationStep> {
    let entry = Section::open(node, &node.position, &keys::CHECK_STEP, problems)?;
    if entry.is_missing("send") && entry.is_missing("expect") {
        problems.error(&node.position, "the step is empty", "add `send`, `expect` or both");
    }
    Some(ConversationStep {
        send: entry.get("send").and_then(|node| bytes_to_send(node, problems)),
        expect: entry.get("expect").and_then(|node| pattern(node, problems)),
    })
}

/// A text, or bytes in hexadecimal digits.
pub(super) fn bytes_to_send(node: &Node, problems: &mut Problems<'_>) -> Option<Box<[u8]>> {
    let text = value::string(node, r#"write "PING\r\n""#, problems)?;
    let bytes = match text.strip_prefix(HEX) {
        None => {
            warn_of_escapes(text, node, problems);
            Some(text.as_bytes().to_owned())
        }
        Some(digits) => from_hex(digits),
    };
    let hint = match bytes {
        Some(bytes) if (1..=SEND_BYTES_MAX).contains(&bytes.len()) => return Some(bytes.into()),
        Some(_) => format!("write 1 to {SEND_BYTES_MAX} bytes"),
        None => "write two hexadecimal digits a byte, as in \"hex:0d 0a\"".to_owned(),
    };
    problems.error(&node.position, "invalid bytes to send", hint);
    None
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).ok();
    digits.chunks(2).map(byte).collect()
}

/// Warns about a backslash before `r` or `n`. In TOML it remains if the text is in single quotes.
fn warn_of_escapes(text: &str, node: &Node, problems: &mut Problems<'_>) {
    if text.contains(r"\r") || text.contains(r"\n") {
        let message = "a backslash is sent as it is";
        problems.warning(
            &node.position,
            message,
            r#"write the text in double quotes, as in "PING\r\n""#,
        );
    }
}
