//! Requests to reload the configuration, and their results. [`crate::app`] does the reload. [`reload_tls`] reads only
//! TLS files again.

mod guards;
mod tls_files;

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::addr::ServerAddr;
use crate::config::report::Report;
use crate::live::{InForce, LivePool};
use crate::plan::{GuardPlan, ListenerPlan, Plan, PoolPlan, RemoteTexts};
use crate::pool::{Member, Pool};
use crate::text::{counted, first_and_more};
pub use guards::{GuardNetworks, edit_warnings};
pub use tls_files::{TlsReloads, reload_listener_tls, reload_pool_tls, reload_tls};

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// By name.
    #[serde(default)]
    pub guards: Difference,
    /// The counts of networks, for each guard that is new and has networks, or whose networks have changed.
    #[serde(default)]
    pub guard_networks: Vec<GuardNetworks>,
    /// By name.
    pub listeners: Difference,
    /// By name.
    pub pools: Difference,
    /// As `pool/server`.
    pub servers: Difference,
    /// Keys of `[runtime]`, `[admin]`, `[log]`, `[remote]` and `[acme]` whose new values are in force now.
    #[serde(default)]
    pub settings: Vec<String>,
    /// Keys whose change takes effect only after a restart.
    pub needs_restart: Vec<String>,
    /// The errors of TLS files that are broken. What was read from these files before stays in force. Everything else
    /// of the new configuration is in force; a start with these files would fail.
    #[serde(default)]
    pub broken: Vec<String>,
    /// Warnings: those that `acequia check` prints, and those about what was in force, such as a lost address; often
    /// empty.
    pub warnings: String,
}

/// What was added, removed and kept; each list is sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// New.
    pub added: Vec<String>,
    /// Removed. Their sessions go on, except those of servers that have a [cause](crate::live::Departed::cause) to be
    /// closed, such as `on_leave = "close"`.
    pub removed: Vec<String>,
    /// In both configurations; the settings may differ.
    pub kept: Vec<String>,
    /// The items of `kept` with other settings. A change of `[defaults]` is listed where it takes effect.
    #[serde(default)]
    pub changed: Vec<Changed>,
}

/// Something with other settings than before.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Changed {
    /// Its name, as in the other lists. For a host name among `servers`: without `@` and address, for all its servers.
    pub name: String,
    /// The keys whose values differ, relative to its section: `health.interval`.
    pub keys: Vec<String>,
}

/// The longest list of names in a log message.
const NAMES_LOGGED_MAX: usize = 20;

impl Changes {
    /// The changes from one plan to the next, with the servers that the pools have now. `needs_restart`, `broken`
    /// and `warnings` are left empty. Takes time where there are many pools. May be called from any thread.
    #[must_use]
    pub fn between(old: &InForce, new: &InForce) -> Self {
        Self {
            guards: guards(&old.plan, &new.plan),
            guard_networks: GuardNetworks::changed(&old.plan, &new.plan),
            listeners: listeners(&old.plan, &new.plan),
            pools: pools(&old.plan, &new.plan),
            servers: servers(old, new),
            settings: owned(old.plan.changed_settings(&new.plan)),
            ..Self::default()
        }
    }

    /// Describes the items that were kept with other settings, a line for each kind: `2 pools changed: orders
    /// (health.interval), web (balance)`. The last line lists `settings`.
    #[must_use]
    pub fn changed_lines(&self) -> Vec<String> {
        let kinds = [
            ("guard", &self.guards),
            ("listener", &self.listeners),
            ("pool", &self.pools),
            ("server", &self.servers),
        ];
        let list_kind = |(what, difference): &(&str, &Difference)| {
            let changed = difference.changed.iter();
            let entries = changed.map(|one| format!("{} ({})", one.name, one.keys.join(", ")));
            let entries = first_and_more(entries, NAMES_LOGGED_MAX).join(", ");
            format!("{} changed: {entries}", counted(difference.changed.len(), what))
        };
        let kinds = kinds.iter().filter(|(_, difference)| !difference.changed.is_empty());
        let mut lines: Vec<_> = kinds.map(list_kind).collect();
        if !self.settings.is_empty() {
            let settings = counted(self.settings.len(), "setting");
            lines.push(format!("{settings} changed: {}", self.settings.join(", ")));
        }
        lines
    }
}

fn owned(keys: Vec<&'static str>) -> Vec<String> {
    keys.into_iter().map(str::to_owned).collect()
}

/// `None`: no key has changed.
fn changed_item(name: impl Into<String>, keys: Vec<&'static str>) -> Option<Changed> {
    let (name, keys) = (name.into(), owned(keys));
    (!keys.is_empty()).then_some(Changed { name, keys })
}

fn guards(old: &Plan, new: &Plan) -> Difference {
    let name = |guard: &GuardPlan| Arc::clone(&guard.name);
    by_name(&old.guards, &new.guards, name, |before, after| before.changed(after))
}

fn listeners(old: &Plan, new: &Plan) -> Difference {
    let name = |listener: &ListenerPlan| Arc::clone(&listener.name);
    by_name(&old.listeners, &new.listeners, name, |before, after| {
        before.changed(old, after, new)
    })
}

fn pools(old: &Plan, new: &Plan) -> Difference {
    let name = |pool: &PoolPlan| Arc::clone(&pool.name);
    by_name(&old.pools, &new.pools, name, |before, after| {
        if Arc::ptr_eq(before, after) {
            Vec::new()
        } else {
            before.changed(after)
        }
    })
}

/// The difference of two lists of plans, compared by name. `changed_keys` is called for items in both.
fn by_name<T>(
    old: &[Arc<T>],
    new: &[Arc<T>],
    name: impl Fn(&T) -> Arc<str>,
    changed_keys: impl Fn(&Arc<T>, &Arc<T>) -> Vec<&'static str>,
) -> Difference {
    let named = |plans: &[Arc<T>]| -> BTreeMap<Arc<str>, Arc<T>> {
        let plans = plans.iter();
        plans.map(|plan| (name(plan), Arc::clone(plan))).collect()
    };
    Difference::between(&named(old), &named(new), ToString::to_string, |name, before, after| {
        changed_item(&**name, changed_keys(before, after))
    })
}

/// A server with another address is another server, whatever its name. Pools that are the same in both plans are not
/// compared: in most reloads these are nearly all.
fn servers(old: &InForce, new: &InForce) -> Difference {
    let is_same = |pool: &Arc<LivePool>, other: &InForce| {
        let there = other.pool(pool.name());
        there.is_some_and(|there| Arc::ptr_eq(there, pool))
    };
    let servers_of_pool = |pool: &Pool| -> Vec<((String, ServerAddr), ())> {
        let named = |server: &Member| {
            let spec = server.spec();
            ((format!("{}/{}", pool.name(), spec.label), spec.address), ())
        };
        pool.servers().iter().map(named).collect()
    };
    let in_changed_pools = |of: &InForce, other: &InForce| -> BTreeMap<_, _> {
        let pools = of.pools.iter().filter(|pool| !is_same(pool, other));
        pools.flat_map(|pool| servers_of_pool(pool)).collect()
    };
    let (before, after) = (in_changed_pools(old, new), in_changed_pools(new, old));
    // The changed settings are added below, from the plans of the pools.
    let mut difference = Difference::between(&before, &after, |(name, _)| name.clone(), |_, (), ()| None);
    for pool in new.pools.iter() {
        if is_same(pool, old) {
            let servers = servers_of_pool(pool).into_iter();
            difference.kept.extend(servers.map(|((name, _), ())| name));
        } else if let Some(before) = old.pool(pool.name()) {
            let servers = before.plan().changed_servers(pool.plan()).into_iter();
            let named = |(server, keys)| changed_item(format!("{}/{server}", pool.name()), keys);
            difference.changed.extend(servers.filter_map(named));
        }
    }
    difference.kept.sort();
    difference.changed.sort();
    difference
}

impl Difference {
    /// `changed` is called for items in both.
    fn between<K: Ord, V>(
        old: &BTreeMap<K, V>,
        new: &BTreeMap<K, V>,
        name: impl Fn(&K) -> String,
        changed: impl Fn(&K, &V, &V) -> Option<Changed>,
    ) -> Self {
        let mut difference = Self::default();
        for (key, value) in new {
            match old.get(key) {
                Some(before) => {
                    difference.kept.push(name(key));
                    difference.changed.extend(changed(key, before, value));
                }
                None => difference.added.push(name(key)),
            }
        }
        let removed = old.keys().filter(|key| !new.contains_key(key));
        difference.removed = removed.map(name).collect();
        difference
    }
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// All errors of the file, or of the file with the texts of the store, as `acequia check` prints them.
    #[error(transparent)]
    Configuration(Report),
    /// An address, a file or the store cannot be used.
    #[error(transparent)]
    System(Box<dyn Error + Send + Sync>),
    /// The process was not started from a file.
    #[error("there is no file to read: the process was not started from a file")]
    NoFile,
    /// The process is about to end.
    #[error("the process is about to end")]
    ShuttingDown,
}

impl From<io::Error> for ReloadError {
    fn from(error: io::Error) -> Self {
        Self::System(error.into())
    }
}

/// A request for a reload.
#[derive(Debug)]
pub struct Request {
    /// Who requests it, for the log and [`LatestReload::by`].
    pub by: String,
    /// The texts of the store (`[remote]`), if they were just read for this request.
    pub texts: Option<Arc<RemoteTexts>>,
    /// Receives the result.
    pub answer: oneshot::Sender<Result<Changes, ReloadError>>,
}

/// How the latest reload went.
#[derive(Debug)]
pub struct LatestReload {
    /// When it ended.
    pub at: SystemTime,
    /// Who requested it.
    pub by: Box<str>,
    /// Whether it succeeded; otherwise the configuration before it is still in force.
    pub has_succeeded: bool,
    /// Why it failed.
    pub error: Option<Box<str>>,
}

/// Requests reloads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reloader {
    requests: mpsc::Sender<Request>,
    latest: Arc<ArcSwapOption<LatestReload>>,
}

impl Reloader {
    /// Creates a `Reloader`, and the receiver of its requests.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, coming) = mpsc::channel(16);
        let latest = Arc::default();
        (Self { requests, latest }, coming)
    }

    /// Reads the configuration again and puts it in force if it is valid. `by`: the name of the requester.
    ///
    /// # Errors
    /// The reason why nothing was changed.
    pub async fn reload(&self, by: String) -> Result<Changes, ReloadError> {
        self.request(by, None).await
    }

    /// As [`Self::reload`], with texts of the store that have just been read.
    ///
    /// # Errors
    /// As of [`Self::reload`].
    pub async fn reload_texts(&self, by: String, texts: Arc<RemoteTexts>) -> Result<Changes, ReloadError> {
        self.request(by, Some(texts)).await
    }

    async fn request(&self, by: String, texts: Option<Arc<RemoteTexts>>) -> Result<Changes, ReloadError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.send(Request { by, texts, answer }).await;
        sent.map_err(|_| ReloadError::ShuttingDown)?;
        answered.await.unwrap_or(Err(ReloadError::ShuttingDown))
    }

    /// Records the result of a reload, with the error if it failed. To be called after every reload, also after one
    /// that was requested by a signal.
    pub fn record(&self, by: &str, error: Option<String>) {
        self.latest.store(Some(Arc::new(LatestReload {
            at: SystemTime::now(),
            by: by.into(),
            has_succeeded: error.is_none(),
            error: error.map(String::into_boxed_str),
        })));
    }

    /// The result of the latest reload; `None`: there was none yet.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<LatestReload>> {
        self.latest.load_full()
    }
}

#[cfg(test)]
mod tests;
