//! The input of a configuration: a file, and, if that file refers to a store, the texts of the store. Positions count
//! through all these texts, as if they were joined.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::text::{NAME_BYTES_MAX, abbreviated, truncated};

/// A position in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum Position {
    /// The whole input.
    File,
    /// A range of bytes of the text.
    Bytes(Range<usize>),
    /// A path of keys, such as `pools.web.servers[2]`. `order` increases from value to value, and stays within the byte
    /// range of the file's text, because every value takes at least one byte.
    Path { path: Arc<JsonPath>, order: usize },
}

/// A path of keys. A part is shared by the paths of all values below it: a long key with many values is held once.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::config) enum JsonPath {
    /// The path of the whole text.
    Root,
    /// A key below a path.
    Key(Arc<Self>, Box<str>),
    /// An item of the list at a path.
    Item(Arc<Self>, usize),
}

/// Bounded, for errors: long keys are abbreviated, and only the end of a deep path is shown.
impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PARTS_MAX: usize = 8;
        let (mut parts, mut place) = (Vec::new(), self);
        while let Self::Key(parent, _) | Self::Item(parent, _) = place {
            if parts.len() == PARTS_MAX {
                f.write_str("…")?;
                break;
            }
            parts.push(place);
            place = parent;
        }
        let mut dot = if *place == Self::Root { "" } else { "." };
        for part in parts.into_iter().rev() {
            match part {
                Self::Root => {}
                Self::Key(_, key) => write!(f, "{dot}{}", abbreviated(key, NAME_BYTES_MAX))?,
                Self::Item(_, item) => write!(f, "[{item}]")?,
            }
            dot = ".";
        }
        Ok(())
    }
}

impl Position {
    /// A sort key: smaller for an earlier position.
    pub(super) fn order(&self) -> usize {
        match self {
            Self::File => 0,
            Self::Bytes(bytes) => bytes.start,
            Self::Path { order, .. } => *order,
        }
    }

    /// Moves the position, which counts from the beginning of its file, by the offset of that file in the input.
    pub(super) fn shift(&mut self, by: usize) {
        match self {
            Self::File => {}
            Self::Bytes(bytes) => *bytes = bytes.start + by..bytes.end + by,
            Self::Path { order, .. } => *order += by,
        }
    }
}

/// The names and texts of the input, from which errors quote lines.
#[derive(Debug)]
pub(in crate::config) struct InputText {
    /// The name of the whole input, for [`Position::File`].
    name: String,
    /// At least one. The file of this machine comes first.
    files: Vec<InputFile>,
    /// The texts of all files, joined by line breaks.
    text: String,
    /// Byte offsets of the beginnings of lines; the first is 0.
    lines: Vec<usize>,
}

/// A file of this machine, or a text of a store.
#[derive(Debug)]
struct InputFile {
    name: String,
    /// The range of its text in [`InputText::text`].
    bytes: Range<usize>,
    /// Whether it is a text of a store.
    is_remote: bool,
}

impl InputText {
    /// A file of this machine.
    pub(super) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let (name, text) = (name.into(), text.into());
        let file = InputFile {
            name: name.clone(),
            bytes: 0..text.len(),
            is_remote: false,
        };
        let mut input = Self {
            name,
            files: vec![file],
            text,
            lines: Vec::new(),
        };
        input.lines = input.lines_from(0).collect();
        input
    }

    /// Adds a text of a store behind the others. Returns its offset in the input.
    pub(super) fn push(&mut self, name: String, text: &str) -> usize {
        self.text.push('\n');
        let begin = self.text.len();
        self.text.push_str(text);
        self.files.push(InputFile {
            name,
            bytes: begin..self.text.len(),
            is_remote: true,
        });
        let lines: Vec<_> = self.lines_from(begin).collect();
        self.lines.extend(lines);
        begin
    }

    /// Sets the name of the whole input.
    pub(super) fn rename(&mut self, name: String) {
        self.name = name;
    }

    /// The byte offsets at which lines begin. The first is `begin`, which must be the beginning of a line.
    fn lines_from(&self, begin: usize) -> impl Iterator<Item = usize> {
        let after_newlines = self.text[begin..]
            .match_indices('\n')
            .map(move |(at, _)| begin + at + 1);
        std::iter::once(begin).chain(after_newlines)
    }

    /// The name of the first file.
    pub(super) fn first_name(&self) -> &str {
        &self.files[0].name
    }

    /// The text of the first file.
    pub(super) fn first_text(&self) -> &str {
        &self.text[self.files[0].bytes.clone()]
    }

    /// The files: for each its name, its text, and the byte offset of this text in the input.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        let files = self.files.iter();
        files.map(|file| (&*file.name, &self.text[file.bytes.clone()], file.bytes.start))
    }

    pub(super) fn has_several_files(&self) -> bool {
        self.files.len() > 1
    }

    fn file_at(&self, position: &Position) -> &InputFile {
        let at = position.order();
        let begun = self.files.partition_point(|file| file.bytes.start <= at);
        &self.files[begun.saturating_sub(1)]
    }

    /// The name of the file that contains a position, or for [`Position::File`] the name of the whole input.
    pub(super) fn name_at(&self, position: &Position) -> &str {
        match position {
            Position::File => &self.name,
            _ => &self.file_at(position).name,
        }
    }

    /// Whether a position is in a text of a store. [`Position::File`] is, if the input has any such text.
    pub(super) fn is_remote(&self, position: &Position) -> bool {
        match position {
            Position::File => self.files.iter().any(|file| file.is_remote),
            _ => self.file_at(position).is_remote,
        }
    }

    /// The path of a file that the input names: a relative path begins at the directory of the first file.
    pub(super) fn resolve_path(&self, path: &Path) -> PathBuf {
        let directory = Path::new(self.first_name()).parent();
        directory.map_or_else(|| path.to_owned(), |directory| directory.join(path))
    }

    /// The position in words, for a message about another position: `line 3`.
    pub(super) fn describe_position(&self, position: &Position) -> String {
        let place = match position {
            Position::File => return String::from("the file"),
            Position::Bytes(bytes) => format!("line {}", self.first_line(bytes).0),
            Position::Path { path, .. } => format!("`{path}`"),
        };
        match self.has_several_files() {
            true => format!("{place} of {}", self.name_at(position)),
            false => place,
        }
    }

    /// The line of a byte offset, counted from 0 through all files.
    fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// The first line of a range. Returns the number of this line in its file (from 1), the text of the line, and the
    /// part of the range that is on the line.
    pub(super) fn first_line(&self, bytes: &Range<usize>) -> (usize, &str, Range<usize>) {
        let line = self.line_of(bytes.start.min(self.text.len()));
        let begin = self.lines[line];
        let end = self.lines.get(line + 1).copied().unwrap_or(self.text.len());
        let shown = self.text[begin..end].trim_end_matches(['\n', '\r']);
        let within = |at: usize| {
            // Parsers count bytes; an annotation must not cut a character.
            truncated(shown, at.saturating_sub(begin)).len()
        };
        let line_in_file = line - self.line_of(self.file_at(&Position::Bytes(begin..end)).bytes.start);
        (
            line_in_file + 1,
            shown,
            within(bytes.start)..within(bytes.end.max(bytes.start)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_numbers_count_from_the_beginning_of_their_file() {
        let mut input = InputText::new("a.toml", "a\nb");
        input.push(String::from("etcd:/b"), "");
        input.push(String::from("etcd:/c"), "c\nd\n");
        let begins: Vec<_> = input
            .files()
            .map(|(name, text, begin)| (name, text.len(), begin))
            .collect();
        assert_eq!(begins, [("a.toml", 3, 0), ("etcd:/b", 0, 4), ("etcd:/c", 4, 5)]);
        for (at, file, line, text) in [
            (0, "a.toml", 1, "a"),
            (2, "a.toml", 2, "b"),
            (3, "a.toml", 2, "b"), // its end
            (4, "etcd:/b", 1, ""),
            (5, "etcd:/c", 1, "c"),
            (7, "etcd:/c", 2, "d"),
            (9, "etcd:/c", 3, ""), // its end
            (99, "etcd:/c", 3, ""),
        ] {
            let position = Position::Bytes(at..at + 1);
            let (number, shown, _) = input.first_line(&(at..at + 1));
            assert_eq!((input.name_at(&position), number, shown), (file, line, text), "{at}");
            assert_eq!(input.is_remote(&position), file != "a.toml", "{at}");
        }
    }
}
