//! The file descriptors of the process: their limit, and how many are reserved for each purpose.
//!
//! A session needs two: one for the client, one for the server. An accepted client must never lack the second one.
//! Therefore the number of sessions is bounded by what all other shares leave.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::optional::OptionalCall;

static RAISE: OptionalCall = OptionalCall::new(
    "setrlimit(RLIMIT_NOFILE)",
    "fewer sessions are possible: raise `ulimit -n`",
);

/// Pipes for splice, with two descriptors each. By default, an unprivileged user may have 256 of their size (256 KiB).
const PIPES_MAX: usize = 256;

/// Pipes get 1/16 of the descriptors for sessions and pipes together.
const PIPES_DIVISOR: usize = 16;

/// Concurrent connections of the admin port and the Unix socket: 32 streams of events over both together, and 8 other
/// connections to each of the two.
const ADMIN_MAX: usize = 48;

/// Concurrent connections that pass on requests to cancel queries. A request has up to eight at once. While all of
/// these are taken, a request has one that is not counted: it uses the second descriptor of the session that brings the
/// request.
const CANCELS_MAX: usize = 64;

/// The log file, `/proc` while metrics are read, and the least number of lookups.
const OTHERS: usize = 2 + LOOKUPS_MIN;

/// Bounds on concurrent lookups of host names. Each lookup has a socket, and one of the threads for blocking calls, of
/// which tokio starts at most 512.
const LOOKUPS_MIN: usize = 4;
const LOOKUPS_MAX: usize = 128;

/// How many descriptors, or objects that need descriptors, each purpose gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorShares {
    /// Sessions of the whole process; at least one.
    pub sessions: usize,
    /// Pipes of the whole process.
    pub pipes: usize,
    /// Concurrent checks of all pools together; at least one.
    pub checks: usize,
    /// Concurrent connections of the admin port and the Unix socket; at least one.
    pub admin: usize,
    /// Concurrent lookups of host names; 4 to 128.
    pub lookups: usize,
    /// Concurrent connections that pass on requests to cancel queries, besides one for each request.
    pub cancels: usize,
}

/// How much the configuration asks for. A share is smaller than the demand if the limit on descriptors requires it, but
/// never smaller than its minimum.
#[derive(Clone, Copy, Debug, Default)]
pub struct DescriptorDemand {
    /// `max_connections`; `None`: as many as possible.
    pub sessions: Option<usize>,
    /// The largest `concurrency` that a pool has, not the sum: all pools together run no more checks at once.
    pub checks: usize,
    /// The number of host names among the servers.
    pub names: usize,
    /// Whether a listener is for PostgreSQL, so that there are requests to cancel queries.
    pub has_cancels: bool,
    /// The shares that were fixed at the start; `None`: this is the start.
    pub fixed: Option<FixedShares>,
}

/// The shares that a reload cannot change, because workers and the admin server get them when they start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedShares {
    /// [`DescriptorShares::pipes`].
    pub pipes: usize,
    /// [`DescriptorShares::admin`].
    pub admin: usize,
}

impl DescriptorShares {
    /// Divides `limit` descriptors, of which `open` are in use.
    #[must_use]
    pub fn new(limit: usize, open: usize, demand: DescriptorDemand) -> Self {
        let free = limit.saturating_sub(open + OTHERS);
        let checks = demand.checks.min(free / 8).max(1);
        let fixed = demand.fixed;
        let admin = fixed.map_or(ADMIN_MAX.min(free / 16).max(1), |fixed| fixed.admin);
        let lookups = demand
            .names
            .clamp(LOOKUPS_MIN, LOOKUPS_MAX)
            .min(LOOKUPS_MIN + free / 16);
        let cancels = if demand.has_cancels {
            CANCELS_MAX.min(free / 16)
        } else {
            0
        };
        // `OTHERS` already holds `LOOKUPS_MIN`.
        let rest = free.saturating_sub(checks + admin + lookups - LOOKUPS_MIN + cancels);
        let pipes = fixed.map_or(PIPES_MAX.min(rest / PIPES_DIVISOR / 2), |fixed| fixed.pipes);
        let sessions = rest.saturating_sub(2 * pipes) / 2;
        Self {
            sessions: demand.sessions.unwrap_or(sessions).min(sessions).max(1),
            pipes,
            checks,
            admin,
            lookups,
            cancels,
        }
    }
}

/// Raises the soft limit of open files to the hard limit. Returns the resulting limit.
///
/// # Errors
/// `/proc` cannot be read.
pub fn raise_limit() -> io::Result<usize> {
    let text = std::fs::read_to_string("/proc/self/limits")?;
    let [soft, hard] =
        open_files(&text).ok_or_else(|| io::Error::other("/proc/self/limits has no `Max open files`"))?;
    if soft == hard {
        return Ok(soft);
    }
    let limit = Some(hard as u64);
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    );
    Ok(if RAISE.record_result(raised) { hard } else { soft })
}

/// The soft and the hard limit in `/proc/self/limits`. getrlimit(2) is not used: rustix assumes that it cannot fail,
/// and reads uninitialised memory where a seccomp profile denies it.
fn open_files(limits: &str) -> Option<[usize; 2]> {
    const NR_OPEN: usize = 1 << 20; // the default of fs.nr_open, which bounds the limit if it is `unlimited`
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap_or(NR_OPEN));
    Some([numbers.next()?, numbers.next()?])
}

/// The number of open descriptors.
///
/// # Errors
/// `/proc` cannot be read.
pub fn open_now() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count().saturating_sub(1)) // without the one that reads the directory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_parsed_as_the_kernel_formats_them() {
        let limits = |numbers| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files  {numbers}  files  \n");
        assert_eq!(open_files(&limits("1024   524288")), Some([1024, 524_288]));
        assert_eq!(open_files(&limits("1024   unlimited")), Some([1024, 1 << 20]));
        assert_eq!(open_files("Max processes  7  7  processes"), None);
    }

    #[test]
    fn shares_use_the_whole_limit_and_never_exceed_it() {
        for limit in (40..4000).chain([20_000, 1 << 20]) {
            for (names, has_cancels) in [(0, false), (0, true), (30, true), (10_000, false)] {
                let demand = DescriptorDemand {
                    has_cancels,
                    ..demand(None, names)
                };
                let shares = DescriptorShares::new(limit, 20, demand);
                let has_free_for_cancels = (limit - 20 - OTHERS) / 16 > 0;
                assert_eq!(shares.cancels > 0, has_cancels && has_free_for_cancels);
                let others = shares.checks + shares.admin + shares.lookups - LOOKUPS_MIN + shares.cancels;
                let sum = 20 + OTHERS + 2 * shares.sessions + 2 * shares.pipes + others;
                assert!(sum <= limit, "{limit}: {shares:?}");
                assert!(sum + 2 >= limit, "{limit}: {shares:?} wastes some");
            }
        }
    }

    fn demand(sessions: Option<usize>, names: usize) -> DescriptorDemand {
        DescriptorDemand {
            sessions,
            checks: 64,
            names,
            ..DescriptorDemand::default()
        }
    }

    #[test]
    fn fixed_shares_stay_and_the_sum_of_all_shares_does_not_exceed_the_limit() {
        let start = DescriptorShares::new(1000, 20, demand(None, 0));
        let fixed = FixedShares {
            pipes: start.pipes,
            admin: start.admin,
        };
        let demand = DescriptorDemand {
            fixed: Some(fixed),
            ..demand(None, 0)
        };
        for open in [20, 100, 500, 800] {
            let shares = DescriptorShares::new(1000, open, demand);
            assert_eq!((shares.pipes, shares.admin), (start.pipes, start.admin));
            let others = shares.checks + shares.admin + shares.lookups - LOOKUPS_MIN;
            let sum = open + OTHERS + 2 * shares.sessions + 2 * shares.pipes + others;
            assert!(sum <= 1000, "{open} are open: {shares:?}");
        }
        assert_eq!(DescriptorShares::new(1000, 20, demand), start);
    }

    #[test]
    fn a_small_limit_leaves_sessions_checks_and_lookups() {
        assert_eq!(
            DescriptorShares::new(64, 24, demand(None, 0)),
            DescriptorShares {
                sessions: 14,
                pipes: 0,
                checks: 4,
                admin: 2,
                lookups: 4,
                cancels: 0
            }
        );
        let sessions = |limit, demanded| DescriptorShares::new(limit, 24, demand(demanded, 0)).sessions;
        assert_eq!(sessions(10, None), 1);
        assert_eq!(sessions(20_000, Some(5)), 5);
        assert_eq!(sessions(64, Some(500)), 14, "500 are more than the limit allows");
    }

    #[test]
    fn lookups_grow_with_the_host_names_up_to_the_limit() {
        let lookups = |limit, names| DescriptorShares::new(limit, 24, demand(None, names)).lookups;
        assert_eq!([0, 21, 10_000].map(|names| lookups(20_000, names)), [4, 21, 128]);
        assert_eq!(lookups(1024, 10_000), 4 + (1024 - 30) / 16);
    }
}
