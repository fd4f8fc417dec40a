//! A flood of bad requests to the admin port harms neither traffic nor good API clients, and leaves nothing behind.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::scope;

use crate::support::client::{Client, served_client};
use crate::support::configs::one_pool;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::usage::{anonymous_bytes, descriptors, descriptors_fall_to};

/// Bad requests: the first bytes, and the bytes that are then sent over and over.
const FLOODS: [(&str, &str); 4] = [
    ("", ""),                                                           // the client closes at once
    ("", "G"),                                                          // an incomplete request line
    ("GET /live HTTP/1.1\r\nHost: a\r\nX-Large: ", "0123456789abcdef"), // an endless header
    (
        "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n",
        "0123456789abcdef", // a body of a gigabyte
    ),
];

/// Sends bad requests over 40 connections at a time, again and again, until `stop` is set.
fn flood(proxy: &Proxy, (first, then): (&str, &str), stop: &AtomicBool) {
    let then = then.repeat(4096);
    while !stop.load(Relaxed) {
        let mut crowd: Vec<_> = (0..40)
            .filter_map(|_| Client::try_connect(proxy.admin()).ok())
            .collect();
        for Client(client) in &mut crowd {
            client.set_nonblocking(true).unwrap();
            // Each write fails if the connection is closed already.
            let _ = client.write(first.as_bytes());
            let _ = client.write(then.as_bytes());
        }
    }
}

#[test]
fn a_flood_does_no_harm_and_leaves_nothing_behind() {
    let server = Server::echo();
    let proxy = Proxy::start(&one_pool(&[server.address], ""));
    let (descriptors_before, bytes_before) = (descriptors(&proxy), anonymous_bytes(&proxy));
    let silent: Vec<_> = (0..40).map(|_| Client::connect(proxy.admin())).collect();
    let stop = AtomicBool::new(false);
    scope(|all| {
        for kind in FLOODS {
            let (proxy, stop) = (&proxy, &stop);
            all.spawn(move || flood(proxy, kind, stop));
        }
        let good = all.spawn(|| {
            for _ in 0..5 {
                drop(served_client(proxy.at("l")));
                assert_eq!(proxy.get("/live").0, 200);
                // The admin port serves at most 8 connections at once; the rest of the 20 is for traffic.
                let more = descriptors(&proxy).saturating_sub(descriptors_before);
                assert!(more <= 20, "expected at most 20 more descriptors, got {more}");
            }
        });
        let outcome = good.join();
        stop.store(true, Relaxed); // also on failure
        outcome.unwrap();
    });
    let grown = anonymous_bytes(&proxy).saturating_sub(bytes_before);
    assert!(
        grown < 16 << 20,
        "expected less than 16 MiB more memory, got {grown} bytes"
    );
    descriptors_fall_to(&proxy, descriptors_before);
    drop(silent); // not earlier: the proxy had to close these connections
}

#[test]
fn silent_clients_are_cut_off() {
    let server = Server::echo();
    let proxy = Proxy::start(&one_pool(&[server.address], ""));
    assert_eq!(Client::connect(proxy.admin()).read_all(), b"");
}

#[test]
fn endless_requests_are_cut_off() {
    const FAR_TOO_MANY_BYTES: usize = 64 << 20;
    let server = Server::echo();
    let proxy = Proxy::start(&one_pool(&[server.address], ""));
    // Without the first flood, which sends nothing.
    for (first, then) in &FLOODS[1..] {
        let mut client = Client::connect(proxy.admin()).0;
        client.write_all(first.as_bytes()).unwrap();
        let much = then.repeat(4096);
        let mut taken = 0;
        while taken < FAR_TOO_MANY_BYTES && client.write_all(much.as_bytes()).is_ok() {
            taken += much.len();
        }
        assert!(
            taken < FAR_TOO_MANY_BYTES,
            "expected {first:?} to be cut off, {taken} bytes were accepted"
        );
    }
}
