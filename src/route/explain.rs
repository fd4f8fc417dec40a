//! Why a client goes where it goes.

use std::sync::Arc;

use super::{Choice, Known, Route, RouteTable};
use crate::name::Rank;

/// What became of each route, and where the client goes.
#[derive(Debug)]
pub struct Explanation<'a, T> {
    /// The routes in the order written.
    pub routes: Vec<(&'a Route<T>, Verdict<'a>)>,
    /// What [`RouteTable::find`] says.
    pub choice: Choice<'a, T>,
}

/// What became of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It takes the client.
    Taken,
    /// All its conditions hold, but another route fits better.
    Outranked {
        /// That route's name.
        by: &'a Arc<str>,
        /// What makes it better.
        because: Advantage,
    },
    /// These conditions, at least one, do not hold.
    PassedOver(Vec<Condition>),
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
}

/// What makes one route better than another whose conditions hold as well; the first that applies.
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
    /// What it asks for of a client for whom it does not hold, in words.
    #[must_use]
    pub fn wanted<T>(self, route: &Route<T>) -> String {
        match self {
            Self::Name => format!("sni is not {}", one_of(&route.sni, ToString::to_string)),
            Self::Alpn => {
                let protocols = one_of(&route.alpn, |protocol| protocol.escape_ascii().to_string());
                format!("alpn lacks {protocols}")
            }
            Self::From => format!("from is not in {}", one_of(&route.from, ToString::to_string)),
        }
    }
}

impl Advantage {
    /// What is better, in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "fits the name better",
            Self::Kinds => "has more kinds of condition",
            Self::Order => "is written first",
        }
    }
}

/// The first few of a list that may be long.
fn one_of<E>(entries: &[E], shown: impl Fn(&E) -> String) -> String {
    const SHOWN_MAX: usize = 4;
    let mut list: Vec<_> = entries.iter().take(SHOWN_MAX).map(shown).collect();
    if entries.len() > SHOWN_MAX {
        list.push(format!("any of {} more", entries.len() - SHOWN_MAX));
    }
    list.join(" or ")
}

/// How well a route fits whose conditions all hold.
struct Fit {
    rank: Rank,
    kinds: usize,
}

impl<T> RouteTable<T> {
    /// Where this client goes, and why. It tests every route: for people, not for traffic.
    #[must_use]
    pub fn explain(&self, known: &Known<'_>) -> Explanation<'_, T> {
        // The winner is that of `find`, so that the explanation cannot tell another story than the traffic.
        let best = self.best(known);
        let verdict = |index: usize, route| match (fit(route, known), best) {
            (Err(unmet), _) => Verdict::PassedOver(unmet),
            (Ok(fit), Some(best)) if best != index => {
                let winner = &self.routes[best];
                Verdict::Outranked {
                    by: &winner.name,
                    because: advantage(winner, known, &fit),
                }
            }
            (Ok(_), _) => Verdict::Taken,
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

fn fit<T>(route: &Route<T>, known: &Known<'_>) -> Result<Fit, Vec<Condition>> {
    let rank = route.rank(known.name);
    let held = [
        (Condition::Name, rank.is_some()),
        (Condition::Alpn, route.admits_alpn(known.alpn)),
        (Condition::From, route.admits_client(known.client)),
    ];
    let unmet: Vec<_> = held
        .into_iter()
        .filter(|(_, holds)| !holds)
        .map(|(condition, _)| condition)
        .collect();
    match rank {
        Some(rank) if unmet.is_empty() => Ok(Fit {
            rank,
            kinds: route.kinds(),
        }),
        _ => Err(unmet),
    }
}

fn advantage<T>(winner: &Route<T>, known: &Known<'_>, over: &Fit) -> Advantage {
    match fit(winner, known) {
        Ok(fit) if fit.rank > over.rank => Advantage::Name,
        Ok(fit) if fit.kinds > over.kinds => Advantage::Kinds,
        _ => Advantage::Order,
    }
}
