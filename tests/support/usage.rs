//! What a process uses: CPU time, descriptors, memory, sockets.

use std::fs::{read_dir, read_link, read_to_string};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::eventually;
use super::process::must;
use super::proxy::Proxy;

/// The unit of CPU time in /proc: 1/USER_HZ. USER_HZ is 100 on x86-64 and arm64.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time a process has used so far, user and system.
pub fn cpu_time(proxy: &Proxy) -> Duration {
    let stat = read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    // The command name, in parentheses, may contain anything. After it, utime is the 12th field and stime the 13th.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u32 = fields[11..13].iter().map(|field| field.parse::<u32>().unwrap()).sum();
    TICK * ticks
}

/// The CPU time that a process uses while the caller waits for this long.
pub fn cpu_time_over(proxy: &Proxy, time: Duration) -> Duration {
    let before = cpu_time(proxy);
    sleep(time);
    cpu_time(proxy) - before
}

/// The number of descriptors that a process has open.
pub fn descriptors(proxy: &Proxy) -> usize {
    read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count()
}

/// Waits until a process has at most this many descriptors.
pub fn descriptors_fall_to(proxy: &Proxy, baseline: usize) {
    eventually("the process has no more descriptors than the baseline", || {
        descriptors(proxy) <= baseline
    });
}

/// The number of a process's open descriptors of one kind. The target of their links in /proc, such as `socket:[7]`,
/// begins with `prefix`.
pub fn descriptors_of(proxy: &Proxy, prefix: &str) -> usize {
    let links = read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
    let targets = links.filter_map(|link| read_link(link.unwrap().path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with(prefix))
        .count()
}

/// The number of pipe ends that a process has open.
pub fn pipes(proxy: &Proxy) -> usize {
    descriptors_of(proxy, "pipe:")
}

/// The anonymous resident memory of a process in bytes. Pages of files are left out: code is paged in when it first
/// runs, whatever clients do.
pub fn anonymous_bytes(proxy: &Proxy) -> u64 {
    let status = read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// State and unread bytes (an end of stream counts as one) of the TCP sockets that match a filter of ss(8), including
/// sockets that are not accepted yet or whose process has ended. Of a listening socket: the clients not yet accepted.
pub fn tcp_sockets(filter: &str) -> Vec<(String, usize)> {
    let output = must(Command::new("ss").args(["-tanH", filter]));
    let socket = |line: &str| {
        let mut fields = line.split_whitespace().map(str::to_owned);
        (fields.next().unwrap(), fields.next().unwrap().parse().unwrap())
    };
    output.lines().map(socket).collect()
}
