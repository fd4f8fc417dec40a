//! After thousands of sessions that failed, or that their clients left in whatever phase, every gauge is 0 and servers
//! have even shares.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Shutdown, SocketAddr};
use std::thread::scope;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::limits::raise_descriptor_limit;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::{Server, hanging};

const THREADS: usize = 20;
const ROUNDS: usize = 25;
/// Sessions a round; of a thousand the client waits for the end.
const WAYS: usize = 10;

/// Two servers are well, one refuses, one hangs; nobody is ever taken out, so that every session may meet the others.
fn config(servers: &[(&str, SocketAddr)]) -> String {
    let entry = |(name, address): &(&str, SocketAddr)| format!("{{ name = \"{name}\", address = \"{address}\" }}");
    let servers: Vec<_> = servers.iter().map(entry).collect();
    format!(
        "[listeners.tls]\nbind = \"127.0.0.1:0\"\nhello_timeout = \"100ms\"\n\
         [[listeners.tls.routes]]\nsni = \"good.example\"\npool = \"p\"\n\
         [listeners.plain]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nretries = 1\nconnect_timeout = \"20ms\"\nservers = [{}]\n\
         health = {{ check = \"off\", eject_after = 1000, eject_max_percent = 0 }}",
        servers.join(", ")
    )
}

/// Ten sessions, each left in another phase, or not.
fn leave_in_every_phase(proxy: &Proxy, hello: &[u8]) {
    let begun = |listener: &str, bytes: &[u8]| {
        let mut client = Client::connect(proxy.at(listener));
        client.send(bytes);
        client
    };
    let wait = |mut client: Client| drop(client.try_read_all());
    Client::connect(proxy.at("plain")).reset(); // before it is accepted, or dialled for
    drop(Client::connect(proxy.at("plain")));
    begun("plain", b"request").reset();
    begun("tls", &hello[..9]).reset(); // in its hello
    drop(begun("tls", &hello[..9]));
    wait(begun("tls", &hello[..9])); // until the time for that is over
    begun("tls", hello).reset(); // while a server is dialled
    drop(begun("tls", hello));
    let mut met = begun("plain", b"request");
    let _ = met.0.read(&mut [0]); // in the middle, if it met one who is well
    met.reset();
    let to_the_end = begun("tls", hello);
    let _ = to_the_end.0.shutdown(Shutdown::Write);
    wait(to_the_end);
}

#[test]
fn every_gauge_is_0_and_shares_are_even() {
    raise_descriptor_limit();
    let (a, b) = (Server::named("a"), Server::named("b"));
    let (refusing, hanging) = (Port::keep(), hanging());
    let proxy = Proxy::start(&config(&[
        ("a", a.address),
        ("b", b.address),
        ("c", refusing.address),
        ("d", hanging.address),
    ]));
    let hello = Hello::named("good.example").bytes();
    scope(|all| {
        for _ in 0..THREADS {
            all.spawn(|| (0..ROUNDS).for_each(|_| leave_in_every_phase(&proxy, &hello)));
        }
    });
    let over = |name: &str| proxy.metrics().sum(name, &[]);
    eventually("all have been let in and are over", || {
        over("acequia_sessions_total") == (THREADS * ROUNDS * WAYS) as f64
    });
    let metrics = proxy.metrics();
    for gauge in ["acequia_sessions_active", "acequia_server_sessions_active"] {
        let series = metrics.series(gauge, &[]);
        assert!(
            series.len() >= 2 && series.iter().all(|series| series.value == 0.0),
            "{series:?}"
        );
    }
    for failed in ["refused", "timeout"] {
        let failures = metrics.sum("acequia_connect_failures_total", &[("reason", failed)]);
        assert!(failures > 100.0, "{failures} {failed}");
    }
    // Now all of them are well: who still counted as busy would get less.
    let (c, d) = (
        Server::named_on(refusing.listen(), "c"),
        Server::named_on(hanging.wakes(), "d"),
    );
    let mut shares = BTreeMap::<_, Vec<_>>::new();
    for _ in 0..40 {
        let mut client = Client::connect(proxy.at("plain"));
        shares.entry(client.read_some()).or_default().push(client);
    }
    assert_eq!(shares.values().map(Vec::len).collect::<Vec<_>>(), [10; 4]);
    drop((c, d));
}
