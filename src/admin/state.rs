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
use crate::plan::{ListenerPlan, PoolPlan};
use crate::pool::{CheckState, Member, Overrides, ServerPath};
use crate::route::{Route, Target};
use crate::units::format_duration;

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
    let plan = admin.live.plan();
    let pools: Vec<_> = plan.pools.iter().map(|pool| of_pool(pool)).collect();
    let addresses = admin.addresses.load();
    let addresses: HashMap<_, _> = addresses.iter().map(|(name, all)| (name, all)).collect();
    let sessions: HashMap<_, _> = admin.limits.sessions().into_iter().collect();
    let of_listener = |listener: &Arc<ListenerPlan>| {
        let sessions = sessions.get(&listener.name).copied().unwrap_or(0);
        let addresses = addresses.get(&listener.name).map_or(&[][..], |all| all);
        of_listener(listener, addresses, sessions)
    };
    let listeners: Vec<_> = plan.listeners.iter().map(of_listener).collect();
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
            sessions: sessions.values().sum(),
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

fn of_listener(plan: &ListenerPlan, addresses: &[ListenAddr], sessions: usize) -> answers::Listener {
    let routes = plan.routes.routes();
    answers::Listener {
        name: plan.name.to_string(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        sessions,
        max_connections: plan.max_connections,
        pool: plan.routes.default().map(|pool| pool.pool.name().to_string()),
        routes: routes.iter().take(ROUTES_SHOWN).map(of_route).collect(),
        more_routes: routes.len().saturating_sub(ROUTES_SHOWN),
    }
}

fn of_route(route: &Route<Arc<PoolPlan>>) -> answers::Route {
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
            Target::Pool(pool) => Some(pool.pool.name().to_string()),
            Target::Refuse => None,
        },
    }
}

fn of_pool(plan: &PoolPlan) -> answers::Pool {
    let now = Instant::now();
    answers::Pool {
        name: plan.pool.name().to_string(),
        balance: plan.policy().as_str().to_owned(),
        best_tier: plan.pool.best_tier(now),
        panic: plan.pool.is_panicking(now),
        servers: plan.pool.servers().iter().map(of_server).collect(),
        unresolved: plan
            .names()
            .filter(|(entry, ..)| entry.addresses.load().is_empty())
            .map(|(entry, ..)| entry.written.to_string())
            .collect(),
    }
}

pub(super) fn of_server(server: &Member) -> answers::Server {
    let (health, steering) = (server.health(), server.overrides());
    answers::Server {
        name: server.spec().label.to_string(),
        address: server.spec().address.to_string(),
        priority: server.priority(),
        weight: server.weight(),
        up: server.is_up(),
        health: match health.state {
            CheckState::Unchecked => "unchecked",
            CheckState::Up => "up",
            CheckState::Down => "down",
        }
        .to_owned(),
        reason: health.reason.as_deref().map(str::to_owned),
        since: told(health.since),
        ejected: server.is_ejected(),
        usage: steering.admin_state.as_str().to_owned(),
        close_over: steering.close_over.map(format_duration),
        weight_is_set: steering.weight.is_some(),
        set_by: steering.set_by.as_ref().map(|(by, _)| by.to_string()),
        set_at: steering.set_by.as_ref().map(|(_, at)| told(*at)),
        sessions: server.live(),
        sessions_so_far: server.served(),
    }
}

pub(super) fn of_absent((pool, name): &ServerPath, steering: &Overrides) -> answers::Absent {
    answers::Absent {
        pool: pool.to_string(),
        name: name.to_string(),
        usage: steering.admin_state.as_str().to_owned(),
        close_over: steering.close_over.map(format_duration),
        weight: steering.weight,
        set_by: steering.set_by.as_ref().map(|(by, _)| by.to_string()),
        set_at: steering.set_by.as_ref().map(|(_, at)| told(*at)),
    }
}
