//! Lines and sections of the file: words, quotes and escapes as in the configuration manual, section 2.2.

use std::ops::RangeInclusive;
use std::str::Chars;
use std::time::Duration;

use super::super::imported::{ImportedSection, Remark};
use super::super::number::{duration, duration_value, integer_at_most, too_long};

/// A line with at least one word.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Its number in the file, from 1.
    pub(super) number: usize,
    pub(super) words: Vec<String>,
}

impl Line {
    /// The words as one text.
    pub(super) fn text(&self) -> String {
        joined(&self.words)
    }
}

/// The words as one text. Words that are empty or contain whitespace are in quotes.
pub(super) fn joined(words: &[String]) -> String {
    let is_plain = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
    let words = words.iter().map(|word| match is_plain(word) {
        true => word.clone(),
        false => format!("\"{word}\""),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A section of any kind, and its lines.
#[derive(Debug)]
pub(super) struct HaproxySection {
    /// `global`, `frontend`, `backend` and so on.
    pub(super) kind: String,
    /// Empty if it has none.
    pub(super) name: String,
    /// The name after `from`: a `defaults` section.
    pub(super) from: Option<String>,
    /// The number of its first line.
    pub(super) line: usize,
    pub(super) lines: Vec<Line>,
}

impl HaproxySection {
    /// Its kind and name.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.kind, self.name).trim_end().to_owned()
    }

    /// A remark that its `from` has no effect.
    pub(super) fn unused_from(&self, why: &str) -> Remark {
        let from = self.from.as_deref().unwrap_or_default();
        Remark::left_out(self.line, &format!("from {from}"), why)
    }
}

/// The outcome of reading a line.
#[derive(Debug)]
pub(super) enum LineOutcome {
    /// It was carried over, or it needs no key here.
    Carried,
    /// It was read, and this note tells what differs here: for example, that a 0 has set nothing.
    Noted(String),
    /// It belongs to another section, or is unknown.
    Foreign,
    /// It was not carried over, or only in part, for this reason. The reason may be empty.
    LeftOut(&'static str),
}

impl LineOutcome {
    fn with_note(note: Option<String>) -> Self {
        note.map_or(Self::Carried, Self::Noted)
    }

    /// This outcome; if it is [`LineOutcome::Foreign`], the other.
    pub(super) fn or(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Foreign => other(),
            own => own,
        }
    }

    /// The remark to write about the line.
    pub(super) fn remark(self, line: &Line) -> Option<Remark> {
        self.remark_about(line.number, &line.text())
    }

    /// The remark to write about a part of the line with this number.
    pub(super) fn remark_about(self, line: usize, part: &str) -> Option<Remark> {
        match self {
            Self::Carried => None,
            Self::Noted(note) => Some(Remark::note(line, note)),
            Self::Foreign => Some(Remark::left_out(line, part, "")),
            Self::LeftOut(why) => Some(Remark::left_out(line, part, why)),
        }
    }
}

pub(super) fn carried_if(is_valid: bool) -> LineOutcome {
    match is_valid {
        true => LineOutcome::Carried,
        false => LineOutcome::LeftOut(""),
    }
}

/// Sets a key to the duration that a line has. As in HAProxy, a number without a unit is in milliseconds.
/// A 0 sets nothing.
pub(super) fn set_duration(section: &mut ImportedSection, key: &'static str, text: &str) -> LineOutcome {
    match duration(text, 1) {
        None => LineOutcome::LeftOut(NO_DURATION),
        Some(Duration::ZERO) => LineOutcome::Noted(ZERO_NOTE.to_owned()),
        Some(time) => {
            section.set(key, duration_value(time));
            LineOutcome::with_note(too_long(text, 1))
        }
    }
}

/// Sets a time to the duration that a line has. If `text` is not a duration, the time keeps its inherited value.
pub(super) fn set_time(time: &mut Option<Duration>, text: &str) -> LineOutcome {
    match duration(text, 1) {
        None => LineOutcome::LeftOut(NO_DURATION),
        parsed @ Some(_) => {
            *time = parsed;
            LineOutcome::with_note(too_long(text, 1))
        }
    }
}

const NO_DURATION: &str = "not a duration";

pub(super) const NO_NUMBER: &str = "not a number";

/// The note for a 0 by which HAProxy means its own default, or no limit.
const ZERO_NOTE: &str = "0 means HAProxy's default, or no limit: the default of acequia holds";

/// Sets a key to the number that a line has. If the lower bound is above 0, a 0 sets nothing.
pub(super) fn set_integer(
    section: &mut ImportedSection,
    key: &'static str,
    text: &str,
    bounds: RangeInclusive<u32>,
) -> LineOutcome {
    let Some((number, outcome)) = number(text, *bounds.end()) else {
        return LineOutcome::LeftOut(NO_NUMBER);
    };
    if number < *bounds.start() {
        return LineOutcome::Noted(ZERO_NOTE.to_owned());
    }
    section.set(key, number.to_string());
    outcome
}

/// The number that a line has. A number above `most` becomes `most`, with a note. `None`: the text is not a number.
pub(super) fn number(text: &str, most: u32) -> Option<(u32, LineOutcome)> {
    let (number, note) = integer_at_most(text, most)?;
    Some((number, LineOutcome::with_note(note)))
}

/// The words that begin a section.
const SECTIONS: [&str; 21] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "resolvers",
    "peers",
    "userlist",
    "mailers",
    "cache",
    "program",
    "ring",
    "http-errors",
    "log-forward",
    "log-profile",
    "fcgi-app",
    "crt-store",
    "traces",
    "acme",
    "healthcheck",
    "namespace_list",
];

/// Splits a file into sections. If the first line begins no section, a section is made of it, whose kind is the text of
/// the line.
pub(super) fn sections(text: &str) -> Vec<HaproxySection> {
    let mut sections: Vec<HaproxySection> = Vec::new();
    for (number, text) in (1..).zip(text.lines()) {
        let mut words = words(text);
        if words.is_empty() {
            continue;
        }
        if SECTIONS.contains(&words[0].as_str()) {
            let from = words.iter().position(|word| word == "from");
            let from = from.and_then(|at| words.get(at + 1)).cloned();
            let name = words.get(1).filter(|word| *word != "from").cloned();
            sections.push(HaproxySection {
                kind: words.swap_remove(0),
                name: name.unwrap_or_default(),
                from,
                line: number,
                lines: Vec::new(),
            });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(Line { number, words });
        } else {
            sections.push(HaproxySection {
                kind: words.join(" "),
                name: String::new(),
                from: None,
                line: number,
                lines: Vec::new(),
            });
        }
    }
    sections
}

/// The words of a line. Comments are left out.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            // Within single quotes a backslash is an ordinary character.
            (Some('\''), c) if c != '\'' => word.get_or_insert_default().push(c),
            (_, '\\') => push_escaped(&mut chars, word.get_or_insert_default()),
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '#') => break,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Adds what the characters after a backslash stand for. A backslash that begins no escape stands for itself. At the
/// end of the line, a backslash is dropped. An escape `\xHH` of a byte that is not ASCII is kept as it is: a regular
/// expression has the same escape.
fn push_escaped(rest: &mut Chars<'_>, word: &mut String) {
    let mut after = rest.clone();
    let Some(c) = after.next() else { return };
    match c {
        'r' => word.push('\r'),
        'n' => word.push('\n'),
        't' => word.push('\t'),
        ' ' | '\\' | '#' | '"' | '\'' | '$' => word.push(c),
        'x' => {
            // `from_str_radix` would accept a `+`.
            let digits = after.as_str().get(..2).filter(|digits| !digits.starts_with('+'));
            match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(byte) if byte.is_ascii() => {
                    word.push(char::from(byte));
                    after.nth(1);
                }
                _ => word.push_str("\\x"),
            }
        }
        _ => word.extend(['\\', c]),
    }
    *rest = after;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_have_quotes_escapes_and_comments() {
        assert_eq!(words("  bind  :443 # all"), ["bind", ":443"]);
        assert_eq!(
            words(r#"a "b c"d 'e "f' g\ h \#i"#),
            ["a", "b cd", "e \"f", "g h", "#i"]
        );
        assert_eq!(words("a \"\""), ["a", ""]);
        assert_eq!(words(r"a\r\n \x41\xff\x \d \"), ["a\r\n", r"A\xff\x", r"\d", ""]);
        assert!(words("# nothing").is_empty());
    }

    #[test]
    fn sections_have_names_and_defaults() {
        let sections =
            sections("mode tcp\ndefaults d\n mode http\nfrontend f from d\n bind :1\nlog-profile p\n on any\nlisten\n");
        let found: Vec<_> = sections
            .iter()
            .map(|section| (section.title(), section.lines.len()))
            .collect();
        let expected = [
            ("mode tcp", 0),
            ("defaults d", 1),
            ("frontend f", 1),
            ("log-profile p", 1),
            ("listen", 0),
        ];
        assert_eq!(found, expected.map(|(title, lines)| (title.to_owned(), lines)));
        assert_eq!(sections[2].from.as_deref(), Some("d"));
    }
}
