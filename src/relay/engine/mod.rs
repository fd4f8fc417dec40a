//! Engines move the bytes of a relay as its [core](super::core) says.
//!
//! There is one, which waits until sockets are ready. One whose operations complete later (io_uring) belongs beside it:
//! it drives the same core, and needs nothing of [`poll`].

pub(super) mod poll;
