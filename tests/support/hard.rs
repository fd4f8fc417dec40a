//! What a process costs, and how to take things away from it.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

use std::fs::{read_dir, read_to_string};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::support::client::Client;
use crate::support::proxy::Proxy;
use crate::support::{eventually, found};

/// In ticks of USER_HZ, which is 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time a process has used so far, user and system.
pub fn cpu(proxy: &Proxy) -> Duration {
    let stat = read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    // The name, in parentheses, may hold anything; of what follows utime is the 12th field and stime the 13th.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u32 = fields[11..13].iter().map(|field| field.parse::<u32>().unwrap()).sum();
    TICK * ticks
}

/// The CPU time it uses in a stretch of time in which nothing is asked of it.
pub fn cpu_over(proxy: &Proxy, time: Duration) -> Duration {
    let before = cpu(proxy);
    sleep(time);
    cpu(proxy) - before
}

/// The descriptors a process has open.
pub fn descriptors(proxy: &Proxy) -> usize {
    read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count()
}

/// Waits until it has no more descriptors than that.
pub fn descriptors_fall_to(proxy: &Proxy, baseline: usize) {
    eventually("its descriptors return", || descriptors(proxy) <= baseline);
}

/// Bounds the descriptors of a running process.
pub fn limit_descriptors(proxy: &Proxy, current: u64) {
    let pid = i32::try_from(proxy.pid()).ok().and_then(Pid::from_raw);
    let maximum = limits_of(proxy.pid()).1;
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

/// The soft and the hard limit of a process's descriptors.
pub fn limits_of(pid: u32) -> (u64, u64) {
    let limits = read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

/// Raises our own limit of descriptors as far as it goes: a test holds many clients.
pub fn many_descriptors() {
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

/// Sessions open now.
pub fn active(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("acequia_sessions_active", &[])
}

/// Waits until so many sessions are open.
pub fn active_becomes(proxy: &Proxy, sessions: usize) {
    eventually("so many sessions are open", || active(proxy) == sessions as f64);
}

/// Sessions that have ended so.
pub fn ended(proxy: &Proxy, ending: &str) -> f64 {
    proxy.metrics().sum("acequia_sessions_total", &[("ending", ending)])
}

/// Waits until so many have.
pub fn ended_becomes(proxy: &Proxy, ending: &str, sessions: usize) {
    found(ending, || (ended(proxy, ending) >= sessions as f64).then_some(()));
    assert_eq!(ended(proxy, ending), sessions as f64, "{ending}");
}

/// Lines of the log that say so.
pub fn said(proxy: &Proxy, message: &str) -> usize {
    proxy.log().iter().filter(|line| line["message"] == message).count()
}

/// Echoes once: the session is served.
pub fn is_served(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.send(b"ping");
    assert_eq!(client.read(4), b"ping");
    client
}

/// So many clients, each of which has sent a ping.
pub fn askers(address: SocketAddr, count: usize) -> Vec<Client> {
    let asker = |_| {
        let mut client = Client::connect(address);
        client.send(b"ping");
        client.0.set_nonblocking(true).unwrap();
        client
    };
    (0..count).map(asker).collect()
}

/// Takes out those of [`askers`] that have their answer.
pub fn take_answered(waiting: &mut Vec<Client>) -> Vec<Client> {
    let answered = |client: &mut Client| match client.0.read(&mut [0; 4]) {
        Ok(4) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        other => panic!("a client that waits is told {other:?}"),
    };
    waiting.extract_if(.., answered).collect()
}

/// Whoever of [`askers`] has its answer leaves, until all have been served. Returns how many were at once, at most.
pub fn serve_in_turn(mut waiting: Vec<Client>) -> usize {
    let mut most = 0;
    while !waiting.is_empty() {
        let served = found("one of them is served", || {
            Some(take_answered(&mut waiting)).filter(|served| !served.is_empty())
        });
        most = most.max(served.len());
    }
    most
}
