//! Engines: they move the bytes of a relay as its [core](super::core) decides.
//!
//! There is one, which waits until sockets are ready. An engine based on completions (io_uring) would be a second
//! module here and drive the same core, as the tests in `completions` do. [`relay`](super::relay()) would choose
//! between the two. [`relay_tls`](super::relay_tls) waits for readiness (`poll::tls`), so sessions with TLS would stay
//! with [`poll`].
//!
//! Each [`worker`](crate::worker) would own a ring, and wake its tokio runtime by an eventfd of the ring. A throttled
//! direction is read only when its [`DirectionThrottle`](crate::guard::DirectionThrottle) grants bytes, and a throttle
//! is asked only when the socket is readable. So a throttled direction would wait for readiness also with a ring, or
//! stay with [`poll`]; the tests in `completions` throttle nothing. `limit_pipes` belongs to `poll`, although the
//! worker calls it: another engine would have limits of its own.
//!
//! A relay may be dropped while operations are under way: their buffers and sockets would have to live until the
//! operations complete. The descriptors of rings would count in `RUNTIME_DESCRIPTORS` of `app::descriptor_budget`.
//! Where io_uring is refused ([`crate::optional`]), [`poll`] would take over.

pub(super) mod poll;
