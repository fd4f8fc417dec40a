//! Follows the sources of all pools. The servers that a source reports become the servers of its pool.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::own_addresses;
use super::source::{ListAnswer, Reports, ServerList, ServerSource, SourceReport};
use super::sources;
use crate::back_off::BackOff;
use crate::live::{InForce, Live};
use crate::plan::{DiscoverPlan, Lister};
use crate::text::Reason;

/// The longest wait between two looks for added servers whose time is over.
const EXPIRY_GAP_MAX: Duration = Duration::from_secs(60);

/// The tasks that follow sources, by pool name, each with the plan of its source.
type Followers = HashMap<Arc<str>, (DiscoverPlan, AbortOnDropHandle<()>)>;

/// Follows the sources of the pools that are in force and the addresses of this machine, and removes added servers
/// whose time is over, for as long as this future is polled.
pub async fn run(live: Arc<Live>) {
    tokio::join!(
        follow_sources(&live),
        remove_expired(&live),
        own_addresses::follow(&live)
    );
}

/// Removes the servers that operators have added for a time that is over.
async fn remove_expired(live: &Live) {
    let mut added = live.subscribe_added();
    loop {
        let now = SystemTime::now();
        for (pool, server) in live.remove_expired_servers(now) {
            let (server, by) = (server.entry.label(), &server.addition.by);
            tracing::info!(%pool, %server, %by, "the time of an added server is over: it is removed");
        }
        let time_left = live
            .next_expiry()
            .map(|next| next.duration_since(now).unwrap_or_default());
        // Bounded, because the clock may be set meanwhile.
        let gap = time_left.map_or(EXPIRY_GAP_MAX, |left| left.min(EXPIRY_GAP_MAX));
        tokio::select! {
            () = sleep(gap) => {}
            changed = added.changed() => if changed.is_err() { return },
        }
    }
}

async fn follow_sources(live: &Arc<Live>) {
    let mut updates = live.subscribe();
    let mut followers = Followers::new();
    loop {
        let in_force = Arc::clone(&updates.borrow_and_update());
        adopt(&mut followers, &in_force, live);
        drop(in_force);
        if updates.changed().await.is_err() {
            return;
        }
    }
}

/// Follows the sources of the pools in force, and no others. A source that is configured as before is not started
/// again.
fn adopt(followers: &mut Followers, in_force: &InForce, live: &Arc<Live>) {
    let plan = |name: &str| in_force.pool(name)?.plan().discover.as_ref();
    followers.retain(|name, (before, _)| plan(name) == Some(&*before));
    for pool in in_force.pools.iter() {
        if let Some(plan) = &pool.plan().discover
            && !followers.contains_key(pool.name())
        {
            let following = follow(Arc::clone(pool.name()), plan.clone(), Arc::clone(live));
            let task = AbortOnDropHandle::new(tokio::spawn(following));
            followers.insert(Arc::clone(pool.name()), (plan.clone(), task));
        }
    }
}

/// Follows the source of a pool. Never returns.
async fn follow(pool: Arc<str>, plan: DiscoverPlan, live: Arc<Live>) {
    let (reports, latest) = Reports::channel();
    let source = sources::open(&plan);
    tokio::join!(run_source(source, &reports), apply_reports(&pool, &plan, &live, latest));
}

/// Runs a source again and again, with a back-off.
async fn run_source(mut source: Box<dyn ServerSource>, reports: &Reports) {
    let mut back_off = BackOff::default();
    loop {
        let error = source.follow(reports).await;
        if reports.take_success() {
            back_off.reset();
        }
        reports.report(Err(error));
        back_off.pause().await;
    }
}

/// Applies what a source reports. The first report is applied at once. A later one starts a wait of `settle`; then the
/// newest report is applied.
async fn apply_reports(
    pool: &Arc<str>,
    plan: &DiscoverPlan,
    live: &Live,
    mut latest: watch::Receiver<Option<SourceReport>>,
) {
    let mut settle = Duration::ZERO;
    while latest.changed().await.is_ok() {
        sleep(settle).await;
        settle = plan.settle;
        let report = latest.borrow_and_update().clone();
        if let Some(report) = report {
            apply(pool, plan, live, report.answer());
        }
    }
}

/// Replaces the listed servers of a pool by those of this answer (see [`Live::set_servers`]). An unusable answer leaves
/// the servers as they are. Of several unusable answers in a row, only the first is logged; the usable answer after
/// them is logged, too.
fn apply(pool_name: &Arc<str>, plan: &DiscoverPlan, live: &Live, answer: ListAnswer) {
    let in_force = live.in_force();
    let Some(pool) = in_force.pool(pool_name) else {
        return; // a reload has removed it just now
    };
    let source = &plan.source;
    let usable = answer.and_then(|list| {
        if list.servers.is_empty() && !plan.allow_empty {
            let no_server = || Reason::new("it lists no server (see `allow_empty`)");
            return Err(list.warning.unwrap_or_else(no_server));
        }
        plan.check_listed(&list.servers)?;
        Ok(list)
    });
    match usable {
        Ok(ServerList { servers, warning }) => {
            let count = servers.len();
            let is_back = pool.dynamic().record_success(SystemTime::now(), warning);
            if let Some(change) = live.set_servers(pool_name, Lister::Source, servers) {
                let (added, removed) = (change.added, change.removed);
                tracing::info!(pool = %pool_name, %source, servers = count, added, removed, "servers listed");
                if change.kept > 0 {
                    let kept = change.kept;
                    tracing::warn!(pool = %pool_name, %source, kept, "no listed server can be used yet, keeping the previous servers");
                }
            } else if is_back {
                tracing::info!(pool = %pool_name, %source, servers = count, "the source of servers answers");
            }
        }
        Err(error) => {
            let kept = pool.servers().len();
            if pool.dynamic().record_failure(error.clone()) {
                tracing::warn!(pool = %pool_name, %source, %error, kept, "cannot take the list of servers, keeping the last one");
            }
        }
    }
}
