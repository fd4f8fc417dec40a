//! Engines: they move the bytes of a relay as its [core](super::core) decides.
//!
//! There is one, which waits until sockets are ready. An engine based on completions (io_uring) would be a second module here
//! and drive the same core, as the tests in `completions` do. `relay` and `relay_tls` would choose between the two. TLS waits
//! for readiness (`poll::tls`), so its sessions would stay with [`poll`].

pub(super) mod poll;
