//! The steps in which guards are asked.

use tokio::time::Instant;

use super::refusal::{Refusal, alert_record};
use super::steps::{Opened, Routed};
use crate::account::{Entry, RefusalLine};
use crate::guard::{GuardId, RefuseWith};
use crate::live::LiveGuards;
use crate::refuse::Reply;
use crate::sniff::Sniffed;
use crate::sniff::alert::{Alert, AlertRecord};

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
        let hello = self.sniffed.as_ref().and_then(Sniffed::hello);
        ask(
            &self.state.guards,
            self.guards,
            self.entry,
            alert_record(hello, |_| Alert::AccessDenied),
        )?;
        Ok(self)
    }
}

/// Asks guards in this order. The entry holds what they let pass until the session ends. A guard of both the listener and
/// the route is asked once, so that it counts the session once.
///
/// `alert`: for a client that has sent a ClientHello.
fn ask(guards: &LiveGuards, ids: &[GuardId], entry: &Entry, alert: Option<AlertRecord>) -> Result<(), Refusal> {
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
        let reason = match guard.admit(client, now) {
            Ok(pass) => {
                session.pass(pass);
                continue;
            }
            Err(reason) => reason,
        };
        let line = match alert {
            Some(_) => RefusalLine::Usual, // a ClientHello is no flood
            None => guard.line(now).map_or(RefusalLine::Suppressed, RefusalLine::After),
        };
        session.refuse(guard.name(), reason, line);
        let reply = match (alert, guard.rules().refuse_with) {
            (Some(alert), _) => Reply::Alert(alert),
            (None, RefuseWith::Reset) => Reply::Reset,
            (None, RefuseWith::Close) => Reply::End,
        };
        return Err(Refusal::Guard(reason, reply));
    }
    Ok(())
}
