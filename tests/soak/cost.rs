//! The resources that the acequia process uses at a moment.

use std::fs::{read_dir, read_link, read_to_string};

use crate::support::proxy::Proxy;

#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub rss_kib: u64,
    /// Threads, except those of tokio's blocking pool.
    pub threads: usize,
    /// Threads of that pool: lookups, reloads and metrics run on them. An idle one ends after 10 s.
    pub blocking_threads: usize,
    pub sockets: usize,
    pub pipes: usize,
    pub other_descriptors: usize,
}

impl Cost {
    pub fn measure(proxy: &Proxy) -> Self {
        let status = read_to_string(format!("/proc/{}/status", proxy.pid())).expect("it runs");
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        let descriptors: Vec<String> = read_dir(format!("/proc/{}/fd", proxy.pid()))
            .expect("it runs")
            .filter_map(|entry| read_link(entry.ok()?.path()).ok()) // it may be closed by now
            .map(|target| target.to_string_lossy().into_owned())
            .collect();
        let count_of_kind = |kind: &str| descriptors.iter().filter(|target| target.starts_with(kind)).count();
        let (sockets, pipes) = (count_of_kind("socket:"), count_of_kind("pipe:"));
        let tasks = read_dir(format!("/proc/{}/task", proxy.pid())).expect("it runs");
        let names: Vec<String> = tasks
            .filter_map(|task| read_to_string(task.ok()?.path().join("comm")).ok()) // it may have ended by now
            .collect();
        let blocking_threads = names.iter().filter(|name| name.starts_with("tokio-")).count();
        Self {
            rss_kib: number("VmRSS:"),
            threads: names.len() - blocking_threads,
            blocking_threads,
            sockets,
            pipes,
            other_descriptors: descriptors.len() - sockets - pipes,
        }
    }
}
