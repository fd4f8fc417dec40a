//! `GET /api/v1/process` and `GET /api/v1/state`: the process, its listeners and routes, its pools and servers.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use tokio::time::Instant;

use super::added::added_server_bodies;
use super::announced::announced_body;
use super::bodies::{
    AbsentServerBody, ListenerBody, ListenerTlsBody, PoolBody, ProcessBody, ReloadBody, RouteBody, ServerBody,
    StateBody, TotalsBody,
};
use super::certificates::time;
use super::context::{Admin, rfc3339};
use super::discovery::{discovery_body, left_out_bodies};
use super::guards::guard_bodies;
use super::pool_bodies::{PoolTlsBody, QueueBody};
use super::remote::remote_body;
use super::scale::scale_body;
use crate::account::{ListenerSeries, RouteCount, sessions_opened};
use crate::acme::{RenewalState, RenewalsByFile};
use crate::addr::ListenAddr;
use crate::live::{InForce, LivePool};
use crate::plan::{ListenerPlan, Plan, PoolId};
use crate::pool::{CheckVerdict, Member, Overrides, Pool, RefusedCheck, ServerPath};
use crate::route::Route;
use crate::text::counted;
use crate::tls::{ListenerTls, PoolTls, shown_warnings};
use crate::units::format_duration;

/// The most entries that are shown of a condition of a route.
const ENTRIES_SHOWN: usize = 16;

/// The most routes that are shown of a listener.
const ROUTES_SHOWN: usize = 1000;

pub(super) async fn process(State(admin): State<Arc<Admin>>) -> Json<ProcessBody> {
    Json(ProcessBody {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: rfc3339(admin.started),
        configuration: configuration(&admin),
        writable: admin.live.plan().admin.token_file.is_some(),
    })
}

fn configuration(admin: &Admin) -> Option<String> {
    admin.configuration.as_ref().map(|path| path.display().to_string())
}

pub(super) async fn state(State(admin): State<Arc<Admin>>) -> Json<StateBody> {
    Json(state_body(&admin))
}

/// The state now. Takes milliseconds with thousands of servers.
pub(super) fn state_body(admin: &Admin) -> StateBody {
    let in_force = admin.live.in_force();
    let renewals = admin.renewals.state();
    let renewals = RenewalState::by_file(&renewals);
    let pools = pool_bodies(&in_force);
    let sessions: HashMap<_, _> = admin.limits.sessions().into_iter().collect();
    let admin_tls = in_force.tls.admin.as_deref();
    StateBody {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        configuration: configuration(admin),
        started: rfc3339(admin.started),
        uptime: admin.started.elapsed().unwrap_or_default().as_secs(),
        draining: admin.is_draining.load(Relaxed),
        in_force_since: rfc3339(admin.metrics.configured_at()),
        last_reload: admin.reloader.latest().map(|latest| ReloadBody {
            at: rfc3339(latest.at),
            by: latest.by.to_string(),
            done: latest.has_succeeded,
        }),
        remote: remote_body(admin),
        unsaved: admin.unsaved.iter().flat_map(|unsaved| unsaved.list()).collect(),
        // Sessions of listeners that a reload has removed are included.
        totals: totals(sessions.values().sum(), &pools),
        guards: guard_bodies(&in_force.guards),
        admin_tls: admin_tls.map(|tls| listener_tls_body(tls, &renewals)),
        listeners: listener_bodies(admin, &in_force, &sessions, &renewals),
        announced: announced_body(admin, &in_force.plan),
        pools,
        absent: admin
            .live
            .absent_overrides()
            .iter()
            .map(|(name, overrides)| absent_server_body(name, overrides))
            .collect(),
    }
}

fn totals(sessions: usize, pools: &[PoolBody]) -> TotalsBody {
    let servers = || pools.iter().flat_map(|pool| &pool.servers);
    TotalsBody {
        sessions,
        sessions_so_far: sessions_opened(),
        servers: servers().count(),
        servers_up: servers().filter(|server| server.up).count(),
        servers_usable: servers().filter(|server| server.usable).count(),
    }
}

fn pool_bodies(in_force: &InForce) -> Vec<PoolBody> {
    let now = Instant::now();
    let body = |(index, pool): (usize, &Arc<LivePool>)| {
        let serving = &in_force.pools[in_force.pools.serving(PoolId(index), now)];
        let tls = in_force.tls.pools.get(pool.name()).map(|tls| pool_tls_body(tls));
        pool_body(pool, serving, tls, now)
    };
    in_force.pools.iter().enumerate().map(body).collect()
}

/// `sessions`: the number of open sessions of each listener, by its name.
fn listener_bodies(
    admin: &Admin,
    in_force: &InForce,
    sessions: &HashMap<Arc<str>, usize>,
    renewals: &RenewalsByFile<'_>,
) -> Vec<ListenerBody> {
    let all_series = admin.metrics.listeners();
    let series_by_name: HashMap<_, _> = all_series.iter().map(|series| (series.name(), series)).collect();
    let body = |(listener, addresses): (&Arc<ListenerPlan>, &[ListenAddr])| {
        let sessions = sessions.get(&listener.name).copied().unwrap_or(0);
        let series = series_by_name.get(&listener.name).copied();
        let tls = in_force.tls.listeners.get(&listener.name);
        let tls = tls.map(|tls| listener_tls_body(tls, renewals));
        listener_body(&in_force.plan, listener, addresses, sessions, series, tls)
    };
    in_force.listeners().map(body).collect()
}

fn listener_body(
    plan: &Plan,
    listener: &ListenerPlan,
    addresses: &[ListenAddr],
    sessions: usize,
    series: Option<&Arc<ListenerSeries>>,
    tls: Option<ListenerTlsBody>,
) -> ListenerBody {
    let routes = listener.routes.routes();
    let counts = series.map(|series| series.routes()).unwrap_or_default();
    let counts: HashMap<_, _> = counts.iter().map(|count| (count.name(), count)).collect();
    ListenerBody {
        name: listener.name.to_string(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        sessions,
        max_connections: listener.max_connections,
        redirect: listener.redirect.as_ref().map(|redirect| redirect.to.to_string()),
        guards: plan.guard_names(&listener.guards).map(ToString::to_string).collect(),
        pool: listener.routes.default().map(|pool| plan.pools[*pool].name.to_string()),
        tls,
        routes: routes
            .iter()
            .take(ROUTES_SHOWN)
            .map(|route| route_body(plan, route, counts.get(&route.name).copied()))
            .collect(),
        more_routes: routes.len().saturating_sub(ROUTES_SHOWN),
    }
}

fn route_body(plan: &Plan, route: &Route<PoolId>, count: Option<&Arc<RouteCount>>) -> RouteBody {
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
        pool: route.to.pool().map(|pool| plan.pools[*pool].name.to_string()),
        tls: route.tls.as_str().to_owned(),
        sessions: count.map_or(0, |count| count.open()),
        sessions_so_far: count.map_or(0, |count| count.total()),
    }
}

fn listener_tls_body(tls: &ListenerTls, renewals: &RenewalsByFile<'_>) -> ListenerTlsBody {
    let store = tls.certificates();
    let expires_first = store.all().iter().min_by_key(|certificate| certificate.not_after);
    ListenerTlsBody {
        certificates: store.all().len(),
        expires_first: expires_first.and_then(|certificate| certificate.names.first().map(ToString::to_string)),
        expires: time(expires_first.map_or(0, |certificate| certificate.not_after)),
        self_signed: store
            .all()
            .iter()
            .filter(|certificate| certificate.is_self_signed)
            .filter_map(|certificate| certificate.names.first().map(ToString::to_string))
            .collect(),
        warnings: listener_warnings(tls, renewals),
        broken: tls.broken(),
    }
}

fn listener_warnings(tls: &ListenerTls, renewals: &RenewalsByFile<'_>) -> Vec<String> {
    let store = tls.certificates();
    let expired = store.all().iter().filter(|certificate| certificate.has_expired());
    let mut warnings: Vec<_> = expired.map(|certificate| certificate.expiry_warning()).collect();
    let from_acme = store.all().iter().filter(|certificate| certificate.acme.is_some());
    warnings.extend(failed_orders(from_acme.map(|certificate| certificate.path()), renewals));
    warnings.extend(tls.client_auth_warnings());
    shown_warnings(&warnings)
}

/// A text for each of these files whose latest order failed: how many orders failed in a row, and why the latest did.
fn failed_orders<'a>(
    files: impl Iterator<Item = &'a Path>,
    renewals: &'a RenewalsByFile<'a>,
) -> impl Iterator<Item = String> {
    files.filter_map(|file| {
        let renewal = renewals.get(file)?;
        let failed = renewal.failed.as_ref()?;
        let orders = counted(usize::try_from(failed.failures).unwrap_or(usize::MAX), "failed order");
        let (name, error) = (renewal.wanted.name(), &failed.error);
        Some(format!("{name}: {orders}, the latest: {error}"))
    })
}

fn pool_tls_body(tls: &PoolTls) -> PoolTlsBody {
    PoolTlsBody {
        verify: tls.plan().verify,
        certificate_expires: tls.identity().map(|certificate| time(certificate.not_after)),
        broken: tls.broken().iter().map(ToString::to_string).collect(),
    }
}

/// `serving`: the pool that serves the clients of `pool` now: `pool` itself, or a fallback.
fn pool_body(pool: &LivePool, serving: &LivePool, tls: Option<PoolTlsBody>, now: Instant) -> PoolBody {
    PoolBody {
        name: pool.name().to_string(),
        balance: pool.policy().as_str().to_owned(),
        best_tier: pool.best_tier(now),
        panic: pool.is_panicking(now),
        usable: pool.serves(now),
        fallback: pool.plan().fallback.as_ref().map(|fallback| fallback.name().to_owned()),
        served_by: pool.fallback_in_use(serving, now).as_deref().map(str::to_owned),
        primary: pool.roles().primary_in_force().as_deref().map(str::to_owned),
        primaries: pool.roles().claimants().iter().map(ToString::to_string).collect(),
        tls,
        queue: queue_body(pool),
        discovery: discovery_body(pool),
        added: added_server_bodies(pool),
        left_out: left_out_bodies(pool),
        scale: scale_body(pool),
        servers: pool
            .servers()
            .iter()
            .map(|server| server_body(pool, server, now))
            .collect(),
        unresolved: pool.unresolved().iter().map(ToString::to_string).collect(),
    }
}

/// The queue of a pool that has the key `queue`, or in which clients wait without that key: for a clone to start, or
/// because a reload has removed the key meanwhile.
fn queue_body(pool: &LivePool) -> Option<QueueBody> {
    let (limits, waiting) = (pool.rules().queue, pool.queue_len());
    (limits.is_some() || waiting > 0).then(|| QueueBody {
        waiting,
        max: limits.map(|limits| limits.clients_max),
        timeout: limits.map(|limits| format_duration(limits.timeout)),
    })
}

pub(super) fn server_body(pool: &Pool, server: &Member, now: Instant) -> ServerBody {
    let (health, overrides) = (server.health(), server.shown_overrides());
    ServerBody {
        name: server.spec().label.to_string(),
        address: server.spec().address.to_string(),
        priority: server.priority(),
        weight: server.weight(),
        up: server.is_healthy(),
        usable: pool.uses(server, now),
        health: match (health.refusal, health.verdict) {
            (RefusedCheck::None, CheckVerdict::Unchecked) => "unchecked",
            (RefusedCheck::None, CheckVerdict::Up) => "up",
            (RefusedCheck::None, CheckVerdict::Down) => "down",
            (RefusedCheck::None, CheckVerdict::WrongRole) => "wrong role",
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
        max_sessions: server.sessions_max().map(NonZeroU32::get),
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::acme::{Attempts, RenewalReason};
    use crate::name::ServerName;
    use crate::tls::AcmeCertificate;

    fn renewal(name: &str, failures: Option<u32>) -> RenewalState {
        RenewalState {
            wanted: AcmeCertificate {
                acme: "ca".into(),
                names: [ServerName::from_config(name).unwrap()].into(),
                file: name.into(),
            },
            identifier: None,
            next: SystemTime::UNIX_EPOCH,
            reason: RenewalReason::Lifetime,
            explanation_url: None,
            failed: failures.map(|failures| Attempts {
                failures,
                next: 0,
                pause: 0,
                error: String::from("refused"),
            }),
            is_under_way: false,
        }
    }

    #[test]
    fn failed_orders_are_shown_for_the_given_files_only() {
        let renewals = [
            renewal("a.example", Some(2)),
            renewal("b.example", None),
            renewal("c.example", Some(1)),
            renewal("d.example", Some(1)),
        ];
        let files = ["d.example", "unordered", "b.example", "a.example"].map(Path::new);
        let shown: Vec<_> = failed_orders(files.into_iter(), &RenewalState::by_file(&renewals)).collect();
        assert_eq!(
            shown,
            [
                "d.example: 1 failed order, the latest: refused",
                "a.example: 2 failed orders, the latest: refused",
            ]
        );
    }
}
