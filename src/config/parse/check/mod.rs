//! The key `check` of `[pools.NAME.health]`, and the keys that belong to certain kinds of checks: a file for each kind.

mod reader;
mod role;
mod login;
mod pattern;
mod tcp;
mod tls;
mod http;
mod send_expect;
mod exec;
mod agent;
mod postgres;
mod mysql;
mod redis;

use std::collections::HashSet;
use std::sync::Arc;

use super::{Problems, Section, value};
use crate::check::tcp::TcpCheck;
use crate::check::{Check, CheckKind, KINDS};
use crate::config::file::Node;
use crate::config::synonyms::Synonyms;
use crate::pool::RoleRequirement;
use reader::KindReader;
use role::role_requirement;

/// Every kind of check that can be configured.
static READERS: [KindReader; 9] = [
    tcp::READER,
    tls::READER,
    http::READER,
    send_expect::READER,
    exec::READER,
    agent::READER,
    postgres::READER,
    mysql::READER,
    redis::READER,
];

/// The kind if there is no `check`.
const DEFAULT: KindReader = tcp::READER;

/// Normalized names of check kinds in HAProxy, Envoy and Traefik, and other words for them, each with the equivalent
/// value of `check`.
const KIND_SYNONYMS: Synonyms = &[
    (&["httpchk", "httpcheck", "httphealthcheck", "https"], "http"),
    (
        &[
            "tcpcheck",
            "tcphealthcheck",
            "smtpchk",
            "ldapcheck",
            "spopcheck",
            "smtp",
        ],
        "send-expect",
    ),
    (&["sslhellochk", "ssl", "checkssl"], "tls"),
    (&["pgsqlcheck", "postgresql", "pgsql"], "postgres"),
    (&["mysqlcheck", "mariadb"], "mysql"),
    (&["externalcheck", "script", "command"], "exec"),
    (&["agentcheck"], "agent"),
    (&["redischeck", "redishealthcheck"], "redis"),
];

/// A valid value of `check`.
#[derive(Clone, Copy)]
enum ConfiguredCheck {
    Kind(KindReader),
    Off,
}

/// Converts the check of a pool from `[pools.NAME]` and `[pools.NAME.health]`. Returns the check (`None`: it is
/// "off") and what the pool requires of the role of its servers.
pub(super) fn check(
    pool: &Section<'_>,
    health: &Section<'_>,
    problems: &mut Problems<'_>,
) -> (Option<Arc<dyn Check>>, RoleRequirement) {
    let configured = match health.get("check") {
        Some(node) => configured_check(node, problems),
        None if health.is_missing("check") && !pool.is_unknown("health") => Some(ConfiguredCheck::Kind(DEFAULT)),
        None => None, // `check` or `health` is misspelt, or `health` is not a table
    };
    let Some(configured) = configured else {
        // The kind is not known, so no key can be called misplaced.
        return (Some(default()), RoleRequirement::default());
    };
    let reader = match configured {
        ConfiguredCheck::Kind(reader) => Some(reader),
        ConfiguredCheck::Off => None,
    };
    let kind = reader.map(|reader| reader.kind);
    misplaced_keys(kind, health, |kind| kind.health_keys, problems);
    misplaced_keys(kind, pool, |kind| kind.pool_keys, problems);
    let check = reader.map(|reader| (reader.read)(health, problems));
    let knows_roles = |check: &&Arc<dyn Check>| check.kind().pool_keys.contains(&"role");
    let role_check = check.as_ref().filter(knows_roles);
    let required = role_check.map(|check| role_requirement(pool, health, &**check, problems));
    (check, required.unwrap_or_default())
}

/// The check of a pool that configures none.
pub(super) fn default() -> Arc<dyn Check> {
    Arc::new(TcpCheck)
}

/// The value of `check`. `None`: it is not valid, which is reported.
fn configured_check(node: &Node, problems: &mut Problems<'_>) -> Option<ConfiguredCheck> {
    let kinds = READERS
        .iter()
        .map(|reader| (reader.kind.name, ConfiguredCheck::Kind(*reader)));
    let values: Vec<_> = kinds.chain([("off", ConfiguredCheck::Off)]).collect();
    value::one_of_or_synonym(node, &values, KIND_SYNONYMS, problems)
}

/// Reports keys of a section that belong only to other kinds of checks than `kind` (`None`: the check is "off").
/// `keys_of` returns the keys of a kind that are for this section.
fn misplaced_keys(
    kind: Option<&CheckKind>,
    section: &Section<'_>,
    keys_of: fn(&CheckKind) -> &'static [&'static str],
    problems: &mut Problems<'_>,
) {
    let own = kind.map_or(&[][..], keys_of);
    let mut others: Vec<&str> = KINDS.iter().flat_map(|kind| keys_of(kind)).copied().collect();
    let mut seen = HashSet::new(); // several kinds may have the same key
    others.retain(|key| !own.contains(key) && seen.insert(*key));
    for key in others {
        let Some((position, _)) = section.entry(key) else {
            continue;
        };
        let owners = KINDS.iter().filter(|kind| keys_of(kind).contains(&key));
        let owners: Vec<_> = owners.map(|kind| format!("\"{}\"", kind.name)).collect();
        let owners = owners.join(" or ");
        let hint = format!("write check = {owners} in [pools.NAME.health], or remove it");
        problems.error(position, format!("`{key}` is for the check {owners}"), hint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_can_be_configured_and_synonyms_stand_for_kinds() {
        let kinds = KINDS.map(|kind| kind.name);
        assert_eq!(READERS.map(|reader| reader.kind.name), kinds);
        assert!(
            KIND_SYNONYMS
                .iter()
                .all(|(words, kind)| kinds.contains(kind) && !words.iter().any(|word| kinds.contains(word)))
        );
    }
}
