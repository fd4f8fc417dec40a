//! Suggestions for unknown keys and values: what the operator probably meant.

use super::keys::{self, SectionKeys};
use super::synonyms::{equivalent, normalize};
use crate::text::{first_and_more, toml_key};

/// Longer words get no suggestion: few known words are so long, and the time to compute an edit distance grows with the
/// product of both lengths.
const WORD_CHARS_MAX: usize = 64;

/// The most names of sections that a hint lists.
const NAMES_LISTED_MAX: usize = 8;

/// The message and the hint for a key that is not valid in the section.
pub(super) fn unknown_key(section: &SectionKeys, key: &str) -> (String, String) {
    let message = format!("unknown key `{key}` in {}", section.title);
    (message, hint(section, key))
}

fn hint(section: &SectionKeys, key: &str) -> String {
    let normalized = normalize(key);
    let is_same_word = |known: &&&str| normalize(known) == normalized;
    if let Some(known) = section.keys.iter().find(is_same_word) {
        return format!("write `{known}`");
    }
    if let Some(equivalent) = equivalent(section, &normalized) {
        return match equivalent.strip_prefix("none: ") {
            Some(why) => format!("remove it: {why}"),
            None => format!("acequia calls it {equivalent}"),
        };
    }
    if let Some(sections) = sections_with(key) {
        return format!("it belongs in {sections}");
    }
    if let Some(hint) = did_you_mean(key, section.keys) {
        return hint;
    }
    let known: Vec<_> = section.keys.iter().map(|known| format!("`{known}`")).collect();
    format!("known keys: {}", known.join(", "))
}

/// Whether an unknown key was probably meant to be `wanted`. If so, the caller does not also report that `wanted` is
/// missing.
pub(super) fn probably_means(section: &SectionKeys, key: &str, wanted: &str) -> bool {
    let normalized = normalize(key);
    // Without the closing backtick, because a value may follow the key, as in `priority = 1`.
    let is_synonym = || equivalent(section, &normalized).is_some_and(|text| text.contains(&format!("`{wanted}")));
    !section.keys.contains(&key)
        && (normalized == normalize(wanted) || is_synonym() || nearest(key, section.keys) == Some(wanted))
}

/// The sections in which a key is valid, joined by "or"; `None` if there are none.
fn sections_with(key: &str) -> Option<String> {
    let sections = keys::ALL.iter().filter(|section| section.keys.contains(&key));
    let titles: Vec<_> = sections.map(|section| section.title).collect();
    (!titles.is_empty()).then(|| titles.join(" or "))
}

/// A hint that names the nearest known word.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> Option<String> {
    nearest(word, known).map(|nearest| format!("did you mean `{nearest}`?"))
}

/// The hint for a name that refers to no section `[kind.name]`. `known`: the names of the sections below `kind`.
pub(super) fn unknown_name(name: &str, kind: &str, known: &[&str]) -> String {
    let key = toml_key(name);
    if known.is_empty() {
        return format!("add [{kind}.{key}]");
    }
    let listed = || {
        let known = known.iter().map(|known| format!("`{known}`"));
        let known = first_and_more(known, NAMES_LISTED_MAX).join(", ");
        format!("add [{kind}.{key}], or write another name: {known}")
    };
    did_you_mean(name, known).unwrap_or_else(listed)
}

/// The known word with the smallest edit distance, if the distance is small for a word of this length.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let chars = word.chars().count();
    if chars > WORD_CHARS_MAX {
        return None;
    }
    let edits_max = match chars {
        0 | 1 => 0,
        2 => 1,
        _ => chars / 3,
    };
    let distance = |known: &&str| strsim::damerau_levenshtein(word, known);
    let nearest = known.iter().min_by_key(|known| distance(known))?;
    (distance(nearest) <= edits_max).then_some(*nearest)
}

#[cfg(test)]
mod tests {
    use super::keys::{GUARD, HEALTH, LISTENER, LOG, POOL, SERVER};
    use super::*;

    #[test]
    fn an_unknown_key_gets_the_most_specific_hint() {
        for (section, key, hint) in [
            (&POOL, "sevrers", "did you mean `servers`?"),
            (&POOL, "connectTimeout", "write `connect_timeout`"),
            (&POOL, "timeout connect", "acequia calls it `connect_timeout`"),
            (&POOL, "upstream", "acequia calls it `servers`"),
            (
                &POOL,
                "idle_timeout",
                "it belongs in `[defaults]` or `[listeners.NAME]`",
            ),
            (&SERVER, "backup", "acequia calls it `priority = 1`"),
            (
                &LISTENER,
                "connect_timeout",
                "it belongs in `[defaults]` or `[pools.NAME]`",
            ),
            (&HEALTH, "role", "it belongs in `[pools.NAME]`"),
            (&LOG, "zzzzzz", "known keys: `format`, `level`, `access`"),
        ] {
            assert_eq!(unknown_key(section, key).1, hint, "{key}");
        }
    }

    #[test]
    fn a_name_with_dots_is_quoted_in_the_section_to_add() {
        let name = "shop.example.com";
        assert_eq!(unknown_name(name, "pools", &[]), r#"add [pools."shop.example.com"]"#);
        let hint = r#"add [pools."shop.example.com"], or write another name: `p`"#;
        assert_eq!(unknown_name(name, "pools", &["p"]), hint);
    }

    #[test]
    fn the_hint_for_a_key_of_another_proxy_names_our_key() {
        for (section, key, ours) in [
            (&GUARD, "limit_conn", "`sessions_per_source`"),
            (&GUARD, "inFlightConn", "`sessions_per_source`"),
            (&GUARD, "maxconn", "`sessions`"),
            (&GUARD, "ipAllowList", "`allow`"),
            (&GUARD, "ipWhiteList", "`allow`"),
            (&GUARD, "rate-limit sessions", "`rate`"),
            (&GUARD, "stick-table", "`sources_max`"),
            (&LISTENER, "limit_conn", "`sessions_per_source` in `[guards.NAME]`"),
            (&LISTENER, "inFlightConn", "`sessions_per_source` in `[guards.NAME]`"),
            (&LISTENER, "maxconn", "`max_connections`"),
            (&LISTENER, "ipAllowList", "`allow` and `deny` in `[guards.NAME]`"),
            (&LISTENER, "ipWhiteList", "`allow` and `deny` in `[guards.NAME]`"),
            (
                &LISTENER,
                "rate-limit sessions",
                "`rate` and `rate_per_source` in `[guards.NAME]`",
            ),
            (
                &LISTENER,
                "stick-table",
                "`rate` and `rate_per_source` in `[guards.NAME]`",
            ),
            (&LISTENER, "accept-proxy", "`accept_proxy`"),
            (&LISTENER, "tcp-request", "`allow` and `deny` in `[guards.NAME]`"),
            (
                &LISTENER,
                "rate_limit",
                "`rate` and `rate_per_source` in `[guards.NAME]`",
            ),
            (
                &LISTENER,
                "limit_rate",
                "`bandwidth` or `bandwidth_per_session` in `[guards.NAME]`",
            ),
            (
                &LISTENER,
                "proxy_download_rate",
                "`bandwidth_per_session` in `[guards.NAME]`",
            ),
            (&LISTENER, "proxy_bind", "`bind_source` in `[pools.NAME]`"),
            (&SERVER, "usesrc", "`bind_source` in `[pools.NAME]`"),
            (&SERVER, "source", "`bind_source` in `[pools.NAME]`"),
            (&POOL, "usesrc", "`bind_source`"),
            (&POOL, "proxy_bind", "`bind_source`"),
            (&POOL, "max_conns", "`max_sessions`"),
            (&POOL, "backlog queue", "`queue = {"),
            (&SERVER, "maxconn", "`max_sessions`"),
            (&SERVER, "max_conns", "`max_sessions`"),
        ] {
            let hint = unknown_key(section, key).1;
            assert!(hint.contains(ours), "{key}: {hint}");
        }
    }
}
