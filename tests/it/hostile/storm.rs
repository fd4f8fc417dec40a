//! While all servers refuse, a crowd of clients causes no more connects than `retries` allows, and is served again as
//! soon as the servers return.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::scope;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::stop::StopOnDrop;

const SERVERS: usize = 4;
const RETRIES: usize = 1;

#[test]
fn during_an_outage_retries_are_bounded_and_sessions_recover() {
    let ports = [(); SERVERS].map(|()| Port::keep());
    let reserved = ports.each_ref().map(|port| Port::keep_again(port.address));
    let addresses = ports.each_ref().map(|port| port.address.to_string());
    let up = ports.map(|port| Server::named_on(port.listen(), "here"));
    // Ejections outlast the test. By default, at most half of the servers are ejected: the others can serve as soon as
    // they return.
    let proxy = Proxy::start(&format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nretries = {RETRIES}\nservers = {addresses:?}\n\
         health = {{ check = \"off\", eject_for = \"1h\", eject_max_for = \"1h\" }}"
    ));
    let (stop, served, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    scope(|all| {
        let _stop = StopOnDrop(&stop);
        for _ in 0..8 {
            all.spawn(|| {
                while !stop.load(SeqCst) {
                    let mut client = Client::connect(proxy.at("l"));
                    let answer = client.finish().try_read_all().unwrap_or_default();
                    let counter = if answer == b"here" { &served } else { &failed };
                    counter.fetch_add(1, SeqCst);
                }
            });
        }
        eventually("500 sessions are served", || served.load(SeqCst) > 500);
        drop(up);
        let before = failed.load(SeqCst);
        eventually("2,000 sessions fail", || failed.load(SeqCst) > before + 2_000);
        let _up = reserved.map(|port| Server::named_on(port.listen(), "here"));
        let (mut served_before, mut failed_before) = (served.load(SeqCst), failed.load(SeqCst));
        eventually("500 sessions in a row are served", || {
            let (served_now, failed_now) = (served.load(SeqCst), failed.load(SeqCst));
            if failed_now > failed_before {
                (served_before, failed_before) = (served_now, failed_now); // a failure restarts the count
            }
            served_now > served_before + 500
        });
    });
    let stopped = proxy.stop();
    let attempts = |line: &serde_json::Value| line["attempts"].as_u64().unwrap();
    let most = stopped.access.iter().map(attempts).max();
    assert_eq!(
        most,
        Some(1 + RETRIES as u64),
        "expected the largest number of attempts to be 1 + retries"
    );
}
