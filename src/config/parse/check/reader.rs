//! The interface of the files that read one kind of check.

use std::sync::Arc;

use super::{Problems, Section};
use crate::check::{Check, CheckKind};

/// Reads the keys of one kind of check.
#[derive(Clone, Copy)]
pub(super) struct KindReader {
    /// The kind.
    pub(super) kind: &'static CheckKind,
    /// Reads its keys. Reports errors and continues.
    pub(super) read: fn(&Sections<'_>, &mut Problems<'_>) -> Arc<dyn Check>,
}

/// The two sections that a check may have keys in.
pub(super) struct Sections<'a> {
    /// `[pools.NAME]`
    pub(super) pool: &'a Section<'a>,
    /// `[pools.NAME.health]`
    pub(super) health: &'a Section<'a>,
}
