//! The process's file descriptors: as many as it may have, and what they are kept for.
//!
//! A session needs two. Whoever is let in must also be able to be dialled for; so the places for sessions are what is
//! left when everything else has its share.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::optional::OptionalCall;

static RAISE: OptionalCall = OptionalCall::new("setrlimit(RLIMIT_NOFILE)", "fewer sessions fit: raise `ulimit -n`");

/// Pipes for splicing, each two descriptors: an unprivileged user has memory for 256 of full size.
const PIPES_MAX: usize = 256;

/// Of what may be kept for sessions, the part that goes to pipes: 1 / this.
const PIPES_SHARE: usize = 16;

/// Connections of the admin port and the Unix socket at once, half of them each.
const ADMIN_MAX: usize = 16;

/// The log file, the first of the lookups, `/proc` while metrics are read.
const SUNDRY: usize = 2 + LOOKUPS_MIN;

/// Lookups of host names that may be under way at once, at least and at most: each has a socket, and a thread of those
/// that also read files (tokio starts at most 512).
const LOOKUPS_MIN: usize = 4;
const LOOKUPS_MAX: usize = 128;

/// What the descriptors are kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorShares {
    /// Sessions of the whole process; at least one.
    pub sessions: usize,
    /// Pipes of the whole process.
    pub pipes: usize,
    /// Checks under way at once; at least one.
    pub checks: usize,
    /// Connections of the admin port and the Unix socket at once; at least one.
    pub admin: usize,
    /// Lookups of host names under way at once; 4 to 128.
    pub lookups: usize,
}

/// How much of something would be used. Less than would fit may be wanted, more is not to be had.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// `max_connections`; `None`: as many as there can be.
    pub sessions: Option<usize>,
    /// The largest `concurrency`.
    pub checks: usize,
    /// Host names among the servers.
    pub names: usize,
}

impl DescriptorShares {
    /// Divides `limit` descriptors of which `open` are taken.
    #[must_use]
    pub fn new(limit: usize, open: usize, wanted: Wanted) -> Self {
        let free = limit.saturating_sub(open + SUNDRY);
        let checks = wanted.checks.min(free / 8).max(1);
        let admin = ADMIN_MAX.min(free / 16).max(1);
        let lookups = wanted
            .names
            .clamp(LOOKUPS_MIN, LOOKUPS_MAX)
            .min(LOOKUPS_MIN + free / 16);
        let rest = free.saturating_sub(checks + admin + lookups - LOOKUPS_MIN);
        let pipes = PIPES_MAX.min(rest / PIPES_SHARE / 2);
        let sessions = (rest - 2 * pipes) / 2;
        Self {
            sessions: wanted.sessions.unwrap_or(sessions).min(sessions).max(1),
            pipes,
            checks,
            admin,
            lookups,
        }
    }
}

/// Raises the soft limit of open files to the hard one. Returns the limit in force.
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
    Ok(if RAISE.try_result(raised) { hard } else { soft })
}

/// The soft and the hard limit in `/proc/self/limits`. Not getrlimit(2): rustix takes it for a call that cannot fail, and
/// reads uninitialised memory where a seccomp profile refuses it.
fn open_files(limits: &str) -> Option<[usize; 2]> {
    const NR_OPEN: usize = 1 << 20; // the default of fs.nr_open, the kernel's own bound where the limit is `unlimited`
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap_or(NR_OPEN));
    Some([numbers.next()?, numbers.next()?])
}

/// Descriptors that are open now.
///
/// # Errors
/// `/proc` is not there.
pub fn open_now() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count().saturating_sub(1)) // less the one that reads it
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let limits = |numbers| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files  {numbers}  files  \n");
        assert_eq!(open_files(&limits("1024   524288")), Some([1024, 524_288]));
        assert_eq!(open_files(&limits("1024   unlimited")), Some([1024, 1 << 20]));
        assert_eq!(open_files("Max processes  7  7  processes"), None);
    }

    #[test]
    fn the_shares_never_exceed_the_limit() {
        for limit in (40..4000).chain([20_000, 1 << 20]) {
            for names in [0, 30, 10_000] {
                let budget = DescriptorShares::new(limit, 20, wanted(None, names));
                let others = budget.checks + budget.admin + budget.lookups - LOOKUPS_MIN;
                let sum = 20 + SUNDRY + 2 * budget.sessions + 2 * budget.pipes + others;
                assert!(sum <= limit, "{limit}: {budget:?}");
                assert!(sum + 2 >= limit, "{limit}: {budget:?} wastes some");
            }
        }
    }

    fn wanted(sessions: Option<usize>, names: usize) -> Wanted {
        Wanted {
            sessions,
            checks: 64,
            names,
        }
    }

    #[test]
    fn a_small_limit_still_serves() {
        assert_eq!(
            DescriptorShares::new(64, 24, wanted(None, 0)),
            DescriptorShares {
                sessions: 14,
                pipes: 0,
                checks: 4,
                admin: 2,
                lookups: 4
            }
        );
        let sessions = |limit, most| DescriptorShares::new(limit, 24, wanted(most, 0)).sessions;
        assert_eq!(sessions(10, None), 1);
        assert_eq!(sessions(20_000, Some(5)), 5);
        assert_eq!(sessions(64, Some(500)), 14, "more is not to be had");
    }

    #[test]
    fn host_names_have_as_many_lookups_as_they_need_and_the_limit_allows() {
        let lookups = |limit, names| DescriptorShares::new(limit, 24, wanted(None, names)).lookups;
        assert_eq!([0, 21, 10_000].map(|names| lookups(20_000, names)), [4, 21, 128]);
        assert_eq!(lookups(1024, 10_000), 4 + (1024 - 30) / 16);
    }
}
