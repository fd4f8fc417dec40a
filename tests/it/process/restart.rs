//! Killed and started again at once, it has its port back and serves, whatever the kernel still keeps of its sessions.

use std::io::Write;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::ManualServer;
use crate::support::usage::tcp_sockets;

#[test]
fn after_a_kill_with_sessions_in_every_state_it_serves_on_the_same_port() {
    let (hand, port) = (ManualServer::new(), Port::keep());
    let config = format!(
        "[listeners.l]\nbind = \"{}\"\npool = \"p\"\n[pools.p]\nservers = [\"{}\"]\nhealth = {{ check = \"off\" }}",
        port.address, hand.server.address
    );
    let begin = |proxy: &Proxy| {
        let mut client = Client::connect(proxy.at("l"));
        let mut server = hand.session();
        server.write_all(b"hello").unwrap();
        assert_eq!(client.read(5), b"hello");
        (client, server)
    };
    let in_state = |state: &str| {
        let all = tcp_sockets(&format!("sport = :{}", port.number()));
        all.iter().filter(|told| told.0 == state).count()
    };
    let mut proxy = Proxy::start(&config);
    let mut kept = Vec::new();
    for _ in 0..3 {
        // The server ends first, so it is our side that closes first, and waits.
        let (mut client, server) = begin(&proxy);
        drop(server);
        assert_eq!(client.read_all(), b"");
        drop(client);
        eventually("some are in TIME_WAIT", || in_state("TIME-WAIT") > 0);
        kept.extend([begin(&proxy), begin(&proxy)]);
        drop(proxy); // SIGKILL
        proxy = Proxy::setup(&config).launch();
        drop(begin(&proxy));
        eventually("of those it had open the kernel keeps its side", || {
            in_state("FIN-WAIT-2") >= 2
        });
    }
}
