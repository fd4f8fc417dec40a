//! The client, and the guards that it must pass.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use crate::guard::GuardId;
use crate::plan::{ClientOf, GuardPlan, Plan};

/// Explains who the client is when this peer connects.
pub(super) fn explain_peer(peer: IpAddr, client: ClientOf) -> String {
    match client {
        // The user did not give `--from`, so the message says what that option is for.
        ClientOf::Named(None) => {
            format!("peer {peer} is trusted to name its client by a PROXY header: set that client by --from\n")
        }
        ClientOf::Named(Some(_)) => format!("peer {peer} is trusted to name its client by a PROXY header\n"),
        ClientOf::Peer(_) => format!("peer {peer} is not trusted to name a client: it is the client\n"),
        ClientOf::Refused => format!("peer {peer} is refused: it is not in `from` of `accept_proxy`\n"),
    }
}

/// Writes the guards that are asked, and what each says of the client's address. `client`: its address, if known.
pub(super) fn write_guards<'a>(
    text: &mut String,
    plan: &Plan,
    guards: impl IntoIterator<Item = &'a GuardId>,
    client: Option<IpAddr>,
) -> fmt::Result {
    for GuardPlan { name, rules } in guards.into_iter().map(|id| &*plan.guards[id.0]) {
        let verdict = match client.map(|client| rules.refusal_of_address(Some(client))) {
            None => String::from("is asked"),
            Some(Some(reason)) if rules.report_only => {
                format!("would refuse it ({}), but only reports", reason.as_str())
            }
            Some(Some(reason)) => format!("refuses it: {}", reason.as_str()),
            Some(None) => String::from("lets this address pass, within its limits"),
        };
        writeln!(text, "guard {name} {verdict}")?;
    }
    Ok(())
}
