//! A crowd that says a byte of its hello a second is served by nobody, hinders nobody, costs next to nothing, and may
//! come back as often as it likes. The whole crowd, and how long good clients wait beside it: `scripts/soak --drip`.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use crate::support::client::{Client, ask};
use crate::support::hard::{
    active_becomes, cpu, descriptors, descriptors_fall_to, ended_becomes, many_descriptors, resident,
};
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::{Server, list};
use tokio::time::Instant;

const CROWD: usize = 1_000;

/// Of the proxy, for a byte or a connection of the crowd, in a build that is not optimised.
const CPU_EACH_MAX: Duration = Duration::from_micros(90);

/// Resident memory for one of them.
const BYTES_EACH_MAX: u64 = 8 << 10;

fn config(server: &Server) -> String {
    format!(
        r#"
        [listeners.tls]
        bind = "127.0.0.1:0"
        hello_timeout = "3s"
        [[listeners.tls.routes]]
        sni = "good.example"
        pool = "echo"
        [pools.echo]
        servers = [{}]
        health.check = "off"
        "#,
        list(&[server])
    )
}

/// Those who drip.
struct Crowd {
    to: SocketAddr,
    hello: Vec<u8>,
    /// Each with the bytes it has said.
    clients: Vec<(Client, usize)>,
    bytes: usize,
    connections: usize,
}

impl Crowd {
    fn of(size: usize, to: SocketAddr) -> Self {
        let hello = Hello::named("good.example").padded(2_000).bytes();
        let mut crowd = Self {
            to,
            hello,
            clients: Vec::new(),
            bytes: 0,
            connections: 0,
        };
        crowd.clients = (0..size).map(|_| crowd.client()).collect();
        crowd
    }

    fn client(&mut self) -> (Client, usize) {
        self.connections += 1;
        let client = Client::connect(self.to);
        client.0.set_nonblocking(true).unwrap();
        (client, 0)
    }

    /// Everybody says another byte; who was ended comes back. How many did.
    fn drip(&mut self) -> usize {
        let mut clients = std::mem::take(&mut self.clients);
        let mut ended = 0;
        for (client, said) in &mut clients {
            match client.0.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // An alert says why; it is just closed if it had not sent two bytes.
                Ok(_) | Err(_) => {
                    ended += 1;
                    (*client, *said) = self.client();
                }
            }
            let _ = client.0.write_all(&[self.hello[*said]]); // it may be over, and sees it in the next round
            *said += 1;
            self.bytes += 1;
        }
        self.clients = clients;
        ended
    }

    /// Waits until the last of them is ended.
    fn end(self) {
        for (mut client, _) in self.clients {
            client.0.set_nonblocking(false).unwrap();
            let _ = client.try_read_all();
        }
    }
}

#[test]
fn a_crowd_that_drips_comes_back_and_hinders_nobody() {
    const ROUNDS: usize = 8;
    many_descriptors();
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server));
    let good = Hello::named("good.example").bytes();
    assert!(ask(proxy.at("tls"), &good) == good);
    let (baseline, used, held) = (descriptors(&proxy), cpu(&proxy), resident(&proxy));
    let (mut crowd, mut ended, mut held_most) = (Crowd::of(CROWD, proxy.at("tls")), 0, 0);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        ended += crowd.drip();
        for _ in 0..10 {
            assert!(
                ask(proxy.at("tls"), &good) == good,
                "a good client is served beside them"
            );
        }
        held_most = held_most.max(resident(&proxy));
        sleep(Duration::from_secs(1).saturating_sub(began.elapsed())); // the pace of the drip
    }
    assert!(ended >= CROWD, "{ended} were ended: everybody was, once at least");
    let events = crowd.bytes + crowd.connections;
    let each = (cpu(&proxy) - used) / u32::try_from(events).unwrap();
    assert!(
        each < CPU_EACH_MAX,
        "{each:?} of CPU for each of {events} bytes and connections"
    );
    let each = held_most.saturating_sub(held) / CROWD as u64;
    assert!(each < BYTES_EACH_MAX, "{each} bytes of memory for each");
    let connections = crowd.connections;
    crowd.end();
    ended_becomes(&proxy, "hello_timeout", connections);
    active_becomes(&proxy, 0);
    descriptors_fall_to(&proxy, baseline);
    ended_becomes(&proxy, "client_closed", 1 + 10 * ROUNDS);
}
