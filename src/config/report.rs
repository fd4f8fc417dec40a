//! Reports of the problems in a file: each with its position, a message, and a hint that says what to write.

use std::borrow::Cow;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::text::escape;

/// A position in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// The file as a whole.
    File,
    /// A range of bytes of the text.
    Bytes(Range<usize>),
    /// A path of keys, such as `pools.web.servers[2]`, and a number that increases through the file.
    Path { path: Arc<str>, order: usize },
}

impl Position {
    /// A sort key: smaller for an earlier position.
    fn order(&self) -> usize {
        match self {
            Self::File => 0,
            Self::Bytes(bytes) => bytes.start,
            Self::Path { order, .. } => *order,
        }
    }
}

/// Whether a line may contain a secret. No key takes one, but somebody may write one by mistake, and reports are logged:
/// such a line is not quoted; only its number is shown.
fn may_contain_a_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let is_file_key = |rest: &str| rest.starts_with("_file");
    ["password", "passwd", "secret", "token"].iter().any(|word| {
        let after = |(at, _)| &line[at + word.len()..];
        line.match_indices(word).map(after).any(|rest| !is_file_key(rest))
    })
}

/// Longer lines are not quoted; only their number is shown. Nobody reads them, and quoting one for each of its problems
/// costs the square of its length.
const QUOTED_LINE_BYTES_MAX: usize = 1_000;

/// The number of warnings that a report shows. More of them, as in a file with thousands of unused pools, would only hide
/// other output. All errors are shown.
pub const WARNINGS_SHOWN_MAX: usize = 100;

/// Whether a problem makes the file invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Error,
    Warning,
}

/// One problem in a file.
#[derive(Debug)]
pub(super) struct Problem {
    severity: Severity,
    position: Position,
    /// What is wrong.
    message: String,
    /// What to write instead; may be empty.
    hint: String,
}

impl Problem {
    /// A problem that makes the file invalid.
    pub(super) fn error(position: Position, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            position,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// A setting that is valid but probably not intended.
    pub(super) fn warning(position: Position, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(position, message, hint)
        }
    }

    /// A sort key: smaller for an earlier position.
    pub(super) fn order(&self) -> usize {
        self.position.order()
    }
}

/// The name and the text of a file, to quote lines from it.
#[derive(Debug)]
pub(super) struct SourceText {
    name: String,
    text: String,
    /// Byte offsets of the beginnings of lines; the first is 0.
    lines: Vec<usize>,
}

impl SourceText {
    pub(super) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            name: name.into(),
            lines: std::iter::once(0).chain(after_newlines).collect(),
            text,
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The path of a file that this file names: a relative path begins at the folder of this file.
    pub(super) fn beside(&self, path: &Path) -> PathBuf {
        let folder = Path::new(&self.name).parent();
        folder.map_or_else(|| path.to_owned(), |folder| folder.join(path))
    }

    /// The position in words, for a message about another position: `line 3`.
    pub(super) fn describe_position(&self, position: &Position) -> String {
        match position {
            Position::File => String::from("the file"),
            Position::Bytes(bytes) => format!("line {}", self.line_of(bytes.start) + 1),
            Position::Path { path, .. } => format!("`{path}`"),
        }
    }

    /// The line of a byte offset, counted from 0.
    fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// The first line of a range: its number counted from 1, its text, and the part of the range that is in it.
    fn first_line(&self, bytes: &Range<usize>) -> (usize, &str, Range<usize>) {
        let line = self.line_of(bytes.start.min(self.text.len()));
        let begin = self.lines[line];
        let end = self.lines.get(line + 1).copied().unwrap_or(self.text.len());
        let shown = self.text[begin..end].trim_end_matches(['\n', '\r']);
        let within = |at: usize| {
            let at = at.saturating_sub(begin).min(shown.len());
            // Parsers count bytes; an annotation must not cut a character.
            (0..=at).rev().find(|at| shown.is_char_boundary(*at)).unwrap_or(0)
        };
        (line + 1, shown, within(bytes.start)..within(bytes.end.max(bytes.start)))
    }
}

/// Whether a report is rendered with colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorChoice {
    /// Plain text.
    Never,
    /// With escape sequences for terminals.
    Always,
}

impl ColorChoice {
    /// Colours if standard error is a terminal that can show them, and `NO_COLOR` is unset or empty
    /// (<https://no-color.org>).
    #[must_use]
    pub fn for_stderr() -> Self {
        let is_forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        if std::io::stderr().is_terminal() && !is_forbidden && !is_dumb {
            Self::Always
        } else {
            Self::Never
        }
    }
}

/// All problems of one file, in the order of their positions.
#[derive(Debug)]
pub struct Report {
    source: Arc<SourceText>,
    problems: Vec<Problem>,
}

impl Report {
    pub(super) fn new(source: Arc<SourceText>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(Problem::order); // stable: problems at one position keep their order
        Self { source, problems }
    }

    /// A report about a file that cannot be read.
    pub(super) fn unreadable(name: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let problem = Problem::error(Position::File, message, hint);
        Self::new(Arc::new(SourceText::new(name, "")), vec![problem])
    }

    /// The text of the file.
    pub(super) fn text(&self) -> &str {
        self.source.text()
    }

    /// The number of errors. A file without errors is valid.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// The number of warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    }

    /// Whether there are no problems.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// All errors and the first 100 warnings with quoted lines, and their number. Ends with a newline; empty if there are no
    /// problems.
    #[must_use]
    pub fn render(&self, colour: ColorChoice) -> String {
        let renderer = match colour {
            ColorChoice::Never => Renderer::plain(),
            ColorChoice::Always => Renderer::styled(),
        };
        let mut out = String::new();
        let mut warnings_seen = 0;
        for problem in &self.problems {
            warnings_seen += usize::from(problem.severity == Severity::Warning);
            if problem.severity == Severity::Error || warnings_seen <= WARNINGS_SHOWN_MAX {
                out.push_str(&renderer.render(&[self.group(problem)]));
                out.push_str("\n\n");
            }
        }
        let errors = counted(self.errors(), "error");
        let warnings = counted(self.warnings(), "warning");
        let total = match (self.errors(), self.warnings()) {
            (0, 0) => return out,
            (_, 0) => errors,
            (0, _) => warnings,
            _ => format!("{errors}, {warnings}"),
        };
        out.push_str(&total);
        if warnings_seen > WARNINGS_SHOWN_MAX {
            out.push_str(&format!("; {WARNINGS_SHOWN_MAX} of the warnings are shown"));
        }
        out.push('\n');
        out
    }

    /// All problems for programs: a list of objects with `severity`, `message`, and, where they are known, `hint`, `line` and
    /// `column` (from 1), or the `path` of the key.
    #[must_use]
    pub fn to_json(&self) -> Vec<serde_json::Value> {
        let problem = |problem: &Problem| {
            let severity = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let mut object = serde_json::json!({ "severity": severity, "message": problem.message });
            if !problem.hint.is_empty() {
                object["hint"] = problem.hint.as_str().into();
            }
            match &problem.position {
                Position::File => {}
                Position::Bytes(bytes) => {
                    let (line, text, span) = self.source.first_line(bytes);
                    object["line"] = line.into();
                    object["column"] = (text[..span.start].chars().count() + 1).into();
                }
                Position::Path { path, .. } => object["path"] = (**path).into(),
            }
            object
        };
        self.problems.iter().map(problem).collect()
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let hint = (!problem.hint.is_empty()).then(|| escape(&problem.hint, &[]));
        let title = match &problem.position {
            Position::Path { path, .. } if !path.is_empty() => Cow::Owned(format!("`{path}`: {}", problem.message)),
            _ => Cow::Borrowed(problem.message.as_str()),
        };
        let title = escape(&title, &[]).into_owned();
        let name = escape(&self.source.name, &[]);
        let mut origin = Origin::path(name.clone());
        if let Position::Bytes(bytes) = &problem.position {
            let (number, line, span) = self.source.first_line(bytes);
            if line.len() <= QUOTED_LINE_BYTES_MAX && !may_contain_a_secret(line) {
                // Tabs are expanded by the renderer.
                let [before, marked, after] =
                    [&line[..span.start], &line[span.clone()], &line[span.end..]].map(|part| escape(part, &['\t']));
                let mark = AnnotationKind::Primary.span(before.len()..before.len() + marked.len());
                let mark = mark.label(hint);
                let line = [before, marked, after].concat();
                let snippet = Snippet::source(line).path(name).line_start(number);
                return level.primary_title(title).element(snippet.annotation(mark));
            }
            let column = line[..span.start].chars().count() + 1;
            origin = origin.line(number).char_column(column);
        }
        let group = level.primary_title(title).element(origin);
        match hint {
            Some(hint) => group.element(Level::HELP.message(hint)),
            None => group,
        }
    }

    /// Prints the report to standard error. A write error is ignored: there is nowhere to report it.
    pub fn print_to_stderr(&self) {
        let text = self.render(ColorChoice::for_stderr());
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// The report as plain text.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(ColorChoice::Never).trim_end())
    }
}

impl std::error::Error for Report {}

/// A number with its noun: `1 pool`, `2 pools`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
