//! Bounds how deep tables and lists nest in a text of TOML, before it is parsed.
//!
//! The crate `toml` bounds the nesting of brackets, and the number of keys in a dotted key, but not both together: a
//! text of 13 KB can have 6,000 levels. All code that visits a value, also its destructor, recurses over its levels.
//! The stack of a thread would overflow, which ends the process.

use std::ops::Range;

use toml_parser::Source;
use toml_parser::parser::{Event, EventKind, RecursionGuard, parse_document};

/// The most levels. A configuration has fewer than 10.
pub const LEVELS_MAX: u8 = 64;

/// The first place with more than [`LEVELS_MAX`] levels; `None`: there is none, so the text may be parsed.
#[must_use]
pub fn too_deep(text: &str) -> Option<Range<usize>> {
    let tokens = Source::new(text).lex().into_vec();
    let mut nesting = Nesting::default();
    let mut receive = |event: Event| nesting.receive(&event);
    // The parser recurses at brackets, too.
    let mut guard = RecursionGuard::new(&mut receive, LEVELS_MAX.into());
    parse_document(&tokens, &mut guard, &mut ());
    nesting.too_deep
}

/// The nesting at an event. A text with syntax errors may have fewer levels than are counted, but not more.
#[derive(Default)]
struct Nesting {
    level: usize,
    /// The level of the table that the latest header begins.
    table: usize,
    is_in_header: bool,
    /// The levels inside the brackets that are open.
    open: Vec<usize>,
    too_deep: Option<Range<usize>>,
}

impl Nesting {
    fn receive(&mut self, event: &Event) {
        match event.kind() {
            EventKind::StdTableOpen | EventKind::ArrayTableOpen => {
                self.level = 0;
                self.is_in_header = true;
            }
            EventKind::StdTableClose | EventKind::ArrayTableClose => {
                self.table = self.level;
                self.is_in_header = false;
            }
            // A key of a header may be that of a list of tables: two levels.
            EventKind::SimpleKey => self.level += if self.is_in_header { 2 } else { 1 },
            EventKind::InlineTableOpen | EventKind::ArrayOpen => {
                self.level += 1;
                self.open.push(self.level);
            }
            EventKind::InlineTableClose | EventKind::ArrayClose => {
                self.open.pop();
            }
            EventKind::ValueSep => self.level = self.outer(),
            EventKind::Newline if self.open.is_empty() => self.level = self.table,
            _ => {}
        }
        if self.level > LEVELS_MAX.into() && self.too_deep.is_none() {
            self.too_deep = Some(event.span().start()..event.span().end());
        }
    }

    /// The level in which the next key or item begins: that of the innermost open bracket, or else of the table.
    fn outer(&self) -> usize {
        self.open.last().copied().unwrap_or(self.table)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::de::{DeTable, DeValue};

    use super::*;

    fn depth(value: &DeValue<'_>) -> usize {
        match value {
            DeValue::Array(items) => 1 + items.iter().map(|item| depth(item.get_ref())).max().unwrap_or(0),
            DeValue::Table(table) => table_depth(table),
            _ => 0,
        }
    }

    fn table_depth(table: &DeTable<'_>) -> usize {
        1 + table.values().map(|value| depth(value.get_ref())).max().unwrap_or(0)
    }

    #[test]
    fn levels_of_brackets_and_dotted_keys_are_counted_together() {
        let keys = |count: usize| vec!["a"; count].join(".");
        let brackets = format!("x = {}{}", "[".repeat(63), "]".repeat(63));
        let tables = format!("x = {}1{}", "{a=".repeat(31), "}".repeat(31));
        let many = "[[a.b.c]]\nd.e = [{ f.g = 1.5, h = [1.5, 2.5] }, { f.g = 2.5 }]\n".repeat(100);
        let flat = ["a = 1\n".repeat(1000), format!("a = [{}]", "1.5, ".repeat(1000)), many];
        for text in [brackets, tables, keys(64) + " = 1", format!("[{}]", keys(32))]
            .iter()
            .chain(&flat)
        {
            assert_eq!(too_deep(text), None, "{text}");
        }
        assert_eq!(too_deep(&format!("x = {}", "[".repeat(64))), Some(67..68));
        assert_eq!(too_deep(&(keys(65) + " = 1")), Some(128..129));
        assert_eq!(too_deep(&format!("[{}]\na = 1", keys(32))), Some(66..67));
        let nested = format!("[{}]\n{}", keys(20), format!("{} = {{ ", keys(20)).repeat(2));
        assert!(too_deep(&nested).is_some());
    }

    proptest! {
        /// Texts with syntax errors are among them. The root table is a level of its own.
        #[test]
        fn a_text_that_is_not_too_deep_parses_to_at_most_levels_max_levels(
            parts in prop::collection::vec((0_usize..14, 1_usize..20), 1..40),
        ) {
            const PARTS: [&str; 14] =
                ["a", ".", "a.b.", "a=", "{a=", "{", "}", "[", "]", "[[a.b]]", "\n", ",", "1", "\"x\""];
            let text: String = parts.iter().map(|(part, count)| PARTS[*part].repeat(*count)).collect();
            if too_deep(&text).is_none() {
                let (root, _) = DeTable::parse_recoverable(&text);
                let depth = table_depth(root.get_ref());
                prop_assert!(depth <= 1 + usize::from(LEVELS_MAX), "{depth}");
            }
        }
    }
}
