//! Helpers for text that is logged or displayed: they escape and shorten untrusted text, shorten lists, and give
//! numbers their nouns. Also the rules for names, their form in TOML, and a parser of numbers.
//!
//! The text of a peer, a name server or a file may contain bytes that control a terminal, reorder the displayed text,
//! or fill a log. It is escaped and truncated where it enters, so that other code can pass it on as it is (a
//! [`Reason`]), or it is escaped where it is logged or displayed.

mod lines;

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

pub(crate) use lines::{LINE_BYTES_MAX, Lines};

/// The longest [`Reason`], in characters, the ellipsis included.
pub const REASON_CHARS_MAX: usize = 256;

/// Ends a truncated text.
const ELLIPSIS: char = '…';

/// The longest name of a listener, pool, route or server, in bytes. Every line of the access log contains such names.
pub const NAME_BYTES_MAX: usize = 128;

/// Whether this may be the name of a listener, pool or route. It may also be the name of a server if it has no `/` and
/// no `@`: callers check that.
///
/// A name has no white space, no unsafe characters ([`is_unsafe`]) and none that need an escape, because it is used in
/// log lines, labels and commands. It is not `.` or `..`, because clients remove these segments from the path of a URL
/// (RFC 3986, section 5.2.4).
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_invalid = |c: char| c.is_whitespace() || is_unsafe(c) || matches!(c, '"' | '\\');
    !matches!(name, "" | "." | "..") && name.len() <= NAME_BYTES_MAX && !name.contains(is_invalid)
}

/// Parses an unsigned number that is written with digits only. `None`: the text has another form, such as `+1`, or the
/// number is too large.
pub fn parse_digits<T: FromStr>(text: &str) -> Option<T> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// Whether a character must be escaped before it is displayed: it controls a terminal (C0, DEL, C1), breaks a line
/// (U+2028, U+2029), changes the direction of the text around it (Unicode Standard Annex #9, section 2), or is one of
/// the common invisible characters.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' // soft hyphen
            | '\u{61c}' // Arabic letter mark
            | '\u{180e}' // Mongolian vowel separator
            | '\u{200b}'..='\u{200f}' // zero width; left-to-right and right-to-left marks
            | '\u{2028}'..='\u{202e}' // line and paragraph separators; embeddings and overrides
            | '\u{2060}'..='\u{206f}' // invisible operators; isolates; deprecated format characters
            | '\u{feff}' // zero width no-break space, also the byte order mark
            | '\u{fff9}'..='\u{fffb}' // interlinear annotation
            | '\u{e0000}'..='\u{e007f}') // tags
}

/// The text with unsafe characters escaped, as in `\u{202e}` or `\n`. Characters in `kept` are not escaped.
#[must_use]
pub fn escape<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let is_safe = |c: char| kept.contains(&c) || !is_unsafe(c);
    if text.chars().all(is_safe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_safe(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    Cow::Owned(shown)
}

/// The JSON text, in which characters that are unsafe to display are escaped, as in `\u202e`. Parsers read the same
/// value from it. Characters below U+007F stay as they are: any JSON escapes the control characters among them within
/// its strings.
#[must_use]
pub fn escape_json(json: &str) -> Cow<'_, str> {
    let is_safe = |c: char| c < '\u{7f}' || !is_unsafe(c);
    if json.chars().all(is_safe) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_safe(c) {
            shown.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(shown)
}

/// The first `bytes_max` bytes of the text, or fewer: only whole characters. (`str::floor_char_boundary` needs Rust
/// 1.91.)
#[must_use]
pub fn truncated(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The whole text if it has at most `bytes_max` bytes; otherwise at most that many of them, followed by an ellipsis.
#[must_use]
pub fn abbreviated(text: &str, bytes_max: usize) -> Cow<'_, str> {
    match truncated(text, bytes_max) {
        whole if whole.len() == text.len() => Cow::Borrowed(text),
        start => Cow::Owned(format!("{start}{ELLIPSIS}")),
    }
}

/// The text with unsafe characters escaped, at most `chars_max` characters long. A longer text is truncated, never
/// within an escape, and ends with "…".
#[must_use]
pub fn escape_bounded(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    let mut chars = 0;
    let mut fitting = 0; // length in bytes of what fits together with the ellipsis
    for c in text.chars() {
        let before = shown.len();
        if is_unsafe(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        chars += shown[before..].chars().count();
        if chars > chars_max {
            shown.truncate(fitting);
            shown.push(ELLIPSIS);
            break;
        }
        if chars < chars_max {
            fitting = shown.len();
        }
    }
    shown
}

/// The text without the byte order mark that some editors write at the beginning of a file. RFC 8259, section 8.1
/// allows to ignore it in JSON.
#[must_use]
pub fn without_byte_order_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// A string of TOML, in one line and between `"`.
#[must_use]
pub fn toml_basic_string(text: &str) -> String {
    // The escapes that serde_json writes are escapes of TOML, too. It does not escape DEL.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// A key of TOML: bare if it can be.
#[must_use]
pub fn toml_key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !name.is_empty() && name.bytes().all(is_bare) {
        name.to_owned()
    } else {
        toml_basic_string(name)
    }
}

/// A number with its noun: `1 pool`, `2 pools`.
#[must_use]
pub fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The first items, at most `most`; then, if there are others, `and 3 more`.
#[must_use]
pub fn first_and_more(items: impl ExactSizeIterator<Item: ToString>, most: usize) -> Vec<String> {
    let more = items.len().saturating_sub(most);
    let more = (more > 0).then(|| format!("and {more} more"));
    items.take(most).map(|item| item.to_string()).chain(more).collect()
}

/// Why something failed or is in its state. The text may come from a peer; it is escaped, and at most
/// [`REASON_CHARS_MAX`] characters long.
#[derive(Clone, PartialEq, Eq)]
pub struct Reason(Arc<str>);

impl Reason {
    /// Escapes and truncates the text, as [`escape_bounded`] does.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(escape_bounded(text, REASON_CHARS_MAX).into())
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl Deref for Reason {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Characters that must be escaped, listed independently of the code.
    const UNSAFE_CHARS: &str = "\0\u{7}\t\n\r\u{1b}\u{7f}\u{85}\u{9b}\u{61c}\u{200b}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\
        \u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\u{feff}";

    fn any_text() -> impl Strategy<Value = String> {
        let odd = proptest::sample::select(UNSAFE_CHARS.chars().collect::<Vec<_>>());
        proptest::collection::vec(prop_oneof![any::<char>(), odd, Just('x')], 0..600).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn a_reason_is_bounded_and_has_no_unsafe_characters(text in any_text()) {
            let reason = Reason::new(&text);
            prop_assert!(reason.chars().count() <= REASON_CHARS_MAX);
            prop_assert!(!reason.chars().any(|c| c.is_control() || UNSAFE_CHARS.contains(c)), "{reason:?}");
            let whole = escape(&text, &[]);
            prop_assert!(!whole.chars().any(|c| c.is_control() || UNSAFE_CHARS.contains(c)), "{whole:?}");
            if whole.chars().count() <= REASON_CHARS_MAX {
                prop_assert_eq!(&*reason, &*whole);
            } else {
                prop_assert!(whole.starts_with(reason.strip_suffix(ELLIPSIS).unwrap()));
                let longest_escape = '\u{10ffff}'.escape_unicode().count();
                prop_assert!(reason.chars().count() > REASON_CHARS_MAX - longest_escape);
            }
        }
    }

    proptest! {
        #[test]
        fn escaped_json_has_an_equal_value_and_no_unsafe_characters(text in any_text()) {
            let json = serde_json::to_string(&text).unwrap();
            let escaped = escape_json(&json);
            prop_assert!(!escaped.chars().any(|c| c.is_control() || UNSAFE_CHARS.contains(c)), "{escaped:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }

    #[test]
    fn a_character_is_not_truncated() {
        let text = "aé€";
        for (bytes_max, whole) in [(0, ""), (1, "a"), (2, "a"), (3, "aé"), (5, "aé"), (6, text), (7, text)] {
            assert_eq!(truncated(text, bytes_max), whole, "{bytes_max}");
        }
    }

    #[test]
    fn a_key_of_toml_is_quoted_unless_it_can_be_bare() {
        assert_eq!(toml_key("a-B_1"), "a-B_1");
        assert_eq!(toml_key("shop.example.com"), "\"shop.example.com\"");
        for name in ["a-B_1", "", "a.b", "é", "a b", "a\"'\\", "a\r\n\u{7f}"] {
            let table: toml::Table = format!("{} = 1", toml_key(name)).parse().unwrap();
            assert!(table.contains_key(name), "{name:?}");
        }
    }

    #[test]
    fn the_first_items_are_listed_and_the_others_counted() {
        assert_eq!(first_and_more(["a", "b"].iter(), 2), ["a", "b"]);
        assert_eq!(first_and_more(["a", "b", "c", "d"].iter(), 2), ["a", "b", "and 2 more"]);
    }

    #[test]
    fn an_escape_is_not_truncated() {
        let text = format!("{}\u{202e}", "x".repeat(REASON_CHARS_MAX - 3));
        assert_eq!(*Reason::new(&text), format!("{}…", "x".repeat(REASON_CHARS_MAX - 3)));
        let fits = "é".repeat(REASON_CHARS_MAX);
        assert_eq!(*Reason::new(&fits), *fits);
        assert_eq!(
            *Reason::new(&format!("{fits}é")),
            format!("{}…", "é".repeat(REASON_CHARS_MAX - 1))
        );
    }
}
