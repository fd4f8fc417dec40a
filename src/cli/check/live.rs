//! `acequia check --live`: tries what the configuration refers to, as `acequia run` would, but does not listen.
//!
//! It resolves names and checks servers, with the code that does so while acequia runs. Where a listener passes TLS on
//! by server name, it compares the certificates of the servers with the names of the routes. Clones, and servers that a
//! source other than a file lists, are known only while acequia runs: they are not tried, and the output says so.

mod certificates;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout, timeout_at};

use super::Finding;
use crate::account::Metrics;
use crate::app::load_tls;
use crate::dial::connect_for_check;
use crate::discover::{listed_now, with_listed_servers};
use crate::error::chain;
use crate::health::HealthMonitor;
use crate::live::{Live, LivePool, LivePools};
use crate::plan::{Fallback, Plan, PoolId, PoolPlan, PoolPlans};
use crate::pool::{Member, MemberState};

/// The time limit of each of the three phases: names and checks, connections to servers that are not checked, and
/// certificates.
const PHASE_TIME_MAX: Duration = Duration::from_secs(10);

/// How often the results are looked at.
const TICK: Duration = Duration::from_millis(10);

/// How many checks, how many connections, and how many lookups of names run at once.
const AT_ONCE: usize = 64;

/// Tries what the plan refers to. Returns the text to print about its servers, and the problems.
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

async fn try_all(mut plan: Plan) -> (String, Vec<Finding>) {
    let tls = load_tls(&plan, None).unwrap_or_default(); // its problems have been found already
    plan.pools = plan.pools.iter().map(with_listed_servers).collect();
    let live = Arc::new(Live::new(plan, Vec::new()).with_tls(tls));
    let monitor = HealthMonitor::new(Arc::new(Metrics::new()), Arc::clone(&live));
    monitor.set_limits(AT_ONCE, AT_ONCE);
    let needs_address = false; // a pool without a server is reported, not waited for
    let all_checked = async {
        let mut ticks = interval(TICK);
        while live
            .in_force()
            .pools
            .iter()
            .any(|pool| pool.why_not_ready(needs_address).is_some())
        {
            ticks.tick().await;
        }
    };
    let _ = timeout(PHASE_TIME_MAX, async {
        tokio::select! {
            () = all_checked => {}
            () = monitor.run() => {}
        }
    })
    .await; // servers without a result by then are shown as unchecked
    let in_force = live.in_force();
    let (mut text, mut found) = (String::new(), Vec::new());
    let connects = connect_unchecked(&in_force.pools).await;
    let mut tried = Vec::new();
    for (index, pool) in in_force.pools.iter().enumerate() {
        let connected = |server| connects.get(&(index, server));
        tried.push(try_pool(pool, connected, &mut text, &mut found));
    }
    find_unusable_pools(&in_force.plan.pools, &tried, &mut found);
    certificates::compare_all(&in_force.plan.listeners, &in_force.pools, &mut found).await;
    (text, found)
}

/// Connects to each server that is not checked. Returns the results, by the indices of pool and server. A server
/// without a result has not answered in time.
async fn connect_unchecked(pools: &LivePools) -> HashMap<(usize, usize), Result<(), String>> {
    let (deadline, at_once) = (Instant::now() + PHASE_TIME_MAX, Arc::new(Semaphore::new(AT_ONCE)));
    let (mut connects, mut results) = (JoinSet::new(), HashMap::new());
    let unchecked = pools.iter().enumerate().filter(|(_, pool)| !pool.plan().is_checked());
    for (index, pool) in unchecked {
        for (server, member) in pool.servers().iter().enumerate() {
            let (address, options) = (member.spec().address, pool.plan().dial.connect.clone());
            let at_once = Arc::clone(&at_once);
            connects.spawn(async move {
                let _permit = at_once.acquire().await;
                let result = connect_for_check(&address, &options).await;
                ((index, server), result.map(drop).map_err(|error| chain(&error)))
            });
        }
    }
    while let Ok(Some(Ok((which, result)))) = timeout_at(deadline, connects.join_next()).await {
        results.insert(which, result);
    }
    results
}

/// Whether a pool could serve clients.
struct TriedPool {
    /// Whether it has a server that would get sessions.
    is_usable: bool,
    /// Whether it may have servers that were not tried.
    is_partial: bool,
}

/// Writes the state of each server of a pool, and adds the problems. `connected` gives the result of
/// [`connect_unchecked`] for the index of a server in the pool.
fn try_pool<'c>(
    pool: &LivePool,
    connected: impl Fn(usize) -> Option<&'c Result<(), String>>,
    text: &mut String,
    found: &mut Vec<Finding>,
) -> TriedPool {
    let _ = writeln!(text, "pool {}", pool.name());
    let is_checked = pool.plan().is_checked();
    let mut is_usable = false;
    for (index, member) in pool.servers().iter().enumerate() {
        let result = if is_checked {
            check_of(member)
        } else {
            connect_of(connected(index))
        };
        let unused = why_unused(member);
        let gets_sessions = result.is_ok() && unused.is_none();
        let is_fallback_primary = member.may_stand_in(); // of a pool of replicas with `fallback = "primary"`
        is_usable |= gets_sessions || is_fallback_primary;
        let shown = match &result {
            Ok(what) => *what,
            Err(why) => why.as_str(),
        };
        let _ = match unused {
            Some(why) => writeln!(text, "  {}: {shown}; {why}", member.spec()),
            None => writeln!(text, "  {}: {shown}", member.spec()),
        };
        // A healthy server without the required role is not a problem.
        let has_only_wrong_role = is_checked && member.is_healthy() && member.is_unfit();
        if result.is_err() && !has_only_wrong_role {
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
    let untried_origins = untried_origins(pool.plan());
    for what in &untried_origins {
        let _ = writeln!(text, "  {what}: not tried");
    }
    TriedPool {
        is_usable,
        is_partial: !untried_origins.is_empty(),
    }
}

/// The origins of servers that are known only while acequia runs: each source of the pool that is not a file, and
/// clones.
fn untried_origins(pool: &PoolPlan) -> Vec<String> {
    let sources = pool.discover.iter().filter(|discover| listed_now(discover).is_none());
    let clones = pool.scale.iter().map(|_| String::from("clones"));
    sources
        .map(|discover| discover.source.to_string())
        .chain(clones)
        .collect()
}

/// The result of [`connect_unchecked`] for a server; `None`: the server has not answered in time.
fn connect_of(result: Option<&Result<(), String>>) -> Result<&'static str, String> {
    match result {
        Some(Ok(())) => Ok("connected"),
        Some(Err(failure)) => Err(failure.clone()),
        None => Err(String::from("has not answered in time")),
    }
}

/// What the check of a server has found, whatever its weight.
fn check_of(member: &Member) -> Result<&'static str, String> {
    if member.is_up() && !member.is_unfit() {
        return Ok("passes its check");
    }
    Err(match member.health().reason {
        Some(reason) => reason.to_string(),
        None => member.state(Instant::now()).as_str().to_owned(),
    })
}

/// Why a server gets no new sessions, whatever its check finds.
fn why_unused(member: &Member) -> Option<&'static str> {
    match member.state(Instant::now()) {
        MemberState::ZeroWeight => Some("weight 0"),
        MemberState::Draining => Some("draining"),
        MemberState::Disabled => Some("disabled"),
        _ => None,
    }
}

/// Adds an error for each pool without a usable server, or a warning if its fallback may serve instead. A pool that may
/// have servers that were not tried counts as usable.
fn find_unusable_pools(pools: &PoolPlans, tried: &[TriedPool], found: &mut Vec<Finding>) {
    let may_serve = |id: &PoolId| tried[id.0].is_usable || tried[id.0].is_partial;
    for (index, pool) in pools.iter().enumerate() {
        if may_serve(&PoolId(index)) {
            continue;
        }
        let mut fallback = fallback_of(pools, pool);
        // Fallbacks form no cycle.
        while let Some(id) = fallback.filter(|id| !may_serve(id)) {
            fallback = fallback_of(pools, &pools[id]);
        }
        let problem = format!("pool {} has no usable server", pool.name);
        found.push(match fallback {
            Some(id) if tried[id.0].is_usable => {
                Finding::warning(format!("{problem}: pool {} stands in for it", pools[id].name))
            }
            Some(id) => Finding::warning(format!(
                "{problem}, and not all servers of its fallback {} were tried",
                pools[id].name
            )),
            None => Finding::error(problem),
        });
    }
}

fn fallback_of(pools: &PoolPlans, pool: &PoolPlan) -> Option<PoolId> {
    match pool.fallback.as_ref()? {
        Fallback::Pool(name) => pools.id(name),
        Fallback::Primary => None,
    }
}
