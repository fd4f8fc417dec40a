//! `acequia check --live`: tries what the configuration refers to, as `run` would, and opens nothing that stays.
//!
//! Names are resolved and servers are checked once by the code that does so while acequia runs. Where a listener passes TLS
//! on by server name, the certificates of the servers are compared with the names of the routes.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types;
use tokio::runtime;
use tokio::time::{Instant, interval, timeout};
use tokio_rustls::TlsConnector;

use super::Finding;
use crate::account::Metrics;
use crate::app::load_tls;
use crate::dial::connect_for_check;
use crate::error::chain;
use crate::health::HealthMonitor;
use crate::live::{Live, LivePool};
use crate::name::{NamePattern, Sni};
use crate::plan::{ListenerPlan, Plan, PoolId};
use crate::pool::{Member, MemberState};
use crate::route::{Route, Target, TlsMode};
use crate::tls::{certificate_names, unverified_config};

/// For all names and checks together.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the results are looked at.
const TICK: Duration = Duration::from_millis(10);

/// Checks, and lookups of names, at once.
const AT_ONCE: usize = 64;

/// The most handshakes for certificates: a configuration may have thousands of routes.
const HANDSHAKES_MAX: usize = 256;

/// Tries the plan. Returns what to print about its servers, and what is wrong.
pub(super) fn try_out(plan: Plan) -> (String, Vec<Finding>) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(try_all(plan)),
        Err(error) => (
            String::new(),
            vec![Finding::error(format!("cannot try the servers: {error}"))],
        ),
    }
}

async fn try_all(plan: Plan) -> (String, Vec<Finding>) {
    let tls = load_tls(&plan, None).unwrap_or_default(); // what is wrong with it has been found already
    let live = Arc::new(Live::new(plan, Vec::new()).with_tls(tls));
    live.record_announced(SystemTime::now()); // what is announced is not followed
    let monitor = HealthMonitor::new(Arc::new(Metrics::new()), Arc::clone(&live));
    monitor.set_limits(AT_ONCE, AT_ONCE);
    let checked = async {
        let mut ticks = interval(TICK);
        while live.waits_for().is_some() {
            ticks.tick().await;
        }
    };
    let _ = timeout(PATIENCE, async {
        tokio::select! {
            () = checked => {}
            () = monitor.run() => {}
        }
    })
    .await; // what has no result by then is shown as unchecked
    let in_force = live.in_force();
    let (mut text, mut found) = (String::new(), Vec::new());
    for pool in in_force.pools.iter() {
        try_pool(pool, &mut text, &mut found).await;
    }
    let mut handshakes = Handshakes {
        left: HANDSHAKES_MAX,
        tls: unverified_config().into(),
    };
    for listener in &in_force.plan.listeners {
        let pools = |id: PoolId| &*in_force.pools[id];
        compare_certificates(listener, pools, &mut handshakes, &mut found).await;
    }
    if handshakes.left == 0 {
        let message = format!("only the first {HANDSHAKES_MAX} names and servers were asked for certificates");
        found.push(Finding::warning(message));
    }
    (text, found)
}

/// Writes the state of each server. A server without checks is connected to.
async fn try_pool(pool: &LivePool, text: &mut String, found: &mut Vec<Finding>) {
    let _ = writeln!(text, "pool {}", pool.name());
    let is_checked = pool.plan().is_checked();
    let mut usable = 0;
    for member in pool.servers().iter() {
        let (shown, is_usable) = if is_checked {
            checked(member)
        } else {
            match connect_for_check(&member.spec().address, &pool.plan().dial.connect).await {
                Ok(_) => (String::from("connected"), true),
                Err(error) => (chain(&error), false),
            }
        };
        usable += usize::from(is_usable);
        let _ = writeln!(text, "  {}: {shown}", member.spec());
        // One with another role is as it should be.
        if !is_usable && member.state(Instant::now()) != MemberState::WrongRole {
            let label = &member.spec().label;
            found.push(Finding::warning(format!("server {}/{label}: {shown}", pool.name())));
        }
    }
    for name in pool.unresolved() {
        let _ = writeln!(text, "  {name}: has no address");
        found.push(Finding::warning(format!(
            "server {}/{name}: the name has no address",
            pool.name()
        )));
    }
    if usable == 0 {
        found.push(Finding::error(format!("pool {} has no usable server", pool.name())));
    }
}

/// What the check of a server has found, and whether the server would be used.
fn checked(member: &Member) -> (String, bool) {
    match (member.state(Instant::now()), member.health().reason) {
        (MemberState::Usable | MemberState::ZeroWeight, _) => (String::from("passes its check"), true),
        (_, Some(reason)) => (reason.to_string(), false),
        (state, None) => (state.as_str().to_owned(), false),
    }
}

/// What handshakes are made with, and how many more.
struct Handshakes {
    left: usize,
    tls: TlsConnector,
}

/// Compares the names of the routes that pass TLS on with the certificates of their servers.
async fn compare_certificates<'p>(
    listener: &ListenerPlan,
    pools: impl Fn(PoolId) -> &'p LivePool,
    handshakes: &mut Handshakes,
    found: &mut Vec<Finding>,
) {
    let routes = listener.routes.routes();
    for route in routes.iter().filter(|route| route.tls == TlsMode::Pass) {
        let Target::Pool(id) = &route.to else { continue };
        for name in route.sni.iter().filter_map(example_of) {
            let Some(asked) = sni_of(&name) else { continue };
            for member in pools(*id).servers().iter() {
                if handshakes.left == 0 {
                    return;
                }
                handshakes.left -= 1;
                let Some(names) = certificate_of(member, pools(*id), &name, &handshakes.tls).await else {
                    continue;
                };
                let is_covered = |name: &Sni| names.iter().any(|pattern| is_for(pattern, name));
                let server = format!("{}/{}", pools(*id).name(), member.spec().label);
                if !is_covered(&asked) {
                    let message = format!("route {}: the certificate of {server} is not for {name}", route.name);
                    found.push(Finding::warning(message));
                } else if let Some(other) = routes.iter().find(|other| is_taken_along(other, route, is_covered)) {
                    let message = format!(
                        "route {}: the certificate of {server} is also for a name of route {}: browsers may send requests \
                         for it on connections of HTTP/2 that this route has taken",
                        route.name, other.name
                    );
                    if found.iter().all(|known| known.message != message) {
                        found.push(Finding::warning(message));
                    }
                }
            }
        }
    }
}

/// Whether the certificate of a route is also for a name of another route, which has other servers.
fn is_taken_along(other: &Route<PoolId>, route: &Route<PoolId>, is_covered: impl Fn(&Sni) -> bool) -> bool {
    let mut names = other.sni.iter().filter_map(|pattern| match pattern {
        NamePattern::Exact(name) => sni_of(name.as_str()),
        _ => None,
    });
    other.to != route.to && names.any(|name| is_covered(&name))
}

/// Whether a certificate with this name is for a host. `*` stands for one label (RFC 9525, section 6.3).
fn is_for(pattern: &NamePattern, name: &Sni) -> bool {
    let labels = name.valid().map_or(0, |name| name.labels());
    match pattern {
        NamePattern::Suffix(suffix) if labels != suffix.labels() + 1 => false,
        pattern => pattern.rank(name).is_some(),
    }
}

fn sni_of(name: &str) -> Option<Sni> {
    Sni::from_config(name).ok()
}

/// A name that the pattern matches; `None`: any name.
fn example_of(pattern: &NamePattern) -> Option<String> {
    match pattern {
        NamePattern::Any => None,
        pattern => Some(pattern.to_string().replacen('*', "acequia-check", 1)),
    }
}

/// The names in the certificate that a server shows for a name; `None`: the handshake failed, which its own check tells.
async fn certificate_of(member: &Member, pool: &LivePool, name: &str, tls: &TlsConnector) -> Option<Vec<NamePattern>> {
    let server_name = pki_types::ServerName::try_from(name.to_owned()).ok()?;
    let options = &pool.plan().dial.connect;
    let handshake = async {
        let socket = connect_for_check(&member.spec().address, options).await.ok()?;
        let stream = tls.connect(server_name, socket).await.ok()?;
        let (_, session) = stream.get_ref();
        Some(certificate_names(session.peer_certificates()?.first()?))
    };
    timeout(options.timeout, handshake).await.ok()?
}
