//! Servers that operators add to pools.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

use super::{InForce, Live};
use crate::plan::{ListedServer, ServerEntry};
use crate::text::Reason;

/// The most servers that operators may add to one pool. This bounds the memory of acequia if a program keeps adding
/// servers and removes none.
const ADDED_MAX: usize = 1000;

/// A server that an operator has added to a pool.
#[derive(Clone, Debug)]
pub struct AddedServer {
    /// The server.
    pub entry: ServerEntry,
    /// Who has added it, when, and until when it stays.
    pub addition: Addition,
}

/// Who has added a server, when, and until when the server stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addition {
    /// Who has added it.
    pub by: Box<str>,
    /// When it was added.
    pub at: SystemTime,
    /// When the server is removed; `None`: not before an operator removes it, or a reload removes its pool.
    pub until: Option<SystemTime>,
}

/// An [`AddedServer`] as it is kept over a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptServer {
    server: ListedServer,
    addition: Addition,
}

/// Why a server cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddServerError {
    /// There is no such pool.
    #[error("there is no such pool")]
    NoPool,
    /// The server is not valid.
    #[error("{0}")]
    Invalid(Reason),
    /// The pool has a server of this name.
    #[error("the pool has a server `{0}`: remove that one, or give this one another name")]
    Exists(Arc<str>),
    /// The server is a listener that leads to the pool.
    #[error(
        "server `{server}` is listener `{listener}`, which leads back to the pool: every session would open another one"
    )]
    OwnListener {
        /// The server.
        server: Arc<str>,
        /// The listener.
        listener: Arc<str>,
    },
    /// Too many servers were added.
    #[error("{ADDED_MAX} servers were added to the pool: remove some, or list them by `discover`")]
    TooMany,
}

impl Live {
    /// Adds a server to the pool of this name. Returns it as it was added.
    ///
    /// # Errors
    /// Why the server cannot be added.
    pub fn add_server(
        &self,
        pool: &str,
        server: ListedServer,
        addition: Addition,
    ) -> Result<AddedServer, AddServerError> {
        let _changing = self.changing();
        let in_force = self.in_force();
        let pool = in_force.pool(pool).ok_or(AddServerError::NoPool)?;
        let entry = server.into_entry(pool.plan().defaults);
        let entry = entry.map_err(AddServerError::Invalid)?;
        if let Some((entry, listener)) = pool.own_listener_among(std::slice::from_ref(&entry), &self.registry) {
            let server = Arc::clone(entry.label());
            return Err(AddServerError::OwnListener { server, listener });
        }
        let added = pool.dynamic().added();
        let is_same = |other: &ServerEntry| other.label() == entry.label();
        if pool.entries().iter().any(is_same) || added.iter().any(|added| is_same(&added.entry)) {
            return Err(AddServerError::Exists(Arc::clone(entry.label())));
        }
        if added.len() >= ADDED_MAX {
            return Err(AddServerError::TooMany);
        }
        let added = AddedServer { entry, addition };
        pool.dynamic().change_added(|servers| servers.push(added.clone()));
        self.update_dynamic_servers(&in_force, pool);
        self.added_changed.send_replace(());
        Ok(added)
    }

    /// Removes the added server `name` from the pool `pool`. The plan of the pool says whether the sessions of a
    /// removed server go on. Returns the server; `None`: no such server was added.
    pub fn remove_added_server(&self, pool: &str, name: &str) -> Option<AddedServer> {
        let has_this_name = |added: &AddedServer| **added.entry.label() == *name;
        self.take_added_servers(pool, has_this_name).pop()
    }

    /// Removes the added servers whose time is over. Returns them, each with its pool.
    pub fn remove_expired_servers(&self, now: SystemTime) -> Vec<(Arc<str>, AddedServer)> {
        let is_over = |added: &AddedServer| added.addition.until.is_some_and(|until| until <= now);
        let in_force = self.in_force();
        let expired = in_force.pools.iter().flat_map(|pool| {
            let expired = self.take_added_servers(pool.name(), is_over);
            expired.into_iter().map(|added| (Arc::clone(pool.name()), added))
        });
        expired.collect()
    }

    /// Removes from a pool the added servers for which `is_taken` is true, and returns them.
    fn take_added_servers(&self, pool: &str, is_taken: impl Fn(&AddedServer) -> bool) -> Vec<AddedServer> {
        let _changing = self.changing();
        let in_force = self.in_force();
        let Some(pool) = in_force.pool(pool) else {
            return Vec::new();
        };
        let taken = pool
            .dynamic()
            .change_added(|servers| servers.extract_if(.., |added| is_taken(added)).collect::<Vec<_>>());
        if !taken.is_empty() {
            self.update_dynamic_servers(&in_force, pool);
            self.added_changed.send_replace(());
        }
        taken
    }

    /// When the next added server expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<SystemTime> {
        let in_force = self.in_force();
        let added = in_force.pools.iter().flat_map(|pool| pool.dynamic().added());
        added.filter_map(|added| added.addition.until).min()
    }

    /// Notified when a server was added, when an added one was removed, and when a reload has removed a pool with added
    /// servers.
    #[must_use]
    pub fn subscribe_added(&self) -> watch::Receiver<()> {
        self.added_changed.subscribe()
    }

    /// Notifies of added servers that were dropped with their pools.
    pub(super) fn note_dropped_added(&self, before: &InForce, next: &InForce) {
        let gone = before.pools.iter().filter(|pool| next.pool(pool.name()).is_none());
        if gone.into_iter().any(|pool| !pool.dynamic().added().is_empty()) {
            self.added_changed.send_replace(());
        }
    }

    /// The servers that operators have added, by pool.
    #[must_use]
    pub fn added_servers(&self) -> BTreeMap<Box<str>, Vec<KeptServer>> {
        let in_force = self.in_force();
        let kept = |AddedServer { entry, addition }| KeptServer {
            server: ListedServer::from(&entry),
            addition,
        };
        let of_pools = in_force.pools.iter().map(|pool| {
            let added = pool.dynamic().added().into_iter();
            ((**pool.name()).into(), added.map(kept).collect())
        });
        of_pools.filter(|(_, added): &(_, Vec<_>)| !added.is_empty()).collect()
    }

    /// Adds the servers that operators had added before this process started, except those that have expired by now.
    /// One that cannot be added is left out, with a warning in the log.
    pub fn restore_added(&self, added: BTreeMap<Box<str>, Vec<KeptServer>>, now: SystemTime) {
        for (pool, added) in added {
            let current = added
                .into_iter()
                .filter(|kept| kept.addition.until.is_none_or(|until| until > now));
            for KeptServer { server, addition } in current {
                let address = server.address.clone();
                if let Err(error) = self.add_server(&pool, server, addition) {
                    tracing::warn!(%pool, address, %error, "a server that was added before the start is left out");
                }
            }
        }
    }
}
