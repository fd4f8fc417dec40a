//! Asking for a reload, and what comes of it. It is done where everything is known: in [`crate::app`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::addr::ServerAddr;
use crate::plan::Plan;

/// What another configuration changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// By name.
    pub listeners: Difference,
    /// By name.
    pub pools: Difference,
    /// As `pool/server`.
    pub servers: Difference,
    /// Keys whose change is without effect until the process is started anew.
    pub needs_restart: Vec<String>,
    /// What works, but hardly as meant: as `acequia check` says it; often empty.
    pub warnings: String,
}

/// What came, what went, what stayed; each in the order of the alphabet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// New.
    pub added: Vec<String>,
    /// Gone; sessions on them go on to their end.
    pub removed: Vec<String>,
    /// Still there, though it may have other settings now.
    pub kept: Vec<String>,
}

impl Difference {
    fn between<T: Ord>(old: &BTreeSet<T>, new: &BTreeSet<T>, name: impl Fn(&T) -> String) -> Self {
        Self {
            added: new.difference(old).map(&name).collect(),
            removed: old.difference(new).map(&name).collect(),
            kept: new.intersection(old).map(&name).collect(),
        }
    }
}

/// What there is in a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    listeners: BTreeSet<String>,
    pools: BTreeSet<String>,
    /// What is at another address is another server, whatever its name.
    servers: BTreeSet<(String, ServerAddr)>,
}

impl Inventory {
    /// Of this plan, with the servers its pools have now.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let mut inventory = Self::default();
        inventory
            .listeners
            .extend(plan.listeners.iter().map(|listener| listener.name.to_string()));
        for pool in plan.pools.iter().map(|plan| &plan.pool) {
            inventory.pools.insert(pool.name().to_string());
            let servers = pool.servers();
            let labels = servers.iter().map(|server| {
                (
                    format!("{}/{}", pool.name(), server.spec().label),
                    server.spec().address,
                )
            });
            inventory.servers.extend(labels);
        }
        inventory
    }

    /// From this one to the next.
    #[must_use]
    pub fn changes(&self, next: &Self) -> Changes {
        Changes {
            listeners: Difference::between(&self.listeners, &next.listeners, String::clone),
            pools: Difference::between(&self.pools, &next.pools, String::clone),
            servers: Difference::between(&self.servers, &next.servers, |(name, _)| name.clone()),
            ..Changes::default()
        }
    }
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// Every mistake of the file, as `acequia check` says it.
    #[error("{0}")]
    Configuration(String),
    /// What the system would not give: an address, a file.
    #[error("{0}")]
    System(String),
    /// It was not started from a file.
    #[error("there is no file to read: it was not started from one")]
    NoFile,
    /// The process is about to end.
    #[error("the process is about to end")]
    Ending,
}

/// Somebody wants a reload.
#[derive(Debug)]
pub struct Request {
    /// Who, for the log.
    pub by: String,
    /// Where what came of it goes.
    pub answer: oneshot::Sender<Result<Changes, ReloadError>>,
}

/// How the latest reload went.
#[derive(Debug)]
pub struct Latest {
    /// When that was known.
    pub at: SystemTime,
    /// Who wanted it.
    pub by: Box<str>,
    /// Whether the file is in force now; else what was before it still is.
    pub is_done: bool,
}

/// By which a reload is asked for; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reloader {
    requests: mpsc::Sender<Request>,
    latest: Arc<ArcSwapOption<Latest>>,
}

impl Reloader {
    /// One, and where its requests come out.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, coming) = mpsc::channel(16);
        let latest = Arc::default();
        (Self { requests, latest }, coming)
    }

    /// Reads the configuration again and puts it in force, if it is right. `by` is who asks.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn reload(&self, by: String) -> Result<Changes, ReloadError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.send(Request { by, answer }).await;
        sent.map_err(|_| ReloadError::Ending)?;
        answered.await.unwrap_or(Err(ReloadError::Ending))
    }

    /// Takes down how a reload went; to be called by whoever does it, however it was asked for.
    pub fn over(&self, by: &str, is_done: bool) {
        let (at, by) = (SystemTime::now(), by.into());
        self.latest.store(Some(Arc::new(Latest { at, by, is_done })));
    }

    /// How the latest one went; `None`: nobody wanted one yet.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<Latest>> {
        self.latest.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(text: &str) -> Inventory {
        Inventory::of(&crate::config::read("a.toml", text).ok().unwrap().plan)
    }

    #[test]
    fn a_change_is_told_by_names() {
        let old =
            "[listeners.a]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\nservers = [\"10.0.0.1:1\", \"10.0.0.2:1\"]";
        let new = "[listeners.a]\nbind = \"[::1]:2\"\npool = \"p\"\n[listeners.b]\nbind = \"[::1]:1\"\npool = \"p\"\n\
                   [pools.p]\nservers = [\"10.0.0.2:1\", { address = \"10.0.0.1:1\", name = \"x\" }]";
        let changes = inventory(old).changes(&inventory(new));
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            (changes.listeners.added, changes.listeners.kept),
            (owned(&["b"]), owned(&["a"]))
        );
        assert_eq!(changes.pools.kept, owned(&["p"]));
        assert_eq!(changes.servers.added, owned(&["p/x"]));
        assert_eq!(changes.servers.removed, owned(&["p/10.0.0.1:1"]));
        assert_eq!(changes.servers.kept, owned(&["p/10.0.0.2:1"]));
        let moved = new.replace("10.0.0.1:1", "10.0.0.3:1");
        let changes = inventory(new).changes(&inventory(&moved)).servers;
        assert_eq!((&changes.added, &changes.removed), (&owned(&["p/x"]), &owned(&["p/x"])));
    }
}
