//! The step in which the PROXY header of a peer in front is read.

use tokio::time::Instant;

use super::refusal::Refusal;
use super::steps::Opened;
use crate::account::{Entry, LogLine};
use crate::proxy_protocol::ProxyHeader;
use crate::sniff::{FirstBytes, SniffFailure, read_proxy_header};

impl Opened<'_> {
    /// Reads the PROXY header of a trusted peer. From then on the session's client is the one that the header names.
    /// Any other peer is refused, or is the client itself: `refuses_others` decides.
    pub(super) async fn read_proxy_header(self) -> Result<Self, Refusal> {
        let Some(accept) = &self.state.plan.accept_proxy else {
            return Ok(self);
        };
        let peer = self.entry.info().client().ip();
        if !accept.trusts(peer) {
            return if accept.refuses_others {
                Err(self.refuse_untrusted())
            } else {
                Ok(self)
            };
        }
        let timeout = self.state.plan.sniff.hello_timeout;
        let memory = &self.state.hello_memory;
        let read = read_proxy_header(self.client, accept.is_required, timeout, self.at, memory).await;
        let (header, first) = read.map_err(|error| {
            self.entry.traffic().up.add(error.bytes_read);
            if let SniffFailure::ProxyHeader(invalid) = &error.reason {
                self.entry.info().detail = Some(invalid.as_str());
            }
            Refusal::ProxyHeader(error.reason)
        })?;
        store(header, first, self.entry);
        Ok(self)
    }

    /// Refuses a peer that may not connect. The log lines of such refusals are bounded, like those of guards.
    fn refuse_untrusted(&self) -> Refusal {
        let line = self.state.untrusted_lines.take_line(Instant::now());
        let mut info = self.entry.info();
        info.detail = Some("untrusted_peer");
        let extras = info.extras.get_or_insert_default();
        extras.set_log_line(line.map_or(LogLine::Suppressed, LogLine::After));
        Refusal::UntrustedPeer
    }
}

/// Stores what was read. It goes to the extras of the entry, so that the sessions of other listeners stay small.
fn store(header: Option<Box<ProxyHeader>>, first: FirstBytes, entry: &Entry) {
    let mut info = entry.info();
    let extras = info.extras.get_or_insert_default();
    extras.forwarded = header;
    extras.first = Some(Box::new(first));
}
