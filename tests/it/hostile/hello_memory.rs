//! The memory of clients that have no server yet is bounded for all of them together, and is freed when they leave.

use std::io::Write;
use std::time::Duration;

use crate::support::authority::Authority;
use crate::support::client::{Client, ask};
use crate::support::counts::{ended_sessions, log_count, log_lines, wait_for_active_sessions};
use crate::support::hello::Hello;
use crate::support::limits::raise_descriptor_limit;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::tls_client::TlsSetup;
use crate::support::usage::anonymous_bytes;
use crate::support::{eventually, wait_for};
use rustls::version::TLS12;

const USED_UP: &str =
    "`hello_memory` is used up: clients that wait longest for the rest of their first message end as hello_timeout";

/// A record with the fatal alert user_canceled.
const USER_CANCELED: [u8; 7] = [21, 3, 3, 0, 2, 2, 90];

/// A configuration with these keys in `[runtime]`, and a listener that routes by the name in the ClientHello.
fn config(server: &Server, runtime: &str) -> String {
    format!(
        "[runtime]\n{runtime}\n[listeners.tls]\nbind = \"127.0.0.1:0\"\nhello_timeout = \"1h\"\n\
         [[listeners.tls.routes]]\nsni = \"good.example\"\npool = \"echo\"\n\
         [pools.echo]\nservers = [\"{}\"]\n",
        server.address
    )
}

/// Clients that send 63 KB of a larger ClientHello, and wait.
fn clients_with_incomplete_hellos(proxy: &Proxy, count: usize) -> Vec<Client> {
    let hello = Hello::named("good.example").padded(65_000).in_records(&[16_000; 4]);
    let one = |_| {
        let mut client = Client::connect(proxy.at("tls"));
        // Fails if the client is evicted while it sends.
        let _ = client.0.write_all(&hello[..63_000]);
        client
    };
    (0..count).map(one).collect()
}

fn assert_good_client_is_served(proxy: &Proxy) {
    let hello = Hello::named("good.example").bytes();
    assert!(ask(proxy.at("tls"), &hello) == hello);
}

#[test]
fn incomplete_hellos_leave_no_memory_behind() {
    const CLIENTS: usize = 3_000;
    raise_descriptor_limit();
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "hello_memory = \"1GiB\""));
    assert_good_client_is_served(&proxy);
    let before = anonymous_bytes(&proxy);
    let clients = clients_with_incomplete_hellos(&proxy, CLIENTS);
    wait_for_active_sessions(&proxy, CLIENTS);
    eventually("what the clients have sent is held", || {
        anonymous_bytes(&proxy) > before + (CLIENTS as u64) * 60_000
    });
    let during = anonymous_bytes(&proxy);
    drop(clients);
    wait_for_active_sessions(&proxy, 0);
    eventually("the memory is given back", || {
        anonymous_bytes(&proxy) < before + (30 << 20)
    });
    println!(
        "before {} KiB, during {} KiB, after {} KiB",
        before >> 10,
        during >> 10,
        anonymous_bytes(&proxy) >> 10
    );
    assert_good_client_is_served(&proxy);
}

#[test]
fn beyond_the_budget_the_longest_waiting_clients_are_evicted() {
    const BUDGET: usize = 8 << 20;
    const EACH: usize = 64 << 10; // less than the capacity of a buffer for 63 KB, which is 80 KiB
    const FITTING: usize = BUDGET / EACH;
    const CLIENTS: usize = 3 * FITTING;
    raise_descriptor_limit();
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "workers = 1\nhello_memory = \"8MiB\""));
    let mut clients = clients_with_incomplete_hellos(&proxy, CLIENTS);
    eventually("the clients beyond the budget have ended", || {
        ended_sessions(&proxy, "hello_timeout") >= (CLIENTS - FITTING) as f64
    });
    assert_good_client_is_served(&proxy);
    let ended = ended_sessions(&proxy, "hello_timeout") as usize;
    assert!(
        ended < CLIENTS - FITTING / 2,
        "{ended} of {CLIENTS} were evicted: more than necessary"
    );
    let received_if_ended = |client: &mut Client| {
        client.0.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        client.try_read_all().ok()
    };
    let mut late = clients.split_off(ended);
    let mut early = clients;
    let alerts = early.iter_mut().filter_map(received_if_ended).collect::<Vec<_>>();
    assert!(alerts.iter().all(|alert| *alert == USER_CANCELED), "{alerts:?}");
    assert!(
        alerts.len() * 10 >= ended * 9,
        "expected the first clients to have ended: only {} of {ended} have",
        alerts.len()
    );
    let late_ended = late.iter_mut().filter_map(received_if_ended).count();
    assert!(
        late_ended * 10 <= late.len(),
        "expected the last clients to wait: {late_ended} of {} have ended",
        late.len()
    );
    log_lines(&proxy, USED_UP, 1); // one line for all evicted clients
    eventually("the end of the episode is logged", || {
        log_count(&proxy, "`hello_memory` is enough again") == 1
    });
    drop((early, late));
    wait_for_active_sessions(&proxy, 0);
}

#[test]
fn handshake_bytes_count_towards_the_hello_budget() {
    const BUDGET: usize = 8 << 20;
    const CLIENTS: usize = 400; // each sends 64 KB
    raise_descriptor_limit();
    let (server, authority, directory) = (Server::echo(), Authority::new("a"), tempfile::tempdir().unwrap());
    authority.issue(&["good.example"]).write(directory.path(), "good");
    let certificates = format!(
        "[listeners.tls.tls]\ncertificates = [{{ directory = {:?} }}]\n",
        directory.path()
    );
    let proxy = Proxy::start(&(config(&server, "hello_memory = \"8MiB\"") + &certificates));
    let setup = TlsSetup::new(&authority, &[&TLS12], None);
    let hello = setup.hello("good.example");
    // The beginning of a ClientKeyExchange of 65,000 bytes (RFC 5246, section 7.4.7).
    let message = [&[16, 0, 0xfd, 0xe8][..], &[0; 64_000]].concat();
    let record = |part: &[u8]| [&[22, 3, 3][..], &(part.len() as u16).to_be_bytes(), part].concat();
    let rest: Vec<u8> = message.chunks(16_000).flat_map(record).collect();
    let before = anonymous_bytes(&proxy);
    let send = |_| {
        let mut client = Client::connect(proxy.at("tls"));
        client.send(&hello);
        let _ = client.0.write_all(&rest); // fails if the client is evicted meanwhile
        client
    };
    let _clients: Vec<_> = (0..CLIENTS).map(send).collect();
    // Each client that stays holds at least `rest`: only as many stay as fit into the budget. The factor 2 is leeway.
    eventually("the clients beyond twice the budget have ended", || {
        ended_sessions(&proxy, "hello_timeout") >= (CLIENTS - 2 * BUDGET / rest.len()) as f64
    });
    let grown = anonymous_bytes(&proxy).saturating_sub(before);
    assert!(grown < 3 * BUDGET as u64, "{grown} bytes");
    // Not at once: as long as other clients are still sending, they use up the budget.
    let mut client = wait_for("a good client gets room", || {
        setup.connect(proxy.at("tls"), "good.example").ok()
    });
    assert_eq!(client.send(b"ping").read(4), b"ping");
}

#[test]
fn a_reload_changes_the_hello_budget() {
    let server = Server::echo();
    let text = config(&server, "hello_memory = \"64MiB\"");
    let proxy = Proxy::start(&text);
    let _clients = clients_with_incomplete_hellos(&proxy, 32);
    wait_for_active_sessions(&proxy, 32);
    assert_eq!(log_count(&proxy, USED_UP), 0);
    assert!(proxy.reload(&text.replace("64MiB", "1MiB")));
    // Clients are evicted only when a client needs more memory. There is room for 12 buffers of 80 KiB, so
    // about 20 of the 33 clients are evicted.
    let _more = clients_with_incomplete_hellos(&proxy, 1);
    eventually("the clients beyond the budget have ended", || {
        ended_sessions(&proxy, "hello_timeout") >= 16.0
    });
    assert_good_client_is_served(&proxy);
}
