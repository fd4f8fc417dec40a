//! `GET /api/v1/state`: what there is, and how it is doing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use tokio::time::Instant;

use super::Admin;
use super::answers::{self, Totals};
use crate::account::sessions_so_far;
use crate::addr::ListenAddr;
use crate::live::LivePool;
use crate::plan::{ListenerPlan, Plan, PoolId};
use crate::pool::health::Checked;
use crate::pool::{Member, ServerPath, Steering};
use crate::route::{Route, Target};
use crate::units::show_duration;

/// Entries of a route's condition that are shown.
const ENTRIES_SHOWN: usize = 16;

/// Routes of a listener that are shown.
const ROUTES_SHOWN: usize = 1000;

pub(super) async fn process(State(admin): State<Arc<Admin>>) -> Json<answers::Process> {
    Json(answers::Process {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: told(admin.started),
        configuration: configuration(&admin),
    })
}

fn configuration(admin: &Admin) -> Option<String> {
    admin.configuration.as_ref().map(|path| path.display().to_string())
}

pub(super) async fn state(State(admin): State<Arc<Admin>>) -> Json<answers::State> {
    let in_force = admin.live.in_force();
    let plan = &in_force.plan;
    let pools: Vec<_> = in_force.pools.iter().map(|pool| of_pool(pool)).collect();
    let series = admin.metrics.listeners();
    let series: HashMap<_, _> = series.iter().map(|series| (series.name(), series)).collect();
    let of_listener = |(listener, addresses): (&Arc<ListenerPlan>, &[ListenAddr])| {
        let sessions = series.get(&listener.name).map_or(0, |series| series.places().in_use());
        of_listener(plan, listener, addresses, sessions)
    };
    let listeners: Vec<_> = in_force.listeners().map(of_listener).collect();
    let servers = || pools.iter().flat_map(|pool: &answers::Pool| &pool.servers);
    Json(answers::State {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        configuration: configuration(&admin),
        started: told(admin.started),
        uptime: admin.started.elapsed().unwrap_or_default().as_secs(),
        draining: admin.is_draining.load(Relaxed),
        last_reload: admin.reloader.latest().map(|latest| answers::Reload {
            at: told(latest.at),
            by: latest.by.to_string(),
            done: latest.is_done,
        }),
        totals: Totals {
            // Also of listeners that are configured no more.
            sessions: series.values().map(|series| series.places().in_use()).sum(),
            sessions_so_far: sessions_so_far(),
            servers: servers().count(),
            servers_up: servers().filter(|server| server.up).count(),
        },
        listeners,
        pools,
        absent: admin
            .live
            .absent()
            .iter()
            .map(|(name, steering)| of_absent(name, steering))
            .collect(),
    })
}

/// A point of time, as everywhere here.
fn told(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

fn of_listener(plan: &Plan, listener: &ListenerPlan, addresses: &[ListenAddr], sessions: usize) -> answers::Listener {
    let routes = listener.routes.routes();
    answers::Listener {
        name: listener.name.to_string(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        sessions,
        max_connections: listener.max_connections,
        pool: listener.routes.default().map(|pool| plan.pools[*pool].name.to_string()),
        routes: routes
            .iter()
            .take(ROUTES_SHOWN)
            .map(|route| of_route(plan, route))
            .collect(),
        more_routes: routes.len().saturating_sub(ROUTES_SHOWN),
    }
}

fn of_route(plan: &Plan, route: &Route<PoolId>) -> answers::Route {
    fn first<E>(entries: &[E], shown: impl Fn(&E) -> String) -> Vec<String> {
        entries.iter().take(ENTRIES_SHOWN).map(shown).collect()
    }
    let more = |entries: usize| entries.saturating_sub(ENTRIES_SHOWN);
    answers::Route {
        name: route.name.to_string(),
        sni: first(&route.sni, ToString::to_string),
        alpn: first(&route.alpn, |protocol| protocol.escape_ascii().to_string()),
        from: first(&route.from, ToString::to_string),
        more: more(route.sni.len()) + more(route.alpn.len()) + more(route.from.len()),
        pool: match &route.to {
            Target::Pool(pool) => Some(plan.pools[*pool].name.to_string()),
            Target::Refuse => None,
        },
    }
}

fn of_pool(pool: &LivePool) -> answers::Pool {
    let now = Instant::now();
    answers::Pool {
        name: pool.name().to_string(),
        balance: pool.policy().as_str().to_owned(),
        best_tier: pool.best_tier(now),
        panic: pool.is_panicking(now),
        servers: pool.servers().iter().map(of_server).collect(),
        unresolved: pool.unresolved().iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn of_server(server: &Member) -> answers::Server {
    let (health, steering) = (server.health(), server.steering());
    answers::Server {
        name: server.spec().label.to_string(),
        address: server.spec().address.to_string(),
        priority: server.priority(),
        weight: server.weight(),
        up: server.is_up(),
        health: match health.checked {
            Checked::Unchecked => "unchecked",
            Checked::Up => "up",
            Checked::Down => "down",
        }
        .to_owned(),
        reason: health.reason.as_deref().map(str::to_owned),
        since: told(health.since),
        ejected: server.is_ejected(),
        usage: steering.usage.as_str().to_owned(),
        close_over: steering.close_over.map(show_duration),
        weight_is_set: steering.weight.is_some(),
        set_by: steering.by.as_ref().map(|(by, _)| by.to_string()),
        set_at: steering.by.as_ref().map(|(_, at)| told(*at)),
        sessions: server.live(),
        sessions_so_far: server.served(),
    }
}

pub(super) fn of_absent((pool, name): &ServerPath, steering: &Steering) -> answers::Absent {
    answers::Absent {
        pool: pool.to_string(),
        name: name.to_string(),
        usage: steering.usage.as_str().to_owned(),
        close_over: steering.close_over.map(show_duration),
        weight: steering.weight,
        set_by: steering.by.as_ref().map(|(by, _)| by.to_string()),
        set_at: steering.by.as_ref().map(|(_, at)| told(*at)),
    }
}
