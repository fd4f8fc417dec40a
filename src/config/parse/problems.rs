//! Collects the problems of a file.

use std::path::{Path, PathBuf};

use crate::config::report::{Position, Problem, SourceText};

/// The problems found so far.
pub(super) struct Problems<'a> {
    source: &'a SourceText,
    errors: Vec<Problem>,
    /// Reported only if there are no errors: a setting that looks unused may be used by one that is misspelt.
    warnings: Vec<Problem>,
}

impl<'a> Problems<'a> {
    /// No problems yet, of the file with this text.
    pub(super) fn new(source: &'a SourceText) -> Self {
        Self {
            source,
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Returns what was converted, with the warnings.
    ///
    /// # Errors
    /// All errors, if there are any.
    pub(super) fn finish<T>(self, converted: T) -> Result<(T, Vec<Problem>), Vec<Problem>> {
        if self.errors.is_empty() {
            Ok((converted, self.warnings))
        } else {
            Err(self.errors)
        }
    }

    /// Adds an error. `hint` is what to write instead; may be empty.
    pub(super) fn error(&mut self, position: &Position, message: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(Problem::error(position.clone(), message, hint));
    }

    /// Adds a warning: the setting is valid but probably not intended.
    pub(super) fn warning(&mut self, position: &Position, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(Problem::warning(position.clone(), message, hint));
    }

    /// The path of a file that this file names: a relative path begins at the folder of this file.
    pub(super) fn beside(&self, path: &Path) -> PathBuf {
        self.source.beside(path)
    }

    /// Another position in words: `line 3`.
    pub(super) fn describe_position(&self, position: &Position) -> String {
        self.source.describe_position(position)
    }
}
