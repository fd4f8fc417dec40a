//! What `status` and `servers` show about servers that call themselves primary, servers that await failback, and checks
//! that are refused.

use crate::admin::bodies::{PoolBody, ServerBody};

/// The cell of column PRIMARY of a pool: the name of its primary, or the text "none" if servers call themselves primary
/// and none of them is used. `None`: no server calls itself primary, or roles do not matter.
pub(super) fn primary(pool: &PoolBody) -> Option<String> {
    let none_used = || (!pool.primaries.is_empty()).then(|| "none".to_owned());
    pool.primary.clone().or_else(none_used)
}

/// The cell of column ROLE of a server; `None`: it does not call itself primary, or roles do not matter.
pub(super) fn role(pool: &PoolBody, server: &ServerBody) -> Option<String> {
    let word = if pool.primary.as_ref() == Some(&server.name) {
        "primary"
    } else if !pool.primaries.contains(&server.name) {
        return None;
    } else if pool.primaries.len() == 1 {
        "untrusted primary"
    } else {
        "rival primary"
    };
    Some(word.to_owned())
}

/// Lines about servers that call themselves primary and are not used as one, and about servers that await failback.
pub(super) fn notes(pool: &PoolBody) -> Vec<String> {
    let name = &pool.name;
    let mut notes = Vec::new();
    // The servers that call themselves primary, and the one that is used as primary.
    match (pool.primaries.as_slice(), &pool.primary) {
        ([], _) => {}
        ([only], Some(used)) if only == used => {}
        ([only], _) => notes.push(format!(
            "{name}: {only} calls itself primary and is not used as one; `acequia pool trust {name}/{only}` changes that"
        )),
        (several, used) => {
            let rivals = several.join(", ");
            let which = match used {
                Some(used) => format!("{used} is used"),
                None => format!("none is used; `acequia pool trust {name}/SERVER` selects one"),
            };
            notes.push(format!(
                "{name}: {} servers call themselves primary ({rivals}): {which}",
                several.len()
            ));
        }
    }
    let awaiting = pool.servers.iter().filter(|server| server.usage == "awaiting failback");
    notes.extend(awaiting.map(|server| {
        let label = &server.name;
        let what = match &pool.primary {
            Some(primary) if primary == label => "the primary, awaits failback",
            _ => "awaits failback",
        };
        format!("{name}/{label}: {what}; `acequia server enable {name}/{label}` uses it again")
    }));
    notes
}

/// A line for each server whose latest check was refused.
pub(super) fn refused_checks(pool: &PoolBody) -> impl Iterator<Item = String> {
    let refused = pool.servers.iter().filter(|server| server.health == "check refused");
    refused.map(|server| {
        let effect = if server.usable {
            "is used as before"
        } else {
            "gets no new sessions"
        };
        let reason = server.reason.as_deref().unwrap_or_default();
        format!("{}/{}: check refused, {effect}: {reason}", pool.name, server.name)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(primary: Option<&str>, primaries: &[&str], usages: [&str; 2]) -> PoolBody {
        let server = |(name, usage): (&str, &str)| {
            json!({ "name": name, "address": "10.0.0.1:5432", "priority": 0, "weight": 1, "up": true, "health": "up",
                    "since": "2026-11-24T02:16:06.530Z", "ejected": false, "use": usage, "weight_is_set": false,
                    "sessions": 0, "sessions_so_far": 0 })
        };
        let servers: Vec<_> = ["a", "b"].into_iter().zip(usages).map(server).collect();
        let body = json!({ "name": "w", "balance": "least-conn", "panic": false, "primary": primary,
                           "primaries": primaries, "servers": servers });
        serde_json::from_value(body).unwrap()
    }

    const ENABLED: [&str; 2] = ["enabled"; 2];

    #[test]
    fn a_single_primary_needs_no_note() {
        let pool = pool(Some("b"), &["b"], ENABLED);
        assert_eq!(primary(&pool).as_deref(), Some("b"));
        assert_eq!(notes(&pool), Vec::<String>::new());
        let roles: Vec<_> = pool.servers.iter().map(|server| role(&pool, server)).collect();
        assert_eq!(roles, [None, Some("primary".to_owned())]);
    }

    #[test]
    fn rival_primaries_are_shown_with_the_one_in_use() {
        let used = pool(Some("b"), &["a", "b"], ENABLED);
        assert_eq!(notes(&used), ["w: 2 servers call themselves primary (a, b): b is used"]);
        assert_eq!(role(&used, &used.servers[0]).as_deref(), Some("rival primary"));
        let none = pool(None, &["a", "b"], ENABLED);
        assert_eq!(primary(&none).as_deref(), Some("none"));
        assert!(notes(&none)[0].contains("none is used; `acequia pool trust w/SERVER`"));
    }

    #[test]
    fn an_untrusted_primary_is_shown_with_the_remedy() {
        let pool = pool(None, &["a"], ENABLED);
        assert!(notes(&pool)[0].ends_with("`acequia pool trust w/a` changes that"));
        assert_eq!(role(&pool, &pool.servers[0]).as_deref(), Some("untrusted primary"));
    }

    #[test]
    fn a_primary_that_awaits_failback_is_shown_with_the_remedy() {
        let pool = pool(Some("a"), &["a"], ["awaiting failback", "enabled"]);
        let note = "w/a: the primary, awaits failback; `acequia server enable w/a` uses it again";
        assert_eq!(notes(&pool), [note]);
    }
}
