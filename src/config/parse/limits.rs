//! What listeners and pools inherit from `[defaults]`, and `[defaults]` from us.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Mistakes, Section, value};
use crate::addr::IpFamily;
use crate::config::keys;
use crate::relay::RelayLimits;
use crate::sniff::SniffLimits;
use crate::socket::{Keepalive, SocketOptions};

/// Any duration but none. A year is what the timers take without a thought.
pub(super) const SOME_TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=YEAR;

/// Any duration, and none.
pub(super) const ANY_TIME: RangeInclusive<Duration> = Duration::ZERO..=YEAR;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A usual ClientHello has 200 to 1,800 bytes; a listener's share of memory is this times its undecided clients.
const HELLO_BYTES: RangeInclusive<u64> = 512..=1 << 20;

/// The kernel takes an `int`, and lowers it to `net.core.somaxconn`.
const BACKLOG: RangeInclusive<u32> = 1..=i32::MAX as u32;

/// Each of them on another server: beyond this no client would still wait.
const RETRIES: RangeInclusive<u32> = 0..=100;

const FAMILIES: [(&str, IpFamily); 3] = [("ipv4", IpFamily::V4), ("ipv6", IpFamily::V6), ("both", IpFamily::Both)];

/// Linux: MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL.
const KEEPALIVE_TIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(32_767);

/// Linux: MAX_TCP_KEEPCNT.
const KEEPALIVE_PROBES: RangeInclusive<u32> = 1..=127;

/// The kernel takes an `int` of milliseconds: this is the last whole hour in it.
const USER_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(596 * 3600);

const KEEPALIVE: Keepalive = Keepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    probes: 6,
};

const SOCKET: SocketOptions = SocketOptions {
    keepalive: Some(KEEPALIVE),
    user_timeout: None,
};

/// What listeners and pools inherit: what is built in, and over it `[defaults]`.
pub(super) fn defaults(section: &Section<'_>, m: &mut Mistakes<'_>) -> (ListenerLimits, PoolLimits) {
    let socket = socket(SOCKET, section, m); // of both, but a mistake in it is said once
    (
        ListenerLimits::BUILT_IN.with(section, socket, m),
        PoolLimits::BUILT_IN.with(section, socket, m),
    )
}

/// What listeners inherit.
#[derive(Clone, Copy)]
pub(super) struct ListenerLimits {
    pub(super) sniff: SniffLimits,
    pub(super) relay: RelayLimits,
    pub(super) socket: SocketOptions,
    pub(super) backlog: u32,
}

impl ListenerLimits {
    const BUILT_IN: Self = Self {
        sniff: SniffLimits {
            hello_timeout: Duration::from_secs(5),
            // The largest extension block that TLS allows, 65,535 bytes (RFC 8446, section 4.1.2), and what stands before it.
            hello_bytes_max: 128 << 10,
        },
        relay: RelayLimits {
            idle_timeout: None,
            half_close_timeout: Some(Duration::from_secs(3600)),
        },
        socket: SOCKET,
        backlog: 4096,
    };

    /// These, and over them what a section says itself.
    pub(super) fn overlaid(self, section: &Section<'_>, m: &mut Mistakes<'_>) -> Self {
        let socket = socket(self.socket, section, m);
        self.with(section, socket, m)
    }

    fn with(self, section: &Section<'_>, socket: SocketOptions, m: &mut Mistakes<'_>) -> Self {
        let hello_max = section
            .get("hello_max")
            .and_then(|node| value::size(node, HELLO_BYTES, m));
        let half_close = section.duration("half_close_timeout", SOME_TIME, m);
        Self {
            sniff: SniffLimits {
                hello_timeout: section
                    .duration("hello_timeout", SOME_TIME, m)
                    .unwrap_or(self.sniff.hello_timeout),
                hello_bytes_max: hello_max
                    .and_then(|bytes| usize::try_from(bytes).ok())
                    .unwrap_or(self.sniff.hello_bytes_max),
            },
            relay: RelayLimits {
                idle_timeout: section
                    .duration_or_off("idle_timeout", SOME_TIME, m)
                    .unwrap_or(self.relay.idle_timeout),
                half_close_timeout: half_close.or(self.relay.half_close_timeout),
            },
            socket,
            backlog: section.whole("backlog", BACKLOG, m).unwrap_or(self.backlog),
        }
    }
}

/// What pools inherit.
#[derive(Clone, Copy)]
pub(super) struct PoolLimits {
    pub(super) connect_timeout: Duration,
    pub(super) retries: u32,
    pub(super) resolve: IpFamily,
    pub(super) socket: SocketOptions,
}

impl PoolLimits {
    const BUILT_IN: Self = Self {
        connect_timeout: Duration::from_secs(3),
        retries: 2,
        resolve: IpFamily::Both,
        socket: SOCKET,
    };

    /// These, and over them what a section says itself.
    pub(super) fn overlaid(self, section: &Section<'_>, m: &mut Mistakes<'_>) -> Self {
        let socket = socket(self.socket, section, m);
        self.with(section, socket, m)
    }

    fn with(self, section: &Section<'_>, socket: SocketOptions, m: &mut Mistakes<'_>) -> Self {
        Self {
            connect_timeout: section
                .duration("connect_timeout", SOME_TIME, m)
                .unwrap_or(self.connect_timeout),
            retries: section.whole("retries", RETRIES, m).unwrap_or(self.retries),
            resolve: section.word("resolve", &FAMILIES, m).unwrap_or(self.resolve),
            socket,
        }
    }
}

fn socket(inherited: SocketOptions, section: &Section<'_>, m: &mut Mistakes<'_>) -> SocketOptions {
    SocketOptions {
        keepalive: keepalive(inherited.keepalive, section, m),
        user_timeout: section
            .duration_or_off("user_timeout", USER_TIMEOUT, m)
            .unwrap_or(inherited.user_timeout),
    }
}

/// What a table leaves out it inherits too; from `"off"` there is nothing to inherit but what is built in.
fn keepalive(inherited: Option<Keepalive>, section: &Section<'_>, m: &mut Mistakes<'_>) -> Option<Keepalive> {
    let Some((place, node)) = section.entry("keepalive") else {
        return inherited;
    };
    if value::is_off(node) {
        return None;
    }
    let base = inherited.unwrap_or(KEEPALIVE);
    if !matches!(node.value, crate::config::file::Value::Table(_)) {
        let label = r#"write { idle = "60s", interval = "10s", probes = 6 } or "off""#;
        m.say(
            &node.place,
            format!("expected a table or \"off\", found {}", node.value.kind()),
            label,
        );
        return inherited;
    }
    let table = Section::open(node, place, &keys::KEEPALIVE, m)?;
    Some(Keepalive {
        idle: whole_seconds("idle", &table, m).unwrap_or(base.idle),
        interval: whole_seconds("interval", &table, m).unwrap_or(base.interval),
        probes: table.whole("probes", KEEPALIVE_PROBES, m).unwrap_or(base.probes),
    })
}

/// The kernel counts these in seconds, and would cut off what is less.
fn whole_seconds(key: &str, section: &Section<'_>, m: &mut Mistakes<'_>) -> Option<Duration> {
    let node = section.get(key)?;
    let duration = value::duration(node, KEEPALIVE_TIME, m)?;
    if duration.subsec_nanos() != 0 {
        let label = format!("write \"{}s\"", duration.as_secs());
        m.say(&node.place, "the kernel counts this in whole seconds", label);
    }
    Some(duration)
}
