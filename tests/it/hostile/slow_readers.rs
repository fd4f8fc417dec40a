//! Who does not read costs a bounded amount of memory, ours and the kernel's, however much there is for him; and loses
//! nothing by it.

use std::fs::read_to_string;
use std::io::{Write, copy, sink};
use std::net::TcpStream;
use std::process::Command;
use std::thread::spawn;
use std::time::Duration;

use crate::support::PATIENCE;
use crate::support::client::Client;
use crate::support::configs::two_listeners;
use crate::support::counts::wait_for_active_sessions;
use crate::support::process::must;
use crate::support::proxy::Proxy;
use crate::support::server::ManualServer;
use crate::support::usage::resident_bytes;

/// At once; each of them has much more to say than there is room for.
const SESSIONS: usize = 4;

/// What one side has to say.
const STREAM_BYTES: usize = 1 << 30;

/// What the process may grow by, for all of them: a megabyte a session would be too much.
const GROWTH_BYTES_MAX: u64 = 4 << 20;

/// Writes of so many bytes what is taken without anybody reading.
fn taken(stream: &mut TcpStream, bytes: usize) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let chunk = vec![0xaa; 1 << 20];
    let mut taken = 0;
    while taken < bytes {
        match stream.write(&chunk[..chunk.len().min(bytes - taken)]) {
            Ok(written) => taken += written,
            Err(_full) => break,
        }
    }
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    taken
}

/// The most that the kernel holds on the way from one end to the other: what two sockets may send, and two receive.
fn kernels_room() -> usize {
    let most = |kind: &str| {
        let sizes = read_to_string(format!("/proc/sys/net/ipv4/tcp_{kind}mem")).unwrap();
        sizes.split_whitespace().last().unwrap().parse::<usize>().unwrap()
    };
    2 * (most("r") + most("w"))
}

/// What the kernel holds for the sockets of the process, with all that it spends on keeping it.
fn kernel_memory(hand: &ManualServer, proxy: &Proxy) -> usize {
    let [here, there] = [proxy.at("plain"), hand.server.address].map(|address| address.port());
    let ours = format!("( sport = :{here} or dport = :{there} )");
    let told = must(Command::new("ss").args(["-tnmOH", &ours]));
    // In skmem are r and w what is queued to be read and written, f what is set aside; rb and tb are mere bounds.
    let queued = |field: &str| field.strip_prefix(['r', 'w', 'f'])?.parse::<usize>().ok();
    let memory = |line: &str| {
        line.split_once("skmem:(")
            .unwrap()
            .1
            .split(',')
            .filter_map(queued)
            .sum::<usize>()
    };
    told.lines().map(memory).sum()
}

/// Sessions in which one side says what the other does not read; how it grew is bounded.
fn stuffed(
    hand: &ManualServer,
    proxy: &Proxy,
    pick: fn(&mut Client, &mut TcpStream) -> TcpStream,
) -> Vec<(Client, TcpStream)> {
    drop(is_served_by(hand, proxy));
    wait_for_active_sessions(proxy, 0);
    let before = resident_bytes(proxy);
    let sessions = (0..SESSIONS).map(|_| {
        let mut client = Client::connect(proxy.at("plain"));
        let mut server = hand.session();
        let taken = taken(&mut pick(&mut client, &mut server), STREAM_BYTES);
        assert!(taken <= kernels_room() + (512 << 10), "{taken} bytes are taken");
        (client, server)
    });
    let sessions: Vec<_> = sessions.collect();
    let grown = resident_bytes(proxy).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "grown by {grown}");
    let held = kernel_memory(hand, proxy);
    assert!(held < SESSIONS * 2 * kernels_room(), "the kernel holds {held}");
    println!("grown by {grown} bytes, the kernel holds {held}");
    sessions
}

fn is_served_by(hand: &ManualServer, proxy: &Proxy) -> (Client, TcpStream) {
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = hand.session();
    server.write_all(b"hello").unwrap();
    assert_eq!(client.read(5), b"hello");
    (client, server)
}

#[test]
fn a_server_that_accepts_and_never_reads() {
    let hand = ManualServer::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    let stuffed = stuffed(&hand, &proxy, |client, _| client.0.try_clone().unwrap());
    (0..100).for_each(|_| drop(is_served_by(&hand, &proxy)));
    drop(stuffed);
    wait_for_active_sessions(&proxy, 0);
}

#[test]
fn clients_that_never_read_a_gibibyte_and_one_that_does_in_the_end() {
    let hand = ManualServer::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    let mut stuffed = stuffed(&hand, &proxy, |_, server| server.try_clone().unwrap());
    is_served_by(&hand, &proxy);
    let (mut client, mut server) = stuffed.remove(0);
    drop(stuffed);
    wait_for_active_sessions(&proxy, 1);
    let rest = spawn(move || taken(&mut server, STREAM_BYTES));
    let heard = copy(&mut client.0, &mut sink()).unwrap();
    assert_eq!(rest.join().unwrap(), STREAM_BYTES);
    assert!(heard >= STREAM_BYTES as u64);
    drop(client);
    let line = &proxy.access_lines(SESSIONS + 2)[SESSIONS + 1];
    assert_eq!(
        (&line["ending"], &line["bytes_down"]),
        (&"server_closed".into(), &heard.into())
    );
}
