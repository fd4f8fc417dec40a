//! Facts that few sessions have: results of guards, the header of a peer in front, and waits in queues.

use std::sync::Arc;

use ipnet::IpNet;

use super::queue_wait::QueueWait;
use crate::addr::ClientAddr;
use crate::guard::{GuardPass, GuardReason};
use crate::proxy_protocol::ProxyHeader;
use crate::sniff::FirstBytes;

/// The facts that one session has. The passes are held until the session ends.
#[derive(Debug, Default)]
pub struct SessionExtras {
    passes: Vec<GuardPass>,
    /// The guard that refused the client, and why. If none has refused it: the first report-only guard that would have.
    pub(super) refusal: Option<(Arc<str>, GuardReason)>,
    pub(super) log_line: LogLine,
    /// The waits in the queues of pools.
    pub(super) queue: Option<QueueWait>,
    /// The PROXY header of the peer in front.
    pub forwarded: Option<Box<ProxyHeader>>,
    /// The bytes read after the header, until the next step takes them. They are no fact about the session. They are
    /// kept here so that the sessions of listeners without `accept_proxy` stay small.
    pub first: Option<Box<FirstBytes>>,
}

/// Whether the access log gets a line for a refused session. In a flood, most of these lines are suppressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLine {
    /// It is written, as for any session.
    #[default]
    Usual,
    /// It is written, and this many lines before it were suppressed.
    After(u64),
    /// It is not written: there are too many.
    Suppressed,
}

impl SessionExtras {
    /// Holds a pass until the session ends. If the guard only reports and would refuse the client, notes that as the
    /// refusal, unless there is one already.
    pub fn hold(&mut self, pass: GuardPass) {
        if let (Some(reason), None) = (pass.would_refuse(), &self.refusal) {
            self.refusal = Some((Arc::clone(pass.guard().name()), reason));
        }
        self.passes.push(pass);
    }

    /// Notes which guard refuses the client, why, and whether the access log gets a line for it.
    pub fn note_refusal(&mut self, guard: &Arc<str>, reason: GuardReason, line: LogLine) {
        self.refusal = Some((Arc::clone(guard), reason));
        self.log_line = line;
    }

    /// Sets the log line of a session that was refused, but not by a guard.
    pub fn set_log_line(&mut self, line: LogLine) {
        self.log_line = line;
    }

    /// Whether the session has passed the guard of this name.
    #[must_use]
    pub fn has_passed(&self, guard: &str) -> bool {
        self.passes.iter().any(|pass| **pass.guard().name() == *guard)
    }

    /// The passes that the session holds.
    pub fn passes(&self) -> &[GuardPass] {
        &self.passes
    }

    /// Whether the session has passed this guard, and its client is in the network.
    pub(super) fn has_passed_from(&self, guard: &str, network: IpNet, client: ClientAddr) -> bool {
        client.ip().is_some_and(|ip| network.contains(&ip.to_canonical())) && self.has_passed(guard)
    }

    /// Notes that the session was cut because this guard denies its client now.
    pub(super) fn note_denial(&mut self, guard: &Arc<str>) {
        self.refusal = Some((Arc::clone(guard), GuardReason::Deny));
    }

    /// Ends what the guards count for the session, and drops bytes that no step has taken. What is known of the client
    /// stays.
    pub(super) fn end(&mut self) {
        self.passes.clear();
        self.first = None;
    }
}
