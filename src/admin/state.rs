//! `GET /api/v1/process` and `GET /api/v1/state`: the process, its listeners and routes, its pools and servers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use tokio::time::Instant;

use super::bodies::{
    AbsentServerBody, ListenerBody, ListenerTlsBody, PoolBody, ProcessBody, ReloadBody, RouteBody, ServerBody,
    StateBody, TotalsBody,
};
use super::context::{Admin, rfc3339};
use super::guards::guard_body;
use crate::account::sessions_opened;
use crate::addr::ListenAddr;
use crate::live::LivePool;
use crate::plan::{ListenerPlan, Plan, PoolId};
use crate::pool::{CheckState, Member, Overrides, RefusedCheck, ServerPath};
use crate::route::{Route, Target};
use crate::tls::ListenerTls;
use crate::units::format_duration;

/// The number of entries shown of a condition of a route.
const ENTRIES_SHOWN: usize = 16;

/// The number of routes shown of a listener.
const ROUTES_SHOWN: usize = 1000;

pub(super) async fn process(State(admin): State<Arc<Admin>>) -> Json<ProcessBody> {
    Json(ProcessBody {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: rfc3339(admin.started),
        configuration: configuration(&admin),
    })
}

fn configuration(admin: &Admin) -> Option<String> {
    admin.configuration.as_ref().map(|path| path.display().to_string())
}

pub(super) async fn state(State(admin): State<Arc<Admin>>) -> Json<StateBody> {
    let in_force = admin.live.in_force();
    let plan = &in_force.plan;
    let now = Instant::now();
    let serving = |index| &in_force.pools[in_force.pools.serving(PoolId(index), now)];
    let pools = in_force.pools.iter().enumerate();
    let pools: Vec<_> = pools
        .map(|(index, pool)| pool_body(pool, serving(index), now))
        .collect();
    let sessions: HashMap<_, _> = admin.limits.sessions().into_iter().collect();
    let listener_body = |(listener, addresses): (&Arc<ListenerPlan>, &[ListenAddr])| {
        let sessions = sessions.get(&listener.name).copied().unwrap_or(0);
        let tls = in_force.tls.get(&listener.name).map(|tls| listener_tls_body(tls));
        ListenerBody {
            tls,
            ..listener_body(plan, listener, addresses, sessions)
        }
    };
    let listeners: Vec<_> = in_force.listeners().map(listener_body).collect();
    let servers = || pools.iter().flat_map(|pool: &PoolBody| &pool.servers);
    Json(StateBody {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        configuration: configuration(&admin),
        started: rfc3339(admin.started),
        uptime: admin.started.elapsed().unwrap_or_default().as_secs(),
        draining: admin.is_draining.load(Relaxed),
        last_reload: admin.reloader.latest().map(|latest| ReloadBody {
            at: rfc3339(latest.at),
            by: latest.by.to_string(),
            done: latest.is_done,
        }),
        totals: TotalsBody {
            // Sessions of listeners that a reload has removed are included.
            sessions: sessions.values().sum(),
            sessions_so_far: sessions_opened(),
            servers: servers().count(),
            servers_up: servers().filter(|server| server.up).count(),
        },
        guards: in_force.guards.iter().map(|guard| guard_body(guard)).collect(),
        listeners,
        pools,
        absent: admin
            .live
            .absent()
            .iter()
            .map(|(name, overrides)| absent_server_body(name, overrides))
            .collect(),
    })
}

fn listener_body(plan: &Plan, listener: &ListenerPlan, addresses: &[ListenAddr], sessions: usize) -> ListenerBody {
    let routes = listener.routes.routes();
    ListenerBody {
        name: listener.name.to_string(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        sessions,
        max_connections: listener.max_connections,
        redirect: listener.redirect.as_ref().map(|redirect| redirect.to.to_string()),
        guards: plan.guard_names(&listener.guards).map(ToString::to_string).collect(),
        pool: listener.routes.default().map(|pool| plan.pools[*pool].name.to_string()),
        tls: None,
        routes: routes
            .iter()
            .take(ROUTES_SHOWN)
            .map(|route| route_body(plan, route))
            .collect(),
        more_routes: routes.len().saturating_sub(ROUTES_SHOWN),
    }
}

fn route_body(plan: &Plan, route: &Route<PoolId>) -> RouteBody {
    fn first<E>(entries: &[E], show: impl Fn(&E) -> String) -> Vec<String> {
        entries.iter().take(ENTRIES_SHOWN).map(show).collect()
    }
    let more = |entries: usize| entries.saturating_sub(ENTRIES_SHOWN);
    RouteBody {
        name: route.name.to_string(),
        sni: first(&route.sni, ToString::to_string),
        alpn: first(&route.alpn, |protocol| protocol.escape_ascii().to_string()),
        from: first(&route.from, ToString::to_string),
        database: first(&route.database, ToString::to_string),
        user: first(&route.user, ToString::to_string),
        guards: plan.guard_names(&route.guards).map(ToString::to_string).collect(),
        more: more(route.sni.len())
            + more(route.alpn.len())
            + more(route.from.len())
            + more(route.database.len())
            + more(route.user.len()),
        pool: match &route.to {
            Target::Pool(pool) => Some(plan.pools[*pool].name.to_string()),
            Target::Refuse => None,
        },
        tls: route.tls.as_str().to_owned(),
    }
}

fn listener_tls_body(tls: &ListenerTls) -> ListenerTlsBody {
    let store = tls.certificates();
    let first = store.all().iter().min_by_key(|certificate| certificate.not_after);
    let expires = first.map_or(0, |first| u64::try_from(first.not_after).unwrap_or(0));
    ListenerTlsBody {
        certificates: store.all().len(),
        expires_first: first.and_then(|first| first.names.first().map(ToString::to_string)),
        expires: rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(expires.min(MAX_SECONDS))),
        broken: tls.broken(),
    }
}

/// 9999-12-31T23:59:59Z, the end of the times that RFC 3339 can write.
const MAX_SECONDS: u64 = 253_402_300_799;

fn pool_body(pool: &LivePool, serving: &LivePool, now: Instant) -> PoolBody {
    PoolBody {
        name: pool.name().to_string(),
        balance: pool.policy().as_str().to_owned(),
        best_tier: pool.best_tier(now),
        panic: pool.is_panicking(now),
        fallback: pool.plan().fallback.as_ref().map(ToString::to_string),
        served_by: (serving.name() != pool.name()).then(|| serving.name().to_string()),
        primary: pool.roles().primary_in_force().as_deref().map(str::to_owned),
        primaries: pool.roles().claimants().iter().map(ToString::to_string).collect(),
        servers: pool.servers().iter().map(server_body).collect(),
        unresolved: pool.unresolved().iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn server_body(server: &Member) -> ServerBody {
    let (health, overrides) = (server.health(), server.overrides());
    ServerBody {
        name: server.spec().label.to_string(),
        address: server.spec().address.to_string(),
        priority: server.priority(),
        weight: server.weight(),
        up: server.is_up(),
        health: match (health.refusal, health.state) {
            (RefusedCheck::None, CheckState::Unchecked) => "unchecked",
            (RefusedCheck::None, CheckState::Up) => "up",
            (RefusedCheck::None, CheckState::Down) => "down",
            (RefusedCheck::Tolerated | RefusedCheck::Suspended, _) => "check refused",
        }
        .to_owned(),
        reason: health.reason.as_deref().map(str::to_owned),
        since: rfc3339(health.since),
        ejected: server.is_ejected(),
        usage: overrides.admin_state.as_str().to_owned(),
        close_over: overrides.close_over.map(format_duration),
        weight_is_set: overrides.weight.is_some(),
        set_by: overrides.set_by.as_ref().map(|(by, _)| by.to_string()),
        set_at: overrides.set_by.as_ref().map(|(_, at)| rfc3339(*at)),
        sessions: server.live(),
        sessions_so_far: server.served(),
    }
}

pub(super) fn absent_server_body((pool, name): &ServerPath, overrides: &Overrides) -> AbsentServerBody {
    AbsentServerBody {
        pool: pool.to_string(),
        name: name.to_string(),
        usage: overrides.admin_state.as_str().to_owned(),
        close_over: overrides.close_over.map(format_duration),
        weight: overrides.weight,
        set_by: overrides.set_by.as_ref().map(|(by, _)| by.to_string()),
        set_at: overrides.set_by.as_ref().map(|(_, at)| rfc3339(*at)),
    }
}
