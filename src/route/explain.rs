//! Why a route takes a client, and the others do not.

use std::sync::Arc;

use ipnet::IpNet;

use super::matched::text_entry;
use super::{Offered, Route, RouteChoice, RouteInput, RouteTable};
use crate::glob::Glob;
use crate::name::{NamePattern, Rank};

/// The verdict on each route, and where the client goes.
#[derive(Debug)]
pub struct Explanation<'a, T> {
    /// The routes in the order written.
    pub routes: Vec<(&'a Route<T>, RouteVerdict<'a>)>,
    /// The answer of [`RouteTable::find`].
    pub choice: RouteChoice<'a, T>,
}

/// Whether one route takes the client, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteVerdict<'a> {
    /// It takes the client, by these entries of its conditions.
    Taken(Entries<'a>),
    /// All its conditions hold, but another route fits better.
    Outranked {
        /// The name of the better route.
        by: &'a Arc<str>,
        /// The reason why it is better.
        because: Advantage,
    },
    /// The conditions that do not hold; at least one.
    PassedOver(Vec<Condition>),
}

/// The entries by which the conditions of a route hold; `None`: it has no such condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries<'a> {
    /// Of `sni`: the one that fits best.
    pub sni: Option<&'a NamePattern>,
    /// Of `alpn`: the first entry that the client offers.
    pub alpn: Option<&'a [u8]>,
    /// Of `from`: the first that has the client's address.
    pub from: Option<&'a IpNet>,
    /// Of `database`: the first that matches.
    pub database: Option<&'a Glob>,
    /// Of `user`: the first that matches.
    pub user: Option<&'a Glob>,
}

/// A condition of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `sni`.
    Name,
    /// `alpn`.
    Alpn,
    /// `from`.
    From,
    /// `database`.
    Database,
    /// `user`.
    User,
}

/// The reason why one of two routes whose conditions hold is better. If several reasons apply, it is the one that is
/// declared first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advantage {
    /// Its name condition fits better.
    Name,
    /// It has more kinds of condition.
    Kinds,
    /// It is written first.
    Order,
}

impl Condition {
    /// Says why it does not hold for a client.
    #[must_use]
    pub fn describe_unmet<T>(self, route: &Route<T>) -> String {
        match self {
            Self::Name => format!("sni is not {}", one_of(&route.sni, ToString::to_string)),
            Self::Alpn => {
                let protocols = one_of(&route.alpn, |protocol| protocol.escape_ascii().to_string());
                format!("alpn lacks {protocols}")
            }
            Self::From => format!("from is not in {}", one_of(&route.from, ToString::to_string)),
            Self::Database => format!("database is not {}", one_of(&route.database, ToString::to_string)),
            Self::User => format!("user is not {}", one_of(&route.user, ToString::to_string)),
        }
    }
}

impl Entries<'_> {
    /// Says by which entries the conditions hold.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let sni = self.sni.map(|pattern| format!("sni matches {pattern}"));
        let alpn = self
            .alpn
            .map(|protocol| format!("alpn has {}", protocol.escape_ascii()));
        let from = self.from.map(|network| format!("from is in {network}"));
        let database = self.database.map(|pattern| format!("database matches {pattern}"));
        let user = self.user.map(|pattern| format!("user matches {pattern}"));
        [sni, alpn, from, database, user].into_iter().flatten().collect()
    }
}

impl Advantage {
    /// The words for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "fits the name better",
            Self::Kinds => "has more kinds of condition",
            Self::Order => "is written first",
        }
    }
}

/// The first few entries of a list that may be long, joined by "or".
fn one_of<E>(entries: &[E], shown: impl Fn(&E) -> String) -> String {
    const SHOWN_MAX: usize = 4;
    let mut list: Vec<_> = entries.iter().take(SHOWN_MAX).map(shown).collect();
    if entries.len() > SHOWN_MAX {
        list.push(format!("any of {} more", entries.len() - SHOWN_MAX));
    }
    list.join(" or ")
}

/// How well a route fits a client for which all its conditions hold, and the entries by which they hold.
struct Fit<'a> {
    rank: Rank,
    kinds: usize,
    entries: Entries<'a>,
}

impl<T> RouteTable<T> {
    /// Where this client goes, and why. It tests every route: for people, not for traffic.
    #[must_use]
    pub fn explain(&self, input: &RouteInput<'_>) -> Explanation<'_, T> {
        // The winner is that of `find`, so that the explanation cannot differ from what happens to traffic.
        let best = self.best(input);
        let offered = Offered::new(input.alpn);
        let winner = best.and_then(|index| {
            let route = &self.routes[index];
            Some((index, &route.name, fit(route, input, &offered).ok()?))
        });
        let verdict = |index: usize, route| {
            let fit_of_route = match fit(route, input, &offered) {
                Ok(fit) => fit,
                Err(unmet) => return RouteVerdict::PassedOver(unmet),
            };
            match &winner {
                Some((winner_index, winner_name, winner_fit)) if *winner_index != index => RouteVerdict::Outranked {
                    by: winner_name,
                    because: advantage(winner_fit, &fit_of_route),
                },
                _ => RouteVerdict::Taken(fit_of_route.entries),
            }
        };
        let routes = self
            .routes
            .iter()
            .enumerate()
            .map(|(index, route)| (route, verdict(index, route)))
            .collect();
        Explanation {
            routes,
            choice: self.choice(best),
        }
    }
}

/// How well a route fits a client.
///
/// # Errors
/// The conditions that do not hold.
fn fit<'a, T>(route: &'a Route<T>, input: &RouteInput<'_>, offered: &Offered<'_>) -> Result<Fit<'a>, Vec<Condition>> {
    let name = route.name_entry(input.name);
    let alpn = route.alpn_entry(offered);
    let from = route.client_entry(input.client);
    let database = text_entry(&route.database, input.database);
    let user = text_entry(&route.user, input.user);
    let conditions = [
        (Condition::Name, name.holds()),
        (Condition::Alpn, alpn.holds()),
        (Condition::From, from.holds()),
        (Condition::Database, database.holds()),
        (Condition::User, user.holds()),
    ];
    let unmet: Vec<_> = conditions
        .into_iter()
        .filter(|(_, holds)| !holds)
        .map(|(condition, _)| condition)
        .collect();
    if !unmet.is_empty() {
        return Err(unmet);
    }
    let name = name.entry();
    Ok(Fit {
        rank: name.map_or(Rank::Unconditional, |(rank, _)| rank),
        kinds: route.kinds(),
        entries: Entries {
            sni: name.map(|(_, pattern)| pattern),
            alpn: alpn.entry(),
            from: from.entry(),
            database: database.entry(),
            user: user.entry(),
        },
    })
}

/// Why the route that takes the client is better than the outranked one.
fn advantage(winning: &Fit<'_>, outranked: &Fit<'_>) -> Advantage {
    if winning.rank > outranked.rank {
        Advantage::Name
    } else if winning.kinds > outranked.kinds {
        Advantage::Kinds
    } else {
        Advantage::Order
    }
}
