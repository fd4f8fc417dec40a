//! What a process uses: CPU time, descriptors, memory, sockets.

use std::fs::{read_dir, read_link, read_to_string};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::eventually;
use super::process::must;
use super::proxy::Proxy;

/// In ticks of USER_HZ, which is 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time a process has used so far, user and system.
pub fn cpu_time(proxy: &Proxy) -> Duration {
    let stat = read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    // The name, in parentheses, may hold anything; of what follows utime is the 12th field and stime the 13th.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u32 = fields[11..13].iter().map(|field| field.parse::<u32>().unwrap()).sum();
    TICK * ticks
}

/// The CPU time it uses in a stretch of time in which nothing is asked of it.
pub fn cpu_time_over(proxy: &Proxy, time: Duration) -> Duration {
    let before = cpu_time(proxy);
    sleep(time);
    cpu_time(proxy) - before
}

/// The descriptors a process has open.
pub fn descriptors(proxy: &Proxy) -> usize {
    read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count()
}

/// Waits until it has no more descriptors than that.
pub fn descriptors_fall_to(proxy: &Proxy, baseline: usize) {
    eventually("its descriptors return", || descriptors(proxy) <= baseline);
}

/// Ends of pipes that a process has open.
pub fn pipes(proxy: &Proxy) -> usize {
    let links = read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
    let targets = links.filter_map(|link| read_link(link.unwrap().path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .count()
}

/// The memory a process holds, in bytes.
pub fn resident_bytes(proxy: &Proxy) -> u64 {
    let status = read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// State and unread bytes (an end of stream counts as one) of the TCP sockets that a filter of ss(8) lets through, also
/// of those that nobody has accepted yet or whose process is gone.
pub fn tcp_sockets(filter: &str) -> Vec<(String, usize)> {
    let told = must(Command::new("ss").args(["-tanH", filter]));
    let socket = |line: &str| {
        let mut fields = line.split_whitespace().map(str::to_owned);
        (fields.next().unwrap(), fields.next().unwrap().parse().unwrap())
    };
    told.lines().map(socket).collect()
}
