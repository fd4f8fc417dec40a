//! Whether the TLS of a client is terminated here, and the settings of its handshake.

use std::sync::Arc;

use tokio::time::Instant;

use super::listener_state::ListenerState;
use crate::route::TlsMode;
use crate::sniff::HelloMemory;
use crate::tls::ListenerTls;

/// The settings of a client's TLS handshake.
pub(super) struct HandshakeSettings<'a> {
    pub(super) tls: &'a ListenerTls,
    /// The ALPN protocols that may be negotiated.
    pub(super) alpn: &'a [Box<[u8]>],
    /// When the handshake must be complete.
    pub(super) deadline: Instant,
    /// The budget for the bytes that the client sends during the handshake.
    pub(super) memory: &'a Arc<HelloMemory>,
}

impl<'a> HandshakeSettings<'a> {
    /// `None`: the client's TLS is passed on. The ALPN protocols of the route take precedence over those of the
    /// listener.
    pub(super) fn new(
        state: &'a ListenerState,
        mode: TlsMode,
        route_alpn: &'a [Box<[u8]>],
        accepted_at: Instant,
    ) -> Option<Self> {
        if mode != TlsMode::Terminate {
            return None;
        }
        let tls = state.tls.as_ref()?;
        let alpn = if route_alpn.is_empty() {
            &tls.plan().alpn
        } else {
            route_alpn
        };
        Some(Self {
            tls,
            alpn,
            deadline: accepted_at + state.plan.sniff.hello_timeout,
            memory: &state.hello_memory,
        })
    }
}
