//! A crowd of clients send a byte of their ClientHello per second, and reconnect when they are closed. Beside it, good
//! clients are served, and it costs little CPU time and memory. `scripts/soak --drip` measures a larger crowd and the
//! latency of good clients beside it.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use crate::support::client::{Client, ask};
use crate::support::configs::{pool, tls_listener};
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::hello::Hello;
use crate::support::limits::raise_descriptor_limit;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::usage::{anonymous_bytes, cpu_time, descriptors, descriptors_fall_to};
use tokio::time::Instant;

const CROWD: usize = 1_000;

/// CPU time of the proxy per byte or connection of the crowd, in an unoptimised build.
const CPU_EACH_MAX: Duration = Duration::from_micros(90);

/// Anonymous resident memory per client of the crowd.
const BYTES_EACH_MAX: u64 = 8 << 10;

fn config(server: &Server) -> String {
    tls_listener("tls", "hello_timeout = \"3s\"", &[("good.example", "pool = \"echo\"")])
        + &pool("echo", &[server.address], "health.check = \"off\"")
}

/// The clients that send their ClientHello slowly.
struct Crowd {
    to: SocketAddr,
    hello: Vec<u8>,
    /// Each with the number of bytes it has sent since it last connected.
    clients: Vec<(Client, usize)>,
    /// Sent by all clients so far.
    bytes: usize,
    /// Opened so far.
    connections: usize,
}

impl Crowd {
    fn connect(size: usize, to: SocketAddr) -> Self {
        let hello = Hello::named("good.example").padded(2_000).bytes();
        let mut crowd = Self {
            to,
            hello,
            clients: Vec::new(),
            bytes: 0,
            connections: 0,
        };
        crowd.clients = (0..size).map(|_| crowd.connect_client()).collect();
        crowd
    }

    fn connect_client(&mut self) -> (Client, usize) {
        self.connections += 1;
        let client = Client::connect(self.to);
        client.0.set_nonblocking(true).unwrap();
        (client, 0)
    }

    /// Each client sends another byte; closed clients reconnect. Returns how many were closed.
    fn drip(&mut self) -> usize {
        let mut clients = std::mem::take(&mut self.clients);
        let mut ended = 0;
        for (client, sent) in &mut clients {
            match client.0.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The proxy has sent an alert, or has closed.
                Ok(_) | Err(_) => {
                    ended += 1;
                    (*client, *sent) = self.connect_client();
                }
            }
            let _ = client.0.write_all(&[self.hello[*sent]]); // may fail when it is closed; the next round sees that
            *sent += 1;
            self.bytes += 1;
        }
        self.clients = clients;
        ended
    }

    /// Waits until every client is closed.
    fn wait_until_closed(self) {
        for (mut client, _) in self.clients {
            client.0.set_nonblocking(false).unwrap();
            let _ = client.try_read_all();
        }
    }
}

#[test]
fn good_clients_are_served_beside_a_crowd_of_dripping_clients_that_costs_little() {
    const ROUNDS: usize = 6; // of one second each: twice `hello_timeout`
    const GOOD_CLIENTS_PER_ROUND: usize = 10;
    raise_descriptor_limit();
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server));
    let good = Hello::named("good.example").bytes();
    assert!(ask(proxy.at("tls"), &good) == good);
    let (descriptors_before, cpu_before, bytes_before) =
        (descriptors(&proxy), cpu_time(&proxy), anonymous_bytes(&proxy));
    let (mut crowd, mut ended, mut bytes_most) = (Crowd::connect(CROWD, proxy.at("tls")), 0, 0);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        ended += crowd.drip();
        for _ in 0..GOOD_CLIENTS_PER_ROUND {
            assert!(
                ask(proxy.at("tls"), &good) == good,
                "expected a good client to be served beside the crowd"
            );
        }
        bytes_most = bytes_most.max(anonymous_bytes(&proxy));
        sleep(Duration::from_secs(1).saturating_sub(began.elapsed())); // the pace of the drip
    }
    assert!(
        ended >= CROWD,
        "expected each of {CROWD} clients to be closed at least once, {ended} were"
    );
    let events = crowd.bytes + crowd.connections;
    let each = (cpu_time(&proxy) - cpu_before) / u32::try_from(events).unwrap();
    assert!(
        each < CPU_EACH_MAX,
        "expected less than {CPU_EACH_MAX:?} of CPU time for each of {events} bytes and connections, got {each:?}"
    );
    let each = bytes_most.saturating_sub(bytes_before) / CROWD as u64;
    assert!(
        each < BYTES_EACH_MAX,
        "expected less than {BYTES_EACH_MAX} bytes of memory per client, got {each}"
    );
    let connections = crowd.connections;
    crowd.wait_until_closed();
    wait_for_ended_sessions(&proxy, "hello_timeout", connections);
    wait_for_active_sessions(&proxy, 0);
    descriptors_fall_to(&proxy, descriptors_before);
    let good_clients = 1 + ROUNDS * GOOD_CLIENTS_PER_ROUND;
    wait_for_ended_sessions(&proxy, "client_closed", good_clients);
}
