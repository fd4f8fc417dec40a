//! Thousands of clients that send a byte of their hello per second, beside good clients.
//!
//! The crowd of clients that drip is as large as acequia's descriptors allow, up to [`DRIPPERS_MAX`]. A client whose
//! session ends with hello_timeout reconnects when its next byte is due. Good clients, which are routed by server name,
//! connect one after the other: alone at first, then beside the crowd, and alone again.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::{Client, Clients, hello};
use crate::cost::Cost;
use crate::kinds::{Script, good};
use crate::records::{End, address};
use crate::support::counts::{active_sessions, ended_sessions, log_lines};
use crate::support::limits::raise_descriptor_limit;
use crate::support::proxy::Proxy;
use crate::support::usage::cpu_time;
use crate::support::{self, eventually};
use crate::{Testbed, report_violations};

/// The most clients that drip.
const DRIPPERS_MAX: usize = 10_000;

/// The number of sessions that the crowd leaves for good clients.
const SESSIONS_LEFT: usize = 100;

/// The interval between two bytes of one client.
const BYTE_INTERVAL: Duration = Duration::from_secs(1);

/// The number of parts of the crowd. The parts send one after the other within [`BYTE_INTERVAL`].
const PARTS: u32 = 100;

/// The pause between two good clients.
const PAUSE: Duration = Duration::from_millis(5);

/// Allowed [`Measured::p99_typical`] beside the crowd, as a multiple of that without the crowd.
const RATIO_MAX: f64 = 1.5;

/// Allowed CPU time of acequia, in seconds per second. In a second each client sends a byte, and an eighth of the
/// clients reconnect, because hello_timeout is 8 s.
const CPU_MAX: f64 = 0.3;

/// Allowed growth of acequia's resident memory per client that drips.
const BYTES_EACH_MAX: usize = 8 * 1024;

pub fn run(testbed: &Testbed, time: Duration) -> ExitCode {
    raise_descriptor_limit();
    let proxy = &testbed.proxy;
    let drippers = DRIPPERS_MAX.min(capacity(proxy) - SESSIONS_LEFT);
    println!("{drippers} clients drip, as many of {DRIPPERS_MAX} as descriptors allow");
    let clients = testbed.load.clients();
    let alone = measure(testbed, &clients, 0, time);
    println!("alone:       {alone}");
    let before = Cost::measure(proxy);
    let crowd = Arc::<Crowd>::default();
    let dripping = {
        let (crowd, to) = (Arc::clone(&crowd), proxy.at("names"));
        let hello = hello(clients.tls.config(), "shop.example.com");
        thread::spawn(move || crowd.drip(drippers, to, &hello))
    };
    // At any moment acequia has just closed some of the sessions, and their clients have not reconnected yet.
    eventually("95 % of the crowd have sessions", || {
        active_sessions(proxy) >= drippers as f64 * 0.95
    });
    let beside = measure(testbed, &clients, alone.count, time);
    println!("beside them: {beside}");
    let bytes_each = (Cost::measure(proxy).rss_kib.saturating_sub(before.rss_kib) * 1024) as usize / drippers;
    crowd.is_over.store(true, Relaxed);
    dripping.join().unwrap();
    let again = measure(testbed, &clients, alone.count + beside.count, time);
    println!("alone again: {again}");
    let (closed, counted) = (crowd.closed.load(Relaxed), ended_sessions(proxy, "hello_timeout"));
    let ratio = beside.p99_typical.as_secs_f64() / alone.p99_typical.max(again.p99_typical).as_secs_f64();
    println!("typical p99 is {ratio:.2} times that without the crowd; limit {RATIO_MAX}");
    println!(
        "{bytes_each} bytes of resident memory per client; {closed} clients were closed, {counted} by hello_timeout"
    );
    let mut violations = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            violations.push(what.to_owned());
        }
    };
    must(ratio <= RATIO_MAX, "good clients are delayed");
    must(beside.cpu <= CPU_MAX, "too much CPU time");
    must(bytes_each <= BYTES_EACH_MAX, "too much memory");
    must(
        closed as f64 == counted,
        "closed clients and hello_timeout endings differ",
    );
    must(again.all_well, "some good clients were not served");
    report_violations(&violations)
}

/// The largest number of sessions, as acequia logs it at the start.
fn capacity(proxy: &Proxy) -> usize {
    let sessions = &log_lines(proxy, "room", 1)[0]["sessions"];
    usize::try_from(sessions.as_u64().unwrap()).unwrap()
}

/// Measurements of good clients over some time. The percentiles are of the times from connect to end.
struct Measured {
    count: u32,
    p50: Duration,
    p99: Duration,
    /// The median of the p99 of every hundred clients, which ignores moments when the machine is busy with other work.
    p99_typical: Duration,
    /// CPU time of acequia in seconds per second.
    cpu: f64,
    /// Whether all good clients were served, those of earlier measurements too.
    all_well: bool,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} good clients, p50 {:.2?}, p99 {:.2?}, typically {:.2?}; {:.3} s of CPU time per second",
            self.count, self.p50, self.p99, self.p99_typical, self.cpu
        )
    }
}

/// Runs good clients for this long; `earlier` is the number of good clients that have run before.
fn measure(testbed: &Testbed, clients: &Arc<Clients>, earlier: u32, time: Duration) -> Measured {
    let (to, clients) = (testbed.proxy.at("names"), Arc::clone(clients));
    let (sender, results) = channel();
    let (began, used) = (Instant::now(), cpu_time(&testbed.proxy));
    testbed.handle.spawn(async move {
        let mut took = Vec::new();
        while began.elapsed() < time {
            let client = Client {
                // The lower numbers belong to the clients that drip and to earlier good clients.
                number: DRIPPERS_MAX as u32 + earlier + took.len() as u32,
                kind: "good",
                is_greeted: false,
                script: Script::Talk(good()),
                to,
            };
            let client_began = Instant::now();
            client.run(Arc::clone(&clients)).await;
            took.push(client_began.elapsed());
            sleep(PAUSE).await;
        }
        sender.send(took)
    });
    let mut took = results.recv().unwrap();
    let cpu = (cpu_time(&testbed.proxy) - used).as_secs_f64() / began.elapsed().as_secs_f64();
    let p99_typical = p99_typical(&took);
    took.sort_unstable();
    let records = testbed.load.records.all();
    Measured {
        count: u32::try_from(took.len()).unwrap(),
        p50: took[took.len() / 2],
        p99: took[took.len() * 99 / 100],
        p99_typical,
        cpu,
        all_well: records
            .values()
            .filter_map(|record| record.client)
            .all(|(_, side)| side.end == End::Well),
    }
}

fn p99_typical(took: &[Duration]) -> Duration {
    let p99 = |hundred: &[Duration]| {
        let mut hundred = hundred.to_vec();
        hundred.sort_unstable();
        hundred[(hundred.len() - 1) * 99 / 100]
    };
    let mut each: Vec<_> = took.chunks(100).map(p99).collect();
    each.sort_unstable();
    each[each.len() / 2]
}

/// The clients that drip, on a thread of their own.
#[derive(Default)]
struct Crowd {
    is_over: AtomicBool,
    /// The number of their sessions that acequia has closed.
    closed: AtomicU64,
}

impl Crowd {
    /// Drips until `is_over` is set and every session is closed. Sends for one part of the clients at a time, so that
    /// the bytes are spread over the second.
    fn drip(&self, count: usize, to: SocketAddr, hello: &[u8]) {
        let mut all: Vec<Option<Dripper>> = (0..count).map(|_| None).collect();
        let part_size = count.div_ceil(PARTS as usize);
        while !self.is_over.load(Relaxed) || all.iter().any(Option::is_some) {
            for (index, part) in all.chunks_mut(part_size).enumerate() {
                let began = Instant::now();
                for (dripper, number) in part.iter_mut().zip(index * part_size..) {
                    if dripper.as_mut().is_some_and(|dripper| !dripper.drip(hello)) {
                        *dripper = None;
                        self.closed.fetch_add(1, Relaxed);
                    }
                    if dripper.is_none() && !self.is_over.load(Relaxed) {
                        *dripper = Some(Dripper::connect(number, to));
                    }
                }
                thread::sleep((BYTE_INTERVAL / PARTS).saturating_sub(began.elapsed()));
            }
        }
    }
}

/// A client that drips.
struct Dripper {
    stream: TcpStream,
    bytes_sent: usize,
}

impl Dripper {
    fn connect(number: usize, to: SocketAddr) -> Self {
        let source = address(u32::try_from(number).unwrap()).to_string();
        let stream = support::client::Client::connect_from(&source, to).0;
        stream.set_nonblocking(true).unwrap();
        Self { stream, bytes_sent: 0 }
    }

    /// Sends another byte; returns false when acequia has closed the session.
    fn drip(&mut self, hello: &[u8]) -> bool {
        let goes_on = matches!(self.stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        if goes_on {
            let next_byte = &hello[self.bytes_sent..=self.bytes_sent];
            let _ = self.stream.write_all(next_byte); // after an error, the next read sees the end
            self.bytes_sent += 1;
        }
        goes_on
    }
}
