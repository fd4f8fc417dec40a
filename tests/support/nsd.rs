//! nsd, a real name server, and a relay in front of it that records the queries.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::Instant;

use super::process::{Port, Process};
use super::wait_for;

/// Types of records (RFC 1035, section 3.2.2; RFC 2782).
pub const A: u16 = 1;
pub const SRV: u16 = 33;
const SOA: u16 = 6;

/// How long nsd may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// nsd with the zone `test`. Queries go over UDP to the relay. While nsd is stopped, the relay gives no answers. The
/// drop of this value ends nsd and the relay.
pub struct Nsd {
    directory: TempDir,
    process: Option<Process>,
    serial: u32,
    relay: Arc<Relay>,
    thread: Option<JoinHandle<()>>,
    /// The address of the relay.
    pub address: SocketAddr,
}

/// A query as the relay got it.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    id: [u8; 2],
    kind: u16,
    pub at: Instant,
}

#[derive(Default)]
struct Relay {
    /// Where nsd listens, over UDP and TCP; `None`: it is stopped.
    nsd: Mutex<Option<SocketAddr>>,
    queries: Mutex<Vec<Query>>,
    should_end: AtomicBool,
}

impl Nsd {
    /// Starts nsd with these records in its zone, each with its TTL, as in `a 1 A 127.0.0.1`. Negative answers hold for
    /// 1 s.
    pub fn start(records: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let relay = Arc::<Relay>::default();
        let mut nsd = Self {
            directory: tempfile::tempdir().unwrap(),
            process: None,
            serial: 0,
            address: socket.local_addr().unwrap(),
            relay: Arc::clone(&relay),
            thread: Some(spawn(move || relay.run(&socket))),
        };
        nsd.write(records);
        nsd.restart();
        nsd
    }

    /// Replaces the records.
    pub fn change(&mut self, records: &str) {
        self.write(records);
        self.process.as_ref().unwrap().signal(Signal::HUP);
    }

    fn write(&mut self, records: &str) {
        self.serial += 1;
        let (serial, zone) = (self.serial, self.directory.path().join("zone"));
        let text = format!("$ORIGIN test.\n@ 1 SOA ns root {serial} 1 1 1 1\n@ 1 NS ns\n{records}\n");
        let next = zone.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, zone).unwrap();
    }

    /// Stops nsd, and replaces the records.
    pub fn stop_and_change(&mut self, records: &str) {
        self.relay.nsd.lock().unwrap().take();
        self.process.take().unwrap().kill();
        self.write(records);
    }

    /// Starts nsd, each time at another port. Needed again after [`Self::stop_and_change`].
    pub fn restart(&mut self) {
        let address = wait_for("nsd answers", || {
            let port = Port::keep();
            let mut process = Process::start(Command::new("nsd").arg("-d").arg("-c").arg(self.config(port.address)));
            let question = query(SOA, "test");
            let answers = || exchange(port.address, &question).is_some();
            let is_up = wait_for("nsd answers or ends", || {
                if answers() {
                    Some(true)
                } else {
                    (!process.is_running()).then_some(false)
                }
            });
            self.process = Some(process);
            is_up.then_some(port.address) // otherwise its UDP port was in use
        });
        *self.relay.nsd.lock().unwrap() = Some(address);
    }

    fn config(&self, address: SocketAddr) -> std::path::PathBuf {
        let directory = self.directory.path();
        let path = directory.join("nsd.conf");
        let text = format!(
            "server:\n ip-address: {}@{}\n server-count: 1\n username: \"\"\n zonesdir: {directory:?}\n database: \"\"\n \
             pidfile: \"\"\n xfrdfile: \"\"\n zonelistfile: {:?}\n\
             remote-control:\n control-enable: no\nzone:\n name: test\n zonefile: zone\n",
            address.ip(),
            address.port(),
            directory.join("zone.list")
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// Where nsd itself listens, also over TCP.
    pub fn address_without_relay(&self) -> SocketAddr {
        self.relay.nsd.lock().unwrap().unwrap()
    }

    /// The queries for this type so far. A query that is sent again keeps its identifier, and counts once.
    pub fn queries(&self, kind: u16) -> Vec<Query> {
        let all = self.relay.queries.lock().unwrap().clone();
        let mut seen = std::collections::HashSet::new();
        let matching = all.into_iter().filter(|query| query.kind == kind);
        matching.filter(|query| seen.insert(query.id)).collect()
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        self.relay.should_end.store(true, SeqCst);
        let waker = UdpSocket::bind("127.0.0.1:0").unwrap();
        waker.send_to(b"", self.address).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Relay {
    fn run(&self, socket: &UdpSocket) {
        let mut bytes = [0; 4096];
        while !self.should_end.load(SeqCst) {
            let Ok((length, client)) = socket.recv_from(&mut bytes) else {
                continue;
            };
            let query = &bytes[..length];
            let Some(kind) = kind_of(query) else { continue };
            let (id, at) = ([query[0], query[1]], Instant::now());
            self.queries.lock().unwrap().push(Query { id, kind, at });
            let nsd = *self.nsd.lock().unwrap();
            if let Some(answer) = nsd.and_then(|nsd| exchange(nsd, query)) {
                let _ = socket.send_to(&answer, client); // the client may have ended
            }
        }
    }
}

/// The answer of a server to a query; `None`: there is none in time.
fn exchange(server: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
    socket.connect(server).unwrap();
    socket.send(query).ok()?;
    let mut answer = vec![0; 65_536];
    let length = socket.recv(&mut answer).ok()?;
    answer.truncate(length);
    Some(answer)
}

/// A query (RFC 1035, section 4.1).
fn query(kind: u16, name: &str) -> Vec<u8> {
    let mut query = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// The type that a query asks for; `None`: it is not a query.
fn kind_of(query: &[u8]) -> Option<u16> {
    let mut at = 12; // after the header come the labels of the name: each a length and that many bytes
    while let length @ 1.. = usize::from(*query.get(at)?) {
        at += 1 + length;
    }
    Some(u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]))
}
