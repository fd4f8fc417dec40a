//! What the source file of each kind of check provides.

use std::sync::Arc;

use super::{Problems, Section};
use crate::check::{Check, CheckKind};

/// How one kind of check reads its keys.
#[derive(Clone, Copy)]
pub(super) struct KindReader {
    pub(super) kind: &'static CheckKind,
    /// Reads the keys in `[pools.NAME.health]`. Reports errors and goes on without the values that are not valid.
    pub(super) read: fn(&Section<'_>, &mut Problems<'_>) -> Arc<dyn Check>,
}
