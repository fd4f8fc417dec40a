//! Whether acequia terminates the TLS of a client, and the settings of its handshake.

use std::sync::Arc;

use tokio::time::Instant;

use super::listener_state::ListenerState;
use crate::route::TlsMode;
use crate::sniff::HelloMemory;
use crate::tls::ListenerTls;

/// The settings of the TLS handshake with a client.
pub(super) struct HandshakeSettings<'a> {
    /// The settings of the listener's TLS that are in force.
    pub(super) tls: &'a ListenerTls,
    /// The ALPN protocols that may be negotiated.
    pub(super) alpn: &'a [Box<[u8]>],
    /// When the handshake must be complete.
    pub(super) deadline: Instant,
    /// The budget of all clients for bytes that are held before a client has a server; here, during the handshake.
    pub(super) memory: &'a Arc<HelloMemory>,
}

impl<'a> HandshakeSettings<'a> {
    /// `None`: the client's TLS is passed on, because `mode` says so, or because the listener has no TLS. If the route
    /// has ALPN protocols, they replace those of the listener.
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
