//! `GET /api/v1/route`: where a connection would go now, and why.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use tokio::time::Instant;

use super::bodies::{GuardVerdictBody, RouteExplanationBody, VerdictBody};
use super::context::Admin;
use super::error::ApiError;
use crate::addr::ClientAddr;
use crate::guard::GuardId;
use crate::live::InForce;
use crate::name::{ServerName, Sni};
use crate::plan::{ListenerPlan, Plan, PoolId};
use crate::route::{Route, RouteChoice, RouteInput, RouteVerdict, TlsMode};
use crate::sniff::hello::ProtocolList;

/// The query: what is known of the connection.
#[derive(Debug, Default)]
pub struct RouteQuery {
    listener: Option<String>,
    sni: Option<String>,
    alpn: Vec<String>,
    from: Option<IpAddr>,
    database: Option<String>,
    user: Option<String>,
}

impl RouteQuery {
    /// Parses a query string.
    ///
    /// # Errors
    /// A key is unknown or repeated, or `from` is not an IP address.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "listener" if parsed.listener.is_none() => parsed.listener = Some(value.into_owned()),
                "sni" if parsed.sni.is_none() => parsed.sni = Some(value.into_owned()),
                "alpn" => parsed.alpn.push(value.into_owned()),
                "from" if parsed.from.is_none() => {
                    let address = value.parse();
                    parsed.from = Some(address.map_err(|_| "`from` must be an IP address")?);
                }
                "database" if parsed.database.is_none() => parsed.database = Some(value.into_owned()),
                "user" if parsed.user.is_none() => parsed.user = Some(value.into_owned()),
                "listener" | "sni" | "from" | "database" | "user" => return Err(format!("`{key}` is given twice")),
                _ => {
                    let known = "known keys: `listener`, `sni`, `alpn` (may be repeated), `from`, `database`, `user`";
                    return Err(format!("unknown key `{key}`; {known}"));
                }
            }
        }
        Ok(parsed)
    }
}

pub(super) async fn explain(
    State(admin): State<Arc<Admin>>,
    RawQuery(query): RawQuery,
) -> Result<Json<RouteExplanationBody>, ApiError> {
    let query = RouteQuery::parse(query.as_deref().unwrap_or("")).map_err(ApiError::bad_request)?;
    explanation_body(&admin.live.in_force(), &query).map(Json)
}

fn explanation_body(in_force: &InForce, query: &RouteQuery) -> Result<RouteExplanationBody, ApiError> {
    let listener = find_listener(&in_force.plan, query.listener.as_deref())?;
    // As for clients, a name that is no server name counts as none.
    let name = query.sni.as_deref().and_then(|sni| Sni::from_config(sni).ok());
    let alpn = ProtocolList::of(&query.alpn);
    let is_tls = query.sni.is_some() || !query.alpn.is_empty();
    let reads_startup = listener.protocol.is_postgres() && !is_tls;
    let user = query.user.as_ref().filter(|_| reads_startup);
    let database = query.database.as_ref().filter(|_| reads_startup).or(user);
    let client = query.from.map(|ip| ClientAddr::new((ip, 0).into()));
    let explanation = listener.routes.explain(&RouteInput {
        name: name.as_ref(),
        alpn: &alpn,
        client,
        database: database.map(String::as_bytes),
        user: user.map(String::as_bytes),
    });
    let (route, pool, guards): (Option<&Arc<str>>, Option<&PoolId>, &[GuardId]) = match &explanation.choice {
        RouteChoice::Route { route, pool } => (Some(&route.name), Some(pool), &route.guards),
        RouteChoice::Default(pool) => (None, Some(pool), &[]),
        RouteChoice::Refused { route } => (Some(route), None, &[]),
        RouteChoice::NoRoute => (None, None, &[]),
    };
    let tls = listener.routes.tls_mode(&explanation.choice);
    let terminates = tls == Some(TlsMode::Terminate);
    let certificate = in_force.tls.get(&listener.name).filter(|_| terminates).and_then(|tls| {
        let name = name.as_ref().and_then(Sni::valid).map(ServerName::as_str);
        Some(tls.certificate_for(name)?.path().display().to_string())
    });
    let now = Instant::now();
    let wanted = pool.map(|id| &in_force.pools[*id]);
    let pool = pool.map(|id| &in_force.pools[in_force.pools.serving(*id, now)]);
    let servers = pool.map_or(Vec::new(), |pool| pool.in_order(query.from, now));
    Ok(RouteExplanationBody {
        route: route.map(ToString::to_string),
        pool: pool.map(|pool| pool.name().to_string()),
        tls: tls.map(|tls| tls.as_str().to_owned()),
        certificate,
        redirect: listener.redirect.as_ref().map(|redirect| redirect.to.to_string()),
        fallback_from: wanted
            .filter(|wanted| pool.is_some_and(|pool| !Arc::ptr_eq(wanted, pool)))
            .map(|wanted| wanted.name().to_string()),
        guards: guard_verdicts(in_force, listener, guards, client),
        routes: explanation.routes.iter().map(verdict_body).collect(),
        servers: servers.iter().map(|server| server.spec().label.to_string()).collect(),
    })
}

/// The guards that are asked: those of the listener, then those of the route.
fn guard_verdicts(
    in_force: &InForce,
    listener: &ListenerPlan,
    of_route: &[GuardId],
    client: Option<ClientAddr>,
) -> Vec<GuardVerdictBody> {
    let of_route = of_route.iter().filter(|id| !listener.guards.contains(id));
    let verdict = |id: &GuardId| {
        let guard = &in_force.guards[*id];
        let refuses = client.and_then(|client| guard.address_reason(client, Instant::now()));
        GuardVerdictBody {
            guard: guard.name().to_string(),
            refuses: refuses.map(|reason| reason.as_str().to_owned()),
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
            unmet.iter().map(|condition| condition.wanted(route)).collect(),
        ),
    };
    VerdictBody {
        route: route.name.to_string(),
        verdict: word.to_owned(),
        why,
    }
}
