//! `upstream` (ngx_stream_upstream_module).

use std::time::Duration;

use super::super::complete::valid_name;
use super::super::imported::{ImportedPool, ImportedServer, Remark, SESSIONS_MAX, quoted};
use super::super::number::{clamped_integer, duration, duration_value, integer_at_most, too_long};
use super::block::Directive;
use crate::config::address;
use crate::plan::WEIGHT_MAX;

/// The default of acequia's `eject_max_for`, which may not be shorter than its `eject_for`.
const EJECT_MAX: Duration = Duration::from_secs(30);

/// The highest `eject_after`.
const FAILS_MAX: u32 = 1_000;

/// Reads the block of the upstream with this name.
pub(super) fn read(name: &str, block: &[Directive]) -> ImportedPool {
    let mut pool = ImportedPool {
        name: valid_name(name),
        upstream: Some(name.to_owned()),
        ..ImportedPool::default()
    };
    let mut balance = "round-robin";
    let mut servers = Vec::new();
    for directive in block {
        match (directive.name(), directive.word(1)) {
            ("server", Some(location)) => servers.extend(add_server(directive, location, &mut pool)),
            ("least_conn", _) => balance = "least-conn",
            ("hash", Some("$remote_addr" | "$binary_remote_addr")) => balance = "source-hash",
            ("random", argument) => {
                balance = "random-two";
                let method = directive.word(2).unwrap_or("least_conn");
                if argument != Some("two") || method != "least_conn" {
                    let note = "of two random servers, the less loaded one gets the client";
                    pool.section.remarks.push(Remark::note(directive.line, note));
                }
            }
            ("zone", _) => {} // counts are always shared by all threads
            _ => pool.section.remarks.push(directive.left_out("")),
        }
    }
    pool.section.set("balance", quoted(balance));
    scale_weights(&servers, &mut pool);
    for option in ["max_fails", "fail_timeout", "slow_start"] {
        set_pool_option(option, &servers, &mut pool);
    }
    pool
}

/// Scales the weights of a pool if one is above [`WEIGHT_MAX`]: the largest becomes [`WEIGHT_MAX`], and none becomes 0.
/// Servers that are down keep their weight of 0.
fn scale_weights(servers: &[UpstreamServer<'_>], pool: &mut ImportedPool) {
    let limit = u64::from(WEIGHT_MAX);
    let heaviest = pool.servers.iter().zip(servers).max_by_key(|(server, _)| server.weight);
    let Some((server, own)) = heaviest else { return };
    let largest = u64::from(server.weight.unwrap_or(0));
    if largest <= limit {
        return;
    }
    let written = own.option("weight").unwrap_or_default();
    let weights = pool.servers.iter_mut().filter_map(|server| server.weight.as_mut());
    for weight in weights.filter(|weight| **weight > 0) {
        let scaled = (u64::from(*weight) * limit + largest / 2) / largest; // rounded to the nearest
        *weight = u32::try_from(scaled).unwrap_or(WEIGHT_MAX.into()).max(1);
    }
    let note = format!("weights are scaled: the largest is {WEIGHT_MAX}, and was {written}");
    pool.section.remarks.push(Remark::note(0, note));
}

/// A server, with its weight and its options that acequia sets for the whole pool, as they are written.
struct UpstreamServer<'d> {
    line: usize,
    address: String,
    options: Vec<(&'d str, &'d str)>,
}

impl UpstreamServer<'_> {
    fn option(&self, name: &str) -> Option<&str> {
        let mut matching = self.options.iter().filter(|(key, _)| *key == name);
        matching.next_back().map(|(_, value)| *value)
    }
}

/// Sets an option for the pool, with the value of the first server that has it. Adds a remark for each server
/// that has another value, or none.
fn set_pool_option(option: &str, servers: &[UpstreamServer<'_>], pool: &mut ImportedPool) {
    let first = servers
        .iter()
        .find_map(|server| Some((server.line, server.option(option)?)));
    let Some((line, value)) = first else { return };
    let time = duration(value, 1_000);
    let note = match (option, integer_at_most(value, FAILS_MAX), time) {
        ("max_fails", Some((fails, too_many)), _) => {
            match fails {
                0 => pool.health.set("eject_max_percent", "0"),
                _ => pool.health.set("eject_after", fails.to_string()),
            }
            too_many
        }
        ("fail_timeout", _, Some(time)) => {
            pool.health.set("eject_for", duration_value(time));
            if time > EJECT_MAX {
                pool.health.set("eject_max_for", duration_value(time));
            }
            too_long(value, 1_000)
        }
        ("slow_start", _, Some(time)) => {
            pool.section.set("slow_start", duration_value(time));
            too_long(value, 1_000)
        }
        _ => None,
    };
    pool.section.remarks.extend(note.map(|note| Remark::note(line, note)));
    let has_same_value = |own: &str| own == value || time.is_some() && duration(own, 1_000) == time;
    for server in servers
        .iter()
        .filter(|server| !server.option(option).is_some_and(has_same_value))
    {
        let own = server.option(option);
        let remark = Remark::uses_pool_value(server.line, option, &server.address, own, Some(value), "another server");
        pool.section.remarks.push(remark);
    }
}

/// The address; `None`: it is not valid in a configuration of acequia.
pub(super) fn address(text: &str) -> Option<String> {
    address::server(text).is_ok().then(|| text.to_owned())
}

/// Adds a server to the pool; returns its options, as [`UpstreamServer`] has them. `None`: it is not carried over.
fn add_server<'d>(directive: &'d Directive, location: &str, pool: &mut ImportedPool) -> Option<UpstreamServer<'d>> {
    let Some(address) = address(location) else {
        pool.section
            .remarks
            .push(directive.left_out("write \"HOST:PORT\" or \"unix:/PATH\""));
        return None;
    };
    let mut own_options = Vec::new();
    let mut server = ImportedServer {
        address: address.clone(),
        ..ImportedServer::default()
    };
    let mut is_down = false;
    for option in &directive.words[2..] {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        if let ("max_conns", Some((limit, note))) = (key, integer_at_most(value, SESSIONS_MAX)) {
            server.sessions_max = (limit > 0).then_some(limit);
            let remark = note.map(|note| Remark::note(directive.line, note));
            pool.section.remarks.extend(remark);
            continue;
        }
        // The value as an integer and as a duration; each is `None` if the value is not one.
        match (key, clamped_integer(value, 0, u32::MAX), duration(value, 1_000)) {
            ("weight", Some(0), _) => {
                let remark = Remark::left_out(directive.line, option, "nginx accepts no weight of 0");
                pool.section.remarks.push(remark);
            }
            ("weight", Some(weight), _) => {
                server.weight = Some(weight);
                own_options.push((key, value));
            }
            ("backup", ..) => server.priority = 1,
            ("down", ..) => is_down = true,
            ("resolve", ..) => {}                         // names are always resolved again
            ("slow_start", _, Some(Duration::ZERO)) => {} // off, as without it
            ("max_fails", Some(_), _) | ("slow_start", _, Some(_)) => own_options.push((key, value)),
            ("fail_timeout", _, Some(time)) if !time.is_zero() => own_options.push((key, value)),
            _ => pool.section.remarks.push(Remark::left_out(directive.line, option, "")),
        }
    }
    if is_down {
        server.weight = Some(0);
    }
    pool.servers.push(server);
    Some(UpstreamServer {
        line: directive.line,
        address,
        options: own_options,
    })
}
