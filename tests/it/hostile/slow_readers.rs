//! A peer that does not read costs a bounded amount of memory, ours and the kernel's, however much is sent to it; and
//! it loses no bytes.

use std::fs::read_to_string;
use std::io::{Read, Write, copy, repeat, sink};
use std::net::TcpStream;
use std::process::Command;
use std::thread::spawn;
use std::time::Duration;

use crate::over_each_path;
use crate::support::PATIENCE;
use crate::support::client::Client;
use crate::support::counts::wait_for_active_sessions;
use crate::support::path::{OpenPath, Path};
use crate::support::process::must;
use crate::support::proxy::Proxy;
use crate::support::server::ManualServer;
use crate::support::usage::anonymous_bytes;

over_each_path! {
    a_server_that_never_reads_costs_bounded_memory,
    clients_that_never_read_cost_bounded_memory_and_a_late_reader_gets_every_byte,
}

/// Stalled sessions at once.
const SESSIONS: usize = 4;

/// Bytes that one side has to send; far more than the buffers hold.
const fn stream_bytes(path: Path) -> usize {
    match path {
        Path::Plain => 1 << 30,
        _ => 1 << 28,
    }
}

/// Allowed growth of the process for all sessions: a megabyte per session would be too much.
const GROWTH_BYTES_MAX: u64 = 4 << 20;

/// Writes this many bytes, or fewer if all buffers up to the peer are full before; returns how many were accepted.
fn write_until_full(stream: &mut TcpStream, bytes: usize) -> usize {
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

/// The most bytes that the kernel buffers from one end of a connection through a proxy to the other: two send and two
/// receive buffers.
fn kernel_buffer_bytes() -> usize {
    let most = |kind: &str| {
        let sizes = read_to_string(format!("/proc/sys/net/ipv4/tcp_{kind}mem")).unwrap();
        sizes.split_whitespace().last().unwrap().parse::<usize>().unwrap()
    };
    2 * (most("r") + most("w"))
}

/// The number of the proxy's TCP connections, and the kernel memory of its sockets, overhead included.
fn connections_and_memory(proxy: &Proxy) -> (usize, usize) {
    let of_proxy = format!(",pid={},", proxy.pid());
    let output = must(Command::new("ss").arg("-tnmpOH"));
    // In skmem, r and w are queued for reading and writing, f is allocated ahead; rb and tb are only bounds.
    let queued = |field: &str| field.strip_prefix(['r', 'w', 'f'])?.parse::<usize>().ok();
    let memory = |line: &str| {
        line.split_once("skmem:(")
            .unwrap()
            .1
            .split(',')
            .filter_map(queued)
            .sum::<usize>()
    };
    let own: Vec<_> = output
        .lines()
        .filter(|line| line.contains(&of_proxy))
        .map(memory)
        .collect();
    (own.len(), own.iter().sum())
}

/// Opens sessions. In each, `sending_end` chooses the side that sends until the buffers are full; the other side does
/// not read. Asserts bounds on memory.
fn stalled_sessions(
    manual: &ManualServer,
    proxy: &OpenPath,
    path: Path,
    sending_end: fn(&mut Client, &mut TcpStream) -> TcpStream,
) -> Vec<(Client, TcpStream)> {
    drop(served_session(manual, proxy)); // so that the growth does not include what the first session allocates
    wait_for_active_sessions(proxy, 0);
    let before = anonymous_bytes(proxy);
    let sessions = (0..SESSIONS).map(|_| {
        let mut client = Client::connect(proxy.at("plain"));
        let mut server = manual.session();
        let taken = write_until_full(&mut sending_end(&mut client, &mut server), stream_bytes(path));
        // 512 KiB for what a proxy itself buffers, the pipe of a splice included.
        let most = path.proxies() * (kernel_buffer_bytes() + (512 << 10));
        assert!(
            taken <= most,
            "expected at most {most} bytes to be accepted, got {taken}"
        );
        (client, server)
    });
    let sessions: Vec<_> = sessions.collect();
    let grown = anonymous_bytes(proxy).saturating_sub(before);
    assert!(
        grown < GROWTH_BYTES_MAX,
        "expected less than {GROWTH_BYTES_MAX} bytes of growth, got {grown}"
    );
    let (connections, held) = connections_and_memory(proxy);
    assert!(connections >= 2 * SESSIONS, "ss shows {connections} connections");
    assert!(
        held < SESSIONS * kernel_buffer_bytes(),
        "the kernel holds too much: {held} bytes"
    );
    println!("grown by {grown} bytes, the kernel holds {held}");
    sessions
}

fn served_session(manual: &ManualServer, proxy: &OpenPath) -> (Client, TcpStream) {
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = manual.session();
    server.write_all(b"hello").unwrap();
    assert_eq!(client.read(5), b"hello");
    (client, server)
}

fn a_server_that_never_reads_costs_bounded_memory(path: Path) {
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "");
    let stalled = stalled_sessions(&manual, &proxy, path, |client, _| client.0.try_clone().unwrap());
    (0..100).for_each(|_| drop(served_session(&manual, &proxy)));
    drop(stalled);
    wait_for_active_sessions(&proxy, 0);
}

fn clients_that_never_read_cost_bounded_memory_and_a_late_reader_gets_every_byte(path: Path) {
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "");
    let mut stalled = stalled_sessions(&manual, &proxy, path, |_, server| server.try_clone().unwrap());
    served_session(&manual, &proxy);
    let (mut client, mut server) = stalled.remove(0);
    drop(stalled);
    wait_for_active_sessions(&proxy, 1);
    let sending = spawn(move || copy(&mut repeat(0xaa).take(stream_bytes(path) as u64), &mut server).unwrap());
    let received = copy(&mut client.0, &mut sink()).unwrap();
    assert_eq!(sending.join().unwrap(), stream_bytes(path) as u64);
    assert!(received >= stream_bytes(path) as u64);
    drop(client);
    let lines = proxy.access_lines(SESSIONS + 2);
    let late = lines.iter().find(|line| line["bytes_down"] == received);
    assert_eq!(late.unwrap()["ending"], "server_closed", "{lines:#?}");
}
