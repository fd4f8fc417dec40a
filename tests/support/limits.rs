//! Limits on the descriptors of a process.

use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use super::proxy::Proxy;

/// Sets the soft limit of a running process's descriptors.
pub fn limit_descriptors(proxy: &Proxy, soft_limit: u64) {
    let pid = i32::try_from(proxy.pid()).ok().and_then(Pid::from_raw);
    let hard_limit = descriptor_limits(proxy.pid()).1;
    prlimit(
        pid,
        Resource::Nofile,
        Rlimit {
            current: Some(soft_limit),
            maximum: Some(hard_limit),
        },
    )
    .unwrap();
}

/// Limits a running process to this many descriptors more than those it keeps open all the time.
pub fn leave_free_descriptors(proxy: &Proxy, count: usize) {
    let open = || -> BTreeSet<u64> {
        let names = read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
            .collect()
    };
    let mut always = open();
    for _ in 0..20 {
        sleep(Duration::from_millis(10));
        always = &always & &open(); // without short-lived ones, such as those of a check or an admin connection
    }
    // A new descriptor gets the smallest free number, and must be below the limit.
    let limit = (0..).filter(|number| !always.contains(number)).nth(count);
    limit_descriptors(proxy, limit.expect("the sequence is endless"));
}

/// The soft and the hard limit of a process's descriptors.
pub fn descriptor_limits(pid: u32) -> (u64, u64) {
    let limits = read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

/// Raises the test's own soft limit to its hard limit, for tests with many clients.
pub fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .unwrap();
}
