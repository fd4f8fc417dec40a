//! The steps in which guards are asked.

use tokio::time::Instant;

use super::refusal::{Refusal, reply};
use super::steps::{Opened, Routed};
use crate::account::{Entry, RefusalLine};
use crate::guard::{Guard, GuardId, GuardReason, RefuseWith};
use crate::live::LiveGuards;
use crate::refuse::{PostgresError, Reply};
use crate::sniff::Sniffed;
use crate::sniff::alert::Alert;

impl Opened<'_> {
    /// Asks the guards of the listener, before anything of the client is read.
    pub(super) fn pass_guards(self) -> Result<Self, Refusal> {
        ask(&self.state.guards, &self.state.plan.guards, self.entry, None)?;
        Ok(self)
    }
}

impl Routed<'_> {
    /// Asks the guards of the route that has won.
    pub(super) fn pass_guards(self) -> Result<Self, Refusal> {
        ask(&self.state.guards, self.guards, self.entry, self.sniffed.as_ref())?;
        Ok(self)
    }
}

/// Asks guards in this order. The entry holds what they let pass until the session ends. A guard of both the listener and
/// the route is asked once, so that it counts the session once.
fn ask(guards: &LiveGuards, ids: &[GuardId], entry: &Entry, sniffed: Option<&Sniffed>) -> Result<(), Refusal> {
    if ids.is_empty() {
        return Ok(()); // most sessions
    }
    let now = Instant::now();
    let mut info = entry.info();
    let client = info.client;
    let session = info.guards.get_or_insert_default();
    for guard in ids.iter().map(|id| &guards[*id]) {
        if session.has_passed(guard.name()) {
            continue;
        }
        match guard.admit(client, now) {
            Ok(pass) => session.pass(pass),
            Err(reason) => {
                let (reply, line) = refuse(guard, reason, sniffed, now);
                session.refuse(guard.name(), reason, line);
                return Err(Refusal::Guard(reason, reply));
            }
        }
    }
    Ok(())
}

/// What a refused client is told, and whether that is logged. Clients that have shown what they speak are no flood.
fn refuse(guard: &Guard, reason: GuardReason, sniffed: Option<&Sniffed>, now: Instant) -> (Reply, RefusalLine) {
    let error = if reason.is_address() {
        PostgresError::Denied
    } else {
        PostgresError::Limited
    };
    let bounded = || guard.line(now).map_or(RefusalLine::Suppressed, RefusalLine::After);
    match (
        reply(sniffed, |_| Alert::AccessDenied, error),
        guard.rules().refuse_with,
    ) {
        (Reply::Close, RefuseWith::Reset) => (Reply::Reset, bounded()),
        (Reply::Close, RefuseWith::Close) => (Reply::End, bounded()),
        (told, _) => (told, RefusalLine::Usual),
    }
}
