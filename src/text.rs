//! Text that others wrote, made safe to log and to show.
//!
//! A peer, a name server or a file may send bytes that drive a terminal, reorder what a person reads, or fill a log.
//! Such text is escaped and cut where it enters, so that nothing that passes it on has to think of it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Characters of a [`Reason`], the mark of a cut included.
pub const REASON_CHARS_MAX: usize = 256;

/// Stands at the end of a text that was cut.
const CUT: char = '…';

/// Whether a character must not be shown as it is: it drives a terminal (C0, DEL, C1), breaks a line (U+2028, U+2029),
/// changes the direction of the text around it (Unicode Standard Annex #9, section 2), or is not visible at all.
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

/// The text with each unsafe character as its escape, such as `\u{202e}` or `\n`. `kept`: characters that stay as they
/// are, whatever they do.
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

/// Why something is as it is, in words that may be another's: escaped, and of at most [`REASON_CHARS_MAX`] characters.
/// What is longer is cut, never within an escape, and ends with "…".
#[derive(Clone, PartialEq, Eq)]
pub struct Reason(Arc<str>);

impl Reason {
    /// Takes a text in.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut shown = String::new();
        let mut chars = 0;
        let mut whole = 0; // bytes behind which the mark of a cut has room
        for c in text.chars() {
            let before = shown.len();
            if is_unsafe(c) {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
            chars += shown[before..].chars().count();
            if chars > REASON_CHARS_MAX {
                shown.truncate(whole);
                shown.push(CUT);
                break;
            }
            if chars < REASON_CHARS_MAX {
                whole = shown.len();
            }
        }
        Self(shown.into())
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

    /// What must never be shown, written down apart from the code.
    const NEVER_SHOWN: &str = "\0\u{7}\t\n\r\u{1b}\u{7f}\u{85}\u{9b}\u{61c}\u{200b}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\
        \u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\u{feff}";

    fn any_text() -> impl Strategy<Value = String> {
        let odd = proptest::sample::select(NEVER_SHOWN.chars().collect::<Vec<_>>());
        proptest::collection::vec(prop_oneof![any::<char>(), odd, Just('x')], 0..600).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn a_reason_is_bounded_and_drives_no_terminal(text in any_text()) {
            let reason = Reason::new(&text);
            prop_assert!(reason.chars().count() <= REASON_CHARS_MAX);
            prop_assert!(!reason.chars().any(|c| c.is_control() || NEVER_SHOWN.contains(c)), "{reason:?}");
            let whole = escape(&text, &[]);
            prop_assert!(!whole.chars().any(|c| c.is_control() || NEVER_SHOWN.contains(c)), "{whole:?}");
            if whole.chars().count() <= REASON_CHARS_MAX {
                prop_assert_eq!(&*reason, &*whole);
            } else {
                prop_assert!(whole.starts_with(reason.strip_suffix(CUT).unwrap()));
                let longest_escape = '\u{10ffff}'.escape_unicode().count();
                prop_assert!(reason.chars().count() > REASON_CHARS_MAX - longest_escape);
            }
        }
    }

    #[test]
    fn an_escape_is_not_cut_in_two() {
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
