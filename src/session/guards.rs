//! The steps in which guards are asked.

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::listener_state::ListenerState;
use super::record_sniffed::{count_unsniffed, record_sniffed};
use super::refusal::{Refusal, reply};
use super::steps::{Opened, Routed, take_read_ahead};
use crate::account::{Entry, LogLine};
use crate::guard::{Guard, GuardId, GuardReason, RefuseWith};
use crate::plan::Protocol;
use crate::refuse::{PostgresError, REFUSAL_TIME_MAX, Reply};
use crate::sniff::alert::Alert;
use crate::sniff::{SniffLimits, Sniffed, TlsAnswer, sniff_postgres};

impl Opened<'_> {
    /// Asks the guards of the listener. Nothing of the client was read before, except by [`Self::read_proxy_header`].
    pub(super) fn pass_guards(self) -> Result<Self, Refusal> {
        let plan = &self.state.plan;
        let protocol = if plan.tls.is_some() {
            Protocol::Tcp // so no reply has a message in it: before its TLS handshake, the client would not accept one
        } else {
            plan.protocol
        };
        let known = KnownClient {
            sniffed: None,
            protocol,
        };
        ask(self.state, &plan.guards, self.entry, known)?;
        Ok(self)
    }
}

impl Routed<'_> {
    /// Asks the guards of the client's route.
    pub(super) fn pass_guards(self) -> Result<Self, Refusal> {
        let known = KnownClient {
            sniffed: self.sniffed.as_ref(),
            protocol: self.state.plan.protocol,
        };
        if self.handshake.is_some() {
            self.entry.info().tls_mut(); // for the log: the TLS is terminated here, even if no handshake follows
        }
        ask(self.state, self.guards, self.entry, known)?;
        Ok(self)
    }
}

/// If a guard of the listener has refused a PostgreSQL client, replaces the reply by one in the client's protocol.
/// Clients print only an answer to their first packet. So that packet is read first, within [`REFUSAL_TIME_MAX`].
///
/// The reply stays as it is if no valid packet comes by then, or if the packet is a CancelRequest, which has no answer.
/// In a flood, nothing is read.
pub(super) async fn with_postgres_reply(
    refusal: Refusal,
    client: &mut TcpStream,
    state: &ListenerState,
    entry: &Entry,
) -> Refusal {
    let Refusal::Guard(reason, first_reply) = refusal else {
        return refusal;
    };
    if entry.info().is_suppressed() {
        return Refusal::Guard(reason, first_reply);
    }
    let plan = &state.plan;
    let limits = SniffLimits {
        hello_timeout: plan.sniff.hello_timeout.min(REFUSAL_TIME_MAX),
        ..plan.sniff
    };
    let first = take_read_ahead(entry);
    let read = sniff_postgres(
        client,
        &limits,
        Instant::now(),
        &state.hello_memory,
        first,
        TlsAnswer::AskServer,
    );
    let sniffed = match read.await {
        Ok(sniffed) => {
            record_sniffed(&sniffed, state, entry);
            Some(sniffed)
        }
        Err(error) => {
            count_unsniffed(error, entry);
            None
        }
    };
    let known = KnownClient {
        sniffed: sniffed.as_ref(),
        protocol: plan.protocol,
    };
    let reply = match known.reply(reason) {
        Reply::Close => first_reply,
        reply => reply,
    };
    Refusal::Guard(reason, reply)
}

/// The known facts about a client when a guard is asked.
#[derive(Clone, Copy)]
struct KnownClient<'a> {
    sniffed: Option<&'a Sniffed>,
    protocol: Protocol,
}

impl KnownClient<'_> {
    /// The reply to the client if it is refused for this reason.
    fn reply(self, reason: GuardReason) -> Reply {
        let error = if reason.is_address() {
            PostgresError::Denied
        } else {
            PostgresError::Limited
        };
        reply(self.sniffed, self.protocol, |_| Alert::AccessDenied, error)
    }

    /// Whether it has sent a whole ClientHello, or a StartupMessage of PostgreSQL.
    fn has_sent_first_message(self) -> bool {
        self.sniffed
            .is_some_and(|sniffed| sniffed.hello().is_some() || sniffed.startup().is_some())
    }
}

/// Asks these guards in this order. Their passes stay in the entry until the session ends. A guard that both the
/// listener and the route name is asked once, so that it counts the session once.
fn ask(state: &ListenerState, ids: &[GuardId], entry: &Entry, known: KnownClient<'_>) -> Result<(), Refusal> {
    if ids.is_empty() {
        return Ok(()); // most sessions
    }
    let now = Instant::now();
    let mut info = entry.info();
    let client = info.client();
    let extras = info.extras.get_or_insert_default();
    for guard in ids.iter().map(|id| &state.guards[*id]) {
        if extras.has_passed(guard.name()) {
            continue;
        }
        match guard.admit(client, now) {
            Ok(pass) => extras.hold(pass),
            Err(reason) => {
                let (reply, line) = reply_and_log_line(guard, reason, known, now);
                extras.note_refusal(guard.name(), reason, line);
                return Err(Refusal::Guard(reason, reply));
            }
        }
    }
    Ok(())
}

/// How a client is refused, and whether the refusal is logged. A client that has sent its first message is no part of a
/// flood: its refusal is always logged. Of the other refusals, as many are logged as [`Guard::take_line`] allows.
/// Clients whose refusals are not logged are reset: after a message, or after [`Reply::End`], a session would wait for
/// its client to close, and meanwhile count in `max_connections`.
fn reply_and_log_line(guard: &Guard, reason: GuardReason, known: KnownClient<'_>, now: Instant) -> (Reply, LogLine) {
    if known.has_sent_first_message() {
        return (known.reply(reason), LogLine::Usual);
    }
    let Some(suppressed) = guard.take_line(now) else {
        return (Reply::Reset, LogLine::Suppressed);
    };
    let reply = match (known.reply(reason), guard.rules().refuse_with) {
        (Reply::Close, RefuseWith::Reset) => Reply::Reset,
        (Reply::Close, RefuseWith::End) => Reply::End,
        (in_protocol, _) => in_protocol,
    };
    (reply, LogLine::After(suppressed))
}
