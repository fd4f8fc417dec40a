//! The interface of the files that read one kind of check.

use std::sync::Arc;

use super::{Problems, Section};
use crate::check::{Check, CheckKind};

/// Reads the keys of one kind of check.
#[derive(Clone, Copy)]
pub(super) struct KindReader {
    /// The kind.
    pub(super) kind: &'static CheckKind,
    /// Reads its keys in `[pools.NAME.health]`. Reports errors and continues.
    pub(super) read: fn(&Section<'_>, &mut Problems<'_>) -> Arc<dyn Check>,
}
