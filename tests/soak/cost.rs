//! The resources that the process uses at a moment.

use std::fs::{read_dir, read_link, read_to_string};

use crate::support::proxy::Proxy;

#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub rss_kib: u64,
    pub threads: u64,
    pub sockets: usize,
    pub pipes: usize,
    pub other_descriptors: usize,
}

impl Cost {
    pub fn of(proxy: &Proxy) -> Self {
        let status = read_to_string(format!("/proc/{}/status", proxy.pid())).expect("it runs");
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|rest| rest.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let descriptors: Vec<String> = read_dir(format!("/proc/{}/fd", proxy.pid()))
            .expect("it runs")
            .filter_map(|entry| read_link(entry.ok()?.path()).ok()) // it may be closed by now
            .map(|target| target.to_string_lossy().into_owned())
            .collect();
        let of_kind = |kind: &str| descriptors.iter().filter(|target| target.starts_with(kind)).count();
        let (sockets, pipes) = (of_kind("socket:"), of_kind("pipe:"));
        Self {
            rss_kib: number("VmRSS:"),
            threads: number("Threads:"),
            sockets,
            pipes,
            other_descriptors: descriptors.len() - sockets - pipes,
        }
    }
}
