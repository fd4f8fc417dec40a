//! Whether the TLS of a client ends here, and what its handshake is made with.

use std::sync::Arc;

use tokio::time::Instant;

use crate::route::TlsMode;
use crate::tls::ListenerTls;

/// What a client's handshake is made with.
pub(super) struct Termination<'a> {
    pub(super) tls: &'a ListenerTls,
    /// The protocols that may be agreed.
    pub(super) alpn: &'a [Box<[u8]>],
    /// Until when it must be complete.
    pub(super) deadline: Instant,
}

impl<'a> Termination<'a> {
    /// `None`: the client's TLS is passed on. The protocols of the route take precedence over those of the listener.
    pub(super) fn new(
        tls: Option<&'a Arc<ListenerTls>>,
        mode: TlsMode,
        route_alpn: &'a [Box<[u8]>],
        deadline: Instant,
    ) -> Option<Self> {
        let tls = tls.filter(|_| mode == TlsMode::Terminate)?;
        let alpn = if route_alpn.is_empty() {
            &tls.plan().alpn
        } else {
            route_alpn
        };
        Some(Self { tls, alpn, deadline })
    }
}
