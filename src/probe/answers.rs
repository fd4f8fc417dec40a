//! Names of servers -> their addresses.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::resolve::{Question, Resolver};
use crate::addr::ServerAddr;
use crate::plan::{Plan, PoolPlan};
use crate::pool::Roster;

/// How long answers are waited for; a name without one by then has failed, and its last answer stays.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses of one name that are used: more would be a mistake, or somebody else's DNS. Of more these are the first
/// in the order of addresses, the same whatever order they come in.
const ADDRESSES_MAX: usize = 256;

/// What has been asked about the names of one pool, and what has been said.
pub(super) struct Answers {
    names: HashMap<Arc<str>, Answer>,
    /// When all of them are asked for next.
    renewal: Instant,
    /// Until when what has been asked is waited for; `None`: it is not, and the renewal comes next.
    patience: Option<Instant>,
}

#[derive(Default)]
struct Answer {
    /// What has been asked and not been answered yet.
    question: Option<Question>,
    /// Whether the name resolved when last asked for, and that has been said.
    resolves: Option<bool>,
    /// Whether it has more addresses than are used, and that has been said.
    crowded: bool,
}

/// Where a name is, or why that cannot be told.
type Told = Result<Vec<ServerAddr>, String>;

impl Answers {
    /// Nothing has been asked yet, and it is time to.
    pub(super) fn new() -> Self {
        Self {
            names: HashMap::new(),
            renewal: Instant::now(),
            patience: None,
        }
    }

    /// Goes by this plan of the pool from now on. With a name that was never asked for all are, at once.
    pub(super) fn adopt(&mut self, pool: &PoolPlan) {
        self.names.retain(|name, _| pool.has_name(name));
        if pool.names().any(|(entry, ..)| !self.names.contains_key(&entry.written)) {
            (self.renewal, self.patience) = (Instant::now(), None);
        }
    }

    /// Waits for what comes next, and does it: asks for every name, all at once; takes in what is said of one as soon as
    /// it is said; loses patience. Returns whether there are servers to look after. Cancel safe.
    ///
    /// A name that does not resolve keeps its last answer; that is said once per change. What is not answered in time
    /// is not asked again: the answer counts whenever it is there.
    pub(super) async fn step(&mut self, pool: &PoolPlan, resolver: &Resolver, roster: &Roster) -> bool {
        let alarm = self.patience.unwrap_or(self.renewal);
        let (told, is_late) = tokio::select! {
            biased; // what is said at the last moment counts
            told = poll_fn(|cx| self.poll_told(cx)) => (told, false),
            () = sleep_until(alarm) => if self.patience.is_some() { (self.unanswered(), true) } else {
                self.ask(pool, resolver);
                return false;
            },
        };
        let mut changed = false;
        for (name, told) in told {
            changed |= self.take_in(pool, &name, told);
        }
        let all_told = || self.names.values().all(|answer| answer.question.is_none());
        let is_over = self.patience.is_some() && (is_late || all_told());
        if changed || is_over {
            pool.settle(roster);
        }
        if is_over {
            self.patience = None;
            self.renewal = Instant::now() + pool.resolve_interval;
            pool.pool.mark_resolved();
        }
        changed || is_over
    }

    fn ask(&mut self, pool: &PoolPlan, resolver: &Resolver) {
        for (entry, host, port) in pool.names() {
            let answer = self.names.entry(Arc::clone(&entry.written)).or_default();
            answer.question.get_or_insert_with(|| resolver.ask(host, port));
        }
        self.patience = Some(Instant::now() + PATIENCE);
    }

    /// All that has been said since; pending as long as that is nothing.
    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<Vec<(Arc<str>, Told)>> {
        let mut all = Vec::new();
        for (name, answer) in &mut self.names {
            if let Some(question) = &mut answer.question
                && let Poll::Ready(told) = Pin::new(question).poll(cx)
            {
                answer.question = None;
                all.push((Arc::clone(name), in_order(told)));
            }
        }
        if all.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(all)
        }
    }

    fn unanswered(&self) -> Vec<(Arc<str>, Told)> {
        let open = self.names.iter().filter(|(_, answer)| answer.question.is_some());
        let unanswered = |(name, _): (&Arc<str>, _)| (Arc::clone(name), Err("the resolver does not answer".to_owned()));
        open.map(unanswered).collect()
    }

    /// Whether the name is elsewhere now.
    fn take_in(&mut self, pool: &PoolPlan, name: &Arc<str>, told: Told) -> bool {
        let answer = self.names.get_mut(name).expect("it has been asked for");
        let entries = || {
            pool.names()
                .map(|(entry, ..)| entry)
                .filter(|entry| entry.written == *name)
        };
        let before = entries()
            .next()
            .map(|entry| entry.addresses.load_full())
            .unwrap_or_default();
        let Some(now) = answer.take_in(pool.pool.name(), name, &before, told) else {
            return false;
        };
        let now = Arc::new(now);
        entries().for_each(|entry| entry.addresses.store(Arc::clone(&now)));
        true
    }
}

impl Answer {
    /// Where the name is now, unless that is where it was.
    fn take_in(&mut self, pool: &str, name: &str, before: &[ServerAddr], told: Told) -> Option<Vec<ServerAddr>> {
        let did_resolve = self.resolves.replace(told.is_ok());
        let mut addresses = match told {
            Ok(addresses) => addresses,
            Err(error) => {
                if did_resolve != Some(false) {
                    let kept = before.len();
                    tracing::warn!(pool, name, error, kept, "cannot resolve, keeping the last answer");
                }
                return None;
            }
        };
        let found = addresses.len();
        addresses.truncate(ADDRESSES_MAX);
        let used = addresses.len();
        if found > used && !self.crowded {
            tracing::warn!(pool, name, found, used, "a name with too many addresses");
        }
        self.crowded = found > used;
        if did_resolve != Some(true) || *before != *addresses {
            tracing::info!(pool, name, ?addresses, "resolved");
        }
        (*before != *addresses).then_some(addresses)
    }
}

/// Asks for the names of a plan that is to follow this one, if they are new in their pools, so that it begins with what
/// is said of them by then. For the others its pools ask again.
pub(super) async fn ask_ahead(next: &Plan, now: &Plan, resolver: &Resolver, deadline: Instant) {
    let mut asked = Vec::new();
    for pool in &next.pools {
        let before = now.pool(pool.pool.name());
        let is_new = |written: &str| before.is_none_or(|before| !before.has_name(written));
        let names = pool.names().filter(|(entry, ..)| is_new(&entry.written));
        asked.extend(names.map(|(entry, host, port)| (entry, resolver.ask(host, port))));
    }
    for (entry, question) in asked {
        // What is there counts also after the deadline, so that one that is late takes nothing from those behind it.
        if let Ok(told) = timeout_at(deadline, question).await
            && let Ok(mut addresses) = in_order(told)
        {
            addresses.truncate(ADDRESSES_MAX);
            entry.addresses.store(Arc::new(addresses));
        }
    }
}

/// What the resolver says, in an order that does not change: resolvers turn their answers.
fn in_order(told: Result<io::Result<Vec<SocketAddr>>, JoinError>) -> Told {
    let addresses = told
        .map_err(|lost| lost.to_string())?
        .map_err(|error| error.to_string())?;
    if addresses.is_empty() {
        return Err("the name has no address".to_owned());
    }
    let mut addresses: Vec<ServerAddr> = addresses.into_iter().map(ServerAddr::new).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests;
