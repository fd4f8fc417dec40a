//! Reports of the problems in a configuration: each with its position, a message, and mostly a hint that says what to
//! write.

use std::borrow::Cow;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

pub(super) use super::input::{InputText, JsonPath, Position};
use crate::text::{counted, escape};

/// Whether a line may contain a secret. No key takes one, but somebody may write one by mistake, and reports are
/// logged: such a line is not quoted; only its line number and the column are shown.
fn may_contain_a_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let is_file_key = |rest: &str| rest.starts_with("_file");
    ["password", "passwd", "secret", "token"].iter().any(|word| {
        let after = |(at, _)| &line[at + word.len()..];
        line.match_indices(word).map(after).any(|rest| !is_file_key(rest))
    })
}

/// Longer lines are not quoted; only the line number and the column are shown. Nobody reads such a line, and quoting it
/// for each of its problems takes time that grows with the square of its length.
const QUOTED_LINE_BYTES_MAX: usize = 1_000;

/// The most errors, and the most warnings, that a report shows. A file may have one for each of its keys. More than
/// this helps nobody, and would fill the log, the answers of the API, and the store.
pub const PROBLEMS_SHOWN_MAX: usize = 100;

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
    message: String,
    /// The remedy; may be empty.
    hint: String,
    /// Whether a file cannot be read. Otherwise its contents are wrong.
    is_unreadable: bool,
}

impl Problem {
    /// A problem that makes the file invalid.
    pub(super) fn error(position: Position, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            position,
            message: message.into(),
            hint: hint.into(),
            is_unreadable: false,
        }
    }

    /// As [`Self::error`], about a file that cannot be read.
    pub(super) fn unreadable(position: Position, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            is_unreadable: true,
            ..Self::error(position, message, hint)
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
    fn order(&self) -> usize {
        self.position.order()
    }

    /// Adds `by` to the position. `by` is the offset in the whole input at which the text of the problem's file begins.
    pub(super) fn shift(&mut self, by: usize) {
        self.position.shift(by);
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

/// All problems of one configuration, in the order of their positions.
#[derive(Debug)]
pub struct Report {
    input: Arc<InputText>,
    problems: Vec<Problem>,
}

impl Report {
    pub(super) fn new(input: Arc<InputText>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(Problem::order); // stable: problems at one position keep their order
        Self { input, problems }
    }

    /// A report about a configuration that cannot be read.
    pub(super) fn unreadable(name: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let problem = Problem::unreadable(Position::File, message, hint);
        Self::new(Arc::new(InputText::new(name, "")), vec![problem])
    }

    /// Whether it has errors, and each of them is that the configuration, or a list of networks that it names, cannot
    /// be read.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        let unreadable = self.problems.iter().filter(|problem| problem.is_unreadable).count();
        unreadable > 0 && unreadable == self.error_count()
    }

    /// The messages of its first 100 errors.
    pub fn error_messages(&self) -> impl Iterator<Item = &str> {
        let errors = self
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error);
        errors.map(|error| error.message.as_str()).take(PROBLEMS_SHOWN_MAX)
    }

    /// The text that was read.
    pub(super) fn input(&self) -> &InputText {
        &self.input
    }

    /// The number of errors. A file without errors is valid.
    #[must_use]
    pub fn error_count(&self) -> usize {
        self.count(Severity::Error)
    }

    /// The number of warnings.
    #[must_use]
    pub fn warning_count(&self) -> usize {
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

    /// The first 100 errors and the first 100 warnings, with their lines if these are known and may be quoted. Then the
    /// numbers of all errors and of all warnings. Ends with a newline; empty if there are no problems.
    #[must_use]
    pub fn render(&self, colour: ColorChoice) -> String {
        self.render_problems(colour, self.problems.iter().collect())
    }

    /// As [`Self::render`], for people who can read the store, but not the files of this machine. Only the problems in
    /// texts of the store are shown; the others are counted.
    #[must_use]
    pub fn render_for_store(&self) -> String {
        let is_of_store = |problem: &&Problem| self.input.is_remote(&problem.position);
        let (of_store, hidden): (Vec<_>, Vec<_>) = self.problems.iter().partition(is_of_store);
        let mut text = self.render_problems(ColorChoice::Never, of_store);
        if !hidden.is_empty() {
            text += &format!(
                "{} in the file on this machine: see its log\n",
                counted(hidden.len(), "problem")
            );
        }
        text
    }

    fn render_problems(&self, colour: ColorChoice, mut problems: Vec<&Problem>) -> String {
        let renderer = match colour {
            ColorChoice::Never => Renderer::plain(),
            ColorChoice::Always => Renderer::styled(),
        };
        let counts = keep_first(&mut problems);
        let mut out = String::new();
        for problem in problems {
            out.push_str(&renderer.render(&[self.group(problem)]));
            out.push_str("\n\n");
        }
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let counts: Vec<_> = counts
            .map(|(count, noun)| match count > PROBLEMS_SHOWN_MAX {
                true => format!("{} (the first {PROBLEMS_SHOWN_MAX} are shown)", counted(count, noun)),
                false => counted(count, noun),
            })
            .collect();
        if !counts.is_empty() {
            out.push_str(&counts.join(", "));
            out.push('\n');
        }
        out
    }

    /// The problems that [`Self::render`] shows, for programs: a list of objects. Each has `severity` and `message`.
    /// Where they are known, it also has `hint`, and `line` and `column` (from 1) or the `path` of the key. It has
    /// `file` if several files were read.
    #[must_use]
    pub fn to_json(&self) -> Vec<serde_json::Value> {
        let to_object = |problem: &Problem| {
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
                    let (line, text, span) = self.input.first_line(bytes);
                    object["line"] = line.into();
                    object["column"] = (text[..span.start].chars().count() + 1).into();
                }
                Position::Path { path, .. } => object["path"] = path.to_string().into(),
            }
            if self.input.has_several_files() {
                object["file"] = self.input.name_at(&problem.position).into();
            }
            object
        };
        let mut problems = self.problems.iter().collect();
        keep_first(&mut problems);
        problems.into_iter().map(to_object).collect()
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let hint = (!problem.hint.is_empty()).then(|| escape(&problem.hint, &[]));
        let title = match &problem.position {
            Position::Path { path, .. } if **path != JsonPath::Root => {
                Cow::Owned(format!("`{path}`: {}", problem.message))
            }
            _ => Cow::Borrowed(problem.message.as_str()),
        };
        let title = escape(&title, &[]).into_owned();
        let name = escape(self.input.name_at(&problem.position), &[]);
        let mut origin = Origin::path(name.clone());
        if let Position::Bytes(bytes) = &problem.position {
            let (number, line, span) = self.input.first_line(bytes);
            if line.len() <= QUOTED_LINE_BYTES_MAX && !may_contain_a_secret(line) {
                // Tabs are expanded by the renderer.
                let [before, marked, after] =
                    [&line[..span.start], &line[span.clone()], &line[span.end..]].map(|part| escape(part, &['\t']));
                let mark = AnnotationKind::Primary.span(before.len()..before.len() + marked.len());
                let mark = mark.label(hint);
                let escaped_line = [before, marked, after].concat();
                let snippet = Snippet::source(escaped_line).path(name).line_start(number);
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

/// Keeps the first errors and the first warnings, [`PROBLEMS_SHOWN_MAX`] of each. Returns how many of each there were,
/// with their noun.
fn keep_first(problems: &mut Vec<&Problem>) -> [(usize, &'static str); 2] {
    let (mut errors, mut warnings) = (0, 0);
    problems.retain(|problem| {
        let count = match problem.severity {
            Severity::Error => &mut errors,
            Severity::Warning => &mut warnings,
        };
        *count += 1;
        *count <= PROBLEMS_SHOWN_MAX
    });
    [(errors, "error"), (warnings, "warning")]
}

/// The report as plain text.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(ColorChoice::Never).trim_end())
    }
}

impl std::error::Error for Report {}
