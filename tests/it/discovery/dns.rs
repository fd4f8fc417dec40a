//! Pools whose servers come from DNS records, mostly asked of a real name server.

use std::net::TcpListener;
use std::time::Duration;

use super::{discovery_up, pool, reaches_only};
use crate::support::client::{Client, server_reached};
use crate::support::counts::log_lines;
use crate::support::dns::NameServer;
use crate::support::eventually;
use crate::support::nsd::{A, Nsd, SRV};
use crate::support::proxy::Proxy;
use crate::support::server::Server;

const KEPT: &str = "cannot take the list of servers, keeping the last one";
const UNRESOLVED: &str = "problems with hosts of servers";

/// A configuration whose pool has these keys in `discover`, and `keys` besides it.
fn config(discover: &str, keys: &str) -> String {
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nbalance = \"round-robin\"\n\
         discover = {{ {discover}, settle = \"0s\" }}\n{keys}"
    )
}

fn by_srv(nsd: &Nsd, keys: &str) -> String {
    config(
        &format!("dns_srv = \"_pg._tcp.orders.test\", resolver = \"{}\"", nsd.address),
        keys,
    )
}

/// An SRV record of the service of the pool: its TTL, priority and weight, the port of the server, and the target.
fn srv(ttl: u32, priority: u16, weight: u16, server: &Server, target: &str) -> String {
    let port = server.address.port();
    format!("_pg._tcp.orders {ttl} SRV {priority} {weight} {port} {target}\n")
}

/// The names of the servers, without their order.
fn names(proxy: &Proxy) -> Vec<String> {
    let servers = pool(proxy)["servers"].as_array().unwrap().clone();
    let mut names: Vec<_> = servers
        .iter()
        .map(|server| server["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// Two servers with the same port, at these addresses.
fn on_one_port(addresses: [&str; 2], names: [&'static str; 2]) -> [Server; 2] {
    loop {
        let first = TcpListener::bind((addresses[0], 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind((addresses[1], port)) {
            let [a, b] = names;
            return [Server::named_on(first, a), Server::named_on(second, b)];
        }
    }
}

#[test]
fn servers_follow_srv_and_address_records_and_no_session_is_lost() {
    let first = Server::named("first");
    let [second, _third] = on_one_port(["127.0.0.1", "127.0.0.2"], ["second", "third"]);
    let mut nsd = Nsd::start(&(srv(1, 0, 1, &first, "one") + "one 1 A 127.0.0.1"));
    let proxy = Proxy::start(&by_srv(&nsd, ""));
    let mut old = Client::connect(proxy.at("l"));
    assert_eq!(old.read(5), b"first");
    let source = format!("dns_srv _pg._tcp.orders.test of {}", nsd.address);
    assert_eq!(pool(&proxy)["discovery"]["source"], source);

    nsd.change(&(srv(1, 0, 1, &second, "two") + "two 1 A 127.0.0.1"));
    eventually("the new target gets all sessions", || reaches_only(&proxy, "second"));
    let port = second.address.port();
    assert_eq!(names(&proxy), [format!("two.test:{port}@127.0.0.1")]);

    let moved = srv(1, 0, 1, &second, "alias").replace("orders", "moved") + "_pg._tcp.orders 1 CNAME _pg._tcp.moved\n";
    nsd.change(&(moved + "alias 1 CNAME two\ntwo 1 A 127.0.0.2"));
    eventually("the alias target gets all sessions", || reaches_only(&proxy, "third"));
    assert_eq!(names(&proxy), [format!("alias.test:{port}@127.0.0.2")]);
    assert_eq!(old.finish().try_read_all().unwrap(), b"");
    assert_eq!(discovery_up(&proxy), 1.0);
}

#[test]
fn each_record_is_refreshed_by_its_own_ttl() {
    let server = Server::named("first");
    let nsd = Nsd::start(&(srv(3600, 0, 1, &server, "one") + "one 1 A 127.0.0.1"));
    let _proxy = Proxy::start(&by_srv(&nsd, "resolve = \"ipv4\""));
    eventually("the address is asked for again", || nsd.queries(A).len() >= 3);
    assert_eq!(nsd.queries(SRV).len(), 1);
    let queries = nsd.queries(A);
    for pair in queries.windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_secs(1), "{queries:?}");
    }
}

#[test]
fn records_with_a_ttl_of_0_are_refreshed_every_second() {
    let server = Server::named("first");
    let nsd = Nsd::start(&(srv(0, 0, 1, &server, "one") + "one 0 A 127.0.0.1"));
    let _proxy = Proxy::start(&by_srv(&nsd, "resolve = \"ipv4\""));
    eventually("they are asked for again", || nsd.queries(SRV).len() >= 3);
    for queries in [nsd.queries(SRV), nsd.queries(A)] {
        for pair in queries.windows(2) {
            assert!(pair[1].at - pair[0].at >= Duration::from_secs(1), "{queries:?}");
        }
    }
}

#[test]
fn srv_weights_and_priorities_become_weights_and_tiers_of_servers() {
    let (big, small, last) = (Server::named("big"), Server::named("small"), Server::named("last"));
    let records = srv(1, 10, 3, &big, "big") + &srv(1, 10, 1, &small, "small") + &srv(1, 20, 0, &last, "last");
    let addresses = "big 1 A 127.0.0.1\nsmall 1 A 127.0.0.1\nlast 1 A 127.0.0.1";
    let nsd = Nsd::start(&(records + addresses));
    let checks = "health = { check = \"tcp\", interval = \"50ms\", fall = 1 }";
    let proxy = Proxy::start(&by_srv(&nsd, checks));
    let servers = pool(&proxy)["servers"].as_array().unwrap().clone();
    let mut shown: Vec<_> = servers
        .iter()
        .map(|server| {
            let name = server["name"].as_str().unwrap().split('.').next().unwrap().to_owned();
            (
                name,
                server["weight"].as_u64().unwrap(),
                server["priority"].as_u64().unwrap(),
            )
        })
        .collect();
    shown.sort();
    let expected = [("big", 3, 0), ("last", 1, 1), ("small", 1, 0)];
    assert_eq!(
        shown,
        expected.map(|(name, weight, priority)| (name.to_owned(), weight, priority))
    );
    for _ in 0..20 {
        assert_ne!(server_reached(proxy.at("l")), "last");
    }
    drop((big, small));
    eventually("the next tier is used", || {
        Client::connect(proxy.at("l"))
            .finish()
            .try_read_all()
            .is_ok_and(|name| name == b"last")
    });
}

#[test]
fn each_address_of_the_configured_families_is_a_server() {
    let [four, _six] = on_one_port(["127.0.0.1", "::1"], ["four", "six"]);
    let port = four.address.port();
    let nsd = Nsd::start("orders 1 A 127.0.0.1\norders 1 AAAA ::1");
    let discover = format!("dns = \"orders.test:{port}\", resolver = \"{}\"", nsd.address);
    let proxy = Proxy::start(&config(&discover, ""));
    let both = [
        format!("orders.test:{port}@127.0.0.1"),
        format!("orders.test:{port}@::1"),
    ];
    assert_eq!(names(&proxy), both);
    assert_eq!(
        pool(&proxy)["discovery"]["source"],
        format!("dns orders.test:{port} of {}", nsd.address)
    );
    assert!(proxy.reload(&config(&discover, "resolve = \"ipv6\"")));
    eventually("only IPv6 is left", || reaches_only(&proxy, "six"));
    assert_eq!(names(&proxy), both[1..]);
}

#[test]
fn a_stopped_name_server_changes_nothing_and_is_followed_again() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let state = tempfile::tempdir().unwrap();
    let records = |server| srv(1, 0, 1, server, "one") + "one 1 A 127.0.0.1";
    let mut nsd = Nsd::start(&records(&first));
    let runtime = format!("[runtime]\nstate_dir = {:?}\n", state.path());
    let proxy = Proxy::start(&(runtime.clone() + &by_srv(&nsd, "")));
    nsd.stop_and_change(&records(&second));
    let line = &log_lines(&proxy, KEPT, 1)[0];
    assert_eq!(
        (&line["error"], &line["kept"]),
        (&"the name server does not answer".into(), &1.into())
    );
    assert!(reaches_only(&proxy, "first"));
    assert_eq!(discovery_up(&proxy), 0.0);
    let status = proxy.command(&["status"]).stdout;
    assert!(status.contains("the name server does not answer"), "{status}");

    proxy.stop();
    let proxy = Proxy::start(&(runtime + &by_srv(&nsd, ""))); // `state_dir` has the list
    assert!(reaches_only(&proxy, "first"));
    assert_eq!(names(&proxy), [format!("one.test:{}@127.0.0.1", first.address.port())]);
    nsd.restart();
    eventually("the records are followed again", || reaches_only(&proxy, "second"));
    assert_eq!(discovery_up(&proxy), 1.0);
}

#[test]
fn a_deleted_name_empties_the_pool_only_with_allow_empty() {
    let first = Server::named("first");
    let records = srv(1, 0, 1, &first, "one") + "one 1 A 127.0.0.1";
    let mut nsd = Nsd::start(&records);
    let proxy = Proxy::start(&by_srv(&nsd, ""));
    nsd.change("one 1 A 127.0.0.1");
    let line = &log_lines(&proxy, KEPT, 1)[0];
    assert_eq!(line["error"], "the name does not exist");
    assert!(reaches_only(&proxy, "first"));
    let allowed = by_srv(&nsd, "").replace("settle", "allow_empty = true, settle");
    assert!(proxy.reload(&allowed));
    eventually("the pool is empty", || names(&proxy).is_empty());
    nsd.change(&records);
    eventually("it has servers again", || names(&proxy).len() == 1);
    assert!(reaches_only(&proxy, "first"));
}

#[test]
fn a_target_without_an_address_is_left_out_and_reported() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let records = srv(1, 0, 1, &first, "one") + &srv(1, 0, 1, &second, "two") + "one 1 A 127.0.0.1\n";
    let mut nsd = Nsd::start(&records);
    let proxy = Proxy::start(&by_srv(&nsd, ""));
    let line = &log_lines(&proxy, UNRESOLVED, 1)[0];
    assert_eq!((&line["host"], &line["count"]), (&"two.test".into(), &1.into()));
    assert!(reaches_only(&proxy, "first"));
    assert_eq!(
        pool(&proxy)["discovery"]["warning"],
        "`two.test`: the name does not exist"
    );
    assert_eq!(discovery_up(&proxy), 1.0);
    nsd.change(&(records + "two 1 A 127.0.0.1"));
    log_lines(&proxy, "the hosts of servers have no problems any more", 1);
    eventually("no warning is left", || pool(&proxy)["discovery"]["warning"].is_null());
    eventually("both are listed", || names(&proxy).len() == 2);
}

#[test]
fn after_a_truncated_answer_the_query_is_sent_over_tcp() {
    let first = Server::named("first");
    let record = |number| srv(1, number, 1, &first, &format!("server-with-a-long-name-{number}"));
    let nsd = Nsd::start(&((1..=100).map(record).collect::<String>() + "* 1 A 127.0.0.1"));
    let resolver = nsd.address_of_nsd(); // `nsd.address` is that of a forwarder, which has no TCP
    let discover = format!("dns_srv = \"_pg._tcp.orders.test\", resolver = \"{resolver}\"");
    let proxy = Proxy::start(&config(&discover, ""));
    let line = &log_lines(&proxy, "servers listed", 1)[0];
    assert_eq!(line["servers"], 100);
}

#[test]
fn the_name_servers_of_the_system_are_asked_by_default() {
    let Some(name_server) = NameServer::start() else { return };
    let first = Server::named("first");
    let discover = format!("dns = \"a.live.test:{}\"", first.address.port());
    let proxy = name_server.proxy_setup(&config(&discover, "")).start();
    assert!(reaches_only(&proxy, "first"));
    assert_eq!(
        names(&proxy),
        [format!("a.live.test:{}@127.0.0.1", first.address.port())]
    );
}

#[test]
fn a_server_is_kept_when_its_name_moves_from_servers_to_discover() {
    let first = Server::named("first");
    let address = format!("localhost:{}", first.address.port());
    let by_servers = format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nresolve = \"ipv4\"\nservers = [\"{address}\"]"
    );
    let proxy = Proxy::start(&by_servers);
    let mut old = Client::connect(proxy.at("l"));
    assert_eq!(old.read(5), b"first");
    // The resolver is not asked about `localhost`.
    let discover = format!("discover = {{ dns = \"{address}\", resolver = \"127.0.0.1:53\" }}");
    assert!(proxy.reload(&by_servers.replace(&format!("servers = [\"{address}\"]"), &discover)));
    log_lines(&proxy, "servers listed", 1);
    assert_eq!(proxy.server("p", &format!("{address}@127.0.0.1"))["sessions"], 1);
    assert_eq!(names(&proxy).len(), 1);
    assert_eq!(old.finish().try_read_all().unwrap(), b"");
}
