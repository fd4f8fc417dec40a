//! A name server that answers some names and drops the queries for others, and proxies that ask it.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{JoinHandle, spawn};

use super::proxy::{Proxy, Setup};
use tempfile::TempDir;

const A: u16 = 1;
const AAAA: u16 = 28;

/// Answers queries (RFC 1035, section 4) for names below `live.test`: their only address is 127.0.0.1. Drops queries
/// for other names, and AAAA queries for names below `ipv4.live.test`. Dropping the value ends the server.
pub struct NameServer {
    address: SocketAddr,
    should_end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    directory: TempDir,
}

impl NameServer {
    /// Starts one on port 53 of an address of its own. `None`: this process may not use port 53.
    pub fn start() -> Option<Self> {
        let mut hosts = (1..=254).map(|host| (Ipv4Addr::new(127, 42, 53, host), 53));
        let bound = hosts.find_map(|address| match UdpSocket::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => None,
            result => Some(result),
        });
        let socket = match bound.expect("an address with a free port") {
            Ok(socket) => socket,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                eprintln!("NOT TESTED: this needs port 53: {error}");
                return None;
            }
            Err(error) => panic!("cannot bind port 53: {error}"),
        };
        let address = socket.local_addr().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
        write("resolv.conf", format!("nameserver {}\n", address.ip()));
        write("nsswitch.conf", "hosts: dns\n".to_owned());
        let should_end = Arc::new(AtomicBool::new(false));
        let thread = spawn({
            let should_end = Arc::clone(&should_end);
            move || serve(&socket, &should_end)
        });
        Some(Self {
            address,
            should_end,
            thread: Some(thread),
            directory,
        })
    }

    /// The setup of a proxy that asks only this name server.
    pub fn proxy_setup(&self, config: &str) -> Setup {
        let mount = |name: &str| {
            let file = self.directory.path().join(name);
            format!(
                "if [ -e /etc/{name} ]; then mount --bind '{}' /etc/{name}; fi && ",
                file.display()
            )
        };
        let script = format!("{}{}exec \"$@\"", mount("resolv.conf"), mount("nsswitch.conf"));
        let under = ["unshare", "--map-root-user", "--mount", "sh", "-c", &script, "sh"];
        Proxy::setup(config).under(&under)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.should_end.store(true, SeqCst);
        let waker = UdpSocket::bind("127.0.0.1:0").unwrap();
        waker.send_to(b"", self.address).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(socket: &UdpSocket, should_end: &AtomicBool) {
    let mut query = [0; 512];
    while !should_end.load(SeqCst) {
        let Ok((length, client)) = socket.recv_from(&mut query) else {
            continue;
        };
        if let Some(answer) = answer(&query[..length]) {
            let _ = socket.send_to(&answer, client);
        }
    }
}

/// The answer to a query; `None`: it is dropped.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut name = String::new();
    let mut at = 12; // after the header
    while let length @ 1.. = usize::from(*query.get(at)?) {
        name.push_str(std::str::from_utf8(query.get(at + 1..at + 1 + length)?).ok()?);
        name.push('.');
        at += 1 + length;
    }
    let query_type = u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]);
    let question = query.get(12..at + 5)?;
    if !name.ends_with(".live.test.") || query_type == AAAA && name.ends_with(".ipv4.live.test.") {
        return None;
    }
    let answers = u8::from(query_type == A);
    // A response, recursion desired and available; one question.
    let mut reply = [&query[..2], &[0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0], question].concat();
    if query_type == A {
        // The name of the question, type A, class IN, TTL 1 s, 4 bytes of address.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    }
    Some(reply)
}
