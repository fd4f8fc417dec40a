//! A process that is killed and started again listens on its port at once, whatever sockets the kernel still keeps.

use std::io::Write;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::ManualServer;
use crate::support::usage::tcp_sockets;

#[test]
fn after_a_kill_the_next_process_serves_on_the_port_at_once() {
    let (manual, port) = (ManualServer::new(), Port::keep());
    let config = format!(
        "[listeners.l]\nbind = \"{}\"\npool = \"p\"\n[pools.p]\nservers = [\"{}\"]\nhealth = {{ check = \"off\" }}",
        port.address, manual.server.address
    );
    let begin = |proxy: &Proxy| {
        let mut client = Client::connect(proxy.at("l"));
        let mut server = manual.session();
        server.write_all(b"hello").unwrap();
        assert_eq!(client.read(5), b"hello");
        (client, server)
    };
    let in_state = |state: &str| {
        let all = tcp_sockets(&format!("sport = :{}", port.number()));
        all.iter().filter(|socket| socket.0 == state).count()
    };
    let mut proxy = Proxy::start(&config);
    let mut kept = Vec::new();
    for _ in 0..3 {
        // The server closes its connection. acequia then closes the connection to the client before the client does, so
        // that acequia's socket enters TIME_WAIT.
        let (mut client, server) = begin(&proxy);
        drop(server);
        assert_eq!(client.read_all(), b"");
        drop(client);
        eventually("a socket is in TIME_WAIT", || in_state("TIME-WAIT") > 0);
        kept.extend([begin(&proxy), begin(&proxy)]);
        drop(proxy); // SIGKILL
        proxy = Proxy::setup(&config).launch();
        drop(begin(&proxy));
        eventually("two sockets of the killed process are in FIN_WAIT_2", || {
            in_state("FIN-WAIT-2") >= 2
        });
    }
}
