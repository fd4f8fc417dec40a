//! What is wrong with a file, said so that it can be put right: the place, what is wrong there, what to write.

use std::borrow::Cow;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::text::escape;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The file as a whole.
    File,
    /// Bytes of the text.
    Bytes(Range<usize>),
    /// Keys that lead there, such as `pools.web.servers[2]`, and a number that rises through the file.
    Path { path: Arc<str>, order: usize },
}

impl Place {
    /// Smaller for what stands earlier.
    fn order(&self) -> usize {
        match self {
            Self::File => 0,
            Self::Bytes(bytes) => bytes.start,
            Self::Path { order, .. } => *order,
        }
    }
}

/// Whether somebody may have written a secret into this line: no key of ours takes one, but what is wrong in a file is
/// told in logs. Such a line is not shown, only pointed into.
fn may_hold_a_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let is_of_a_file = |rest: &str| rest.starts_with("_file");
    ["password", "passwd", "secret", "token"].iter().any(|word| {
        let after = |(at, _)| &line[at + word.len()..];
        line.match_indices(word).map(after).any(|rest| !is_of_a_file(rest))
    })
}

/// Longer lines are not shown, only pointed into: nobody reads them, and showing one for each of its mistakes takes
/// the square of its length.
const LINE_BYTES_SHOWN: usize = 1_000;

/// Warnings that are shown; of a file with thousands of pools that nobody uses, more would only hide the rest. Mistakes
/// are all shown.
const WARNINGS_SHOWN: usize = 100;

/// How bad a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Mistake,
    Warning,
}

/// One thing said about a file.
#[derive(Debug)]
pub(super) struct Notice {
    severity: Severity,
    place: Place,
    /// What is wrong.
    what: String,
    /// What to write instead; may be empty.
    label: String,
}

impl Notice {
    /// Something that keeps the file from being used.
    pub(super) fn mistake(place: Place, what: impl Into<String>, label: impl Into<String>) -> Self {
        Self {
            severity: Severity::Mistake,
            place,
            what: what.into(),
            label: label.into(),
        }
    }

    /// Something that works, but hardly as meant.
    pub(super) fn warning(place: Place, what: impl Into<String>, label: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::mistake(place, what, label)
        }
    }

    /// Smaller for what stands earlier.
    pub(super) fn order(&self) -> usize {
        self.place.order()
    }
}

/// A file's name and text, for showing places in it.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    text: String,
    /// Where each line begins; the first at 0.
    lines: Vec<usize>,
}

impl Source {
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

    /// The place in a few words, for pointing from one place to another.
    pub(super) fn point_to(&self, place: &Place) -> String {
        match place {
            Place::File => String::from("the file"),
            Place::Bytes(bytes) => format!("line {}", self.line_of(bytes.start) + 1),
            Place::Path { path, .. } => format!("`{path}`"),
        }
    }

    /// Counted from 0.
    fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// The first line of `bytes`: its number from 1, its text, and the part of `bytes` that lies in it.
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

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Text alone.
    Plain,
    /// Escape sequences of a terminal.
    Colour,
}

impl Paint {
    /// Colour when standard error is a terminal that can show it, and `NO_COLOR` is unset or empty
    /// (<https://no-color.org>).
    #[must_use]
    pub fn for_stderr() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        if std::io::stderr().is_terminal() && !refused && !dumb {
            Self::Colour
        } else {
            Self::Plain
        }
    }
}

/// All that is to be said about one file, in its order.
#[derive(Debug)]
pub struct Report {
    source: Arc<Source>,
    notices: Vec<Notice>,
}

impl Report {
    pub(super) fn new(source: Arc<Source>, mut notices: Vec<Notice>) -> Self {
        notices.sort_by_key(Notice::order); // stable: one place keeps its order
        Self { source, notices }
    }

    /// A file that cannot even be read.
    pub(super) fn unreadable(name: impl Into<String>, what: impl Into<String>, label: impl Into<String>) -> Self {
        let notice = Notice::mistake(Place::File, what, label);
        Self::new(Arc::new(Source::new(name, "")), vec![notice])
    }

    /// The file it is about.
    pub(super) fn text(&self) -> &str {
        self.source.text()
    }

    /// How many mistakes it has; with none the file can be used.
    #[must_use]
    pub fn mistakes(&self) -> usize {
        self.count(Severity::Mistake)
    }

    /// How many warnings it has.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.notices.iter().filter(|notice| notice.severity == severity).count()
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.notices.is_empty()
    }

    /// Each thing with its place, and how many there are; nothing if there are none. Ends with a newline.
    #[must_use]
    pub fn render(&self, paint: Paint) -> String {
        let renderer = match paint {
            Paint::Plain => Renderer::plain(),
            Paint::Colour => Renderer::styled(),
        };
        let mut out = String::new();
        let mut warnings = 0;
        for notice in &self.notices {
            warnings += usize::from(notice.severity == Severity::Warning);
            if notice.severity == Severity::Warning && warnings > WARNINGS_SHOWN {
                continue;
            }
            out.push_str(&renderer.render(&[self.group(notice)]));
            out.push_str("\n\n");
        }
        let mistakes = counted(self.mistakes(), "mistake");
        let warned = counted(self.warnings(), "warning");
        let total = match (self.mistakes(), self.warnings()) {
            (0, 0) => return out,
            (_, 0) => mistakes,
            (0, _) => warned,
            _ => format!("{mistakes}, {warned}"),
        };
        out.push_str(&total);
        if warnings > WARNINGS_SHOWN {
            out.push_str(&format!("; {WARNINGS_SHOWN} of the warnings are shown"));
        }
        out.push('\n');
        out
    }

    fn group<'a>(&'a self, notice: &'a Notice) -> Group<'a> {
        let level = match notice.severity {
            Severity::Mistake => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let label = (!notice.label.is_empty()).then(|| escape(&notice.label, &[]));
        let title = match &notice.place {
            Place::Path { path, .. } if !path.is_empty() => Cow::Owned(format!("`{path}`: {}", notice.what)),
            _ => Cow::Borrowed(notice.what.as_str()),
        };
        let title = escape(&title, &[]).into_owned();
        let name = escape(&self.source.name, &[]);
        let mut origin = Origin::path(name.clone());
        if let Place::Bytes(bytes) = &notice.place {
            let (number, line, span) = self.source.first_line(bytes);
            if line.len() <= LINE_BYTES_SHOWN && !may_hold_a_secret(line) {
                // Tabs are expanded by the renderer.
                let [before, marked, after] =
                    [&line[..span.start], &line[span.clone()], &line[span.end..]].map(|part| escape(part, &['\t']));
                let mark = AnnotationKind::Primary.span(before.len()..before.len() + marked.len());
                let mark = mark.label(label);
                let line = [before, marked, after].concat();
                let snippet = Snippet::source(line).path(name).line_start(number);
                return level.primary_title(title).element(snippet.annotation(mark));
            }
            let column = line[..span.start].chars().count() + 1;
            origin = origin.line(number).char_column(column);
        }
        let group = level.primary_title(title).element(origin);
        match label {
            Some(label) => group.element(Level::HELP.message(label)),
            None => group,
        }
    }

    /// Writes it to standard error. That nobody can read there is nobody's mistake.
    pub fn tell(&self) {
        let text = self.render(Paint::for_stderr());
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// Plain, whole.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(Paint::Plain).trim_end())
    }
}

impl std::error::Error for Report {}

/// `1 pool`, `2 pools`.
pub(crate) fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
