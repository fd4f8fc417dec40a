//! Decides where a client goes, by the known facts about it.
//!
//! Of the routes whose conditions all hold, the one that fits best wins: by its name condition first ([`Rank`]), then
//! by how many other kinds of condition it has, then by the order written.
//!
//! A lookup hashes the name at most once: only a valid name can be among the whole names. If `*.suffix` patterns are
//! configured, it also hashes each parent of the name at most once: `b.c` and `c` for `a.b.c`. So it costs the same
//! among ten names and among a million, apart from cache misses.
//! Only routes that share a pattern, or have none, are tested one by one, best first, up to the first whose conditions
//! hold: at worst, ten thousand routes for the same name that differ only in `from` are ten thousand tests of an
//! address.

mod input;
mod offered;
mod matched;
mod explain;
mod tls_mode;
mod target;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use ipnet::IpNet;
use xxhash_rust::xxh3::xxh3_64;

use crate::addr::ClientAddr;
use crate::glob::Glob;
use crate::guard::GuardId;
use crate::name::{NamePattern, Rank, ServerName, Sni};
pub use explain::{Advantage, Condition, Entries, Explanation, RouteVerdict};
pub use input::RouteInput;
use matched::{Match, text_entry};
use offered::Offered;
pub use target::Target;
pub use tls_mode::TlsMode;

/// A rule: conditions on a client, and where a client that meets them goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route<T> {
    /// Its name in the log and the API.
    pub name: Arc<str>,
    /// Any of these; empty: no such condition.
    pub sni: Vec<NamePattern>,
    /// Any of these protocol names; empty: no such condition.
    pub alpn: Vec<Box<[u8]>>,
    /// Any of these networks; empty: no such condition.
    pub from: Vec<IpNet>,
    /// What happens to TLS.
    pub tls: TlsMode,
    /// Any of these databases of PostgreSQL; empty: no such condition.
    pub database: Vec<Glob>,
    /// Any of these users of PostgreSQL; empty: no such condition.
    pub user: Vec<Glob>,
    /// The guards that its clients have to pass. They do not decide which route wins.
    pub guards: Vec<GuardId>,
    /// Where it leads.
    pub to: Target<T>,
}

/// Where a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteChoice<'a, T> {
    /// A route took it to a pool.
    Route {
        /// Its index in the table.
        index: usize,
        /// The route.
        route: &'a Route<T>,
        /// The pool.
        pool: &'a T,
    },
    /// No route took it; it goes to the listener's default pool.
    Default(&'a T),
    /// A route refuses it.
    Refused {
        /// The index of the route in the table.
        index: usize,
        /// The route's name.
        name: &'a Arc<str>,
    },
    /// No route took it, and there is no default pool.
    NoRoute,
}

/// The routes of one listener.
#[derive(Clone, Debug)]
pub struct RouteTable<T> {
    /// In the order written.
    routes: Vec<Route<T>>,
    default: Option<T>,
    default_tls: TlsMode,
    needs_hello: bool,
    needs_startup: bool,
    /// The routes for whole names, by name.
    exact: ByName,
    /// The routes for `*.suffix`, by suffix.
    suffixes: ByName,
    /// The routes for `*`.
    any: Bucket,
    /// The routes without a name condition.
    nameless: Bucket,
}

impl<T> RouteTable<T> {
    /// A table of these routes, in the order written, and the default pool.
    #[must_use]
    pub fn new(routes: Vec<Route<T>>, default: Option<T>) -> Self {
        let mut table = Self {
            needs_hello: routes
                .iter()
                .any(|route| !route.sni.is_empty() || !route.alpn.is_empty()),
            needs_startup: routes
                .iter()
                .any(|route| !route.database.is_empty() || !route.user.is_empty()),
            routes: Vec::new(),
            default,
            default_tls: TlsMode::Pass,
            exact: ByName::default(),
            suffixes: ByName::default(),
            any: Bucket::default(),
            nameless: Bucket::default(),
        };
        // The routes of a bucket are tried in the order in which they enter. The sort is stable: routes with equally
        // many kinds of condition stay in the order written.
        let mut best_first: Vec<usize> = (0..routes.len()).collect();
        best_first.sort_by_key(|index| std::cmp::Reverse(routes[*index].kinds()));
        for index in best_first {
            table.enter(index, &routes[index]);
        }
        table.routes = routes;
        table
    }

    /// This table, but with TLS that is terminated here for clients that no route takes. It then always needs the
    /// ClientHello.
    #[must_use]
    pub fn terminating_by_default(self) -> Self {
        Self {
            default_tls: TlsMode::Terminate,
            needs_hello: true,
            ..self
        }
    }

    /// This table, but it needs the ClientHello even if no route does.
    #[must_use]
    pub fn reading_hello(self) -> Self {
        Self {
            needs_hello: true,
            ..self
        }
    }

    /// This table, with these routes added after its own.
    #[must_use]
    pub fn with(&self, routes: Vec<Route<T>>) -> Self
    where
        T: Clone,
    {
        let routes = self.routes.iter().cloned().chain(routes).collect();
        let table = Self::new(routes, self.default.clone());
        Self {
            default_tls: self.default_tls,
            needs_hello: self.needs_hello || table.needs_hello,
            ..table
        }
    }

    /// A route whose `sni` lists exactly this server name.
    #[must_use]
    pub fn route_of(&self, name: &ServerName) -> Option<&Route<T>> {
        let bucket = self.exact.get(name.as_str().as_bytes())?;
        let first = bucket.conditional.first().copied().or(bucket.unconditional);
        first.map(|index| &self.routes[index])
    }

    fn enter(&mut self, index: usize, route: &Route<T>) {
        if route.sni.is_empty() {
            self.nameless.add(index, route);
        }
        for pattern in &route.sni {
            let bucket = match pattern {
                NamePattern::Exact(name) => self.exact.entry(name.shared().into()).or_default(),
                NamePattern::Suffix(suffix) => self.suffixes.entry(suffix.shared().into()).or_default(),
                NamePattern::Any => &mut self.any,
            };
            bucket.add(index, route);
        }
    }

    /// Whether the ClientHello is needed: for a condition, to terminate TLS, or because routes may be announced later.
    /// If so, the listener sniffs.
    #[must_use]
    pub fn needs_hello(&self) -> bool {
        self.needs_hello
    }

    /// Whether a condition needs PostgreSQL's StartupMessage.
    #[must_use]
    pub fn needs_startup(&self) -> bool {
        self.needs_startup
    }

    /// The routes in the order written.
    #[must_use]
    pub fn routes(&self) -> &[Route<T>] {
        &self.routes
    }

    /// The default pool, for clients that no route takes; `None`: they are refused.
    #[must_use]
    pub fn default(&self) -> Option<&T> {
        self.default.as_ref()
    }

    /// What happens to the TLS of clients that no route takes.
    #[must_use]
    pub fn default_tls(&self) -> TlsMode {
        self.default_tls
    }

    /// The pools it leads to: those of the routes in the order written, then the default.
    pub fn targets(&self) -> impl Iterator<Item = &T> {
        let pools = self.routes.iter().filter_map(|route| route.to.pool());
        pools.chain(&self.default)
    }

    /// As [`Self::targets`], but without those of routes that take clients of some networks only.
    pub fn targets_for_any_source(&self) -> impl Iterator<Item = &T> {
        let routes = self.routes.iter().filter(|route| route.from.is_empty());
        routes.filter_map(|route| route.to.pool()).chain(&self.default)
    }

    /// Where this client goes. Allocates nothing, unless an `alpn` condition is tested and the client offers a long
    /// list of protocols (see `Offered`).
    #[must_use]
    pub fn find(&self, input: &RouteInput<'_>) -> RouteChoice<'_, T> {
        self.choice(self.best(input))
    }

    /// The index of the best route that takes the client.
    fn best(&self, input: &RouteInput<'_>) -> Option<usize> {
        let offered = Offered::new(input.alpn);
        let first = |bucket: &Bucket| {
            let mut conditional = bucket.conditional.iter().copied();
            let matching = conditional.find(|index| self.routes[*index].meets_other_conditions(input, &offered));
            matching.or(bucket.unconditional)
        };
        let by_name = |name: &Sni| {
            let bucket = name.valid().and_then(|name| self.exact.get(name.as_str().as_bytes()));
            let exact = bucket.and_then(first);
            // The parents come longest first: the `*.suffix` with the most labels wins.
            let suffix_matches = || {
                name.parents()
                    .filter_map(|suffix| self.suffixes.get(suffix))
                    .find_map(first)
            };
            exact.or_else(suffix_matches).or_else(|| first(&self.any))
        };
        input.name.and_then(by_name).or_else(|| first(&self.nameless))
    }

    fn choice(&self, best: Option<usize>) -> RouteChoice<'_, T> {
        match (best.map(|index| (index, &self.routes[index])), &self.default) {
            (Some((index, route)), _) => match &route.to {
                Target::Pool(pool) => RouteChoice::Route { index, route, pool },
                Target::Refuse => RouteChoice::Refused {
                    index,
                    name: &route.name,
                },
            },
            (None, Some(pool)) => RouteChoice::Default(pool),
            (None, None) => RouteChoice::NoRoute,
        }
    }
}

impl<T> Route<T> {
    /// How many kinds of condition it has besides its name condition.
    fn kinds(&self) -> usize {
        let has = [
            !self.alpn.is_empty(),
            !self.from.is_empty(),
            !self.database.is_empty(),
            !self.user.is_empty(),
        ];
        has.into_iter().filter(|has| *has).count()
    }

    /// Whether its conditions other than that on the name hold.
    fn meets_other_conditions(&self, input: &RouteInput<'_>, offered: &Offered<'_>) -> bool {
        self.alpn_entry(offered).holds()
            && self.client_entry(input.client).holds()
            && text_entry(&self.database, input.database).holds()
            && text_entry(&self.user, input.user).holds()
    }

    /// The entry of its name condition that fits best, and how well.
    fn name_entry(&self, name: Option<&Sni>) -> Match<(Rank, &NamePattern)> {
        let held = self
            .sni
            .iter()
            .filter_map(|pattern| Some((pattern.rank(name?)?, pattern)));
        // Of equally good entries the first one is taken, as with routes.
        Match::new(
            &self.sni,
            held.reduce(|best, next| if next.0 > best.0 { next } else { best }),
        )
    }

    /// The first entry of `alpn` that the client offers.
    fn alpn_entry(&self, offered: &Offered<'_>) -> Match<&[u8]> {
        let mut entries = self.alpn.iter().map(AsRef::as_ref);
        Match::new(&self.alpn, entries.find(|wanted| offered.has(wanted)))
    }

    /// The first entry of `from` that contains the client's address. An IPv4-mapped IPv6 address counts as the IPv4
    /// address, as in `source-hash`.
    fn client_entry(&self, client: Option<ClientAddr>) -> Match<&IpNet> {
        let ip = client.and_then(ClientAddr::ip).map(|ip| ip.to_canonical());
        let entry = ip.and_then(|ip| self.from.iter().find(|network| network.contains(&ip)));
        Match::new(&self.from, entry)
    }
}

/// The indices of the routes that share a pattern, or have none. Usually there is only one route, without further
/// conditions: then it is found without loading its conditions, a likely cache miss among a million routes.
#[derive(Clone, Debug, Default)]
struct Bucket {
    /// The routes with further conditions, best first.
    conditional: Vec<usize>,
    /// The first route, as written, without further conditions: it takes every client that no `conditional` route
    /// takes.
    unconditional: Option<usize>,
}

impl Bucket {
    /// Adds a route that fits no better than those in the bucket.
    fn add<T>(&mut self, index: usize, route: &Route<T>) {
        if route.kinds() > 0 {
            self.conditional.push(index);
        } else {
            self.unconditional.get_or_insert(index);
        }
    }
}

/// Buckets by the name of the pattern, normalized as clients' names are.
type ByName = HashMap<Arc<[u8]>, Bucket, BuildHasherDefault<NameHasher>>;

/// XXH3-64 without a secret: faster than the standard library's hash. Clients cannot cause collisions: they can
/// look names up in the table, but not add any.
#[derive(Debug, Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= xxh3_64(bytes);
    }

    /// Ignores the length prefix of a slice, which separates several slices in one key: a name is a single slice.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests;
