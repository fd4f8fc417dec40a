//! Limits on the descriptors of a process.

use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use super::proxy::Proxy;

/// Bounds the descriptors of a running process.
pub fn limit_descriptors(proxy: &Proxy, current: u64) {
    let pid = i32::try_from(proxy.pid()).ok().and_then(Pid::from_raw);
    let maximum = descriptor_limits(proxy.pid()).1;
    prlimit(
        pid,
        Resource::Nofile,
        Rlimit {
            current: Some(current),
            maximum: Some(maximum),
        },
    )
    .unwrap();
}

/// Leaves a running process so many descriptors, besides those it always has.
pub fn leave_descriptors(proxy: &Proxy, count: usize) {
    let open = || -> BTreeSet<u64> {
        let names = read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
            .collect()
    };
    let mut always = open();
    for _ in 0..20 {
        sleep(Duration::from_millis(10)); // others are those of a moment: of a check, of a visit to the admin port
        always = &always & &open();
    }
    // A new one gets the smallest number that is free.
    let limit = (0..).filter(|number| !always.contains(number)).nth(count);
    limit_descriptors(proxy, limit.expect("numbers do not end"));
}

/// The soft and the hard limit of a process's descriptors.
pub fn descriptor_limits(pid: u32) -> (u64, u64) {
    let limits = read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

/// Raises our own limit of descriptors as far as it goes: a test holds many clients.
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
