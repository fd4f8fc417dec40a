//! The keys of `check = "redis"`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::super::address::InvalidValue;
use super::super::value;
use super::login::name;
use super::reader::KindReader;
use super::{Problems, Section};
use crate::check::Check;
use crate::check::redis::{KIND, RedisCheck, RedisLogin, SentinelGroup};
use crate::config::file::Node;

/// The longest name of a user or of a master that Sentinels watch, in bytes. Redis has no limit.
const NAME_BYTES_MAX: usize = 128;

/// The most Sentinels of a check: each check asks all of them.
const SENTINELS_MAX: usize = 16;

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    let tls = section.boolean("tls", problems);
    Arc::new(RedisCheck {
        login: login(section, "user", "password_file", problems),
        tls: tls.unwrap_or(false),
        sentinels: sentinels(section, problems),
    })
}

fn login(
    section: &Section<'_>,
    user_key: &'static str,
    file_key: &'static str,
    problems: &mut Problems<'_>,
) -> Option<RedisLogin> {
    let user = section
        .get(user_key)
        .and_then(|node| name(node, NAME_BYTES_MAX, problems));
    let password_file = section.path(file_key, problems);
    if let Some((position, _)) = section.entry(user_key)
        && section.is_missing(file_key)
    {
        let hint = format!("add `{file_key}` to [pools.NAME.health]");
        problems.error(position, format!("`{user_key}` needs a password"), hint);
    }
    Some(RedisLogin {
        user: user.map(Into::into),
        password_file: password_file?,
    })
}

fn sentinels(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<SentinelGroup> {
    let login = login(section, "sentinel_user", "sentinel_password_file", problems);
    let Some(node) = section.get("sentinels") else {
        if section.is_missing("sentinels") {
            for key in ["master", "sentinel_user", "sentinel_password_file"] {
                if let Some((position, _)) = section.entry(key) {
                    let hint = "add `sentinels` to [pools.NAME.health]";
                    problems.error(position, format!("`{key}` needs Sentinels"), hint);
                }
            }
        }
        return None;
    };
    let nodes = value::one_or_many(node, problems);
    if nodes.len() > SENTINELS_MAX {
        let hint = format!("at most {SENTINELS_MAX}");
        problems.error(&node.position, "too many Sentinels", hint);
    }
    let addresses = addresses(nodes, problems);
    let example = "the name by which the Sentinels know the master, as in master = \"mymaster\"";
    let master = section.required("master", example, problems)?;
    Some(SentinelGroup {
        addresses,
        master: name(master, NAME_BYTES_MAX, problems)?.into(),
        login,
    })
}

/// The addresses of Sentinels. Duplicates are reported: each Sentinel counts once towards the majority.
fn addresses(nodes: &[Node], problems: &mut Problems<'_>) -> Vec<SocketAddr> {
    let (mut addresses, mut known) = (Vec::new(), HashSet::new());
    for node in nodes {
        let Some(address) = value::parsed(node, address, problems) else {
            continue;
        };
        if !known.insert(address) {
            let hint = "remove it: each Sentinel counts once towards the majority";
            problems.error(&node.position, format!("duplicate Sentinel `{address}`"), hint);
        }
        addresses.push(address);
    }
    addresses
}

fn address(text: &str) -> Result<SocketAddr, InvalidValue> {
    let address = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
    address.ok_or_else(|| {
        let hint = String::from("write an IP address and a port, as in \"10.0.0.5:26379\"");
        (format!("`{text}` is not the address of a Sentinel"), hint)
    })
}
