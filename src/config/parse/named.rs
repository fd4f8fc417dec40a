//! Sections whose names the operator chose, such as `[pools.NAME]`, and which other sections refer to by these names.

use std::collections::{HashMap, HashSet};

use super::{Problems, Section};
use crate::config::file::KeyValue;
use crate::config::report::Position;
use crate::config::suggest;

/// The sections of one kind, and which of them are referred to.
pub(super) struct NamedSections<'a, Id> {
    /// The key of the table that has these sections.
    key: &'static str,
    /// The word for such a section in messages.
    noun: &'static str,
    pub(super) entries: &'a [KeyValue],
    /// The identifiers by name. `None`: the section exists, but could not be converted.
    by_name: HashMap<&'a str, Option<Id>>,
    used: HashSet<&'a str>,
    /// Whether the file may have more of these sections: see [`Section::is_unknown`].
    is_unknown: bool,
}

impl<'a, Id: Copy> NamedSections<'a, Id> {
    /// Converts the sections below `key` in the order of the file. Also returns the plans of those that could be
    /// converted. `noun` is the word for such a section. `id` makes the identifier of a plan from its index in the
    /// returned list.
    pub(super) fn convert<P>(
        file: &Section<'a>,
        [key, noun]: [&'static str; 2],
        problems: &mut Problems<'_>,
        id: impl Fn(usize) -> Id,
        mut convert: impl FnMut(&'a KeyValue, &mut Problems<'_>) -> Option<P>,
    ) -> (Self, Vec<P>) {
        let entries = file.subsections(key, problems);
        let mut plans = Vec::new();
        let mut by_name = HashMap::new();
        for entry in entries {
            let plan = convert(entry, problems);
            by_name.insert(entry.key.as_str(), plan.is_some().then(|| id(plans.len())));
            plans.extend(plan);
        }
        let sections = Self {
            key,
            noun,
            entries,
            by_name,
            used: HashSet::new(),
            is_unknown: file.is_unknown(key),
        };
        (sections, plans)
    }

    /// Finds the section that is named at this position, and marks it as used. Reports an unknown name, with `hint` or
    /// else with a suggestion. `None`: an error has been reported, here or in the section of this name, or the table of
    /// all sections of this kind has an error, and the section may exist.
    pub(super) fn find(
        &mut self,
        name: &str,
        position: &Position,
        hint: Option<&str>,
        problems: &mut Problems<'_>,
    ) -> Option<Id> {
        if let Some((name, id)) = self.by_name.get_key_value(name) {
            self.used.insert(name);
            return *id;
        }
        if !self.is_unknown {
            let hint = hint.map_or_else(|| self.suggest(name), str::to_owned);
            problems.error(position, format!("unknown {} `{name}`", self.noun), hint);
        }
        None
    }

    fn suggest(&self, name: &str) -> String {
        let names = self.entries.iter().map(|entry| entry.key.as_str());
        let known: Vec<&str> = names.filter(|name| self.id(name).is_some()).collect();
        suggest::unknown_name(name, self.key, &known)
    }

    /// The section of this name, if it exists and could be converted. This does not count as a reference.
    pub(super) fn id(&self, name: &str) -> Option<Id> {
        *self.by_name.get(name)?
    }

    /// Whether something refers to the section of this name.
    pub(super) fn is_used(&self, name: &str) -> bool {
        self.used.contains(name)
    }

    /// Warns of each section that nothing refers to.
    pub(super) fn warn_unused(&self, hint: &str, problems: &mut Problems<'_>) {
        for entry in self.entries {
            if !self.is_used(&entry.key) {
                let message = format!("{} `{}` is never used", self.noun, entry.key);
                problems.warning(&entry.position, message, hint);
            }
        }
    }
}
