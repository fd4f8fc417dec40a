//! Engines: they move the bytes of a relay as its [core](super::core) decides.
//!
//! There is one, which waits until sockets are ready. An engine based on completions (io_uring) would be a second module
//! here: it would drive the same core, and use nothing of [`poll`].

pub(super) mod poll;
