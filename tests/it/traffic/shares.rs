//! Sessions are distributed evenly among the workers.

use std::collections::BTreeSet;
use std::fs::{read_dir, read_link, read_to_string};
use std::path::{Path, PathBuf};

use crate::support::client::{ask, served_client};
use crate::support::configs::one_pool;
use crate::support::counts::wait_for_active_sessions;
use crate::support::limits::raise_descriptor_limit;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

const LONG_SESSIONS: usize = 200;
const SHORT_SESSIONS: usize = 4_000;

fn entries(directory: &Path) -> Vec<PathBuf> {
    read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// The descriptors registered in each epoll instance of the process. The result is a set, because the process may
/// have several descriptors of the same instance.
fn registered_descriptors(proxy: &Proxy) -> BTreeSet<BTreeSet<u32>> {
    let process = Path::new("/proc").join(proxy.pid().to_string());
    let descriptors = entries(&process.join("fd"));
    let is_epoll = |path: &&PathBuf| read_link(path).is_ok_and(|target| target.ends_with("anon_inode:[eventpoll]"));
    let registered = |path: &PathBuf| {
        let text = read_to_string(process.join("fdinfo").join(path.file_name().unwrap())).unwrap();
        let number = |line: &str| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok();
        text.lines().filter_map(number).collect()
    };
    descriptors.iter().filter(is_epoll).map(registered).collect()
}

/// The CPU time of each worker so far, in nanoseconds.
fn worker_cpu_ns(proxy: &Proxy) -> Vec<u64> {
    let threads = entries(&Path::new("/proc").join(proxy.pid().to_string()).join("task"));
    let is_worker = |thread: &&PathBuf| read_to_string(thread.join("comm")).unwrap().starts_with("worker-");
    let time = |thread: &PathBuf| {
        let text = read_to_string(thread.join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    threads.iter().filter(is_worker).map(time).collect()
}

#[test]
fn long_and_short_sessions_are_spread_evenly_over_workers() {
    raise_descriptor_limit();
    let server = Server::echo();
    let proxy = Proxy::start(&format!("[runtime]\nworkers = 3\n{}", one_pool(&[server.address], "")));
    let long: Vec<_> = (0..LONG_SESSIONS).map(|_| served_client(proxy.at("l"))).collect();
    wait_for_active_sessions(&proxy, LONG_SESSIONS);
    let mut counts: Vec<_> = registered_descriptors(&proxy).iter().map(BTreeSet::len).collect();
    counts.sort_unstable();
    // The workers have the sessions, so the three largest epoll instances are theirs. Each session has two sockets.
    let of_workers = &counts[counts.len() - 3..];
    assert!(of_workers.iter().sum::<usize>() >= 2 * LONG_SESSIONS, "{counts:?}");
    assert!(of_workers[2] <= 2 * of_workers[0], "{counts:?}");
    let before = worker_cpu_ns(&proxy);
    (0..SHORT_SESSIONS).for_each(|_| drop(ask(proxy.at("l"), b"ping")));
    let work: Vec<_> = worker_cpu_ns(&proxy)
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    assert_eq!(work.len(), 3);
    let (least, most) = (work.iter().min().unwrap(), work.iter().max().unwrap());
    assert!(*most <= 2 * least, "{work:?}");
    drop(long);
}
