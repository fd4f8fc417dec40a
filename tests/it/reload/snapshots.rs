//! A session during a reload follows the old configuration or the new one, never a mixture.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::scope;

use crate::support::client::ask;
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::stop::StopOnDrop;

#[test]
fn during_reloads_every_session_follows_one_configuration_and_none_is_refused() {
    let servers = [Server::named("one"), Server::named("two")];
    // Successive configurations have routes and pools with other names, and swap the servers of the pools.
    let text = |n: usize| {
        let [a, b] = [&servers[n % 2].address, &servers[(n + 1) % 2].address];
        format!(
            "[listeners.l]\nbind = \"127.0.0.1:0\"\n\
             [[listeners.l.routes]]\nname = \"a{n}\"\nsni = \"a.example\"\npool = \"a{n}\"\n\
             [[listeners.l.routes]]\nname = \"rest{n}\"\nsni = \"*.example\"\npool = \"rest{n}\"\n\
             [pools.a{n}]\nservers = [\"{a}\"]\n[pools.rest{n}]\nservers = [\"{b}\"]\n"
        )
    };
    let proxy = Proxy::start(&text(0));
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    scope(|all| {
        let _stop = StopOnDrop(&stop);
        for name in ["a.example", "b.example", "a.example"] {
            let (proxy, stop, served) = (&proxy, &stop, &served);
            all.spawn(move || {
                let hello = Hello::named(name).bytes();
                while !stop.load(SeqCst) {
                    let answer = ask(proxy.at("l"), &hello);
                    assert!(answer == b"one" || answer == b"two", "{name}: {answer:?}");
                    served.fetch_add(1, SeqCst);
                }
            });
        }
        for n in 1..=50 {
            assert!(proxy.reload(&text(n % 8)));
            let before = served.load(SeqCst);
            eventually("a session that began after the reload is served", || {
                served.load(SeqCst) > before + 3 // each of the three clients has one older session at most
            });
        }
    });
    let stopped = proxy.stop();
    // Route, pool and server of a session belong to the same configuration.
    for line in &stopped.access {
        assert_eq!(line["ending"], "client_closed", "{line}");
        assert_eq!(line["route"], line["pool"], "{line}");
        let n: usize = line["pool"]
            .as_str()
            .unwrap()
            .trim_start_matches(char::is_alphabetic)
            .parse()
            .unwrap();
        let is_a = line["sni"] == "a.example";
        let server = &servers[(n + usize::from(!is_a)) % 2];
        assert_eq!(line["server"], server.address.to_string(), "{line}");
    }
}
