//! One session from accept to its access log record. This is the only module that knows all the stages.
//!
//! ```text
//! Accepted ─ ledger.open ─► Opened ─ sniff ─► Identified ─ route ─► Routed ─ connect ─► Connected ─► Linked ─ relay ─► closed
//!                              │                  │            terminate ◄┘ │
//!                              └──────────────────┴──────── Refusal ────────┘
//! ```
//! `terminate` is the TLS handshake with a client whose TLS ends here. The server is connected to after it.

mod listener_state;
mod refusal;
mod leased_server;
mod termination;
mod steps;
mod terminate;
mod linked;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::Instant;

pub use self::listener_state::ListenerState;
use crate::account::{Entry, Ledger};
use crate::listen::Accepted;
use crate::refuse::refuse;
use linked::Linked;
use refusal::Refusal;
use steps::{Connected, Opened};

/// Serves one client until its session is over and accounted for.
///
/// No `async fn`: what is only needed before bytes are relayed lives in a box that is freed by then. So an idle session
/// stays small, and it does not keep the listener's state: a session of three days does not hold a plan of three days ago.
pub fn serve(accepted: Accepted, state: Arc<ListenerState>, ledger: &Arc<Ledger>) -> impl Future<Output = ()> + use<> {
    let Accepted {
        socket,
        peer,
        at,
        permit,
    } = accepted;
    let entry = ledger.open(&state.series, peer, at);
    let linking = Box::pin(async move { link(socket, state, at, entry).await.map(Linked::relay) });
    async move {
        // Awaited in place: awaited by value, it would be kept beside the value that it comes from.
        let mut relaying = pin!(linking.await);
        if let Some(relaying) = relaying.as_mut().as_pin_mut() {
            relaying.await;
        }
        drop(permit); // after the entry: when the permit is free, this session is accounted for
    }
}

/// Links the client to a server, or refuses it; then the session is over.
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
                refuse(client, refusal.reply()).await;
                entry.close(refusal.ending());
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
    let opened = Opened {
        client,
        state: &state,
        at,
        entry,
    };
    // Statements of their own: as one expression, the future would hold the parts of all steps at once.
    let identified = opened.sniff().await?;
    let routed = identified.route()?;
    let routed = routed.terminate().await?;
    routed.connect().await
}
