//! With `source-hash` a client stays on its server while that server is up, whatever happens to the other servers.

use crate::support::client::Client;
use crate::support::configs::one_pool;
use crate::support::eventually;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

#[test]
fn a_dead_server_moves_only_its_own_clients_and_gets_them_back() {
    let (one, three) = (Server::named("one"), Server::named("three"));
    let port = Port::keep();
    let port_for_restart = Port::keep_again(port.address);
    let two = Server::named_on(port.listen(), "two");
    let proxy = Proxy::start(&one_pool(
        &[one.address, two.address, three.address],
        "balance = \"source-hash\"\nhealth = { interval = \"50ms\", fall = 1, rise = 1 }",
    ));
    let up = || proxy.metrics().sum("acequia_server_up", &[]);
    let assignments = || -> Vec<String> {
        let server_for = |last| Client::connect_from(&format!("127.0.0.{last}"), proxy.at("l")).read_some();
        (1..=60).map(server_for).collect()
    };
    let before = assignments();
    drop(two);
    eventually("the server is down", || up() == 2.0);
    let meanwhile = assignments();
    for (before, now) in before.iter().zip(&meanwhile) {
        assert!(now != "two" && (now == before || before == "two"), "{before}, {now}");
    }
    assert!(
        before != meanwhile,
        "no client used the dead server: the test shows nothing"
    );
    let _two = Server::named_on(port_for_restart.listen(), "two");
    eventually("the server is up again", || up() == 3.0);
    assert_eq!(assignments(), before);
}
