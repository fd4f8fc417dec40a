//! One session from accept to its access log record. This is the only module that knows all the steps.
//!
//! ```text
//! Accepted ─ ledger.open ─► Opened ─ sniff ─► Identified ─ route ─► Routed ─ terminate ─► Routed
//!     ─ connect ─► Connected ─► Linked ─ relay ─► closed
//! ```
//! Every step between `ledger.open` and `Linked` can end in a `Refusal` instead. The picture leaves out some steps:
//!
//! - `Opened`: the PROXY header is read, if one is expected; the guards of the listener are asked; a client to be
//!   redirected gets the response, and goes no further.
//! - `Identified`: an ACME server gets the answer to its challenge, and a CancelRequest of PostgreSQL is sent on, or
//!   dropped. Neither client goes further.
//! - `Routed`: the guards of the route are asked.
//! - `Connected`: the login of a PostgreSQL client is relayed.
//!
//! `terminate` completes the TLS handshake with a client whose TLS is terminated here. For a PostgreSQL client, the
//! module `terminate_postgres` does so before `route`, because the packet that names the user and the database comes
//! within TLS.
//!
//! **A new step** consumes the type before it and returns the next one, or a `Refusal`. The functions `connect`,
//! `connect_postgres` and `connect_decrypted` call the steps: add the new one to each whose clients it is for. What it
//! has to remember goes to `account::session_extras`, so that other sessions stay small. Code that only decides whether
//! a client is refused is not a step, but a limit of a [`guard`](crate::guard). Code that reads first bytes is a reader
//! of [`sniff`](crate::sniff).
//!
//! A step that few sessions take is [`boxed`](FutureExt::boxed): its future does not make those of other sessions
//! larger, and its code, which is called through `dyn`, is not inlined into the code that every session runs.

mod listener_state;
mod refusal;
mod leased_server;
mod not_ready;
mod redial;
mod fallback;
mod postgres;
mod handshake_settings;
mod record_sniffed;
mod steps;
mod acme;
mod connect;
mod cancel;
mod reconnect;
mod begin;
mod startup;
mod terminate;
mod terminate_postgres;
mod guards;
mod accept_proxy;
mod redirect;
mod linked;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

pub use self::listener_state::ListenerState;
use crate::account::{Ending, Entry, Ledger};
use crate::listen::Accepted;
use crate::refuse::refuse;
use cancel::cancel;
use guards::with_postgres_reply;
use linked::{Linked, relay_when_linked};
use postgres::reply_to_login;
use refusal::Refusal;
use startup::start;
use steps::{Connected, Opened};
use terminate_postgres::{connect_decrypted, find_handshake_settings};

/// Serves one client until its session is over and accounted for.
///
/// Not an `async fn`: what is only needed before bytes are relayed lives in a box, which is freed by then. So an idle
/// session stays small and does not keep the listener's state: a session of three days does not hold a plan of three
/// days ago.
pub fn serve(accepted: Accepted, state: Arc<ListenerState>, ledger: &Arc<Ledger>) -> impl Future<Output = ()> + use<> {
    let Accepted {
        socket,
        peer,
        at,
        permit,
    } = accepted;
    let entry = ledger.open(&state.series, peer, at);
    let linking = Box::pin(link(socket, state, at, entry));
    async move {
        relay_when_linked(linking).await;
        // The entry is closed by now. So when the permit is free, this session is accounted for.
        drop(permit);
    }
}

/// Links the client to a server. `None`: the client was refused, and the session is over.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
fn link(
    mut client: TcpStream,
    state: Arc<ListenerState>,
    at: Instant,
    mut entry: Entry,
) -> impl Future<Output = Option<Linked>> {
    async move {
        let record = Arc::clone(entry.record());
        let connected = tokio::select! {
            biased;
            connected = connect(&mut client, state, at, &mut entry) => connected,
            ending = record.until_cut() => Err(Refusal::Cut(ending)),
        };
        match connected {
            Ok(connected) => Some(Linked::new(client, connected, entry)),
            Err(refusal) => {
                let ending = record.settle(refusal.ending());
                let reply = match refusal {
                    Refusal::Cut(Ending::ServerDown) => reply_to_login(&entry),
                    refusal => refusal.reply(),
                };
                refuse(client, reply).boxed().await;
                entry.close(ending);
                None
            }
        }
    }
}

/// Finds out where the client wants to go, and connects to a server there.
async fn connect(
    client: &mut TcpStream,
    state: Arc<ListenerState>,
    at: Instant,
    entry: &mut Entry,
) -> Result<Connected, Refusal> {
    if state.plan.protocol.is_postgres() {
        return connect_postgres(client, state, at, entry).boxed().await;
    }
    let opened = Opened {
        client,
        state: &state,
        at,
        entry,
    };
    // Each step that awaits is a statement: in one expression, the future would hold the temporaries of all steps at
    // once. Each step takes its input by value: a local that was borrowed would stay in the future until its end.
    let opened = match state.plan.accept_proxy {
        Some(_) => opened.read_proxy_header().boxed().await?,
        None => opened,
    };
    let opened = opened.pass_guards()?;
    if let Some(redirect) = &state.redirect {
        return Err(opened.redirect(redirect).boxed().await);
    }
    let identified = opened.sniff().await?;
    let (identified, challenge) = identified.find_challenge();
    if let Some(config) = challenge {
        return Err(identified.answer_challenge(config).boxed().await);
    }
    let (routed, handshake) = identified.route()?.pass_guards()?.take_handshake();
    let routed = match handshake {
        Some(handshake) => routed.terminate(handshake).boxed().await?,
        None => routed,
    };
    routed.connect().await
}

/// As `connect`, for a client of PostgreSQL. Also begins the session with the server; after that, bytes are only
/// relayed. A client may send a request to cancel a query instead of beginning a session.
async fn connect_postgres(
    client: &mut TcpStream,
    state: Arc<ListenerState>,
    at: Instant,
    entry: &mut Entry,
) -> Result<Connected, Refusal> {
    let opened = Opened {
        client: &mut *client,
        state: &state,
        at,
        entry: &mut *entry,
    };
    // Each step that awaits is a statement, for the same reason as in `connect`.
    let opened = match state.plan.accept_proxy {
        Some(_) => opened.read_proxy_header().boxed().await?,
        None => opened,
    };
    let opened = match opened.pass_guards() {
        Ok(opened) => opened,
        Err(refusal) => return Err(with_postgres_reply(refusal, client, &state, entry).boxed().await),
    };
    let identified = opened.sniff().await?;
    if let Some(key) = identified.cancel_key() {
        return Err(cancel(client, key, &state, entry, None).await);
    }
    let connected = match find_handshake_settings(&identified)? {
        Some(handshake) => connect_decrypted(identified, handshake).await?,
        None => identified.route()?.pass_guards()?.connect().await?,
    };
    start(client, connected, &state, entry).boxed().await
}
