//! Notes about options that the servers of a pool set differently, although the pool has one value for all of them.

use std::time::Duration;

use super::super::imported::Remark;
use super::server::{ParsedServer, ServerOptions};
use crate::units::format_duration;

/// A key that has one value for all servers of a pool.
struct PoolKey {
    name: &'static str,
    /// The value of a server with these options.
    value: fn(&ServerOptions) -> Option<String>,
    /// Whether the pool gets the value of a later server if the first one has none.
    skips_unset: bool,
}

impl PoolKey {
    /// A key that gets the value of the first server for which it is compared.
    const fn of_first(name: &'static str, value: fn(&ServerOptions) -> Option<String>) -> Self {
        Self {
            name,
            value,
            skips_unset: false,
        }
    }

    /// A key that gets the first value that is set.
    const fn first_set(name: &'static str, value: fn(&ServerOptions) -> Option<String>) -> Self {
        Self {
            skips_unset: true,
            ..Self::of_first(name, value)
        }
    }

    /// The value that a pool of these servers gets, and, in words, the server that it comes from. `first`: the first of
    /// these servers, in words.
    fn pool_value(&self, servers: &[&ParsedServer], first: &'static str) -> (Option<String>, &'static str) {
        let mut values = servers.iter().map(|parsed| (self.value)(&parsed.options));
        match values.next().flatten() {
            None if self.skips_unset => (values.flatten().next(), "another server"),
            value => (value, first),
        }
    }
}

/// Keys of the pool.
const POOL: [PoolKey; 6] = [
    PoolKey::of_first("proxy_protocol", |options| options.proxy_protocol.map(str::to_owned)),
    PoolKey::of_first("tls", |options| options.is_tls.then(|| String::from("on"))),
    PoolKey::of_first("bind_source", |options| options.source.clone()),
    PoolKey::of_first("on_down", |options| {
        options.closes_when_down.then(|| String::from("\"close\""))
    }),
    PoolKey::first_set("slow_start", |options| time(options.slow_start)),
    PoolKey::of_first("resolve", |options| options.family.map(str::to_owned)),
];

/// Keys of `[pools.NAME.tls]`, for servers with TLS.
const TLS: [PoolKey; 5] = [
    PoolKey::of_first("sni", |options| {
        options.tls_name.clone().or_else(|| options.verified_name.clone())
    }),
    PoolKey::of_first("verify", |options| Some(options.verifies.to_string())),
    PoolKey::of_first("ca_file", |options| options.trusted_ca().map(str::to_owned)),
    PoolKey::of_first("cert", |options| options.certificate.clone()),
    PoolKey::of_first("alpn", |options| {
        options.protocols.as_ref().map(|protocols| protocols.join(","))
    }),
];

/// Keys of `[pools.NAME.health]`, for servers that are checked.
const CHECK: [PoolKey; 8] = [
    PoolKey::of_first("interval", |options| time(options.interval)),
    PoolKey::of_first("interval_down", |options| time(options.interval_down)),
    PoolKey::of_first("rise", |options| number(options.rise)),
    PoolKey::of_first("fall", |options| number(options.fall)),
    PoolKey::of_first("port of the checks", |options| {
        number(options.check_port.map(u32::from))
    }),
    PoolKey::of_first("address of the checks", |options| options.check_address.clone()),
    PoolKey::of_first("tls of the checks", |options| {
        options.checks_use_tls.map(|is_tls| is_tls.to_string())
    }),
    PoolKey::of_first("sni of the checks", |options| options.check_name.clone()),
];

/// Keys of `[pools.NAME.health]`, for servers with `agent-check`.
const AGENT: [PoolKey; 4] = [
    PoolKey::of_first("interval", |options| time(options.agent_interval)),
    PoolKey::of_first("port of the agent", |options| {
        number(options.agent_port.or(options.check_port).map(u32::from))
    }),
    PoolKey::of_first("address of the agent", |options| {
        options.agent_address.clone().or_else(|| options.check_address.clone())
    }),
    PoolKey::of_first("send", |options| options.agent_send.clone()),
];

fn time(time: Option<Duration>) -> Option<String> {
    time.map(format_duration)
}

fn number(number: Option<u32>) -> Option<String> {
    number.map(|number| number.to_string())
}

/// A note for each value of a server that differs from the pool's, for those of the keys above that the pool uses.
pub(super) fn notes(servers: &[ParsedServer]) -> Vec<Remark> {
    let mut notes = Vec::new();
    let mut compare = |keys: &[PoolKey], first, applies_to: fn(&ServerOptions) -> bool| {
        let compared: Vec<_> = servers.iter().filter(|parsed| applies_to(&parsed.options)).collect();
        for key in keys {
            let (pool_value, source) = key.pool_value(&compared, first);
            for parsed in &compared {
                let own = (key.value)(&parsed.options);
                if own != pool_value {
                    notes.push(Remark::uses_pool_value(
                        parsed.line,
                        key.name,
                        &parsed.server.address,
                        own.as_deref(),
                        pool_value.as_deref(),
                        source,
                    ));
                }
            }
        }
    };
    compare(&POOL, "the first server", |_| true);
    if servers.first().is_some_and(|parsed| parsed.options.is_tls) {
        compare(&TLS, "the first server", |options| options.is_tls);
    }
    if servers.iter().any(|parsed| parsed.options.is_checked) {
        compare(&CHECK, "the first checked server", |options| options.is_checked);
    } else {
        compare(&AGENT, "the first server with an agent", |options| options.has_agent);
    }
    notes
}
