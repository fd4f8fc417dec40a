//! Notes about servers whose options differ from those of their pool, where a pool has one value for all its servers.

use std::time::Duration;

use super::super::imported::{ImportedServer, Remark};
use super::server::ServerOptions;
use crate::units::format_duration;

/// The name of a key, and its value for a server with these options.
type ComparedKey = (&'static str, fn(&ServerOptions) -> Option<String>);

/// Keys of the pool. `slow_start` is that of the first server that has one.
const POOL: [ComparedKey; 6] = [
    ("proxy_protocol", |options| options.proxy_protocol.map(str::to_owned)),
    ("tls", |options| options.is_tls.then(|| String::from("on"))),
    ("bind_source", |options| options.source.clone()),
    ("on_down", |options| {
        options.closes_when_down.then(|| String::from("\"close\""))
    }),
    ("slow_start", |options| time(options.slow_start)),
    ("resolve", |options| options.family.map(str::to_owned)),
];

/// Keys of `[pools.NAME.tls]`, for servers with TLS.
const TLS: [ComparedKey; 5] = [
    ("sni", |options| {
        options.tls_name.clone().or_else(|| options.verified_name.clone())
    }),
    ("verify", |options| {
        options.verifies.map(|verifies| verifies.to_string())
    }),
    ("ca_file", |options| options.ca_file.clone()),
    ("cert", |options| options.certificate.clone()),
    ("alpn", |options| {
        (!options.protocols.is_empty()).then(|| options.protocols.join(","))
    }),
];

/// Keys of `[pools.NAME.health]`, for servers that are checked.
const CHECK: [ComparedKey; 8] = [
    ("interval", |options| time(options.interval)),
    ("interval_down", |options| time(options.interval_down)),
    ("rise", |options| number(options.rise)),
    ("fall", |options| number(options.fall)),
    ("port of the checks", |options| number(options.check_port)),
    ("address of the checks", |options| options.check_address.clone()),
    ("tls of the checks", |options| {
        options.is_checked_by_tls.map(|is_tls| is_tls.to_string())
    }),
    ("sni of the checks", |options| options.check_name.clone()),
];

/// Keys of `[pools.NAME.health]`, for servers with `agent-check`.
const AGENT: [ComparedKey; 4] = [
    ("interval", |options| time(options.agent_interval)),
    ("port of the agent", |options| number(options.agent_port)),
    ("address of the agent", |options| options.agent_address.clone()),
    ("send", |options| options.agent_send.clone()),
];

fn time(time: Option<Duration>) -> Option<String> {
    time.map(format_duration)
}

fn number(number: Option<u32>) -> Option<String> {
    number.map(|number| number.to_string())
}

/// A note for each value of a server that differs from the pool's.
pub(super) fn notes(servers: &[(usize, ImportedServer, ServerOptions)]) -> Vec<Remark> {
    let mut notes = Vec::new();
    let mut compare = |keys: &[ComparedKey], applies_to: fn(&ServerOptions) -> bool| {
        let compared: Vec<_> = servers.iter().filter(|(_, _, options)| applies_to(options)).collect();
        for (key, value) in keys {
            let values = compared.iter().map(|(_, _, options)| value(options));
            let first = values.clone().next().flatten();
            let (pool_value, whose) = match *key {
                "slow_start" if first.is_none() => (values.flatten().next(), "another server"),
                _ => (first, "the first server"),
            };
            for (line, server, options) in &compared {
                let own = value(options);
                if own != pool_value {
                    let of_pool = (pool_value.as_deref(), whose);
                    notes.push(Remark::one_value(*line, key, &server.address, of_pool, own.as_deref()));
                }
            }
        }
    };
    compare(&POOL, |_| true);
    if servers.first().is_some_and(|(_, _, options)| options.is_tls) {
        compare(&TLS, |options| options.is_tls);
    }
    if servers.iter().any(|(_, _, options)| options.is_checked) {
        compare(&CHECK, |options| options.is_checked);
    } else {
        compare(&AGENT, |options| options.has_agent);
    }
    notes
}
