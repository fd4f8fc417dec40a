//! A client of a pool that hashes stays with its server as long as that one lives, whatever befalls the others.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

#[test]
fn a_server_that_dies_moves_its_own_clients_and_nobody_elses_and_has_them_back() {
    let (one, three) = (Server::named("one"), Server::named("three"));
    let port = Port::keep();
    let kept = Port::keep_again(port.address);
    let two = Server::named_on(port.listen(), "two");
    let proxy = Proxy::start(&format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nbalance = \"source-hash\"\n\
         servers = [\"{}\", \"{}\", \"{}\"]\nhealth = {{ interval = \"50ms\", fall = 1, rise = 1 }}",
        one.address, two.address, three.address
    ));
    let up = || proxy.metrics().sum("acequia_server_up", &[]);
    let places = || -> Vec<String> {
        let of = |last| Client::connect_from(&format!("127.0.0.{last}"), proxy.at("l")).read_some();
        (1..=60).map(of).collect()
    };
    let before = places();
    drop(two);
    eventually("it is down", || up() == 2.0);
    let meanwhile = places();
    for (before, now) in before.iter().zip(&meanwhile) {
        assert!(now != "two" && (now == before || before == "two"), "{before}, {now}");
    }
    assert!(before != meanwhile, "it had clients");
    let _two = Server::named_on(kept.listen(), "two");
    eventually("it is back", || up() == 3.0);
    assert_eq!(places(), before);
}
