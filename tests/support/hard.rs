//! What a process costs, and how to take things away from it.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

use std::collections::BTreeSet;
use std::fs::{read_dir, read_link, read_to_string};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{scope, sleep};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::support::client::{Client, ask};
use crate::support::process::must;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{PATIENCE, eventually, found};

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

/// Ends of pipes that a process has open.
pub fn pipes(proxy: &Proxy) -> usize {
    let links = read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
    let targets = links.filter_map(|link| read_link(link.unwrap().path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .count()
}

/// The memory a process holds, in bytes.
pub fn resident(proxy: &Proxy) -> u64 {
    let status = read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// State and unread bytes (an end of stream counts as one) of the TCP sockets that a filter of ss(8) lets through, also
/// of those that nobody has accepted yet or whose process is gone.
pub fn sockets(filter: &str) -> Vec<(String, usize)> {
    let told = must(Command::new("ss").args(["-tanH", filter]));
    let socket = |line: &str| {
        let mut fields = line.split_whitespace().map(str::to_owned);
        (fields.next().unwrap(), fields.next().unwrap().parse().unwrap())
    };
    told.lines().map(socket).collect()
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

/// So many bytes go to a server that sends them back, and come back as they were.
pub fn echoes(client: &Client, count: usize) {
    let sent: Vec<u8> = (0..count).map(|number| (number % 251) as u8).collect();
    echoes_bytes(client, &sent);
}

/// The same with bytes that are there already.
pub fn echoes_bytes(client: &Client, sent: &[u8]) {
    let mut back = vec![0; sent.len()];
    scope(|all| {
        all.spawn(|| (&client.0).write_all(sent).unwrap());
        (&client.0).read_exact(&mut back).unwrap();
    });
    assert!(back == sent, "other bytes came back");
}

/// So many sessions at a listener `l` that echoes, one after the other, each to its end.
pub fn sessions(proxy: &Proxy, count: usize) {
    for _ in 0..count {
        assert_eq!(
            ask(proxy.at("l"), b"ping"),
            b"ping",
            "the log is no concern of a client"
        );
    }
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

/// A listener `tls` that reads names, with a pool for the rest, one `plain` that does not, and one server; with more
/// keys for the listeners.
pub fn two_listeners(server: SocketAddr, keys: &str) -> String {
    format!(
        r#"
        [listeners.tls]
        bind = "127.0.0.1:0"
        pool = "all"
        {keys}
        [[listeners.tls.routes]]
        sni = "good.example"
        pool = "all"

        [listeners.plain]
        bind = "127.0.0.1:0"
        pool = "all"
        {keys}

        [pools.all]
        servers = ["{server}"]
        health = {{ check = "off" }}
        "#
    )
}

/// A client with a receive buffer of about so many bytes.
pub fn narrow_client(address: SocketAddr, bytes: usize) -> Client {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(bytes).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.connect(&address.into()).unwrap();
    Client(socket.into())
}

/// Writes until nothing is taken any more: every buffer on the way is full. Shorter than any bound that a test sets,
/// lest the error that comes then be met here.
pub fn fill(stream: &mut TcpStream) {
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while stream.write(&[0xaa; 1 << 16]).is_ok_and(|written| written > 0) {}
}

/// Everything until the end, and how that came.
pub fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, Result<(), io::ErrorKind>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    (bytes, end.map(|_| ()).map_err(|error| error.kind()))
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A server whose sessions are handed to the test, one at a time.
pub struct Hand {
    pub server: Server,
    sessions: Receiver<TcpStream>,
}

impl Hand {
    pub fn new() -> Self {
        let (give, sessions) = channel();
        let give = Mutex::new(give);
        let server = Server::run(move |stream| {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            let _ = give.lock().unwrap().send(stream); // a test that is over takes none
        });
        Self { server, sessions }
    }

    pub fn session(&self) -> TcpStream {
        self.sessions.recv_timeout(PATIENCE).unwrap()
    }
}

/// Tells threads to stop when it drops, so also when the test fails: the scope would wait for them for ever.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
