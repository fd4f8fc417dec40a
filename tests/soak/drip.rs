//! Thousands of clients that say a byte of their hello a second, beside good ones.
//!
//! As many as the descriptors of one process allow; whoever is ended by the bound of a hello comes back at once. Good
//! clients ask by name, one after the other: alone at first, then beside them, and alone again.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::book::{End, address};
use crate::client::{Client, Clients, hello};
use crate::cost::Cost;
use crate::kinds::{Script, good};
use crate::support::counts::{active_sessions, ended_sessions};
use crate::support::limits::raise_descriptor_limit;
use crate::support::proxy::Proxy;
use crate::support::usage::cpu_time;
use crate::support::{self, eventually};
use crate::{Stage, verdict};

/// Who drips, at most.
const DRIPPERS_MAX: usize = 10_000;

/// Places that are left to good clients.
const PLACES_LEFT: usize = 100;

/// Between two bytes of one.
const EVERY: Duration = Duration::from_secs(1);

/// How many take turns within it.
const PARTS: u32 = 100;

/// Between two good clients.
const PAUSE: Duration = Duration::from_millis(5);

/// How much longer a good client may take beside them, at the 99th percentile.
const RATIO_MAX: f64 = 1.5;

/// What they may cost, in seconds of CPU time a second: each says a byte, and an eighth of them comes and goes.
const CPU_MAX: f64 = 0.3;

/// What one may cost in memory, in its eight seconds.
const BYTES_EACH_MAX: usize = 8 * 1024;

pub fn run(stage: &Stage, time: Duration) -> ExitCode {
    raise_descriptor_limit();
    let proxy = &stage.proxy;
    let drippers = DRIPPERS_MAX.min(room(proxy) - PLACES_LEFT);
    println!("{drippers} clients drip, of {DRIPPERS_MAX} wanted: as many as descriptors allow");
    let clients = stage.load.clients();
    let alone = measure(stage, &clients, 0, time);
    println!("alone:       {alone}");
    let before = Cost::of(proxy);
    let crowd = Arc::<Crowd>::default();
    let dripping = {
        let (crowd, to) = (Arc::clone(&crowd), proxy.at("names"));
        let hello = hello(clients.tls.config(), "shop.example.com");
        thread::spawn(move || crowd.drip(drippers, to, &hello))
    };
    // At any moment some have just been ended, and come back.
    eventually("nearly all of them are there", || {
        active_sessions(proxy) >= drippers as f64 * 0.95
    });
    let beside = measure(stage, &clients, alone.count, time);
    println!("beside them: {beside}");
    let bytes_each = (Cost::of(proxy).rss_kib.saturating_sub(before.rss_kib) * 1024) as usize / drippers;
    crowd.is_over.store(true, Relaxed);
    dripping.join().unwrap();
    let again = measure(stage, &clients, alone.count + beside.count, time);
    println!("alone again: {again}");
    let (left, counted) = (crowd.ended.load(Relaxed), ended_sessions(proxy, "hello_timeout"));
    let ratio = beside.p99_usual.as_secs_f64() / alone.p99_usual.max(again.p99_usual).as_secs_f64();
    println!("p99 is usually {ratio:.2} times what it is alone, at most {RATIO_MAX}");
    println!("{bytes_each} bytes of resident memory for each; {left} came to their end, {counted} by hello_timeout");
    let mut violations = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            violations.push(what.to_owned());
        }
    };
    must(ratio <= RATIO_MAX, "good clients wait");
    must(beside.cpu <= CPU_MAX, "too much CPU time");
    must(bytes_each <= BYTES_EACH_MAX, "too much memory");
    must(left as f64 == counted, "others ended than were counted");
    must(again.all_well, "good clients were not served");
    verdict(&violations)
}

/// The sessions there may be, as it says when it starts.
fn room(proxy: &Proxy) -> usize {
    let log = proxy.log();
    let line = log.iter().find(|line| line["message"] == "room");
    usize::try_from(line.unwrap()["sessions"].as_u64().unwrap()).unwrap()
}

/// Good clients over some time.
struct Measured {
    count: u32,
    p50: Duration,
    p99: Duration,
    /// The median of the p99 of each hundred: moments in which the machine was busy with something else do not count.
    p99_usual: Duration,
    /// Seconds of CPU time of acequia a second.
    cpu: f64,
    all_well: bool,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} good clients, p50 {:.2?}, p99 {:.2?}, usually {:.2?}; {:.3} s of CPU time a second",
            self.count, self.p50, self.p99, self.p99_usual, self.cpu
        )
    }
}

/// Serves good clients for so long, numbered after those that were before.
fn measure(stage: &Stage, clients: &Arc<Clients>, before: u32, time: Duration) -> Measured {
    let (to, all) = (stage.proxy.at("names"), Arc::clone(clients));
    let (tell, told) = channel();
    let (began, used) = (Instant::now(), cpu_time(&stage.proxy));
    stage.handle.spawn(async move {
        let mut took = Vec::new();
        while began.elapsed() < time {
            let client = Client {
                // Beyond those that drip.
                number: DRIPPERS_MAX as u32 + before + took.len() as u32,
                kind: "good",
                greeted: false,
                script: Script::Talk(good()),
                to,
            };
            let begins = Instant::now();
            client.run(Arc::clone(&all)).await;
            took.push(begins.elapsed());
            sleep(PAUSE).await;
        }
        tell.send(took)
    });
    let mut took = told.recv().unwrap();
    let cpu = (cpu_time(&stage.proxy) - used).as_secs_f64() / began.elapsed().as_secs_f64();
    let p99_usual = p99_usual(&took);
    took.sort_unstable();
    let pages = stage.load.book.pages();
    Measured {
        count: u32::try_from(took.len()).unwrap(),
        p50: took[took.len() / 2],
        p99: took[took.len() * 99 / 100],
        p99_usual,
        cpu,
        all_well: pages
            .values()
            .all(|page| page.client.is_none_or(|(_, side)| side.end == End::Well)),
    }
}

fn p99_usual(took: &[Duration]) -> Duration {
    let p99 = |hundred: &[Duration]| {
        let mut hundred = hundred.to_vec();
        hundred.sort_unstable();
        hundred[(hundred.len() - 1) * 99 / 100]
    };
    let mut each: Vec<_> = took.chunks(100).map(p99).collect();
    each.sort_unstable();
    each[each.len() / 2]
}

/// Those who drip, on a thread of their own.
#[derive(Default)]
struct Crowd {
    is_over: AtomicBool,
    /// Sessions of theirs that acequia has ended.
    ended: AtomicU64,
}

impl Crowd {
    /// Until it is over, and each has been ended for the last time. A part of them at a time, so that their bytes are
    /// spread over the second.
    fn drip(&self, count: usize, to: SocketAddr, hello: &[u8]) {
        let mut all: Vec<Option<Dripper>> = (0..count).map(|_| None).collect();
        let part = count.div_ceil(PARTS as usize);
        while !self.is_over.load(Relaxed) || all.iter().any(Option::is_some) {
            for (number, some) in all.chunks_mut(part).enumerate() {
                let began = Instant::now();
                for (dripper, number) in some.iter_mut().zip(number * part..) {
                    if dripper.as_mut().is_some_and(|dripper| !dripper.drip(hello)) {
                        *dripper = None;
                        self.ended.fetch_add(1, Relaxed);
                    }
                    if dripper.is_none() && !self.is_over.load(Relaxed) {
                        *dripper = Some(Dripper::come(number, to));
                    }
                }
                thread::sleep((EVERY / PARTS).saturating_sub(began.elapsed()));
            }
        }
    }
}

/// One of them, and the bytes it has said.
struct Dripper(TcpStream, usize);

impl Dripper {
    fn come(number: usize, to: SocketAddr) -> Self {
        let source = address(u32::try_from(number).unwrap()).to_string();
        let stream = support::client::Client::connect_from(&source, to).0;
        stream.set_nonblocking(true).unwrap();
        Self(stream, 0)
    }

    /// Says another byte; whether it may go on.
    fn drip(&mut self, hello: &[u8]) -> bool {
        let goes_on = matches!(self.0.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        if goes_on {
            let _ = self.0.write_all(&hello[self.1..=self.1]); // the end is seen by the next read
            self.1 += 1;
        }
        goes_on
    }
}
