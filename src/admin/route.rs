//! `GET /api/v1/route`: where a connection would go now, and why.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use tokio::time::Instant;

use super::context::Admin;
use super::error::ApiError;
use super::route_bodies::{GuardVerdictBody, RouteExplanationBody, VerdictBody};
use crate::addr::{ClientAddr, ClientHost};
use crate::guard::GuardId;
use crate::live::InForce;
use crate::name::{ServerName, Sni};
use crate::plan::{AcceptProxy, ClientOf, ListenerPlan, Plan, PoolId, RouteQuestion};
use crate::pool::Member;
use crate::route::{Route, RouteChoice, RouteVerdict, TlsMode};

/// The query: the known facts about the connection.
#[derive(Debug, Default)]
pub struct RouteQuery {
    listener: Option<String>,
    sni: Option<String>,
    alpn: Vec<String>,
    /// A balancer in front, if the connection comes from one.
    peer: Option<IpAddr>,
    /// The client. With `peer`: the client that the peer's PROXY header names.
    from: Option<IpAddr>,
    database: Option<String>,
    user: Option<String>,
}

impl RouteQuery {
    /// Parses a query string.
    ///
    /// # Errors
    /// A key is unknown, a key other than `alpn` is repeated, or `peer` or `from` is not an IP address.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        let address = |key: &str, value: &str| value.parse().map_err(|_| format!("`{key}` must be an IP address"));
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "listener" if parsed.listener.is_none() => parsed.listener = Some(value.into_owned()),
                "sni" if parsed.sni.is_none() => parsed.sni = Some(value.into_owned()),
                "alpn" => parsed.alpn.push(value.into_owned()),
                "peer" if parsed.peer.is_none() => parsed.peer = Some(address(&key, &value)?),
                "from" if parsed.from.is_none() => parsed.from = Some(address(&key, &value)?),
                "database" if parsed.database.is_none() => parsed.database = Some(value.into_owned()),
                "user" if parsed.user.is_none() => parsed.user = Some(value.into_owned()),
                "listener" | "sni" | "peer" | "from" | "database" | "user" => {
                    return Err(format!("`{key}` is given twice"));
                }
                _ => {
                    let known =
                        "known keys: `listener`, `sni`, `alpn` (may be repeated), `peer`, `from`, `database`, `user`";
                    return Err(format!("unknown key `{key}`; {known}"));
                }
            }
        }
        Ok(parsed)
    }

    fn question(&self, client: Option<IpAddr>) -> RouteQuestion<'_> {
        RouteQuestion {
            sni: self.sni.as_deref(),
            alpn: &self.alpn,
            client,
            database: self.database.as_deref(),
            user: self.user.as_deref(),
        }
    }
}

pub(super) async fn explain(
    State(admin): State<Arc<Admin>>,
    RawQuery(query): RawQuery,
) -> Result<Json<RouteExplanationBody>, ApiError> {
    let query = RouteQuery::parse(query.as_deref().unwrap_or("")).map_err(ApiError::bad_request)?;
    let in_force = admin.live.in_force();
    let listener = find_listener(&in_force.plan, query.listener.as_deref())?;
    let (peer, client) = judge_peer(listener, &query);
    let explained = match peer {
        Some(REFUSED) => RouteExplanationBody::default(),
        _ => explanation_body(&in_force, listener, &query, client),
    };
    let peer = peer.map(str::to_owned);
    Ok(Json(RouteExplanationBody { peer, ..explained }))
}

/// The verdict on a peer that `accept_proxy` refuses.
const REFUSED: &str = "refused";

/// Returns how `accept_proxy` treats the peer, if the query names one, and the address of the client, if that is known.
fn judge_peer(listener: &ListenerPlan, query: &RouteQuery) -> (Option<&'static str>, Option<IpAddr>) {
    let Some(peer) = query.peer else {
        return (None, query.from);
    };
    match AcceptProxy::client_of(listener.accept_proxy.as_ref(), peer, query.from) {
        ClientOf::Peer(peer) => (Some("client"), Some(peer)),
        ClientOf::Named(client) => (Some("trusted"), client),
        ClientOf::Refused => (Some(REFUSED), None),
    }
}

fn explanation_body(
    in_force: &InForce,
    listener: &ListenerPlan,
    query: &RouteQuery,
    client: Option<IpAddr>,
) -> RouteExplanationBody {
    let explanation = query.question(client).explain(listener);
    let (route, pool_id, guards): (Option<&Arc<str>>, Option<&PoolId>, &[GuardId]) = match &explanation.choice {
        RouteChoice::Route { route, pool, .. } => (Some(&route.name), Some(pool), &route.guards),
        RouteChoice::Default(pool) => (None, Some(pool), &[]),
        RouteChoice::Refused { name, .. } => (Some(name), None, &[]),
        RouteChoice::NoRoute => (None, None, &[]),
    };
    let tls = listener.routes.tls_mode(&explanation.choice);
    let terminates = tls == Some(TlsMode::Terminate);
    // An empty name and an IP literal count as no name, as they do when a client sends them.
    let name = query.sni.as_deref().and_then(|sni| Sni::from_config(sni).ok());
    let certificate = terminates
        .then(|| certificate(in_force, listener, name.as_ref()))
        .flatten();
    let now = Instant::now();
    let wanted = pool_id.map(|id| &in_force.pools[*id]);
    // The wanted pool, or its fallback.
    let pool = pool_id.map(|id| &in_force.pools[in_force.pools.serving(*id, now)]);
    let servers = pool.map_or(Vec::new(), |pool| pool.in_order(client.map(ClientHost::Ip), now));
    RouteExplanationBody {
        peer: None,
        route: route.map(ToString::to_string),
        pool: pool.map(|pool| pool.name().to_string()),
        tls: tls.map(|tls| tls.as_str().to_owned()),
        certificate,
        redirect: listener.redirect.as_ref().map(|redirect| redirect.to.to_string()),
        fallback_from: wanted
            .filter(|wanted| pool.is_some_and(|pool| wanted.fallback_in_use(pool, now).is_some()))
            .map(|wanted| wanted.name().to_string()),
        guards: guard_verdicts(in_force, listener, guards, client),
        routes: explanation.routes.iter().map(verdict_body).collect(),
        full: servers.iter().filter(|server| is_full(server)).map(label).collect(),
        servers: servers.iter().map(label).collect(),
    }
}

fn label(server: &Member) -> String {
    server.spec().label.to_string()
}

/// Whether the server has its maximum of sessions.
fn is_full(server: &Member) -> bool {
    server.sessions_max().is_some_and(|max| server.live() >= max.get())
}

/// The file of the certificate for a client that asks for this server name.
fn certificate(in_force: &InForce, listener: &ListenerPlan, name: Option<&Sni>) -> Option<String> {
    let name = name.and_then(Sni::valid).map(ServerName::as_str);
    let certificate = in_force.tls.listeners.get(&listener.name)?.certificate_for(name)?;
    Some(certificate.path().display().to_string())
}

/// The verdicts of the guards that are asked: those of the listener, then those of the route.
fn guard_verdicts(
    in_force: &InForce,
    listener: &ListenerPlan,
    of_route: &[GuardId],
    client: Option<IpAddr>,
) -> Vec<GuardVerdictBody> {
    let of_route = of_route.iter().filter(|id| !listener.guards.contains(id));
    let verdict = |id: &GuardId| {
        let guard = &in_force.guards[*id];
        let client = client.map(|ip| ClientAddr::new((ip, 0).into()));
        let refuses = client.and_then(|client| guard.refusal_of_address(client, Instant::now()));
        GuardVerdictBody {
            guard: guard.name().to_string(),
            refuses: refuses.map(|reason| reason.as_str().to_owned()),
            report_only: guard.rules().report_only,
        }
    };
    listener.guards.iter().chain(of_route).map(verdict).collect()
}

fn find_listener<'a>(plan: &'a Plan, name: Option<&str>) -> Result<&'a ListenerPlan, ApiError> {
    let listener = plan.listeners.iter().find(|listener| Some(&*listener.name) == name);
    listener.map(|listener| &**listener).ok_or_else(|| {
        let names: Vec<_> = plan.listeners.iter().map(|listener| &*listener.name).collect();
        let known = format!("known listeners: {}", names.join(", "));
        match name {
            Some(_) => ApiError::not_found(format!("unknown `listener`; {known}")),
            None => ApiError::bad_request(format!("`listener` is missing; {known}")),
        }
    })
}

fn verdict_body((route, verdict): &(&Route<PoolId>, RouteVerdict<'_>)) -> VerdictBody {
    let (word, why) = match verdict {
        RouteVerdict::Taken(entries) => ("taken", entries.describe()),
        RouteVerdict::Outranked { by, because } => ("outranked", vec![format!("{by} {}", because.as_str())]),
        RouteVerdict::PassedOver(unmet) => (
            "passed over",
            unmet.iter().map(|condition| condition.describe_unmet(route)).collect(),
        ),
    };
    VerdictBody {
        route: route.name.to_string(),
        verdict: word.to_owned(),
        why,
    }
}
