//! Collects the problems of a file.

use std::path::{Path, PathBuf};

use crate::config::report::{InputText, Position, Problem};
use crate::plan::{RemoteTrust, has_dot_dot};

/// The problems found so far.
pub(super) struct Problems<'a> {
    input: &'a InputText,
    /// What the texts of a store may do.
    trust: RemoteTrust,
    errors: Vec<Problem>,
    /// Reported only if there are no errors: a setting that looks unused may be used by one that is misspelt.
    warnings: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(input: &'a InputText, known_errors: Vec<Problem>) -> Self {
        Self {
            input,
            trust: RemoteTrust::default(),
            errors: known_errors,
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

    /// Whether any errors were found so far.
    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Adds an error. `hint` is what to write instead; may be empty.
    pub(super) fn error(&mut self, position: &Position, message: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(Problem::error(position.clone(), message, hint));
    }

    /// As [`Self::error`], about a file that cannot be read.
    pub(super) fn unreadable(&mut self, position: &Position, message: impl Into<String>) {
        self.errors.push(Problem::unreadable(position.clone(), message, ""));
    }

    /// Adds a warning: the setting is valid but probably not intended.
    pub(super) fn warning(&mut self, position: &Position, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(Problem::warning(position.clone(), message, hint));
    }

    /// The path of a file that the input names: a relative path begins at the directory of the first file.
    pub(super) fn resolve_path(&self, path: &Path) -> PathBuf {
        self.input.resolve_path(path)
    }

    /// Whether a position is in a text of a store, which others than the operator of this machine may write.
    pub(super) fn is_remote(&self, position: &Position) -> bool {
        self.input.is_remote(position)
    }

    /// Whether texts of a store were read: all files but the first are such texts.
    pub(super) fn has_texts(&self) -> bool {
        self.input.has_several_files()
    }

    /// Sets what the texts of a store may do. Until then they may do nothing.
    pub(super) fn set_remote_trust(&mut self, trust: RemoteTrust) {
        self.trust = trust;
    }

    /// Whether a file may be named at this position; else an error is added.
    pub(super) fn check_path(&mut self, position: &Position, path: &Path) -> bool {
        if !self.is_remote(position) {
            return true;
        }
        let Some(refusal) = self.trust.refusal(path) else {
            return true;
        };
        let hint = match path.is_absolute() && !has_dot_dot(path) {
            true => format!(
                "allow it on this machine: allow = [\"files:{}\"] in [remote]",
                path.display()
            ),
            false => {
                String::from("write an absolute path without `..`, and allow it on this machine: `allow` in [remote]")
            }
        };
        self.error(position, refusal, hint);
        false
    }

    /// Adds an error if `what`, which runs code on this machine, may not be named at this position.
    pub(super) fn check_may_run(&mut self, position: &Position, what: &str) {
        if self.is_remote(position) && !self.trust.commands {
            let hint = "allow them on this machine: allow = [\"exec\"] in [remote]";
            self.error(position, format!("{what} are not taken from the store"), hint);
        }
    }

    /// A position as a message names it, such as `line 3`.
    pub(super) fn describe_position(&self, position: &Position) -> String {
        self.input.describe_position(position)
    }
}
