//! Settings that listeners and pools inherit from `[defaults]`, and the built-in defaults.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Problems, Section, value};
use crate::addr::IpFamily;
use crate::config::keys;
use crate::plan::Protocol;
use crate::relay::RelayLimits;
use crate::sniff::SniffLimits;
use crate::socket::{Keepalive, SocketOptions};

/// Durations above zero. The limit of a year is far below the range of the timers.
pub(super) const NONZERO_DURATION: RangeInclusive<Duration> = Duration::from_millis(1)..=YEAR;

/// Durations, zero included.
pub(super) const ANY_DURATION: RangeInclusive<Duration> = Duration::ZERO..=YEAR;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The bounds of `hello_max`: each client that is not routed yet may hold that much memory. Most ClientHellos have 200
/// to 1,800 bytes.
const HELLO_BYTES: RangeInclusive<u64> = 512..=1 << 20;

/// The kernel takes an `int` and limits it to `net.core.somaxconn`.
const BACKLOG: RangeInclusive<u32> = 1..=i32::MAX as u32;

/// Each retry is on another server; no client would wait for more of them.
const RETRIES: RangeInclusive<u32> = 0..=100;

const FAMILIES: [(&str, IpFamily); 3] = [("ipv4", IpFamily::V4), ("ipv6", IpFamily::V6), ("both", IpFamily::Both)];

/// Linux: MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL.
const KEEPALIVE_TIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(32_767);

/// Linux: MAX_TCP_KEEPCNT.
const KEEPALIVE_PROBES: RangeInclusive<u32> = 1..=127;

/// The kernel takes an `int` of milliseconds; the upper bound is the last whole hour that fits.
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

/// The settings that listeners and pools inherit: `[defaults]` over the built-in defaults.
pub(super) fn defaults(section: &Section<'_>, problems: &mut Problems<'_>) -> (ListenerSettings, PoolSettings) {
    let socket = socket(SOCKET, section, problems); // read once for both, so that its errors are reported once
    (
        ListenerSettings::DEFAULT.with(section, socket, problems),
        PoolSettings::DEFAULT.with(section, socket, problems),
    )
}

/// Settings that listeners inherit.
#[derive(Clone, Copy)]
pub(super) struct ListenerSettings {
    pub(super) sniff: SniffLimits,
    relay: RelayLimits,
    pub(super) socket: SocketOptions,
    pub(super) backlog: u32,
}

impl ListenerSettings {
    const DEFAULT: Self = Self {
        sniff: SniffLimits {
            hello_timeout: Duration::from_secs(5),
            // Holds the largest extension block of TLS, 65,535 bytes (RFC 8446, section 4.1.2), and what usually
            // precedes it.
            hello_bytes_max: 128 << 10,
        },
        relay: RelayLimits {
            idle_timeout: None,
            half_close_timeout: Some(Duration::from_secs(3600)),
            ends_with_server: false, // set by `relay_of`
        },
        socket: SOCKET,
        backlog: 4096,
    };

    /// These settings, except for those that the section sets itself.
    pub(super) fn overridden_by(self, section: &Section<'_>, problems: &mut Problems<'_>) -> Self {
        let socket = socket(self.socket, section, problems);
        self.with(section, socket, problems)
    }

    /// The limits of the relay of a listener with this protocol.
    pub(super) fn relay_of(self, protocol: Protocol) -> RelayLimits {
        RelayLimits {
            ends_with_server: protocol.is_database(),
            ..self.relay
        }
    }

    /// As [`Self::overridden_by`], with the socket options of the section, which have been read already.
    fn with(self, section: &Section<'_>, socket: SocketOptions, problems: &mut Problems<'_>) -> Self {
        let hello_max = section
            .get("hello_max")
            .and_then(|node| value::size(node, HELLO_BYTES, problems));
        let half_close = section.duration("half_close_timeout", NONZERO_DURATION, problems);
        Self {
            sniff: SniffLimits {
                hello_timeout: section
                    .duration("hello_timeout", NONZERO_DURATION, problems)
                    .unwrap_or(self.sniff.hello_timeout),
                hello_bytes_max: hello_max
                    .and_then(|bytes| usize::try_from(bytes).ok())
                    .unwrap_or(self.sniff.hello_bytes_max),
            },
            relay: RelayLimits {
                idle_timeout: section
                    .duration_or_off("idle_timeout", NONZERO_DURATION, problems)
                    .unwrap_or(self.relay.idle_timeout),
                half_close_timeout: half_close.or(self.relay.half_close_timeout),
                ends_with_server: false, // set by `relay_of`
            },
            socket,
            backlog: section.integer("backlog", BACKLOG, problems).unwrap_or(self.backlog),
        }
    }
}

/// Settings that pools inherit.
#[derive(Clone, Copy)]
pub(super) struct PoolSettings {
    pub(super) connect_timeout: Duration,
    pub(super) retries: u32,
    pub(super) resolve: IpFamily,
    pub(super) socket: SocketOptions,
}

impl PoolSettings {
    const DEFAULT: Self = Self {
        connect_timeout: Duration::from_secs(3),
        retries: 2,
        resolve: IpFamily::Both,
        socket: SOCKET,
    };

    /// These settings, except for those that the section sets itself.
    pub(super) fn overridden_by(self, section: &Section<'_>, problems: &mut Problems<'_>) -> Self {
        let socket = socket(self.socket, section, problems);
        self.with(section, socket, problems)
    }

    /// As [`Self::overridden_by`], with the socket options of the section, which have been read already.
    fn with(self, section: &Section<'_>, socket: SocketOptions, problems: &mut Problems<'_>) -> Self {
        Self {
            connect_timeout: section
                .duration("connect_timeout", NONZERO_DURATION, problems)
                .unwrap_or(self.connect_timeout),
            retries: section.integer("retries", RETRIES, problems).unwrap_or(self.retries),
            resolve: section.one_of("resolve", &FAMILIES, problems).unwrap_or(self.resolve),
            socket,
        }
    }
}

fn socket(inherited: SocketOptions, section: &Section<'_>, problems: &mut Problems<'_>) -> SocketOptions {
    SocketOptions {
        keepalive: keepalive(inherited.keepalive, section, problems),
        user_timeout: section
            .duration_or_off("user_timeout", USER_TIMEOUT, problems)
            .unwrap_or(inherited.user_timeout),
    }
}

/// `keepalive` of a section; without it, the inherited value. Keys that its table lacks are inherited, too. If `"off"`
/// is inherited, these keys have the built-in defaults.
fn keepalive(inherited: Option<Keepalive>, section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Keepalive> {
    let Some((position, node)) = section.entry("keepalive") else {
        return inherited;
    };
    if value::is_off(node) {
        return None;
    }
    let table = Section::open(node, position, &keys::KEEPALIVE, problems)?;
    let base = inherited.unwrap_or(KEEPALIVE);
    Some(Keepalive {
        idle: whole_seconds("idle", &table, problems).unwrap_or(base.idle),
        interval: whole_seconds("interval", &table, problems).unwrap_or(base.interval),
        probes: table
            .integer("probes", KEEPALIVE_PROBES, problems)
            .unwrap_or(base.probes),
    })
}

/// A duration in whole seconds: the kernel takes these options in whole seconds, and a fraction would be lost.
fn whole_seconds(key: &str, section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Duration> {
    let node = section.get(key)?;
    let duration = value::duration(node, KEEPALIVE_TIME, problems)?;
    if duration.subsec_nanos() != 0 {
        let hint = format!("write \"{}s\"", duration.as_secs());
        problems.error(&node.position, "keepalive times are whole seconds", hint);
    }
    Some(duration)
}
