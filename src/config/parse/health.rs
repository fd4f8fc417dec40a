//! `[pools.NAME.health]`, and what a pool's own section says of its checks.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::limits::NONZERO_DURATION;
use super::{Problems, Section, address, route, value};
use crate::addr::ServerAddr;
use crate::config::file::Node;
use crate::config::keys;
use crate::name::ServerName;
use crate::plan::{CheckKind, HealthPlan, PostgresCheck, PostgresLogin, Role, TlsCheck};
use crate::pool::health::{EjectLimits, Thresholds};
use crate::units;

/// A check costs a connection; a hundred a second to each server would be load, not a check.
const CHECK_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=*NONZERO_DURATION.end();

/// Results in a row; no state should take more than that to change.
const STREAK: RangeInclusive<u32> = 1..=1_000;

/// Each check under way has a descriptor, which no session can have.
const CONCURRENCY: RangeInclusive<u32> = 1..=1024;

const PORT: RangeInclusive<u32> = 1..=65_535;

/// Kinds of checks that do not work yet.
const CHECKS_LATER: [&str; 5] = ["http", "mysql", "redis", "send-expect", "exec"];

/// Keys that are of one kind of check.
const OF_TLS: [&str; 4] = ["sni", "alpn", "verify", "ca_file"];
const OF_POSTGRES: [&str; 3] = ["user", "password_file", "database"];

const USUAL_HEALTH: HealthPlan = HealthPlan {
    check: Some(CheckKind::Tcp),
    interval: Duration::from_secs(2),
    interval_down: Duration::from_secs(2),
    timeout: Duration::from_secs(1),
    thresholds: Thresholds { rise: 2, fall: 3 },
    address: None,
    port: None,
    concurrency: 64,
};

const USUAL_EJECTION: EjectLimits = EjectLimits {
    after: 3,
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    percent_max: 50,
    on_reset: false,
};

/// How it is known which servers are well, and what follows from it.
pub(super) struct Health {
    pub(super) plan: HealthPlan,
    pub(super) eject: EjectLimits,
    pub(super) panic_threshold: Option<u8>,
}

/// Reads what a pool says of its servers' health.
pub(super) fn health(pool: &Section<'_>, problems: &mut Problems<'_>) -> Health {
    let off = pool.get("health").filter(|node| value::is_off(node));
    if let Some(node) = off {
        problems.error(
            &node.position,
            "expected a table, found a string",
            r#"write { check = "off" }"#,
        );
        return Health {
            plan: USUAL_HEALTH,
            eject: USUAL_EJECTION,
            panic_threshold: None,
        };
    }
    let section = pool.child("health", &keys::HEALTH, problems);
    let usual = USUAL_HEALTH;
    let check = check(pool, &section, problems);
    let interval = section
        .duration("interval", CHECK_INTERVAL, problems)
        .unwrap_or(usual.interval);
    let plan = HealthPlan {
        check: check.unwrap_or(usual.check),
        interval,
        interval_down: section
            .duration("interval_down", CHECK_INTERVAL, problems)
            .unwrap_or(interval),
        timeout: section
            .duration("timeout", NONZERO_DURATION, problems)
            .unwrap_or(usual.timeout),
        thresholds: Thresholds {
            rise: section
                .integer("rise", STREAK, problems)
                .unwrap_or(usual.thresholds.rise),
            fall: section
                .integer("fall", STREAK, problems)
                .unwrap_or(usual.thresholds.fall),
        },
        address: section.get("address").and_then(|node| check_address(node, problems)),
        port: section
            .integer("port", PORT, problems)
            .and_then(|port| u16::try_from(port).ok()),
        concurrency: section
            .integer("concurrency", CONCURRENCY, problems)
            .map_or(usual.concurrency, |checks| checks as usize),
    };
    Health {
        plan,
        eject: ejection(&section, problems),
        panic_threshold: section
            .get("panic_threshold")
            .and_then(|node| panic_threshold(node, problems)),
    }
}

/// The words for `check`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Tls,
    Postgres,
    Off,
}

/// What a check does; `None`: nothing is said of it, or nothing that is right.
fn check(pool: &Section<'_>, section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Option<CheckKind>> {
    let kind = match section.get("check") {
        Some(node) => kind(node, problems)?,
        None => Kind::Tcp,
    };
    for (wanted, word, keys) in [
        (Kind::Tls, "tls", &OF_TLS[..]),
        (Kind::Postgres, "postgres", &OF_POSTGRES[..]),
    ] {
        for key in keys.iter().filter(|_| kind != wanted) {
            misplaced(key, section, word, problems);
        }
    }
    if kind != Kind::Postgres {
        misplaced("role", pool, "postgres", problems);
        misplaced("max_lag", pool, "postgres", problems);
    }
    Some(match kind {
        Kind::Tcp => Some(CheckKind::Tcp),
        Kind::Tls => Some(CheckKind::Tls(Arc::new(tls(section, problems)))),
        Kind::Postgres => Some(CheckKind::Postgres(Arc::new(postgres(pool, section, problems)))),
        Kind::Off => None,
    })
}

fn kind(node: &Node, problems: &mut Problems<'_>) -> Option<Kind> {
    let kinds = [
        ("tcp", Kind::Tcp),
        ("tls", Kind::Tls),
        ("postgres", Kind::Postgres),
        ("off", Kind::Off),
    ];
    if let crate::config::file::Value::String(text) = &node.value
        && CHECKS_LATER.contains(&text.as_str())
    {
        let label = r#"write "tcp", "tls", "postgres" or "off""#;
        problems.error(&node.position, format!("`{text}` checks do not work yet"), label);
        return None;
    }
    value::one_of(node, &kinds, problems)
}

/// Says that a key is of another kind of check.
fn misplaced(key: &str, section: &Section<'_>, wanted: &str, problems: &mut Problems<'_>) {
    if let Some((position, _)) = section.entry(key) {
        let label = format!("write check = \"{wanted}\" in [pools.NAME.health], or leave it out");
        problems.error(position, format!("`{key}` is for the check \"{wanted}\""), label);
    }
}

fn tls(section: &Section<'_>, problems: &mut Problems<'_>) -> TlsCheck {
    let sni = section.get("sni").and_then(|node| server_name(node, problems));
    let alpn = route::entries(section, "alpn", problems, |text| {
        route::protocol(text).map(|_| Box::<str>::from(text))
    });
    let check = TlsCheck {
        sni,
        alpn,
        verify: section
            .get("verify")
            .and_then(|node| value::boolean(node, problems))
            .unwrap_or(false),
        ca_file: section.get("ca_file").and_then(|node| path(node, problems)),
    };
    if let (Some((position, _)), false) = (section.entry("ca_file"), check.verify) {
        problems.warning(
            position,
            "`ca_file` is never used",
            "no certificate is verified without verify = true",
        );
    }
    check
}

fn postgres(pool: &Section<'_>, section: &Section<'_>, problems: &mut Problems<'_>) -> PostgresCheck {
    let user = section.get("user").and_then(|node| plain(node, problems));
    let password_file = section.get("password_file").and_then(|node| path(node, problems));
    let database = section.get("database").and_then(|node| plain(node, problems));
    let roles = [
        ("any", Role::Any),
        ("primary", Role::Primary),
        ("replica", Role::Replica),
    ];
    let role = pool.one_of("role", &roles, problems).unwrap_or_default();
    let max_lag = pool.duration_or_off("max_lag", NONZERO_DURATION, problems).flatten();
    if section.is_missing("user") {
        let needing = [
            ("password_file", section, true),
            ("database", section, true),
            ("role", pool, role != Role::Any),
            ("max_lag", pool, max_lag.is_some()),
        ];
        for (key, section, needs) in needing {
            if let (Some((position, _)), true) = (section.entry(key), needs) {
                let label = "add `user` to [pools.NAME.health]";
                problems.error(position, format!("`{key}` needs somebody to log in as"), label);
            }
        }
    }
    if let (Some((position, _)), Role::Primary) = (pool.entry("max_lag"), role) {
        problems.warning(position, "`max_lag` is never used", "a primary is behind nobody");
    }
    PostgresCheck {
        login: user.map(|user| PostgresLogin {
            database: database.unwrap_or(user).into(),
            user: user.into(),
            password_file,
        }),
        role,
        max_lag,
    }
}

/// Text that goes into a message of a protocol whose strings end with a zero byte.
fn plain<'a>(node: &'a Node, problems: &mut Problems<'_>) -> Option<&'a str> {
    let text = value::string(node, problems)?;
    if text.is_empty() || text.len() > 63 || text.contains('\0') {
        problems.error(&node.position, "this is not a name", "write 1 to 63 bytes");
        return None;
    }
    Some(text)
}

fn server_name(node: &Node, problems: &mut Problems<'_>) -> Option<Box<str>> {
    let text = value::string(node, problems)?;
    match ServerName::from_config(text) {
        Ok(name) => Some(name.as_str().into()),
        Err(error) => {
            let label = "write a host's name, as in \"shop.example.com\"";
            problems.error(&node.position, format!("`{text}`: {error}"), label);
            None
        }
    }
}

/// The path of a file.
pub(super) fn path(node: &Node, problems: &mut Problems<'_>) -> Option<PathBuf> {
    let text = value::string(node, problems)?;
    if text.is_empty() || text.contains('\0') || text.ends_with('/') {
        problems.error(&node.position, "this is not a file's path", "");
        return None;
    }
    Some(text.into())
}

fn check_address(node: &Node, problems: &mut Problems<'_>) -> Option<ServerAddr> {
    let text = value::string(node, problems)?;
    match address::host(text) {
        Ok(address) => Some(address),
        Err((what, label)) => {
            problems.error(&node.position, what, label);
            None
        }
    }
}

/// A percentage, or `"off"`.
fn panic_threshold(node: &Node, problems: &mut Problems<'_>) -> Option<u8> {
    if value::is_off(node) {
        return None;
    }
    value::integer(node, 1..=100, problems).and_then(|percent| u8::try_from(percent).ok())
}

fn ejection(section: &Section<'_>, problems: &mut Problems<'_>) -> EjectLimits {
    let usual = USUAL_EJECTION;
    let first = section
        .duration("eject_for", NONZERO_DURATION, problems)
        .unwrap_or(usual.first);
    let longest = section
        .duration("eject_max_for", NONZERO_DURATION, problems)
        .unwrap_or(usual.longest);
    if first > longest {
        let said = section.get("eject_max_for").or_else(|| section.get("eject_for"));
        let position = said.map_or(section.position(), |node| &node.position);
        let what = format!(
            "`eject_for` ({}) is longer than `eject_max_for` ({})",
            units::format_duration(first),
            units::format_duration(longest)
        );
        problems.error(
            position,
            what,
            "the back-off begins with the one and ends with the other",
        );
    }
    EjectLimits {
        after: section.integer("eject_after", STREAK, problems).unwrap_or(usual.after),
        first,
        longest,
        percent_max: section
            .integer("eject_max_percent", 0..=100, problems)
            .unwrap_or(usual.percent_max),
        on_reset: section
            .get("eject_on_reset")
            .and_then(|node| value::boolean(node, problems))
            .unwrap_or(usual.on_reset),
    }
}
