//! What is known of a client -> where it goes. (stub)
use crate::addr::ClientAddr;
use crate::name::{NamePattern, ServerName};
use ipnet::IpNet;
use std::sync::Arc;

/// Where a route leads.
#[derive(Clone, Debug)]
pub enum Target<T> {
    /// To a pool.
    Pool(T),
    /// Nowhere: the client is refused.
    Refuse,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Route<T> {
    /// What log and API call it.
    pub name: Arc<str>,
    /// Any of these; empty: no such condition.
    pub sni: Vec<NamePattern>,
    /// Any of these protocol names; empty: no such condition.
    pub alpn: Vec<Box<[u8]>>,
    /// Any of these networks; empty: no such condition.
    pub from: Vec<IpNet>,
    /// Where it leads.
    pub to: Target<T>,
}

/// What is known of a client when its route is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The server name it asked for, if that is a valid one.
    pub name: Option<&'a ServerName>,
    /// The protocols it offered (RFC 7301), in its order.
    pub alpn: &'a [Box<[u8]>],
    /// Whom it speaks for.
    pub client: ClientAddr,
}

/// Where a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<'a, T> {
    /// A route took it to a pool.
    Route {
        /// The route's name.
        route: &'a Arc<str>,
        /// The pool.
        pool: &'a T,
    },
    /// No route took it; the listener's own pool.
    Default(&'a T),
    /// A route refuses it.
    Refused {
        /// The route's name.
        route: &'a Arc<str>,
    },
    /// No route took it and there is no pool for the rest.
    NoRoute,
}

/// The routes of one listener.
#[derive(Debug)]
pub struct RouteTable<T> {
    routes: Vec<Route<T>>,
    default: Option<T>,
}

impl<T> RouteTable<T> {
    /// A table of these routes, in the order written, and the pool for what none of them takes.
    #[must_use]
    pub fn new(routes: Vec<Route<T>>, default: Option<T>) -> Self {
        Self { routes, default }
    }
    /// Whether a condition needs the ClientHello.
    #[must_use]
    pub fn needs_hello(&self) -> bool {
        self.routes
            .iter()
            .any(|route| !route.sni.is_empty() || !route.alpn.is_empty())
    }
    /// The best route.
    #[must_use]
    pub fn find(&self, _known: &Known<'_>) -> Choice<'_, T> {
        match &self.default {
            Some(pool) => Choice::Default(pool),
            None => Choice::NoRoute,
        }
    }
}
