//! The order of routes. In HAProxy the first rule that matches decides, and rejections come before the choice of a
//! backend. Here the most exact name wins, then the route with more kinds of conditions, then the first.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::imported::{ImportedListener, ImportedRoute, Remark};

/// Lets the same routes win as in HAProxy where that is possible, and notes where it is not. The routes are in the
/// order in which HAProxy applies them.
pub(super) fn keep_order(listener: &mut ImportedListener) {
    let remarks = &mut listener.section.remarks;
    if !refuse_more_exact_names(&mut listener.routes) {
        let text = "HAProxy rejects before it chooses a backend; here a route with a more exact name wins against one \
                    that refuses: try names with `acequia route`";
        remarks.push(Remark::note(0, text));
    }
    let text = "too many routes to compare: one with a more exact name or more kinds of conditions wins here against an \
                earlier one; try names with `acequia route`";
    remarks.extend(notes(&listener.routes).unwrap_or_else(|| vec![Remark::note(0, text)]));
}

/// If a wildcard of a refusing route matches a name of a later route, adds that name to the refusing route, so that the
/// later route wins only if it has more kinds of conditions. Returns `false` if there are too many names: then none is
/// added.
fn refuse_more_exact_names(routes: &mut [ImportedRoute]) -> bool {
    /// The most names that are added.
    const ADDED_MAX: usize = 10_000;
    // The refusing routes with a wildcard, by that wildcard.
    let mut refusing: HashMap<String, Vec<usize>> = HashMap::new();
    let mut added: BTreeSet<(usize, String)> = BTreeSet::new();
    for (index, route) in routes.iter().enumerate() {
        for name in &route.sni {
            let earlier_routes = wider_wildcards(name).filter_map(|wildcard| refusing.get(&wildcard));
            for earlier in earlier_routes.flatten() {
                added.insert((*earlier, name.clone()));
                if added.len() > ADDED_MAX {
                    return false;
                }
            }
        }
        if route.pool.is_none() {
            for pattern in route.sni.iter().filter(|name| name.starts_with('*')) {
                refusing.entry(pattern.clone()).or_default().push(index);
            }
        }
    }
    for (index, name) in added {
        let names = &mut routes[index].sni;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    true
}

/// The wildcards that match all names of this pattern and more, from the longest suffix to `*`.
pub(super) fn wider_wildcards(pattern: &str) -> impl Iterator<Item = String> {
    let suffixes = pattern.match_indices('.').map(|(at, _)| &pattern[at..]).chain([""]);
    let wildcards = suffixes.map(|suffix| format!("*{suffix}"));
    wildcards.filter(move |wildcard| wildcard != pattern)
}

/// A note for each route that loses clients to a later one with another pool. `None`: there are too many routes.
fn notes(routes: &[ImportedRoute]) -> Option<Vec<Remark>> {
    /// The most comparisons of two routes.
    const COMPARED_MAX: usize = 10_000_000;
    let mut compared = 0;
    // By the index of a route: the first later route that wins against it, and why.
    let mut winners: BTreeMap<usize, (usize, &str)> = BTreeMap::new();
    let mut earlier_by_name: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut earlier_without_name: Vec<usize> = Vec::new();
    for (later, route) in routes.iter().enumerate() {
        let mut compare = |earlier: usize, has_more_exact_name: bool| {
            compared += 1;
            let earlier_route = &routes[earlier];
            let why = match has_more_exact_name {
                true => "a more exact name",
                false if route.kinds() > earlier_route.kinds() => "more kinds of conditions",
                false => return,
            };
            if earlier_route.pool != route.pool {
                winners.entry(earlier).or_insert((later, why));
            }
        };
        for earlier in &earlier_without_name {
            compare(*earlier, !route.sni.is_empty());
        }
        for name in &route.sni {
            let same = earlier_by_name.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            for earlier in same {
                compare(*earlier, false);
            }
            let wider = wider_wildcards(name).filter_map(|wildcard| earlier_by_name.get(wildcard.as_str()));
            for earlier in wider.flatten() {
                if same.binary_search(earlier).is_err() {
                    compare(*earlier, true);
                }
            }
        }
        if compared > COMPARED_MAX {
            return None;
        }
        for name in &route.sni {
            earlier_by_name.entry(name).or_default().push(later);
        }
        if route.sni.is_empty() {
            earlier_without_name.push(later);
        }
    }
    let notes = winners.into_iter().map(|(earlier, (later, why))| {
        let text = format!(
            "line {} has {why} and wins here where both match; HAProxy applies this line first",
            routes[later].line
        );
        Remark::note(routes[earlier].line, text)
    });
    Some(notes.collect())
}
