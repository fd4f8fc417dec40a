//! Sections whose names the operator chose, such as `[pools.NAME]`, and which other sections refer to by these names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Problems, Section};
use crate::config::file::KeyValue;

/// What a reference by name leads to.
pub(super) enum Referent<Id> {
    Section(Id),
    /// An error has been reported: in the section of this name, or in the table of all sections of its kind, so that
    /// the section may exist.
    Broken,
    Missing,
}

/// The sections of one kind, and which of them are referred to.
pub(super) struct NamedSections<'a, Id> {
    pub(super) entries: &'a [KeyValue],
    /// The identifiers by name. `None`: the section exists, but could not be converted.
    by_name: HashMap<&'a str, Option<Id>>,
    used: HashSet<&'a str>,
    /// Whether the file may have more of these sections: see [`Section::is_unknown`].
    is_unknown: bool,
}

impl<'a, Id: Copy> NamedSections<'a, Id> {
    /// Converts the sections below `key` in the order of the file. Also returns the plans of those that could be
    /// converted. `id` makes the identifier of a plan from its index in the returned list.
    pub(super) fn convert<P>(
        file: &Section<'a>,
        key: &str,
        problems: &mut Problems<'_>,
        id: impl Fn(usize) -> Id,
        mut convert: impl FnMut(&'a KeyValue, &mut Problems<'_>) -> Option<P>,
    ) -> (Self, Vec<Arc<P>>) {
        let entries = file.subsections(key, problems);
        let mut plans = Vec::new();
        let mut by_name = HashMap::new();
        for entry in entries {
            let plan = convert(entry, problems).map(Arc::new);
            by_name.insert(entry.key.as_str(), plan.is_some().then(|| id(plans.len())));
            plans.extend(plan);
        }
        let sections = Self {
            entries,
            by_name,
            used: HashSet::new(),
            is_unknown: file.is_unknown(key),
        };
        (sections, plans)
    }

    /// Finds the section of this name, and marks it as used.
    pub(super) fn refer_to(&mut self, name: &str) -> Referent<Id> {
        match self.by_name.get_key_value(name) {
            Some((name, id)) => {
                self.used.insert(name);
                id.map_or(Referent::Broken, Referent::Section)
            }
            None if self.is_unknown => Referent::Broken,
            None => Referent::Missing,
        }
    }

    /// The section of this name, if it exists and could be converted. This does not count as a reference.
    pub(super) fn id(&self, name: &str) -> Option<Id> {
        *self.by_name.get(name)?
    }

    /// Warns of each section that nothing refers to. `what` is the word for such a section.
    pub(super) fn warn_unused(&self, what: &str, hint: &str, problems: &mut Problems<'_>) {
        for entry in self.entries {
            if !self.used.contains(entry.key.as_str()) {
                let message = format!("{what} `{}` is never used", entry.key);
                problems.warning(&entry.position, message, hint);
            }
        }
    }
}
