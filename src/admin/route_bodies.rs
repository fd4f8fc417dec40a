//! The JSON bodies that explain a route. `docs/api.md` describes them.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/route`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteExplanationBody {
    /// How `accept_proxy` treats `peer`: `trusted` (it may name its client), `client` (it is the client itself) or
    /// `refused`. Null: no peer is given.
    #[serde(default)]
    pub peer: Option<String>,
    /// The route that takes the client; null: none does.
    pub route: Option<String>,
    /// The pool; null: the client is refused, or redirected.
    pub pool: Option<String>,
    /// What happens to TLS: `pass` or `terminate`; null: the client is refused, or redirected.
    pub tls: Option<String>,
    /// The file of the certificate that the client gets; null: TLS does not end here.
    pub certificate: Option<String>,
    /// The listener to which HTTP requests are redirected; null: the listener does not redirect, or `peer` is refused.
    #[serde(default)]
    pub redirect: Option<String>,
    /// The pool that the route or the listener names, if its fallback is in use. If `pool` is a different pool, `pool`
    /// is the fallback. If `pool` is the same pool, its primary serves in place of its replicas.
    #[serde(default)]
    pub fallback_from: Option<String>,
    /// The guards that are asked, in this order.
    #[serde(default)]
    pub guards: Vec<GuardVerdictBody>,
    /// The verdict on each route; empty if `peer` is refused.
    pub routes: Vec<VerdictBody>,
    /// The servers that may be picked now, best tier first. If the policy picks by the client, and the client's address
    /// is known, the servers of a tier are in the order in which the policy would try them for this client.
    pub servers: Vec<String>,
    /// The servers in `servers` that have their maximum of sessions.
    #[serde(default)]
    pub full: Vec<String>,
}

/// A guard that is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardVerdictBody {
    /// Its name.
    pub guard: String,
    /// `deny` or `not_allowed`; null: the address may pass, or no address is given. The limits of the guard are not
    /// considered.
    pub refuses: Option<String>,
    /// Whether the guard only reports: then a client that it `refuses` passes all the same.
    #[serde(default)]
    pub report_only: bool,
}

/// The verdict on a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictBody {
    /// The route's name.
    pub route: String,
    /// `taken`, `outranked` or `passed over`.
    pub verdict: String,
    /// The reasons. For `taken`: the entries of its conditions that matched.
    pub why: Vec<String>,
}
