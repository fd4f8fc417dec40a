//! nsd, a real name server, and a forwarder in front of it that records the queries.

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

/// nsd with the zone `test`. acequia sends its queries over UDP to the forwarder. While nsd is stopped, the forwarder
/// records the queries, but does not answer them. Dropping this value ends nsd and the forwarder.
pub struct Nsd {
    directory: TempDir,
    process: Option<Process>,
    serial: u32,
    forwarder: Arc<Forwarder>,
    thread: Option<JoinHandle<()>>,
    /// The address of the forwarder.
    pub address: SocketAddr,
}

/// A query that the forwarder has received.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    id: [u8; 2],
    kind: u16,
    pub at: Instant,
}

#[derive(Default)]
struct Forwarder {
    /// Where nsd listens, over UDP and TCP; `None`: nsd is stopped.
    nsd: Mutex<Option<SocketAddr>>,
    queries: Mutex<Vec<Query>>,
    should_end: AtomicBool,
}

impl Nsd {
    /// Starts nsd with these records in its zone, each with its TTL, as in `a 1 A 127.0.0.1`. Negative answers hold for
    /// 1 s.
    pub fn start(records: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let forwarder = Arc::<Forwarder>::default();
        let mut nsd = Self {
            directory: tempfile::tempdir().unwrap(),
            process: None,
            serial: 0,
            address: socket.local_addr().unwrap(),
            forwarder: Arc::clone(&forwarder),
            thread: Some(spawn(move || forwarder.run(&socket))),
        };
        nsd.write(records);
        nsd.restart();
        nsd
    }

    /// Replaces the records. Returns before nsd has read them.
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

    /// Stops nsd, and replaces the records that it reads when it is started again ([`Self::restart`]).
    pub fn stop_and_change(&mut self, records: &str) {
        self.forwarder.nsd.lock().unwrap().take();
        self.process.take().unwrap().kill();
        self.write(records);
    }

    /// Starts nsd at a new port. [`Port`] reserves the port only for TCP: if it is in use for UDP, nsd ends, and is
    /// started at another port.
    pub fn restart(&mut self) {
        let address = wait_for("nsd has found a free port", || {
            let port = Port::keep();
            let config = self.write_config(port.address);
            let mut process = Process::start(Command::new("nsd").arg("-d").arg("-c").arg(config));
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
            is_up.then_some(port.address)
        });
        *self.forwarder.nsd.lock().unwrap() = Some(address);
    }

    /// Writes the configuration of nsd at this address. Returns the path of its file.
    fn write_config(&self, address: SocketAddr) -> std::path::PathBuf {
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
    pub fn address_of_nsd(&self) -> SocketAddr {
        self.forwarder.nsd.lock().unwrap().unwrap()
    }

    /// The queries for records of this type so far. A query that acequia has sent again has the same identifier, and
    /// is listed once.
    pub fn queries(&self, kind: u16) -> Vec<Query> {
        let all = self.forwarder.queries.lock().unwrap().clone();
        let mut seen = std::collections::HashSet::new();
        let matching = all.into_iter().filter(|query| query.kind == kind);
        matching.filter(|query| seen.insert(query.id)).collect()
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        self.forwarder.should_end.store(true, SeqCst);
        // An empty datagram wakes the thread, which waits for a query.
        let waker = UdpSocket::bind("127.0.0.1:0").unwrap();
        waker.send_to(b"", self.address).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Forwarder {
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

/// The answer of a server to a query; `None`: none has come within [`ANSWER_TIMEOUT`], or the server cannot be reached.
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

/// A query with the identifier 1 (RFC 1035, section 4.1).
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

/// The type of the records that a query asks for; `None`: the bytes are not a whole query.
fn kind_of(query: &[u8]) -> Option<u16> {
    // After the header, which has 12 bytes, come the labels of the name: each is a length and that many bytes.
    let mut at = 12;
    while let length @ 1.. = usize::from(*query.get(at)?) {
        at += 1 + length;
    }
    Some(u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]))
}
